// The backward scan. A thread walks one channel against its direction, tile by tile. It finds the state at a tile from the
// one that is saved before the chunk, which is read again for each tile: kept in shared memory, it would take the place of
// threads. The adjoint state that leaves a token, a_t g_t, is what is carried.
#pragma once

#include "scan_forward.cuh"

namespace mmevm::cuda {

// Floats of shared memory that the backward kernels need beside their source's.
template <int kStates>
__host__ __device__ constexpr int backward_floats(int threads) {
  return (3 * kStates + 2) * threads;
}

// The adjoint state at the beginning of a segment that ends with zero, and the segment's sum of delta.
template <class Source, int kStates>
__global__ void __launch_bounds__(kMaxThreads, kForwardBlocks) adjoint_local_kernel(const typename Source::Params p) {
  const Block<kStates> block(p);
  if (block.segment == 0) return;  // no segment precedes
  const int threads = blockDim.x;
  // This channel's columns of [states][threads]: adjoint states, and A * log2(e).
  float *g = shared_memory() + threadIdx.x, *A = g + kStates * threads;
  Source source(p, block, shared_memory() + forward_floats<kStates>(threads));
  const int set = source.parameters();
#pragma unroll 1
  for (int n = 0; n < kStates; ++n) A[n * threads] = block.load_A(p, set, n), g[n * threads] = 0.f;

  float sum_delta = 0.f;
  const int begin = block.first_chunk * kChunk, end = min(block.end_chunk * kChunk, p.length);
#pragma unroll 1
  for (int t0 = begin + (end - 1 - begin) / kTile * kTile; t0 >= begin; t0 -= kTile) {
    source.open_tile(t0);
    float dy[kTile], delta[kTile];
    source.load_gradient(dy);
    source.load_delta(delta);
#pragma unroll
    for (int t = 0; t < kTile; ++t) sum_delta += delta[t];
#pragma unroll (kStates < 4 ? kStates : 4)
    for (int n = 0; n < kStates; ++n) {
      const float A_n = A[n * threads];
      float g_n = g[n * threads];
#pragma unroll
      for (int t = kTile - 4; t >= 0; t -= 4) {
        float c[4];
        load4(source.C_row(n) + t, c);
#pragma unroll
        for (int i = 3; i >= 0; --i) g_n = exp2_approx(delta[t + i] * A_n) * fmaf(c[i], dy[t + i], g_n);
      }
      g[n * threads] = g_n;
    }
  }
  store_column<kStates>(block.carry(p), p.channels, g, block.held_states());
  block.store_carry_delta(p, sum_delta);
}

// What outlives a tile for each state: the state at the tile, the adjoint state, the gradient of A. Three words, so that
// the same word of 32 threads lies in 32 banks.
struct Kept {
  float h, g, dA;
};

// One channel's column of [states][threads] in shared memory, and what is only touched once a tile: the loop over the
// states needs the registers.
template <int kStates>
struct Columns {
  static constexpr int kWidth = sizeof(Kept) / sizeof(float);

  __device__ Columns(float* memory)
      : kept(reinterpret_cast<Kept*>(memory) + threadIdx.x), D(memory + kWidth * kStates * blockDim.x + threadIdx.x),
        dD(D + blockDim.x) {}

  __device__ void load_states(const float* from, int stride, int count) const {
    load_column<kStates, kWidth>(&kept->h, from, stride, count);
  }

  Kept* kept;
  float *D, *dD;
};

// From the state at one tile to that at the next.
template <class Source, int kStates>
__device__ __forceinline__ void advance_tile(Source& source, const Columns<kStates>& column, const float* A_column,
                                             const Block<kStates>& block, const ScanParams& p, int t0) {
  source.open_tile(t0);
  float u[kTile], delta[kTile];
  source.load_input(u);
  source.load_delta(delta);
#pragma unroll
  for (int t = 0; t < kTile; ++t) u[t] *= delta[t];
  Kept* kept = column.kept;
#pragma unroll 2
  for (int n = 0; n < kStates; ++n, kept += blockDim.x) {
    const float A = kLog2e * block.A_of(p, A_column, n);
    float h = kept->h;
#pragma unroll
    for (int t = 0; t < kTile; t += 4) {
      float b[4];
      load4(source.B_row(n) + t, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) h = fmaf(exp2_approx(delta[t + i] * A), h, u[t + i] * b[i]);
    }
    kept->h = h;
  }
}

// Gradients of one tile; the source takes those of its inputs.
template <class Source, int kStates>
__device__ __forceinline__ void backward_tile(Source& source, const Columns<kStates>& column, const float* A_column,
                                              const Block<kStates>& block, const ScanParams& p, int t0) {
  source.open_tile(t0);
  float u[kTile], delta[kTile], dy[kTile], ddelta[kTile], gB[kTile];
  source.load_input(u);
  source.load_gradient(dy);
  source.load_delta(delta);
  float dD = *column.dD;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    dD = fmaf(dy[t], u[t], dD);
    u[t] *= delta[t];
    ddelta[t] = gB[t] = 0.f;
  }
  *column.dD = dD;
  const int lane = threadIdx.x % 32;
  Kept* kept = column.kept;
  float next_A = *A_column;
#pragma unroll 1
  for (int n = 0; n < kStates; ++n, kept += blockDim.x) {
    const float A = kLog2e * next_A, first = kept->h;
    next_A = block.A_of(p, A_column, n + 1);  // long before it is needed
    float a[kTile], h[kTile], sum[kTile];
#pragma unroll
    for (int t = 0; t < kTile; t += 4) {
      float b[4];
      load4(source.B_row(n) + t, b);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[t + i] = exp2_approx(delta[t + i] * A);
        h[t + i] = fmaf(a[t + i], t + i == 0 ? first : h[t + i - 1], u[t + i] * b[i]);
        sum[t + i] = dy[t + i] * h[t + i];
      }
    }
    const float dC = transpose_sum(sum, lane);

    float g = kept->g, dA = 0.f;
#pragma unroll
    for (int t = kTile - 4; t >= 0; t -= 4) {
      float b[4], c[4];
      load4(source.B_row(n) + t, b);
      load4(source.C_row(n) + t, c);
#pragma unroll
      for (int i = 3; i >= 0; --i) {
        g = fmaf(c[i], dy[t + i], g);
        gB[t + i] = fmaf(g, b[i], gB[t + i]);
        sum[t + i] = g * u[t + i];
        g *= a[t + i];
        const float ga_h = g * (t + i == 0 ? first : h[t + i - 1]);
        ddelta[t + i] = fmaf(ga_h, A, ddelta[t + i]);
        dA = fmaf(ga_h, delta[t + i], dA);
      }
    }
    kept->g = g;
    kept->dA += dA;
    const float dB = transpose_sum(sum, lane);
    source.keep_row_sum(n, pair_sum(dB, dC, lane));
  }
  // Again, addresses included: the loop above needs the registers.
  source.forget_addresses();
  source.load_input(u);
  const float D = *column.D;
#pragma unroll
  for (int t = 0; t < kTile; ++t) {
    ddelta[t] = fmaf(gB[t], u[t], kLn2 * ddelta[t]);
    gB[t] = fmaf(gB[t], delta[t], D * dy[t]);
  }
  source.store_input_gradient(gB);
  source.take_ddelta(delta, ddelta);
  source.store_row_sums();
}

template <class Source, int kStates>
__global__ void __launch_bounds__(kMaxThreads, kBackwardBlocks) scan_backward_kernel(const typename Source::Params p) {
  const Block<kStates> block(p);
  float* memory = shared_memory();
  const Columns<kStates> column(memory);
  Source source(p, block, memory + backward_floats<kStates>(blockDim.x));
  source.open_gradients();
  const int set = source.parameters();
  const int stride = p.channels, held = block.held_states();
  const float* last = p.dlast_state ? p.dlast_state + block.last_state_index(p) : nullptr;
  const float* A = block.A_column(p, set);
  constexpr int kWidth = Columns<kStates>::kWidth;
#pragma unroll 1
  for (int n = 0; n < kStates; ++n) column.kept[n * blockDim.x] = {};
  if (p.segments > 1) load_column<kStates, kWidth>(&column.kept->g, block.carry(p), stride, held);
  else if (last) load_column<kStates, kWidth>(&column.kept->g, last, 1, held);
  *column.D = block.load_skip(p, set), *column.dD = 0.f;

  const int begin = block.first_chunk * kChunk, end = min(block.end_chunk * kChunk, p.length);
#pragma unroll 1
  for (int t0 = begin + (end - 1 - begin) / kTile * kTile; t0 >= begin; t0 -= kTile) {
    column.load_states(block.states(p, p.states, p.chunks, t0 / kChunk), stride, held);
#pragma unroll 1
    for (int t = t0 / kChunk * kChunk; t < t0; t += kTile)
      advance_tile<Source, kStates>(source, column, A, block, p, t);
    backward_tile<Source, kStates>(source, column, A, block, p, t0);
  }

  if (!block.active) return;
  float* gradients = block.gradients(p);
  store_column<kStates, kWidth>(gradients, stride, &column.kept->dA, kStates);
  source.store_parameter_gradients(gradients + kStates * int64_t(stride));
  gradients[(kStates + p.R) * int64_t(stride)] = block.slice == 0 ? *column.dD : 0.f;
}

}  // namespace mmevm::cuda
