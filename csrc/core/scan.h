// The selective scans on raw pointers: all that a host (PyTorch, ONNX Runtime) includes and links. It needs C++17 and the
// standard library.
//
// A host fills in a struct of sizes, plans, fills in the pointers and runs:
//
//   const Plan plan = make_plan(params, Direction::kForward, host.threads);
//   void* workspace = ...;  // plan.workspace_bytes() bytes, at any address, not initialised
//   run(params, plan, host, workspace);
//
// `run` allocates nothing and throws nothing. For equal numbers of threads its results are equal bit by bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmevm {

// Tokens between two saved states, for the kernels of every device. mmevm/ops/autograd.py repeats it for fake tensors.
constexpr int kChunk = 32;

// The upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

// `static`, because a copy that is compiled for one instruction set must not serve another.
static inline float value_of(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline float rounded(float x, const float*) { return x; }
static inline BFloat16 rounded(float x, const BFloat16*) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return {uint16_t((x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) >> 16)};
}

// One route of a visual scan: which cells of the map it visits, in which order, with which parameters.
// mmevm/ops/routes.py describes the fields; their order here is the order of the operator's flat list of integers.
struct Route {
  int64_t row, col;    // first cell; the others follow at multiples of the step
  bool column_major;   // down the columns instead of along the rows
  bool reverse;        // from the last token to the first
  int64_t parameters;  // index into A, Ds, dt_weight, dt_bias
  int64_t projection;  // index into x_dbl's fourth dimension
};

struct SequenceSize {
  int64_t B, D, L, N, G;
};

struct MapSize {
  int64_t B, H, W, D, N, R, K, P;
};

// All arrays are contiguous. Optional inputs and outputs are null when absent. T is float or double.
template <class T>
struct SequenceParams : SequenceSize {
  bool delta_softplus;
  const T *x, *delta;         // [B, D, L], x being u
  const T* A;                 // [D, N]
  const T *Bs, *Cs;           // [B, G, N, L]
  const T *Ds, *delta_bias;   // [D]
  T* states;                  // [B, G, chunks, N, D / G], the state before each chunk; written forward, read backward
  T *y, *last_state;          // [B, D, L], [B, D, N]
  const T *dy, *dlast_state;  // as y, last_state
  T *dx, *ddelta;             // [B, D, L]
  T* dA;                      // [B, D, N]
  T *dBs, *dCs;               // [copies, B, G, N, L]
  T *dDs, *ddelta_bias;       // [B, D]
};

template <class T>
struct MapParams : MapSize {
  int64_t step;
  bool accumulate;            // routes share cells: a task runs them in order, and all but a cell's first one add to it
  const Route* routes;
  int64_t n_routes;
  const T* x;                 // [B, H, W, D]
  const T* x_dbl;             // [B, H, W, P, R + 2N]
  const T* dt_weight;         // [K, D, R]
  const T *dt_bias, *Ds;      // [K, D]
  const T* A;                 // [K, D, N]
  bool log_A;                 // A holds the logarithms of -A; forward only
  T* states;                  // [B, n_routes, chunks, N, D]
  T* y;                       // [B, H, W, D]; cells that no route visits are left as they are
  const BFloat16* half_x;     // if it is not null, the map instead of x, and
  BFloat16* half_y;           // the result instead of y, of routes that share no cells; forward only
  const T* dy;                // [B, H, W, D]
  T* dx;                      // [B, H, W, D], as y
  T* dx_dbl;                  // [copies, B, H, W, P, R + 2N], added to
  T* ddt_weight;              // [B, n_routes, D, R]
  T *ddt_bias, *dDs;          // [B, n_routes, D]
  T* dA;                      // [B, n_routes, D, N]
};

// The host's threads.
struct Host {
  // Calls body(argument, i) once for every i in [0, count), in any order, on any threads, and returns after the last.
  void (*parallel_for)(void* pool, int64_t count, void (*body)(void* argument, int64_t i), void* argument);
  void* pool;
  int threads;  // how many calls may run at a time, at least 1
};

enum class Direction { kForward, kBackward };

// How a scan is cut into tasks. Scans that share cells of a map form one task; channels are split only as far as the
// threads need, because every split writes a copy of the gradients that are sums over channels.
struct Plan {
  Direction direction;
  int64_t tasks;
  int64_t copies;           // of dBs and dCs, or of dx_dbl: the host allocates them, and sums them after the run
  int64_t routes;           // (groups) of an image that are tasks of their own
  int64_t routes_per_task;
  int64_t blocks, blocks_per_task;  // blocks of channels, one vector wide
  int64_t runners;          // tasks that run at a time, each in its part of the workspace
  size_t runner_bytes;

  size_t workspace_bytes() const { return size_t(runners) * runner_bytes + 64; }
};

template <class Params>
Plan make_plan(const Params& params, Direction direction, int threads);

// The plan is one for `params`, made with `host.threads`.
template <class Params>
void run(const Params& params, const Plan& plan, const Host& host, void* workspace);

}  // namespace mmevm
