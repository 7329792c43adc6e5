// The selective scan on one tile: up to kChunk tokens of one block of V::lanes channels, staged in local buffers.
// This is the only place where the recurrence is written; both operators bring their data here.
//
//   h[t] = exp(delta[t] A) h[t-1] + delta[t] x[t] B[t],    y[t] += C[t] . h[t]
//
// No include guard on purpose, see vec.h.

// States advance in groups of kGroup, so that a group's states, decay rates and temporaries stay in registers.
constexpr int kGroup = 4;

// Pointers to a staged tile. Arrays are [T][lanes] unless stated; `bc[t]` points to the N values of B and then the N
// values of C of token t, which all channels of the tile share.
template <class V>
struct Tile {
  using T = typename V::scalar;
  int tokens;
  int n_states;
  const T* delta;
  const T* x;
  T* y;
  const T* const* bc;
  const T* rate;  // [N][lanes], A / ln 2, because exp(delta A) = 2^(delta A / ln 2)
};

template <class V>
struct TileGrad {
  using T = typename V::scalar;
  const T* dy;
  T* dx;      // += through the state; the skip term is the caller's
  T* ddelta;  // +=
  T* dA;      // [N][lanes], +=
  T* dbc;     // [T][dbc_stride], B's N values and then C's, +=: sums over channels
  int dbc_stride;
};

// Whether all exponents delta A / ln 2 are so small that V::exp2_of_small is exact, and it is faster.
template <class V>
MMEVM_INLINE bool exponents_are_small(const Tile<V>& tile) {
  if constexpr (!V::exp2_clamps) return false;
  auto delta = V::set(0), rate = V::set(0);
  const auto take_largest = [](auto& largest, const auto& v) { largest = largest < abs_of<V>(v) ? abs_of<V>(v) : largest; };
  for (int t = 0; t < tile.tokens; ++t) take_largest(delta, V::load(tile.delta + t * V::lanes));
  for (int n = 0; n < tile.n_states; ++n) take_largest(rate, V::load(tile.rate + n * V::lanes));
  return lane_sum<V>(delta * rate <= 126 ? V::set(0) : V::set(1)) == 0;
}

template <class V, bool small>
MMEVM_INLINE typename V::reg decay_of(typename V::reg delta, typename V::reg rate) {
  if constexpr (small) return V::exp2_of_small(delta, rate);
  else return V::exp2(delta * rate);
}

template <class V, int G, bool small>
MMEVM_INLINE void forward_group(const Tile<V>& tile, int n0, typename V::scalar* state) {
  constexpr int W = V::lanes;
  const int N = tile.n_states;
  typename V::reg h[G], rate[G];
  for (int j = 0; j < G; ++j) {
    h[j] = V::load(state + (n0 + j) * W);
    rate[j] = V::load(tile.rate + (n0 + j) * W);
  }
  for (int t = 0; t < tile.tokens; ++t) {
    const auto delta = V::load(tile.delta + t * W);
    const auto drive = delta * V::load(tile.x + t * W);
    auto y = V::load(tile.y + t * W);
    const auto* b = tile.bc[t] + n0;
    const auto* c = b + N;
    for (int j = 0; j < G; ++j) {
      h[j] = V::fma(decay_of<V, small>(delta, rate[j]), h[j], drive * b[j]);
      y += h[j] * c[j];
    }
    V::store(tile.y + t * W, y);
  }
  for (int j = 0; j < G; ++j) V::store(state + (n0 + j) * W, h[j]);
}

// Calls fn(n0, group size) over the states; the size is a compile-time constant inside the call.
template <class Fn>
MMEVM_INLINE void for_groups(int n_states, Fn&& fn) {
  int n0 = 0;
  for (; n0 + kGroup <= n_states; n0 += kGroup) fn(n0, std::integral_constant<int, kGroup>{});
  for (; n0 < n_states; ++n0) fn(n0, std::integral_constant<int, 1>{});
}

// Advances `state` [N][lanes] over the tile and adds C . h to tile.y.
template <class V>
MMEVM_INLINE void forward_tile(const Tile<V>& tile, typename V::scalar* state) {
  if (exponents_are_small(tile))
    for_groups(tile.n_states, [&](int n0, auto G) { forward_group<V, G.value, true>(tile, n0, state); });
  else
    for_groups(tile.n_states, [&](int n0, auto G) { forward_group<V, G.value, false>(tile, n0, state); });
}

// Recomputes the states of one group from `start`, then runs the adjoint recurrence backwards. `dstate` [N][lanes] holds
// the gradient with respect to the state after the tile on entry, before the tile on return.
template <class V, int G, bool small>
MMEVM_INLINE void backward_group(
    const Tile<V>& tile, const TileGrad<V>& grad, int n0, const typename V::scalar* start, typename V::scalar* dstate) {
  using T = typename V::scalar;
  using reg = typename V::reg;
  constexpr int W = V::lanes;
  const int N = tile.n_states;
  alignas(64) T decays[kChunk * G * W];
  alignas(64) T states[(kChunk + 1) * G * W];  // states[t] is the state before token t

  reg h[G], rate[G], dh[G], dA[G];
  for (int j = 0; j < G; ++j) {
    h[j] = V::load(start + (n0 + j) * W);
    rate[j] = V::load(tile.rate + (n0 + j) * W);
    dh[j] = V::load(dstate + (n0 + j) * W);
    dA[j] = V::load(grad.dA + (n0 + j) * W);
    V::store(states + j * W, h[j]);
  }
  for (int t = 0; t < tile.tokens; ++t) {
    const reg delta = V::load(tile.delta + t * W);
    const reg drive = delta * V::load(tile.x + t * W);
    const T* b = tile.bc[t] + n0;
    for (int j = 0; j < G; ++j) {
      const reg decay = decay_of<V, small>(delta, rate[j]);
      h[j] = V::fma(decay, h[j], drive * b[j]);
      V::store(decays + (t * G + j) * W, decay);
      V::store(states + ((t + 1) * G + j) * W, h[j]);
    }
  }
  for (int t = tile.tokens - 1; t >= 0; --t) {
    const reg delta = V::load(tile.delta + t * W);
    const reg x = V::load(tile.x + t * W);
    const reg dy = V::load(grad.dy + t * W);
    const reg drive = delta * x;
    const T* b = tile.bc[t] + n0;
    const T* c = b + N;
    T* db = grad.dbc + t * grad.dbc_stride + n0;
    reg ddrive = V::set(0), dlog = V::set(0), to_b[G], to_c[G];
    for (int j = 0; j < G; ++j) {
      dh[j] += dy * c[j];
      to_c[j] = V::load(states + ((t + 1) * G + j) * W) * dy;
      to_b[j] = dh[j] * drive;
      ddrive += dh[j] * b[j];
      dh[j] *= V::load(decays + (t * G + j) * W);
      const reg dexponent = dh[j] * V::load(states + (t * G + j) * W);
      dlog += dexponent * rate[j];
      dA[j] += dexponent * delta;
    }
    add_lane_sums<V, G>(to_b, db);
    add_lane_sums<V, G>(to_c, db + N);
    V::store(grad.dx + t * W, V::load(grad.dx + t * W) + ddrive * delta);
    V::store(grad.ddelta + t * W, V::load(grad.ddelta + t * W) + ddrive * x + dlog * T(0.6931471805599453));
  }
  for (int j = 0; j < G; ++j) {
    V::store(dstate + (n0 + j) * W, dh[j]);
    V::store(grad.dA + (n0 + j) * W, dA[j]);
  }
}

template <class V>
MMEVM_INLINE void backward_tile(
    const Tile<V>& tile, const TileGrad<V>& grad, const typename V::scalar* start, typename V::scalar* dstate) {
  if (exponents_are_small(tile))
    for_groups(tile.n_states, [&](int n0, auto G) { backward_group<V, G.value, true>(tile, grad, n0, start, dstate); });
  else
    for_groups(tile.n_states, [&](int n0, auto G) { backward_group<V, G.value, false>(tile, grad, n0, start, dstate); });
}
