// Brings a channels-last map to the scan, one route: tokens are read and written where they lie. Neighbouring threads
// take neighbouring channels, so that every access to the map is coalesced. Cells past the map's edge are zero tokens:
// they carry no input, but the state decays over them.
#pragma once

#include "block.cuh"

namespace mmevm::cuda {

template <class T, int kStates>
class MapSource {
 public:
  using Params = MapParams;

  // Floats of shared memory, in the order of the members below.
  static int shared_floats(const Params& p, int threads, bool backward) {
    const int rows = p.R + 2 * kStates;
    const int forward = rows * kPitch + kCells;
    return backward ? forward + (p.R + 1) * threads + threads / 32 * rows * kSumPitch : forward;
  }

  __device__ MapSource(const Params& p, const Block<kStates>& block, float* memory)
      : p(p), block(block), route(p.routes[block.set]), rows(p.R + 2 * kStates), lane(threadIdx.x % 32),
        warp(threadIdx.x / 32), warps(blockDim.x / 32), staged(memory),
        cells(reinterpret_cast<int*>(staged + rows * kPitch)),
        dweight(staged + rows * kPitch + kCells + threadIdx.x),
        sums(staged + rows * kPitch + kCells + (p.R + 1) * blockDim.x),
        bias(block.load_parameter(p, p.bias, route.parameters)) {}

  __device__ int parameters() const { return route.parameters; }

  __device__ void open_gradients() {
    for (int r = 0; r <= p.R; ++r) dweight[r * blockDim.x] = 0.f;
  }

  // Stages the tokens' cells and rows of x_dbl. A warp takes 8 columns of 4 tokens at a time: runs of 8 neighbours in
  // global memory, and 32 different banks of shared memory.
  __device__ void open_tile(int t0) {
    __syncthreads();
    if (warp == 0) {
      const int cell = lane < kTile ? cell_of(t0 + lane) : 0;
      if (lane < kTile) cells[lane] = cell;
      const bool all = __all_sync(kAllLanes, cell >= 0);
      if (lane == 0) on_map() = all;
    }
    __syncthreads();
    const int width = p.R + 2 * p.N;
    const T* first = static_cast<const T*>(p.x_dbl) + row_index(0, 0) * width;
    for (int j = 8 * warp + lane % 8; j < rows; j += 8 * warps) {
      const int column = row_column(j, p.R, 0);
      float v[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int cell = cells[4 * q + lane / 8];
        const float value = to_float(*element(first + max(column, 0), max(cell, 0), p.P * width));
        v[q] = cell >= 0 && column >= 0 ? value : 0.f;
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) staged[j * kPitch + 4 * q + lane / 8] = v[q];
    }
    __syncthreads();
  }

  __device__ void forget_addresses() {}

  __device__ const float* B_row(int n) const { return staged + (p.R + n) * kPitch; }
  __device__ const float* C_row(int n) const { return staged + (p.R + kStates + n) * kPitch; }

  __device__ void load_input(float (&v)[kTile]) const { gather(p.x, v); }
  __device__ void load_gradient(float (&v)[kTile]) const { gather(p.dy, v); }
  __device__ void store_output(void* y, const float (&v)[kTile]) const { scatter(y, v); }
  __device__ void store_input_gradient(const float (&v)[kTile]) const { scatter(p.dx, v); }

  // delta = softplus(dt_weight . dt + bias), never stored; zero after the last token, which leaves the state as it is.
  __device__ void load_delta(float (&delta)[kTile]) const {
#pragma unroll
    for (int t = 0; t < kTile; ++t) delta[t] = bias;
    const float* weight = first_weight();
    for (int r = 0; r < p.R; ++r, weight += p.D) {
      const float w = *weight;
#pragma unroll
      for (int t = 0; t < kTile; t += 4) {
        float dt[4];
        load4(staged + r * kPitch + t, dt);
#pragma unroll
        for (int i = 0; i < 4; ++i) delta[t + i] = fmaf(w, dt[i], delta[t + i]);
      }
    }
#pragma unroll
    for (int t = 0; t < kTile; ++t) delta[t] = softplus(delta[t]);
    if (cells[kTile - 1] != kNoToken) return;
#pragma unroll
    for (int t = 0; t < kTile; ++t)
      if (cells[t] == kNoToken) delta[t] = 0.f;
  }

  // Through softplus and the projection: to its weight and bias, and to the rows.
  __device__ void take_ddelta(const float (&delta)[kTile], float (&ddelta)[kTile]) {
    float dbias = dweight[p.R * blockDim.x];
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      ddelta[t] *= softplus_slope(delta[t]);
      dbias += ddelta[t];
    }
    dweight[p.R * blockDim.x] = dbias;
    const float* weight = first_weight();
    for (int r = 0; r < p.R; r += 2, weight += 2 * p.D) {
      const float even = take_ddelta_row(r, *weight, ddelta);
      const float odd = r + 1 < p.R ? take_ddelta_row(r + 1, weight[p.D], ddelta) : 0.f;
      const float sum = pair_sum(even, odd, lane);
      const int row = r + lane % 2;
      if (row < p.R) sums[(warp * rows + row) * kSumPitch + lane / 2] = sum;
    }
  }

  // Even lanes hold dB of token lane / 2, odd lanes dC.
  __device__ void keep_row_sum(int n, float v) const {
    const int row = p.R + n + (lane % 2) * kStates;
    sums[(warp * rows + row) * kSumPitch + lane / 2] = v;
  }

  __device__ void store_row_sums() const {
    __syncthreads();
    const int width = p.R * p.slices + 2 * p.N;
    const int copy = route.row_layer * p.channel_blocks + block.channel_block;
    float* first = p.drows + row_index(copy, 0) * width;
    for (int j = 8 * warp + lane % 8; j < rows; j += 8 * warps) {
      const int column = row_column(j, p.R * p.slices, block.slice * p.R);
      if (column < 0) continue;
      float sum[4] = {};
      const float* from = sums + j * kSumPitch + lane / 8;
      for (int w = 0; w < warps; ++w, from += rows * kSumPitch) {
#pragma unroll
        for (int q = 0; q < 4; ++q) sum[q] += from[4 * q];
      }
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        const int cell = cells[4 * q + lane / 8];
        if (cell >= 0) *element(first + column, cell, p.P * width) = sum[q];
      }
    }
  }

  // Rows of dparameters after dA: ddt_weight, dDs, dbias.
  __device__ void store_parameter_gradients(float* to) const {
    for (int r = 0; r < p.R; ++r) to[r * int64_t(p.channels)] = dweight[r * blockDim.x];
    to[(p.R + 1) * int64_t(p.channels)] = dweight[p.R * blockDim.x];
  }

 private:
  static constexpr int kPastEdge = -1, kNoToken = -2, kCells = kTile + 1;

  // This channel's weight of rank 0; the others follow D apart. They come from the cache: in shared memory they would
  // take the place of threads. A thread without a channel takes the last one's, and finds gradients of zero.
  __device__ const float* first_weight() const {
    return p.dt_weight + int64_t(route.parameters) * p.R * p.D + min(block.channel, p.D - 1);
  }

  __device__ int& on_map() const { return cells[kTile]; }

  // Index of a token's cell in the image, or one of the two above.
  __device__ int cell_of(int token) const {
    if (token >= p.length) return kNoToken;
    const int l = route.reverse ? p.length - 1 - token : token;
    const int inner = ((route.column_major ? p.H : p.W) + p.step - 1) / p.step;
    const int i = l / inner, j = l - i * inner;
    const int h = route.row + p.step * (route.column_major ? j : i);
    const int w = route.col + p.step * (route.column_major ? i : j);
    return h < p.H && w < p.W ? h * p.W + w : kPastEdge;
  }

  // Column in a row of x_dbl, or of its gradient, of staged row j: dt, B, C; -1 for an unused state.
  __device__ int row_column(int j, int rank_columns, int first_rank) const {
    if (j < p.R) return first_rank + j;
    const int n = (j - p.R) % kStates;
    const int column = rank_columns + (j - p.R < kStates ? 0 : p.N) + block.first_state + n;
    return n < block.valid_states ? column : -1;
  }

  __device__ int64_t row_index(int copy, int cell) const {
    return ((int64_t(copy) * p.B + block.batch) * p.H * p.W + cell) * p.P + route.projection;
  }

  __device__ void gather(const void* map, float (&v)[kTile]) const {
    const int64_t first = int64_t(block.batch) * p.H * p.W * p.D + (block.active ? block.channel : 0);
    const T* from = static_cast<const T*>(map) + first;
    // Without branches between them, all loads start at once.
#pragma unroll
    for (int t = 0; t < kTile; ++t) v[t] = to_float(*element(from, max(cells[t], 0), p.D));
    if (on_map() && block.active) return;
#pragma unroll
    for (int t = 0; t < kTile; ++t)
      if (cells[t] < 0 || !block.active) v[t] = 0.f;
  }

  __device__ void scatter(void* map, const float (&v)[kTile]) const {
    if (p.float_outputs) scatter_as<float>(map, v);
    else scatter_as<T>(map, v);
  }

  template <class Out>
  __device__ void scatter_as(void* map, const float (&v)[kTile]) const {
    const int64_t copy = int64_t(route.layer) * p.slices + block.slice;
    Out* to = static_cast<Out*>(map) + (copy * p.B + block.batch) * p.H * p.W * p.D + block.channel;
    if (!block.active) return;
#pragma unroll
    for (int t = 0; t < kTile; ++t) {
      const int cell = cells[t];
      if (cell >= 0) assign(*element(to, cell, p.D), v[t]);
    }
  }

  // Adds to the gradient of one column of dt_weight; returns the lane's part of the rows' gradient.
  __device__ float take_ddelta_row(int r, float w, const float (&ddelta)[kTile]) const {
    float dw = 0.f, sum[kTile];
#pragma unroll
    for (int t = 0; t < kTile; t += 4) {
      float dt[4];
      load4(staged + r * kPitch + t, dt);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        dw = fmaf(ddelta[t + i], dt[i], dw);
        sum[t + i] = ddelta[t + i] * w;
      }
    }
    dweight[r * blockDim.x] += dw;
    return transpose_sum(sum, lane);
  }

  const Params& p;
  const Block<kStates>& block;
  const MapRoute& route;
  const int rows, lane, warp, warps;
  float* staged;   // [R + 2 states][kPitch]: the tile's rows of x_dbl, transposed
  int* cells;      // [kTile] and, behind them, whether all of them are on the map
  float* dweight;  // this channel's column of [R + 1][threads], the last for the bias
  float* sums;     // [warps][R + 2 states][kSumPitch]: gradients of the staged rows
  const float bias;
};

}  // namespace mmevm::cuda
