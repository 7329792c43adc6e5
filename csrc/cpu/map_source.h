// Brings the visual scan's channels-last map to the driver, one image and one route: tokens are read and written where
// they lie. Cells past the map's edge are zero tokens: they carry no input, but the state decays over them.
//
// No include guard on purpose, see vec.h.

template <class V>
struct MapSource {
  using T = typename V::scalar;
  static constexpr int W = V::lanes;

  MapSource(const MapParams<T>& p, const Task& task)
      : p(p), route(p.routes[task.route]), N(p.N), row_length(p.R + 2 * p.N), blocks(task.block_end - task.block),
        length(extent(p.H) * extent(p.W)), bc_offset(p.R), task(task), first(task.block * W),
        zero_row(row_length), dt_weight(blocks * p.R * W), ddt_weight(blocks * p.R * W) {
    const T* weight = p.dt_weight + route.parameters * p.D * p.R;
    for (int64_t i = 0; i < blocks * W && first + i < p.D; ++i)
      for (int64_t r = 0; r < p.R; ++r) dt_weight[(i / W * p.R + r) * W + i % W] = weight[(first + i) * p.R + r];
  }

  BlockParameters<V> parameters() const {
    const int64_t row = route.parameters * p.D;
    return {blocks, first, p.D, N, p.A + row * N, p.Ds ? p.Ds + row : nullptr, p.dt_bias ? p.dt_bias + row : nullptr};
  }

  bool saves_states() const { return p.states != nullptr; }

  void open_chunk(int64_t t0, int tokens, const T** bc) {
    this->tokens = tokens;
    for (int t = 0; t < tokens; ++t) {
      cell[t] = cell_of(t0 + t);
      rows[t] = cell[t] < 0 ? zero_row.p : p.x_dbl + projection(0, cell[t]);
      bc[t] = rows[t] + p.R;
    }
  }

  void load_x(int64_t k, T* x) const { gather(p.x, k, x); }
  void load_dy(int64_t k, T* dy) const { gather(p.dy, k, dy); }

  // delta = softplus(dt_weight . dt + dt_bias) from the token's R low-rank values.
  void load_delta(int64_t k, const T* bias, T* raw, T* delta) const {
    const T* weight = dt_weight.p + k * p.R * W;
    const auto b = V::load(bias);
    for (int t = 0; t < tokens; ++t) {
      auto d = b;
      for (int64_t r = 0; r < p.R; ++r) d += V::load(weight + r * W) * rows[t][r];
      V::store(raw + t * W, d);
      V::store(delta + t * W, softplus<V>(d));
    }
  }

  void store_y(int64_t k, const T* y) const { scatter(y, k, p.y); }
  void store_dx(int64_t k, const T* dx) const { scatter(dx, k, p.dx); }

  // Through the low-rank projection: to its weight, and, by lane, to the R values of each token's row.
  void store_ddelta(int64_t k, const T* ddelta, T* drows) {
    for (int64_t r = 0; r < p.R; ++r) {
      const auto weight = V::load(dt_weight.p + (k * p.R + r) * W);
      auto dweight = V::load(ddt_weight.p + (k * p.R + r) * W);
      for (int t = 0; t < tokens; ++t) {
        const auto d = V::load(ddelta + t * W);
        T* drow = drows + (t * row_length + r) * W;
        V::store(drow, V::load(drow) + d * weight);
        dweight += d * rows[t][r];
      }
      V::store(ddt_weight.p + (k * p.R + r) * W, dweight);
    }
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
    store_by_channel<V>(ddt_weight.p, blocks, p.R, first, p.D, p.ddt_weight + row * p.R);
    if (p.dDs) store_by_channel<V>(dD, blocks, 1, first, p.D, p.dDs + row);
    if (p.ddt_bias) store_by_channel<V>(dbias, blocks, 1, first, p.D, p.ddt_bias + row);
  }

  const MapParams<T>& p;
  const Route route;
  const int64_t N, row_length, blocks, length, bc_offset;
  static constexpr bool delta_softplus = true;

 private:
  int64_t extent(int64_t size) const { return (size + p.step - 1) / p.step; }
  int64_t valid(int64_t k) const { return p.D - first - k * W; }

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

  int64_t offset(int t, int64_t k) const { return (task.batch * p.H * p.W + cell[t]) * p.D + first + k * W; }

  void gather(const T* from, int64_t k, T* to) const {
    for (int t = 0; t < tokens; ++t)
      V::store(to + t * W, cell[t] < 0 ? V::set(T(0)) : load_channels<V>(from + offset(t, k), valid(k)));
  }

  void scatter(const T* from, int64_t k, T* to) const {
    for (int t = 0; t < tokens; ++t) {
      if (cell[t] < 0) continue;
      auto v = V::load(from + t * W);
      T* at = to + offset(t, k);
      if (p.accumulate) v += load_channels<V>(at, valid(k));
      store_channels<V>(at, v, valid(k));
    }
  }

  const Task& task;
  const int64_t first;  // first channel of the task
  int tokens = 0;
  int64_t cell[kChunk];
  const T* rows[kChunk];
  Scratch<T> zero_row, dt_weight, ddt_weight;
};
