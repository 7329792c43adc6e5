// Brings the visual scan's channels-last map to the driver, one image and one route: tokens are read and written where
// they lie. Cells past the map's edge are zero tokens: they carry no input, but the state decays over them.
//
// No include guard on purpose, see vec.h.

template <class V>
struct MapSource {
  using T = typename V::scalar;
  static constexpr int W = V::lanes;

  static int64_t row_length_of(const MapParams<T>& p) { return p.R + 2 * p.N; }
  static int64_t scratch(const MapParams<T>& p, Direction direction, int64_t blocks) {
    const int64_t weight = padded<T>(blocks * p.R * W), tile = padded<T>(blocks * kChunk * W);
    return padded<T>(row_length_of(p)) + (direction == Direction::kForward ? weight + 2 * tile : 2 * weight + 3 * tile);
  }

  MapSource(const MapParams<T>& p, Direction direction, const Task& task, Scratch<T>& scratch)
      : p(p), route(p.routes[task.route]), N(p.N), row_length(row_length_of(p)), blocks(task.block_end - task.block),
        length(extent(p.H) * extent(p.W)), bc_offset(p.R), task(task), first(task.block * W),
        channels((task.block_end * W < p.D ? task.block_end * W : p.D) - first), zero_row(scratch.zeros(row_length)),
        dt_weight(scratch.take(blocks * p.R * W)), x(scratch.take(blocks * kChunk * W)),
        out(scratch.take(blocks * kChunk * W)) {
    if (direction == Direction::kBackward) {
      ddt_weight = scratch.zeros(blocks * p.R * W);
      dy = scratch.take(blocks * kChunk * W);
    }
    const T* weight = p.dt_weight + route.parameters * p.D * p.R;
    pack_panels<V>(weight + first * p.R, channels, p.R, dt_weight);
  }

  BlockParameters<V> parameters(Scratch<T>& scratch) const {
    const int64_t row = route.parameters * p.D;
    return {scratch, blocks, first, p.D, N, p.A + row * N, p.Ds ? p.Ds + row : nullptr,
            p.dt_bias ? p.dt_bias + row : nullptr, p.log_A};
  }

  bool saves_states() const { return p.states != nullptr; }

  void open_chunk(int64_t t0, int tokens, const T** bc) {
    this->tokens = tokens;
    for (int t = 0; t < tokens; ++t) {
      cell[t] = cell_of(t0 + t);
      rows[t] = cell[t] < 0 ? zero_row : p.x_dbl + projection(0, cell[t]);
      bc[t] = rows[t] + p.R;
    }
    if constexpr (is_float) {
      if (p.half_x) return gather(p.half_x, x);
    }
    gather(p.x, x);
  }

  // Whole tokens are staged at once, all blocks of a token together: down a column neighbouring tokens lie pages apart.
  void open_gradients() { gather(p.dy, dy); }
  const T* load_x(int64_t k) const { return x + k * kChunk * W; }
  const T* load_dy(int64_t k) const { return dy + k * kChunk * W; }
  T* output(int64_t k) const { return out + k * kChunk * W; }
  void close_block(int64_t, T*) const {}
  void close_chunk(T* to) const {
    if constexpr (is_float) {
      if (p.half_y) return scatter(p.half_y);
    }
    scatter(to);
  }

  // delta = softplus(dt_weight . dt + dt_bias) from the token's R low-rank values.
  void load_delta(int64_t k, const T* bias, T* raw, T* delta) const {
    int t = 0;
    for (; t + 8 <= tokens; t += 8) load_deltas<8>(k, t, bias, raw, delta);
    for (; t < tokens; ++t) load_deltas<1>(k, t, bias, raw, delta);
  }

  // Through the low-rank projection: to its weight, and to the R values of each token's row.
  void store_ddelta(int64_t k, const T* ddelta, T* drows) {
    int64_t r = 0;
    for (; r + 4 <= p.R; r += 4) store_ddelta_rows<4>(k, r, ddelta, drows);
    for (; r < p.R; ++r) store_ddelta_rows<1>(k, r, ddelta, drows);
  }

  void save_state(int64_t chunk, int64_t k, const T* h) const {
    T* to = states(chunk, k);
    for (int64_t n = 0; n < N; ++n) store_channels<V>(to + n * p.D, V::load(h + n * W), valid(k));
  }

  void load_state(int64_t chunk, int64_t k, T* h) const {
    const T* from = states(chunk, k);
    for (int64_t n = 0; n < N; ++n) V::store(h + n * W, load_channels<V>(from + n * p.D, valid(k)));
  }

  void finish_forward(const T*) const {}
  void start_backward(T*) const {}

  // `sums` is [tokens][R + 2N]. Adds, since routes may share a projection; the launcher starts from zeros.
  void store_drows(const T* sums) const {
    for (int t = 0; t < tokens; ++t) {
      if (cell[t] < 0) continue;
      T* to = p.dx_dbl + projection(task.split * p.B, cell[t]);
      for (int64_t e = 0; e < row_length; ++e) to[e] += sums[t * row_length + e];
    }
  }

  void finish_backward(const T* dA, const T* dD, const T* dbias) const {
    const int64_t row = (task.batch * p.n_routes + task.route) * p.D;
    store_by_channel<V>(dA, blocks, N, first, p.D, p.dA + row * N);
    store_by_channel<V>(ddt_weight, blocks, p.R, first, p.D, p.ddt_weight + row * p.R);
    if (p.dDs) store_by_channel<V>(dD, blocks, 1, first, p.D, p.dDs + row);
    if (p.ddt_bias) store_by_channel<V>(dbias, blocks, 1, first, p.D, p.ddt_bias + row);
  }

  const MapParams<T>& p;
  const Route route;
  const int64_t N, row_length, blocks, length, bc_offset;
  static constexpr bool delta_softplus = true;
  static constexpr bool is_float = std::is_same_v<T, float>;

 private:
  // Of some tokens at once, for sums that do not wait for each other.
  template <int G>
  void load_deltas(int64_t k, int t, const T* bias, T* raw, T* delta) const {
    const T* weight = dt_weight + k * p.R * W;
    typename V::reg d[G];
    for (int j = 0; j < G; ++j) d[j] = V::load(bias);
    for (int64_t r = 0; r < p.R; ++r) {
      const auto w = V::load(weight + r * W);
      for (int j = 0; j < G; ++j) d[j] = V::fma(V::set(rows[t + j][r]), w, d[j]);
    }
    for (int j = 0; j < G; ++j) {
      V::store(raw + (t + j) * W, d[j]);
      V::store(delta + (t + j) * W, softplus<V>(d[j]));
    }
  }

  template <int G>
  void store_ddelta_rows(int64_t k, int64_t r, const T* ddelta, T* drows) {
    typename V::reg weight[G], dweight[G], drow[G];
    for (int j = 0; j < G; ++j) {
      weight[j] = V::load(dt_weight + (k * p.R + r + j) * W);
      dweight[j] = V::load(ddt_weight + (k * p.R + r + j) * W);
    }
    for (int t = 0; t < tokens; ++t) {
      const auto d = V::load(ddelta + t * W);
      for (int j = 0; j < G; ++j) {
        drow[j] = d * weight[j];
        dweight[j] += d * rows[t][r + j];
      }
      add_lane_sums<V, G>(drow, drows + t * row_length + r);
    }
    for (int j = 0; j < G; ++j) V::store(ddt_weight + (k * p.R + r + j) * W, dweight[j]);
  }

  // Whether an earlier route visits the same cells.
  bool follows_another() const {
    return p.accumulate && std::any_of(p.routes, &p.routes[task.route], [&](const Route& other) {
      return other.row == route.row && other.col == route.col;
    });
  }

  int64_t extent(int64_t size) const { return (size + p.step - 1) / p.step; }
  int64_t valid(int64_t k) const { return channels - k * W; }

  // Index of a token's cell in the map, or -1 past the edge.
  int64_t cell_of(int64_t token) const {
    const int64_t l = route.reverse ? length - 1 - token : token;
    const int64_t inner = route.column_major ? extent(p.H) : extent(p.W);
    const int64_t i = l / inner, j = l % inner;
    const int64_t h = route.row + p.step * (route.column_major ? j : i);
    const int64_t w = route.col + p.step * (route.column_major ? i : j);
    return h < p.H && w < p.W ? h * p.W + w : -1;
  }

  // Offset of a cell's row in x_dbl, or in copy `copy` of its gradient.
  int64_t projection(int64_t copy, int64_t cell) const {
    return (((copy + task.batch) * p.H * p.W + cell) * p.P + route.projection) * row_length;
  }

  T* states(int64_t chunk, int64_t k) const {
    const int64_t chunks = (length + kChunk - 1) / kChunk;
    return p.states + ((task.batch * p.n_routes + task.route) * chunks + chunk) * N * p.D + first + k * W;
  }

  // Rows of `channels` values in the map <-> staged [block][T][lanes].
  template <class Data>
  void gather(const Data* map, T* to) const {
    for (int t = 0; t < tokens; ++t) {
      const Data* row = map + (task.batch * p.H * p.W + cell[t]) * p.D + first;
      for (int64_t k = 0; k < blocks; ++k)
        V::store(to + (k * kChunk + t) * W, cell[t] < 0 ? V::set(T(0)) : load_channels<V>(row + k * W, channels - k * W));
    }
  }

  template <class Data>
  void scatter(Data* map) const {
    for (int t = 0; t < tokens; ++t) {
      if (cell[t] < 0) continue;
      Data* row = map + (task.batch * p.H * p.W + cell[t]) * p.D + first;
      for (int64_t k = 0; k < blocks; ++k) {
        auto v = V::load(out + (k * kChunk + t) * W);
        if (adds) v += load_channels<V>(row + k * W, channels - k * W);
        store_channels<V>(row + k * W, v, channels - k * W);
      }
    }
  }

  const Task& task;
  const int64_t first;     // first channel of the task
  const int64_t channels;  // channels of the task
  const bool adds = follows_another();
  int tokens = 0;
  int64_t cell[kChunk];
  const T* rows[kChunk];
  T *const zero_row, *const dt_weight, *const x, *const out;
  T *ddt_weight = nullptr, *dy = nullptr;
};
