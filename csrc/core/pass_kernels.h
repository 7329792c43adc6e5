// The fused passes of passes.h, on a range of rows or tokens. V is a vector of floats.
//
// No include guard on purpose, see vec.h.

template <Activation activation, class V>
MMEVM_INLINE typename V::reg activate(typename V::reg x) {
  if constexpr (activation == Activation::kRelu) return x < 0 ? V::set(0) : x;
  if constexpr (activation == Activation::kSilu) return x * sigmoid<V>(x);
  if constexpr (activation == Activation::kGelu) return gelu<V>(x);
  return x;
}

// Calls fn with the activation as a compile-time constant.
template <class Fn>
void with_activation(Activation activation, Fn&& fn) {
  switch (activation) {
    case Activation::kNone: return fn(std::integral_constant<Activation, Activation::kNone>());
    case Activation::kRelu: return fn(std::integral_constant<Activation, Activation::kRelu>());
    case Activation::kSilu: return fn(std::integral_constant<Activation, Activation::kSilu>());
    case Activation::kGelu: return fn(std::integral_constant<Activation, Activation::kGelu>());
  }
}

// Calls fn(first channel, channels that are valid) for every register of a row.
template <class V, class Fn>
MMEVM_INLINE void for_channels(int64_t C, Fn&& fn) {
  int64_t c = 0;
  for (; c + V::lanes <= C; c += V::lanes) fn(c, std::integral_constant<int64_t, V::lanes>());
  if (c < C) fn(c, C - c);
}

// Calls step(w, turn) for w in [0, end); turns follow one another, as compile-time constants.
template <class Step, int... turns>
MMEVM_INLINE void for_turns(int64_t end, const Step& step, std::integer_sequence<int, turns...>) {
  constexpr int64_t count = sizeof...(turns);
  int64_t w = 0;
  for (; w + count <= end; w += count) (step(w + turns, std::integral_constant<int, turns>()), ...);
  (void)((w + turns < end && (step(w + turns, std::integral_constant<int, turns>()), true)) && ...);
}

// A block of channels of neighbouring cells lies in cache lines far apart, which processors do not fetch by themselves: they
// are prefetched this many cells ahead.
constexpr int64_t kAhead = 8;

// The cells of row h of a map, one block of channels: `weight` is [rows][cols][lanes], `biases` [lanes].
template <class V, int rows, int cols, Activation activation, class Data, class Valid>
void depthwise_row(const DepthwiseParams<Data>& p, const Data* image, int64_t h, const float* weight, const float* biases,
                   Data* y, Valid valid) {
  using Reg = typename V::reg;
  static const Data zeros[V::lanes] = {};
  Reg k[rows * cols];
  for (int i = 0; i < rows * cols; ++i) k[i] = V::load(weight + i * V::lanes);
  const Reg bias = V::load(biases);
  const Data* from[rows];
  int64_t stride[rows];  // 0 where the kernel's row lies outside of the map
  for (int r = 0; r < rows; ++r) {
    const int64_t row = h - p.top + r;
    const bool inside = row >= 0 && row < p.H;
    from[r] = inside ? image + row * p.W * p.C : zeros;
    stride[r] = inside ? p.C : 0;
  }
  // The columns under the kernel go round in registers, so that every cell is read once for each row of the kernel.
  Reg cells[rows][cols];
  const auto read = [&](int64_t col, int to) __attribute__((always_inline)) {
    const bool inside = uint64_t(col) < uint64_t(p.W);
    __builtin_prefetch(from[rows - 1] + (col + kAhead) * stride[rows - 1]);
    for (int r = 0; r < rows; ++r) cells[r][to] = inside ? load_channels<V>(from[r] + col * stride[r], valid) : V::set(0);
  };
  const auto step = [&](int64_t w, auto turn) __attribute__((always_inline)) {
    constexpr int oldest = turn();
    read(w - p.left + cols - 1, (oldest + cols - 1) % cols);
    Reg sums[rows];
    for (int r = 0; r < rows; ++r) {
      sums[r] = r == 0 ? bias : V::set(0);
      for (int c = 0; c < cols; ++c) sums[r] = V::fma(cells[r][(oldest + c) % cols], k[r * cols + c], sums[r]);
    }
    for (int r = 1; r < rows; ++r) sums[0] += sums[r];
    __builtin_prefetch(y + (w + kAhead) * p.C, 1);
    store_channels<V>(y + w * p.C, activate<activation, V>(sums[0]), valid);
  };
  for (int c = 0; c < cols - 1; ++c) read(c - p.left, c);
  for_turns(p.W, step, std::make_integer_sequence<int, cols>());
}

template <class V, int rows, int cols, class Data>
void depthwise(const DepthwiseParams<Data>& p, const float* weight, int64_t begin, int64_t end) {
  constexpr int64_t W = V::lanes;
  const int64_t blocks = (p.C + W - 1) / W;
  with_activation(p.activation, [&](auto activation) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / blocks, block = i % blocks, c = block * W;
      const Data* image = p.x + row / p.H * p.H * p.W * p.C + c;
      const float *const kernel = weight + block * rows * cols * W, *const bias = weight + (blocks * rows * cols + block) * W;
      Data* const y = p.y + row * p.W * p.C + c;
      if (c + W <= p.C)
        depthwise_row<V, rows, cols, activation()>(p, image, row % p.H, kernel, bias, y, std::integral_constant<int64_t, W>());
      else
        depthwise_row<V, rows, cols, activation()>(p, image, row % p.H, kernel, bias, y, p.C - c);
    }
  });
}

// Blocks of channels [begin, end) of the rows of all images, a row's blocks together. `weight` is
// [blocks][rows * cols][lanes], then biases [blocks][lanes].
template <class V, class Data>
void depthwise_blocks(const DepthwiseParams<Data>& p, const float* weight, int64_t begin, int64_t end) {
  if (p.rows == 3) depthwise<V, 3, 3>(p, weight, begin, end);
  else depthwise<V, 1, 4>(p, weight, begin, end);
}

template <class V, class Data>
void batch_norm_tokens(const BatchNormParams<Data>& p, const float* scale, const float* shift, int64_t begin, int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    for (int64_t t = begin; t < end; ++t)
      for_channels<V>(p.C, [&](int64_t c, auto valid) {
        Data* const y = p.y + t * p.C + c;
        auto v = V::fma(load_channels<V>(y, valid), load_channels<V>(scale + c, valid), load_channels<V>(shift + c, valid));
        v = activate<activation(), V>(v);
        if (p.residual) v += load_channels<V>(p.residual + t * p.C + c, valid);
        store_channels<V>(y, v, valid);
      });
  });
}

struct Moments {
  float mean, inverse_deviation;
};

// Of rows that do not wait for one another's sums over lanes. Whatever their number, a row's sums have one order.
constexpr int kRows = 4;

template <class V, int count, class Data>
MMEVM_INLINE void find_moments(const Data* rows, int64_t C, double eps, Moments (&m)[count]) {
  static_assert(count <= kRows);
  typename V::reg sums[kRows] = {}, squares[kRows] = {};
  float total[kRows] = {}, total_squares[kRows] = {};
  for_channels<V>(C, [&](int64_t c, auto valid) {
    for (int i = 0; i < count; ++i) sums[i] += load_channels<V>(rows + i * C + c, valid);
  });
  add_lane_sums<V, kRows>(sums, total);
  for (int i = 0; i < count; ++i) m[i].mean = total[i] / C;
  for_channels<V>(C, [&](int64_t c, auto valid) {
    for (int i = 0; i < count; ++i) {
      auto d = load_channels<V>(rows + i * C + c, valid) - m[i].mean;
      for (int64_t j = valid; j < V::lanes; ++j) d[j] = 0;
      squares[i] = V::fma(d, d, squares[i]);
    }
  });
  add_lane_sums<V, kRows>(squares, total_squares);
  for (int i = 0; i < count; ++i) m[i].inverse_deviation = 1 / std::sqrt(total_squares[i] / C + float(eps));
}

// Calls fn(token, its moments) for tokens [begin, end).
template <class V, class Data, class Fn>
MMEVM_INLINE void for_normed(const Data* x, int64_t C, double eps, int64_t begin, int64_t end, Fn&& fn) {
  int64_t t = begin;
  for (; t + kRows <= end; t += kRows) {
    Moments m[kRows];
    find_moments<V>(x + t * C, C, eps, m);
    for (int i = 0; i < kRows; ++i) fn(t + i, m[i]);
  }
  for (; t < end; ++t) {
    Moments m[1];
    find_moments<V>(x + t * C, C, eps, m);
    fn(t, m[0]);
  }
}

template <class V, class Data>
void gated_norm_tokens(const GatedNormParams<Data>& p, int64_t begin, int64_t end) {
  for_normed<V>(p.x, p.C, p.eps, begin, end, [&](int64_t t, const Moments& m) {
    const Data* const row = p.x + t * p.C;
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      auto v = (load_channels<V>(row + c, valid) - m.mean) * m.inverse_deviation;
      v = V::fma(v, load_channels<V>(p.weight + c, valid), load_channels<V>(p.bias + c, valid));
      if (p.gate) v *= activate<Activation::kSilu, V>(load_channels<V>(p.gate + t * p.C + c, valid));
      store_channels<V>(p.y + t * p.C + c, v, valid);
    });
  });
}

template <class V, class Data>
void rms_norm_tokens(const RmsNormParams<Data>& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const Data* row = p.x + t * p.C;
    auto squares = V::set(0);
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const auto v = load_channels<V>(row + c, valid);
      squares = V::fma(v, v, squares);
    });
    const float scale = 1 / std::sqrt(lane_sum<V>(squares) / p.C + float(p.eps));
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const auto v = load_channels<V>(row + c, valid) * scale;
      store_channels<V>(p.y + t * p.C + c, v * load_channels<V>(p.weight + c, valid), valid);
    });
  }
}

// Elements [begin, end).
template <class V, class Data>
void gated_mean_elements(const GatedMeanParams<Data>& p, int64_t begin, int64_t end) {
  for_channels<V>(end - begin, [&](int64_t c, auto valid) {
    const int64_t i = begin + c;
    const auto z = load_channels<V>(p.gate + i, valid);
    const auto sum = load_channels<V>(p.a + i, valid) + load_channels<V>(p.b + i, valid);
    store_channels<V>(p.y + i, sum * 0.5f * (z * sigmoid<V>(z)), valid);
  });
}

// Adds tokens [begin, end) of all images to sums [C].
template <class V, class Data>
void add_tokens(const MeanParams<Data>& p, int64_t begin, int64_t end, float* sums) {
  for (int64_t t = begin; t < end; ++t)
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const auto v = load_channels<V>(p.x + t * p.C + c, valid);
      store_channels<V>(sums + c, load_channels<V>(sums + c, valid) + v, valid);
    });
}

// Adds (x - mean) / deviation of tokens [begin, end) of all images to sums [C].
template <class V, class Data>
void add_normed_tokens(const NormMeanParams<Data>& p, int64_t begin, int64_t end, float* sums) {
  for_normed<V>(p.x, p.C, p.eps, begin, end, [&](int64_t t, const Moments& m) {
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const auto v = (load_channels<V>(p.x + t * p.C + c, valid) - m.mean) * m.inverse_deviation;
      store_channels<V>(sums + c, load_channels<V>(sums + c, valid) + v, valid);
    });
  });
}

template <class V, class A, class B>
MMEVM_INLINE float dot(const A* a, const B* b, int64_t n) {
  constexpr int64_t W = V::lanes;
  typename V::reg sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int j = 0; j < 4; ++j) sums[j] = V::fma(V::load(a + i + j * W), V::load(b + i + j * W), sums[j]);
  for (; i < n; i += W) sums[0] = V::fma(load_channels<V>(a + i, n - i), load_channels<V>(b + i, n - i), sums[0]);
  return lane_sum<V>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// Values [begin, end) of y[b][o] = weight[o] . x[b] + bias[o], and its activation or sigmoid.
template <class V, Activation activation, bool gate, class X, class Data, class Y>
void matrix_vector(const X* x, const Data* weight, const float* bias, int64_t in, int64_t out, Y* y, int64_t begin,
                   int64_t end) {
  for (int64_t i = begin; i < end; i += V::lanes) {
    const int64_t valid = std::min<int64_t>(V::lanes, end - i);
    auto sums = V::set(0);
    for (int64_t j = 0; j < valid; ++j) {
      const int64_t b = (i + j) / out, o = (i + j) % out;
      sums[j] = dot<V>(x + b * in, weight + o * in, in) + (bias ? bias[o] : 0);
    }
    if constexpr (gate) store_channels<V>(y + i, sigmoid<V>(sums), valid);
    else store_channels<V>(y + i, activate<activation, V>(sums), valid);
  }
}

template <class V, class Data>
void gate_hidden(const ChannelGateParams<Data>& p, float* hidden, int64_t begin, int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    matrix_vector<V, activation(), false>(p.x, p.reduce, p.reduce_bias, p.C, p.hidden, hidden, begin, end);
  });
}

template <class V, class Data>
void gate_channels(const ChannelGateParams<Data>& p, const float* hidden, int64_t begin, int64_t end) {
  matrix_vector<V, Activation::kNone, true>(hidden, p.expand, p.expand_bias, p.hidden, p.C, p.y, begin, end);
}

template <class V, class Data>
void scaled_sum_tokens(const ScaledSumParams<Data>& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const float *scale_a = p.scale_a + t / p.tokens * p.C, *scale_b = p.scale_b + t / p.tokens * p.C;
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const int64_t i = t * p.C + c;
      auto v = load_channels<V>(p.x + i, valid);
      v = V::fma(load_channels<V>(p.a + i, valid), load_channels<V>(scale_a + c, valid), v);
      v = V::fma(load_channels<V>(p.b + i, valid), load_channels<V>(scale_b + c, valid), v);
      store_channels<V>(p.y + i, v, valid);
    });
  }
}
