// The forward scan. A thread walks one channel along its segment, with a tile of tokens in registers and one state after
// the other; the rows of B and C, which the block's channels share, are staged in shared memory.
#pragma once

#include "block.cuh"

namespace mmevm::cuda {

// Floats of shared memory that the forward kernels need beside their source's.
template <int kStates>
__host__ __device__ constexpr int forward_floats(int threads) {
  return (2 * kStates + 1) * threads;
}

// Without kOutput, only the state at the end of a segment that starts from zero, and the segment's sum of delta.
template <class Source, int kStates, bool kOutput>
__global__ void __launch_bounds__(kMaxThreads, kForwardBlocks) scan_forward_kernel(const typename Source::Params p) {
  const Block<kStates> block(p);
  if (!kOutput && block.segment == p.segments - 1) return;  // no segment follows
  const int threads = blockDim.x;
  const int stride = p.channels, held = block.held_states();
  // This channel's columns of [states][threads]: states, and A * log2(e).
  float *h = shared_memory() + threadIdx.x, *A = h + kStates * threads, *skip = A + kStates * threads;
  Source source(p, block, shared_memory() + forward_floats<kStates>(threads));
  const int set = source.parameters();
  const bool carried = kOutput && p.segments > 1;
#pragma unroll 1
  for (int n = 0; n < kStates; ++n) A[n * threads] = block.load_A(p, set, n), h[n * threads] = 0.f;
  if (carried) load_column<kStates>(h, block.carry(p), stride, held);
  *skip = block.load_skip(p, set);
  float sum_delta = 0.f;

  const int end = min(block.end_chunk * kChunk, p.length);
#pragma unroll 1
  for (int t0 = block.first_chunk * kChunk; t0 < end; t0 += kTile) {
    if (kOutput && p.states && t0 % kChunk == 0)
      store_column<kStates>(block.states(p, p.states, p.chunks, t0 / kChunk), stride, h, held);
    source.open_tile(t0);
    float u[kTile], delta[kTile], y[kTile];
    source.load_input(u);
    source.load_delta(delta);
    const float D = *skip;
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      y[t] = D * u[t];
      u[t] *= delta[t];
      sum_delta += delta[t];
    }
#pragma unroll (kStates < 4 ? kStates : 4)
    for (int n = 0; n < kStates; ++n) {
      const float A_n = A[n * threads];
      float h_n = h[n * threads];
#pragma unroll
      for (int t = 0; t < kTile; t += 4) {
        float b[4], c[4];
        load4(source.B_row(n) + t, b);
        if (kOutput) load4(source.C_row(n) + t, c);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          h_n = fmaf(exp2_approx(delta[t + i] * A_n), h_n, u[t + i] * b[i]);
          if (kOutput) y[t + i] = fmaf(c[i], h_n, y[t + i]);
        }
      }
      h[n * threads] = h_n;
    }
    if (kOutput) source.store_output(p.y, y);
  }

  float* last = kOutput && block.segment == p.segments - 1 ? p.last_state : nullptr;
  if (!kOutput) store_column<kStates>(block.carry(p), stride, h, held);
  if (last) store_column<kStates>(last + block.last_state_index(p), 1, h, held);
  if (!kOutput) block.store_carry_delta(p, sum_delta);
}

}  // namespace mmevm::cuda
