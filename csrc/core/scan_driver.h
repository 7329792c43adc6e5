// Walks a route chunk by chunk and, inside a chunk, over blocks of V::lanes channels. A Source knows where tokens,
// projections and results lie; SequenceSource and MapSource are the two there are. load_x, load_dy and output give the
// staged [T][lanes] tile of block k, valid until close_block(k); what output(k) holds then goes to the named array.
//
// No include guard on purpose, see vec.h.

// Elements that an array of n takes of the scratch: every array starts on a cache line.
template <class T>
constexpr int64_t padded(int64_t n) {
  constexpr int64_t line = 64 / sizeof(T);
  return (n + line - 1) / line * line;
}

template <class T>
void zero(T* array, int64_t n) {
  __builtin_memset(static_cast<void*>(array), 0, n * sizeof(T));
}

// A task's part of the host's workspace, dealt out from the start.
template <class T>
struct Scratch {
  T* next;

  T* take(int64_t n) {
    T* const array = next;
    next += padded<T>(n);
    return array;
  }

  T* zeros(int64_t n) {
    T* const array = take(n);
    zero(array, n);
    return array;
  }
};

// A block of channels of one row-major array with `channels` entries per row, whose last ones may be missing. Data is of
// the vector's type or BFloat16.
template <class V, class Data>
MMEVM_INLINE typename V::reg load_channels(const Data* row, int64_t valid) {
  if (valid >= V::lanes) return V::load(row);
  Data copy[V::lanes] = {};
  for (int i = 0; i < valid; ++i) copy[i] = row[i];
  return V::load(copy);
}

template <class V, class Data>
MMEVM_INLINE void store_channels(Data* row, typename V::reg v, int64_t valid) {
  if (valid >= V::lanes) return V::store(row, v);
  Data copy[V::lanes];
  V::store(copy, v);
  for (int i = 0; i < valid; ++i) row[i] = copy[i];
}

// Transposes `rows` rows of n values to panels of V::lanes rows: [panels][n][lanes], zeros behind the last row.
template <class V, class Data>
void pack_panels(const Data* from, int64_t rows, int64_t n, typename V::scalar* to) {
  constexpr int64_t W = V::lanes;
  for (int64_t row = 0; row < rows; row += W, from += W * n, to += W * n)
    for (int64_t i = 0; i < n; i += W) {
      typename V::reg square[W];
      for (int64_t j = 0; j < W; ++j) __builtin_prefetch(from + (W + j) * n + i);  // the rows that follow these
      for (int64_t j = 0; j < W; ++j)
        square[j] = row + j < rows ? load_channels<V>(from + j * n + i, n - i) : V::set(typename V::scalar(0));
      transpose<V>(square);
      for (int64_t j = 0; j < W && i + j < n; ++j) V::store(to + (i + j) * W, square[j]);
    }
}

constexpr double kInvLn2 = 1.4426950408889634;

// Parameters of the channel blocks of one route, transposed to [block][...][lanes] with unused lanes at zero.
template <class V>
struct BlockParameters {
  using T = typename V::scalar;
  static constexpr int W = V::lanes;

  static int64_t scratch(int64_t blocks, int64_t N) { return padded<T>(blocks * N * W) + 2 * padded<T>(blocks * W); }

  // `channels` is the number of channels that the arrays hold, the first block's first channel being `first`.
  BlockParameters(Scratch<T>& scratch, int64_t blocks, int64_t first, int64_t channels, int64_t N, const T* A,
                  const T* D, const T* bias, bool log_A = false)
      : rate(scratch.take(blocks * N * W)), skip(scratch.zeros(blocks * W)), bias(scratch.zeros(blocks * W)) {
    const int64_t present = std::min(blocks * W, channels - first);
    pack_panels<V>(A + first * N, present, N, rate);
    for (int64_t r = 0; r < blocks * N; ++r) {
      const auto scaled = V::load(rate + r * W) * T(kInvLn2);
      V::store(rate + r * W, log_A ? V::exp2(scaled) * T(-kInvLn2) : scaled);
    }
    if (D) std::copy_n(D + first, present, skip);
    if (bias) std::copy_n(bias + first, present, this->bias);
  }
  T *const rate, *const skip, *const bias;
};

// Copies [blocks][rows][lanes] accumulators to out[channel][row].
template <class V>
void store_by_channel(const typename V::scalar* from, int64_t blocks, int64_t rows, int64_t first, int64_t channels,
                      typename V::scalar* out) {
  constexpr int W = V::lanes;
  for (int64_t i = 0; i < blocks * W && first + i < channels; ++i)
    for (int64_t r = 0; r < rows; ++r) out[(first + i) * rows + r] = from[(i / W * rows + r) * W + i % W];
}

// Elements of scratch that scan_forward or scan_backward takes, its source's not counted.
template <class V>
int64_t driver_scratch(Direction direction, int64_t blocks, int64_t N, int64_t row_length) {
  using T = typename V::scalar;
  constexpr int W = V::lanes;
  const int64_t states = padded<T>(blocks * N * W), parameters = BlockParameters<V>::scratch(blocks, N);
  if (direction == Direction::kForward) return parameters + states;
  return parameters + 2 * states + 2 * padded<T>(blocks * W) + padded<T>(N * W) + padded<T>(kChunk * row_length);
}

template <class V, class Source>
void scan_forward(Source& src, Scratch<typename V::scalar>& scratch) {
  using T = typename V::scalar;
  constexpr int W = V::lanes;
  const int64_t N = src.N, blocks = src.blocks;
  const BlockParameters<V> par = src.parameters(scratch);
  T* const state = scratch.zeros(blocks * N * W);
  alignas(64) T delta[kChunk * W], raw[kChunk * W];
  const T* bc[kChunk];

  for (int64_t t0 = 0; t0 < src.length; t0 += kChunk) {
    const int tokens = int(src.length - t0 < kChunk ? src.length - t0 : kChunk);
    src.open_chunk(t0, tokens, bc);
    for (int64_t k = 0; k < blocks; ++k) {
      T* h = state + k * N * W;
      if (src.saves_states()) src.save_state(t0 / kChunk, k, h);
      const T* x = src.load_x(k);
      src.load_delta(k, par.bias + k * W, raw, delta);
      T* y = src.output(k);
      const auto skip = V::load(par.skip + k * W);
      for (int t = 0; t < tokens; ++t) V::store(y + t * W, V::load(x + t * W) * skip);
      forward_tile(Tile<V>{tokens, int(N), delta, x, y, bc, par.rate + k * N * W}, h);
      src.close_block(k, src.p.y);
    }
    src.close_chunk(src.p.y);
  }
  src.finish_forward(state);
}

template <class V, class Source>
void scan_backward(Source& src, Scratch<typename V::scalar>& scratch) {
  using T = typename V::scalar;
  constexpr int W = V::lanes;
  const int64_t N = src.N, E = src.row_length, blocks = src.blocks;
  const BlockParameters<V> par = src.parameters(scratch);
  T *const dstate = scratch.zeros(blocks * N * W), *const dA = scratch.zeros(blocks * N * W);
  T *const dD = scratch.zeros(blocks * W), *const dbias = scratch.zeros(blocks * W), *const start = scratch.take(N * W);
  T* const drows = scratch.take(kChunk * E);  // gradients of the tokens' shared rows: low-rank delta, B, C
  alignas(64) T delta[kChunk * W], raw[kChunk * W], ddelta[kChunk * W];
  const T* bc[kChunk];
  src.start_backward(dstate);

  for (int64_t chunk = (src.length - 1) / kChunk; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * kChunk;
    const int tokens = int(src.length - t0 < kChunk ? src.length - t0 : kChunk);
    src.open_chunk(t0, tokens, bc);
    src.open_gradients();
    zero(drows, kChunk * E);
    for (int64_t k = 0; k < blocks; ++k) {
      src.load_state(chunk, k, start);
      const T *x = src.load_x(k), *dy = src.load_dy(k);
      src.load_delta(k, par.bias + k * W, raw, delta);
      T* dx = src.output(k);
      const auto skip = V::load(par.skip + k * W);
      auto dskip = V::load(dD + k * W);
      for (int t = 0; t < tokens; ++t) {
        const auto g = V::load(dy + t * W);
        dskip += g * V::load(x + t * W);
        V::store(dx + t * W, g * skip);
        V::store(ddelta + t * W, V::set(0));
      }
      V::store(dD + k * W, dskip);
      const Tile<V> tile{tokens, int(N), delta, x, nullptr, bc, par.rate + k * N * W};
      const TileGrad<V> grad{dy, dx, ddelta, dA + k * N * W, drows + src.bc_offset, int(E)};
      backward_tile(tile, grad, start, dstate + k * N * W);
      auto dsum = V::load(dbias + k * W);
      for (int t = 0; t < tokens; ++t) {
        auto d = V::load(ddelta + t * W);
        if (src.delta_softplus) d *= sigmoid<V>(V::load(raw + t * W));
        V::store(ddelta + t * W, d);
        dsum += d;
      }
      V::store(dbias + k * W, dsum);
      src.close_block(k, src.p.dx);
      src.store_ddelta(k, ddelta, drows);
    }
    src.close_chunk(src.p.dx);
    src.store_drows(drows);
  }
  src.finish_backward(dA, dD, dbias);
}
