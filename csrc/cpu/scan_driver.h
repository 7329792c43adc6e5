// Walks a route chunk by chunk and, inside a chunk, over blocks of V::lanes channels. A Source knows where tokens,
// projections and results lie; SequenceSource and MapSource are the two there are. load_x, load_dy and output give the
// staged [T][lanes] tile of block k, valid until close_block(k); what output(k) holds then goes to the named array.
//
// No include guard on purpose, see vec.h.

// Zeroed, cache-line-aligned scratch. Not std::vector: a standard template instantiated here would be compiled for this
// instruction set under a name that the linker may choose for the whole library.
template <class T>
struct Scratch {
  explicit Scratch(int64_t n) : p(static_cast<T*>(::operator new((n + 1) * sizeof(T), std::align_val_t(64)))), size(n) {
    zero();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete(p, std::align_val_t(64)); }
  void zero() { __builtin_memset(static_cast<void*>(p), 0, size * sizeof(T)); }
  T& operator[](int64_t i) { return p[i]; }
  T* const p;
  const int64_t size;
};

constexpr double kInvLn2 = 1.4426950408889634;

// Parameters of the channel blocks of one route, transposed to [block][...][lanes] with unused lanes at zero.
template <class V>
struct BlockParameters {
  using T = typename V::scalar;
  static constexpr int W = V::lanes;

  // `channels` is the number of channels that the arrays hold, the first block's first channel being `first`.
  BlockParameters(int64_t blocks, int64_t first, int64_t channels, int64_t N, const T* A, const T* D, const T* bias)
      : rate(blocks * N * W), skip(blocks * W), bias(blocks * W) {
    for (int64_t i = 0; i < blocks * W && first + i < channels; ++i) {
      const int64_t d = first + i;
      for (int64_t n = 0; n < N; ++n) rate[(i / W * N + n) * W + i % W] = A[d * N + n] * T(kInvLn2);
      if (D) skip[i] = D[d];
      if (bias) this->bias[i] = bias[d];
    }
  }
  Scratch<T> rate, skip, bias;
};

// Copies [blocks][rows][lanes] accumulators to out[channel][row].
template <class V>
void store_by_channel(const typename V::scalar* from, int64_t blocks, int64_t rows, int64_t first, int64_t channels,
                      typename V::scalar* out) {
  constexpr int W = V::lanes;
  for (int64_t i = 0; i < blocks * W && first + i < channels; ++i)
    for (int64_t r = 0; r < rows; ++r) out[(first + i) * rows + r] = from[(i / W * rows + r) * W + i % W];
}

// A block of channels of one row-major array with `channels` entries per row.
template <class V>
MMEVM_INLINE typename V::reg load_channels(const typename V::scalar* row, int64_t valid) {
  if (valid >= V::lanes) return V::load(row);
  typename V::reg r = V::set(0);
  for (int i = 0; i < valid; ++i) r[i] = row[i];
  return r;
}

template <class V>
MMEVM_INLINE void store_channels(typename V::scalar* row, typename V::reg v, int64_t valid) {
  if (valid >= V::lanes) return V::store(row, v);
  for (int i = 0; i < valid; ++i) row[i] = v[i];
}

template <class V, class Source>
void scan_forward(Source& src) {
  using T = typename V::scalar;
  constexpr int W = V::lanes;
  const int64_t N = src.N, blocks = src.blocks;
  const BlockParameters<V> par = src.parameters();
  Scratch<T> state(blocks * N * W);
  alignas(64) T delta[kChunk * W], raw[kChunk * W];
  const T* bc[kChunk];

  for (int64_t t0 = 0; t0 < src.length; t0 += kChunk) {
    const int tokens = int(src.length - t0 < kChunk ? src.length - t0 : kChunk);
    src.open_chunk(t0, tokens, bc);
    for (int64_t k = 0; k < blocks; ++k) {
      T* h = state.p + k * N * W;
      if (src.saves_states()) src.save_state(t0 / kChunk, k, h);
      const T* x = src.load_x(k);
      src.load_delta(k, par.bias.p + k * W, raw, delta);
      T* y = src.output(k);
      const auto skip = V::load(par.skip.p + k * W);
      for (int t = 0; t < tokens; ++t) V::store(y + t * W, V::load(x + t * W) * skip);
      forward_tile(Tile<V>{tokens, int(N), delta, x, y, bc, par.rate.p + k * N * W}, h);
      src.close_block(k, src.p.y);
    }
    src.close_chunk(src.p.y);
  }
  src.finish_forward(state.p);
}

template <class V, class Source>
void scan_backward(Source& src) {
  using T = typename V::scalar;
  constexpr int W = V::lanes;
  const int64_t N = src.N, E = src.row_length, blocks = src.blocks;
  const BlockParameters<V> par = src.parameters();
  Scratch<T> dstate(blocks * N * W), dA(blocks * N * W), dD(blocks * W), dbias(blocks * W), start(N * W);
  Scratch<T> drows(kChunk * E);  // gradients of the tokens' shared rows: low-rank delta, B, C
  alignas(64) T delta[kChunk * W], raw[kChunk * W], ddelta[kChunk * W];
  const T* bc[kChunk];
  src.start_backward(dstate.p);

  for (int64_t chunk = (src.length - 1) / kChunk; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * kChunk;
    const int tokens = int(src.length - t0 < kChunk ? src.length - t0 : kChunk);
    src.open_chunk(t0, tokens, bc);
    src.open_gradients();
    drows.zero();
    for (int64_t k = 0; k < blocks; ++k) {
      src.load_state(chunk, k, start.p);
      const T *x = src.load_x(k), *dy = src.load_dy(k);
      src.load_delta(k, par.bias.p + k * W, raw, delta);
      T* dx = src.output(k);
      const auto skip = V::load(par.skip.p + k * W);
      auto dskip = V::load(dD.p + k * W);
      for (int t = 0; t < tokens; ++t) {
        const auto g = V::load(dy + t * W);
        dskip += g * V::load(x + t * W);
        V::store(dx + t * W, g * skip);
        V::store(ddelta + t * W, V::set(0));
      }
      V::store(dD.p + k * W, dskip);
      const Tile<V> tile{tokens, int(N), delta, x, nullptr, bc, par.rate.p + k * N * W};
      const TileGrad<V> grad{dy, dx, ddelta, dA.p + k * N * W, drows.p + src.bc_offset, int(E)};
      backward_tile(tile, grad, start.p, dstate.p + k * N * W);
      auto dsum = V::load(dbias.p + k * W);
      for (int t = 0; t < tokens; ++t) {
        auto d = V::load(ddelta + t * W);
        if (src.delta_softplus) d *= sigmoid<V>(V::load(raw + t * W));
        V::store(ddelta + t * W, d);
        dsum += d;
      }
      V::store(dbias.p + k * W, dsum);
      src.close_block(k, src.p.dx);
      src.store_ddelta(k, ddelta, drows.p);
    }
    src.close_chunk(src.p.dx);
    src.store_drows(drows.p);
  }
  src.finish_backward(dA.p, dD.p, dbias.p);
}
