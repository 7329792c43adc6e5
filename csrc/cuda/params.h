// What the CUDA launchers hand to the kernels. A block scans `threads` channels of one set over one segment of tokens; a
// set is a route of a map or a group of a sequence.
#pragma once

#include <cstdint>

#include "../core/scan.h"

namespace mmevm::cuda {

constexpr int kTile = 16;    // tokens that a thread holds in registers at once
constexpr int kPitch = kTile + 4;     // floats between staged rows, which are read 16 bytes at a time
constexpr int kSumPitch = kTile + 1;  // floats between rows of sums
constexpr int kMaxThreads = 128;
constexpr int kMaxStates = 16;  // states per block; more are scanned as slices of 16, whose results add up
constexpr int kMaxRoutes = 64;

// Blocks of kMaxThreads whose registers have to fit into a multiprocessor's 65536.
constexpr int kForwardBlocks = 4, kBackwardBlocks = 3;

enum class Pass {
  kForward,        // outputs and, where asked for, saved states
  kForwardLocal,   // state at the end of each segment that starts from zero
  kBackward,       // all gradients
  kBackwardLocal,  // adjoint state at the beginning of each segment that ends with zero
};

// All arrays are contiguous. Optional inputs and outputs are null when absent.
struct ScanParams {
  int B, sets, channels, N, R;  // channels of one set; R is 0 for sequences
  int length;                   // tokens of one set
  int chunks, segments, segment_chunks;
  int slices, channel_blocks;
  bool float_outputs;    // outputs are partial sums in float32, else final in the data's type
  const float *A;        // [K, channels, N]
  const float* A_by_state;  // [K, N, channels], of the backward pass alone
  const float *Ds;       // [K, channels]
  const float *bias;     // [K, channels]
  float* states;         // [B, sets, chunks, N, channels], the state before each chunk
  float* carry;          // [B, sets, segments, N, channels], (adjoint) states that enter the segments
  float* carry_delta;    // [B, sets, segments, channels], sum of delta over each segment
  float* last_state;     // [B, sets * channels, N]
  const float* dlast_state;
  float* dparameters;    // [B, segments, slices, sets, states per slice + R + 2, channels]: dA, ddt_weight, dDs, dbias
  float* drows;          // map: [copies, B, H, W, P, R * slices + 2N]; sequence: [channel_blocks, 2, B, sets, N, length]
};

struct MapRoute {
  int row, col, parameters, projection;
  int layer;      // which copy of the map it writes: routes that share cells write different ones
  int row_layer;  // which copy of the rows' gradients
  bool column_major, reverse;
};

struct MapParams : ScanParams {
  int H, W, D, P, step;
  const void *x, *x_dbl, *dy;  // [B, H, W, D], [B, H, W, P, R + 2N], as x
  const float* dt_weight;      // [K, R, D]
  void *y, *dx;                // [layers, slices, B, H, W, D]
  MapRoute routes[kMaxRoutes];
};

struct SequenceParams : ScanParams {
  bool delta_softplus;
  const void *u, *delta, *dy;  // [B, sets * channels, length]
  const void *Bs, *Cs;         // [B, sets, N, length]
  void *y, *du, *ddelta;       // [slices, B, sets * channels, length]
};

// Partial results, to be summed to an array of the data's type.
struct Copies {
  const float* from;  // [count, size]
  int count;
  int64_t size;
  void* to;
};

}  // namespace mmevm::cuda
