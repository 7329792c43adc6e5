// Brings channel-major sequences [B, D, L] to the scan, one group. A warp reads its 32 channels' tokens row by row, which
// is coalesced, and turns them in shared memory, so that each thread gets the tokens of its own channel.
#pragma once

#include "block.cuh"

namespace mmevm::cuda {

template <class T, int kStates>
class SequenceSource {
 public:
  using Params = SequenceParams;

  // Floats of shared memory, in the order of the members below.
  static int shared_floats(const Params&, int threads, bool backward) {
    const int forward = 2 * kStates * kPitch + threads * kSumPitch;
    return backward ? forward + threads / 32 * 2 * kStates * kSumPitch + threads : forward;
  }

  __device__ SequenceSource(const Params& p, const Block<kStates>& block, float* memory)
      : p(p), block(block), lane(threadIdx.x % 32), warp(threadIdx.x / 32), staged(memory),
        turned(staged + 2 * kStates * kPitch + warp * 32 * kSumPitch),
        sums(staged + 2 * kStates * kPitch + blockDim.x * kSumPitch),
        dbias(sums + blockDim.x / 32 * 2 * kStates * kSumPitch + threadIdx.x),
        bias(block.load_parameter(p, p.bias, block.set)) {}

  __device__ int parameters() const { return block.set; }
  __device__ void open_gradients() { *dbias = 0.f; }

  // Stages the tile's B and C.
  __device__ void open_tile(int t0) {
    this->t0 = t0;
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * kStates * kTile; i += blockDim.x) {
      const int row = i / kTile, t = i % kTile, n = row % kStates;
      const bool there = t0 + t < p.length && n < block.valid_states;
      const void* from = row < kStates ? p.Bs : p.Cs;
      staged[row * kPitch + t] = there ? load<T>(from, matrix_index(0, n, t)) : 0.f;
    }
    __syncthreads();
  }

  __device__ void forget_addresses() { t0 = forget(t0); }

  __device__ const float* B_row(int n) const { return staged + n * kPitch; }
  __device__ const float* C_row(int n) const { return staged + (kStates + n) * kPitch; }

  __device__ void load_input(float (&v)[kTile]) const { gather(p.u, v); }
  __device__ void load_gradient(float (&v)[kTile]) const { gather(p.dy, v); }
  __device__ void store_output(void* y, const float (&v)[kTile]) const { scatter(y, v); }
  __device__ void store_input_gradient(const float (&v)[kTile]) const { scatter(p.du, v); }

  // Zero after the last token, which leaves the state as it is.
  __device__ void load_delta(float (&delta)[kTile]) const {
    gather(p.delta, delta);
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      const float raw = delta[t] + bias;
      delta[t] = t0 + t >= p.length ? 0.f : p.delta_softplus ? softplus(raw) : raw;
    }
  }

  __device__ void take_ddelta(const float (&delta)[kTile], float (&ddelta)[kTile]) {
    float sum = *dbias;
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      if (p.delta_softplus) ddelta[t] *= softplus_slope(delta[t]);
      if (t0 + t < p.length) sum += ddelta[t];
    }
    *dbias = sum;
    scatter(p.ddelta, ddelta);
  }

  // Even lanes hold dB of token lane / 2, odd lanes dC.
  __device__ void keep_row_sum(int n, float v) const {
    sums[(warp * 2 * kStates + n + (lane % 2) * kStates) * kSumPitch + lane / 2] = v;
  }

  __device__ void store_row_sums() const {
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * kStates * kTile; i += blockDim.x) {
      const int row = i / kTile, t = i % kTile, n = row % kStates;
      if (t0 + t >= p.length || n >= block.valid_states) continue;
      float sum = 0.f;
      for (int w = 0; w < int(blockDim.x) / 32; ++w) sum += sums[(w * 2 * kStates + row) * kSumPitch + t];
      p.drows[matrix_index(block.channel_block * 2 + row / kStates, n, t)] = sum;
    }
  }

  // Rows of dparameters after dA: dDs, dbias.
  __device__ void store_parameter_gradients(float* to) const { to[p.channels] = *dbias; }

 private:
  // Index into [copies, B, G, N, L].
  __device__ int64_t matrix_index(int copy, int n, int t) const {
    const int64_t group = (int64_t(copy) * p.B + block.batch) * p.sets + block.set;
    return (group * p.N + block.first_state + n) * p.length + t0 + t;
  }

  // Of the warp's 32 channels a lane takes token lane % 16 of every other one. Index of the first in [copies, B, sets,
  // channels, length]; the others follow two sequences apart.
  __device__ int64_t first_index(int copy) const {
    const int64_t set = (int64_t(copy) * p.B + block.batch) * p.sets + block.set;
    return (set * p.channels + first_channel()) * p.length + t0 + lane % kTile;
  }

  __device__ int first_channel() const { return block.channel - lane + lane / kTile; }

  // How many of the 16 there are.
  __device__ int there() const {
    return t0 + lane % kTile < p.length ? (p.channels - first_channel() + 1) / 2 : 0;
  }

  __device__ float& turned_at(int pair) const { return turned[(2 * pair + lane / kTile) * kSumPitch + lane % kTile]; }

  __device__ void gather(const void* array, float (&v)[kTile]) const {
    const T* from = static_cast<const T*>(array) + first_index(0);
    const int count = there();
    __syncwarp();
#pragma unroll
    for (int pair = 0; pair < 16; ++pair, from += 2 * int64_t(p.length))
      turned_at(pair) = pair < count ? to_float(*from) : 0.f;
    __syncwarp();
#pragma unroll
    for (int t = 0; t < kTile; ++t) v[t] = turned[lane * kSumPitch + t];
  }

  __device__ void scatter(void* to, const float (&v)[kTile]) const {
    __syncwarp();
#pragma unroll
    for (int t = 0; t < kTile; ++t) turned[lane * kSumPitch + t] = v[t];
    __syncwarp();
    if (p.float_outputs) scatter_as(static_cast<float*>(to));
    else scatter_as(static_cast<T*>(to));
  }

  template <class Out>
  __device__ void scatter_as(Out* to) const {
    to += first_index(block.slice);
    const int count = there();
#pragma unroll
    for (int pair = 0; pair < 16; ++pair, to += 2 * int64_t(p.length))
      if (pair < count) assign(*to, turned_at(pair));
  }

  const Params& p;
  const Block<kStates>& block;
  const int lane, warp;
  int t0 = 0;
  float* staged;  // [2 states][kPitch]: the tile's B and C
  float* turned;  // this warp's [32][kSumPitch]
  float* sums;    // [warps][2 states][kSumPitch]: gradients of the staged rows
  float* dbias;   // this channel's
  const float bias;
};

}  // namespace mmevm::cuda
