// Brings the 1-D selective scan's [B, D, L] arrays to the driver: one batch element and one group of channels.
//
// No include guard on purpose, see vec.h.

template <class V>
struct SequenceSource {
  using T = typename V::scalar;
  static constexpr int W = V::lanes;

  static int64_t row_length_of(const SequenceParams<T>& p) { return 2 * p.N; }
  static int64_t scratch(const SequenceParams<T>& p, Direction, int64_t) { return padded<T>(kChunk * 2 * p.N); }

  SequenceSource(const SequenceParams<T>& p, Direction, const Task& task, Scratch<T>& scratch)
      : p(p), task(task), per_group(p.D / p.G), N(p.N), row_length(row_length_of(p)), blocks(task.block_end - task.block),
        length(p.L), delta_softplus(p.delta_softplus), first(task.block * W), channel0(task.route * per_group),
        rows(scratch.take(kChunk * 2 * p.N)) {}

  BlockParameters<V> parameters(Scratch<T>& scratch) const {
    return {scratch, blocks, first, per_group, N, p.A + channel0 * N, at(p.Ds, channel0), at(p.delta_bias, channel0)};
  }

  bool saves_states() const { return p.states != nullptr; }

  void open_chunk(int64_t t0, int tokens, const T** bc) {
    this->t0 = t0;
    this->tokens = tokens;
    const int64_t base = (task.batch * p.G + task.route) * N * length + t0;
    for (int64_t n = 0; n < N; ++n)
      for (int t = 0; t < tokens; ++t) {
        rows[t * 2 * N + n] = p.Bs[base + n * length + t];
        rows[t * 2 * N + N + n] = p.Cs[base + n * length + t];
      }
    for (int t = 0; t < tokens; ++t) bc[t] = rows + t * 2 * N;
  }

  void open_gradients() const {}
  const T* load_x(int64_t k) { return gather(p.x, k, x); }
  const T* load_dy(int64_t k) { return gather(p.dy, k, dy); }
  T* output(int64_t) { return out; }
  void close_block(int64_t k, T* to) const { scatter(out, k, to); }
  void close_chunk(T*) const {}

  void load_delta(int64_t k, const T* bias, T* raw, T* delta) const {
    gather(p.delta, k, raw);
    const auto b = V::load(bias);
    for (int t = 0; t < tokens; ++t) {
      const auto d = V::load(raw + t * W) + b;
      V::store(raw + t * W, d);
      V::store(delta + t * W, delta_softplus ? softplus<V>(d) : d);
    }
  }

  void store_ddelta(int64_t k, const T* ddelta, T*) const { scatter(ddelta, k, p.ddelta); }

  void save_state(int64_t chunk, int64_t k, const T* h) const {
    T* to = states(chunk, k);
    for (int64_t n = 0; n < N; ++n) store_channels<V>(to + n * per_group, V::load(h + n * W), valid(k));
  }

  void load_state(int64_t chunk, int64_t k, T* h) const {
    const T* from = states(chunk, k);
    for (int64_t n = 0; n < N; ++n) V::store(h + n * W, load_channels<V>(from + n * per_group, valid(k)));
  }

  void finish_forward(const T* state) const {
    store_by_channel<V>(state, blocks, N, first, per_group, p.last_state + (task.batch * p.D + channel0) * N);
  }

  void start_backward(T* dstate) const {
    if (!p.dlast_state) return;
    const T* from = p.dlast_state + (task.batch * p.D + channel0) * N;
    for (int64_t i = 0; i < blocks * W && first + i < per_group; ++i)
      for (int64_t n = 0; n < N; ++n) dstate[(i / W * N + n) * W + i % W] = from[(first + i) * N + n];
  }

  // `sums` is [tokens][2N].
  void store_drows(const T* sums) const {
    const int64_t base = ((task.split * p.B + task.batch) * p.G + task.route) * N * length + t0;
    for (int64_t n = 0; n < N; ++n)
      for (int t = 0; t < tokens; ++t) {
        p.dBs[base + n * length + t] = sums[t * 2 * N + n];
        p.dCs[base + n * length + t] = sums[t * 2 * N + N + n];
      }
  }

  void finish_backward(const T* dA, const T* dD, const T* dbias) const {
    const int64_t row = task.batch * p.D + channel0;
    store_by_channel<V>(dA, blocks, N, first, per_group, p.dA + row * N);
    if (p.dDs) store_by_channel<V>(dD, blocks, 1, first, per_group, p.dDs + row);
    if (p.ddelta_bias) store_by_channel<V>(dbias, blocks, 1, first, per_group, p.ddelta_bias + row);
  }

  const SequenceParams<T>& p;
  const Task& task;
  const int64_t per_group;  // channels of a group
  const int64_t N, row_length, blocks, length;
  const bool delta_softplus;
  static constexpr int64_t bc_offset = 0;

 private:
  static const T* at(const T* array, int64_t i) { return array ? array + i : nullptr; }
  int64_t valid(int64_t k) const { return per_group - first - k * W; }

  T* states(int64_t chunk, int64_t k) const {
    const int64_t chunks = (length + kChunk - 1) / kChunk;
    return p.states + ((task.batch * p.G + task.route) * chunks + chunk) * N * per_group + first + k * W;
  }

  // [channel][t] -> [t][lane]; unused lanes become zero.
  const T* gather(const T* from, int64_t k, T* to) const {
    const T* row = from + (task.batch * p.D + channel0 + first + k * W) * length + t0;
    const int64_t n = valid(k);
    for (int i = 0; i < W; ++i)
      for (int t = 0; t < tokens; ++t) to[t * W + i] = i < n ? row[i * length + t] : T(0);
    return to;
  }

  void scatter(const T* from, int64_t k, T* to) const {
    T* row = to + (task.batch * p.D + channel0 + first + k * W) * length + t0;
    const int64_t n = valid(k);
    for (int i = 0; i < W && i < n; ++i)
      for (int t = 0; t < tokens; ++t) row[i * length + t] = from[t * W + i];
  }

  const int64_t first;     // first channel of the task, within its group
  const int64_t channel0;  // first channel of the group
  int64_t t0 = 0;
  int tokens = 0;
  T* const rows;
  alignas(64) T x[kChunk * W], dy[kChunk * W], out[kChunk * W];
};
