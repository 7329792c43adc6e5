// The passes of training.h, on a range of tokens or, of a convolution, of images' blocks of channels.
//
// No include guard on purpose, see vec.h.

// The derivative of an activation.
template <Activation activation, class V>
MMEVM_INLINE typename V::reg derivative(typename V::reg x) {
  if constexpr (activation == Activation::kRelu) return x > 0 ? V::set(1) : V::set(0);
  if constexpr (activation == Activation::kSilu) {
    const auto s = sigmoid<V>(x);
    return s + x * s * (1 - s);
  }
  if constexpr (activation == Activation::kGelu) return gelu_derivative<V>(x);
  return V::set(1);
}

template <class V, class Valid>
MMEVM_INLINE void add_channels(float* to, typename V::reg v, Valid valid) {
  store_channels<V>(to, load_channels<V>(to, valid) + v, valid);
}

// A block of channels of an image. Rows of x and of the gradients before the activation stay in two rings of three rows,
// each with a column of zeros on either side, so that the maps are read once: `rings` has 6 (W + 2) registers. `weight` is
// [10][lanes], the bias last, as is dweight.
template <class V, Activation activation, class Valid>
void depthwise_gradients(const DepthwiseGradients& p, int64_t offset, const float* weight, float* rings, float* dweight,
                         Valid valid) {
  using Reg = typename V::reg;
  constexpr int64_t L = V::lanes;
  const int64_t H = p.H, W = p.W, C = p.C, row_length = (W + 2) * L;
  const auto cell = [&](int64_t h, int64_t w) { return offset + (h * W + w) * C; };
  const auto x_row = [&](int64_t h) { return rings + (h + 3) % 3 * row_length; };
  const auto g_row = [&](int64_t h) { return rings + ((h + 3) % 3 + 3) * row_length; };
  Reg k[10], sums[10] = {};
  for (int i = 0; i < 10; ++i) k[i] = V::load(weight + i * L);
  std::fill_n(rings, 6 * row_length, 0.0f);
  const auto read_x = [&](int64_t h) {
    float* const row = x_row(h) + L;
    if (h == H) std::fill_n(row, W * L, 0.0f);
    else for (int64_t w = 0; w < W; ++w) V::store(row + w * L, load_channels<V>(p.x + cell(h, w), valid));
  };
  read_x(0);
  for (int64_t h = 0; h <= H; ++h) {
    float* const g = g_row(h) + L;
    if (h == H) {
      std::fill_n(g, W * L, 0.0f);
    } else {
      read_x(h + 1);
      const float* const x[3] = {x_row(h - 1), x_row(h), x_row(h + 1)};
      for (int64_t w = 0; w < W; ++w) {
        // As with kAhead, a row ahead.
        __builtin_prefetch(p.x + cell(h + 2, w));
        __builtin_prefetch(p.dy + cell(h + 1, w));
        __builtin_prefetch(p.dx + cell(h, w), 1);
        Reg value = load_channels<V>(p.dy + cell(h, w), valid);
        if constexpr (activation != Activation::kNone) {
          Reg y = k[9];
          for (int i = 0; i < 9; ++i) y = V::fma(V::load(x[i / 3] + (w + i % 3) * L), k[i], y);
          value *= derivative<activation, V>(y);
        }
        for (int i = 0; i < 9; ++i) sums[i] = V::fma(value, V::load(x[i / 3] + (w + i % 3) * L), sums[i]);
        sums[9] += value;
        V::store(g + w * L, value);
      }
    }
    if (h == 0) continue;
    // Row h - 1 of dx, from the gradients of rows h - 2 to h, which see the kernel from the other side.
    const float* const rows[3] = {g_row(h - 2), g_row(h - 1), g_row(h)};
    for (int64_t w = 0; w < W; ++w) {
      Reg sum = V::set(0);
      for (int i = 0; i < 9; ++i) sum = V::fma(V::load(rows[i / 3] + (w + i % 3) * L), k[8 - i], sum);
      store_channels<V>(p.dx + cell(h - 1, w), sum, valid);
    }
  }
  for (int i = 0; i < 10; ++i) V::store(dweight + i * L, sums[i]);
}

// Blocks of channels [begin, end) of all images; dweight is [B][blocks][10][lanes].
template <class V>
void depthwise_gradient_blocks(const DepthwiseGradients& p, const float* packed, float* rings, float* dweight, int64_t begin,
                               int64_t end) {
  constexpr int64_t W = V::lanes;
  const int64_t blocks = (p.C + W - 1) / W;
  with_activation(p.activation, [&](auto activation) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = i % blocks, c = block * W, offset = i / blocks * p.H * p.W * p.C + c;
      const float* const weight = packed + block * 10 * W;
      float* const to = dweight + i * 10 * W;
      if (c + W <= p.C)
        depthwise_gradients<V, activation()>(p, offset, weight, rings, to, std::integral_constant<int64_t, W>());
      else depthwise_gradients<V, activation()>(p, offset, weight, rings, to, p.C - c);
    }
  });
}

// Adds the terms of tokens [begin, end) to sums [count][C]. A few tokens are summed in registers first: that is faster, and
// the sums of many tokens lose fewer digits. term(t, c, valid, partial) adds those of a register of channels.
template <class V, int count, class Term>
MMEVM_INLINE void add_terms(int64_t C, float* sums, int64_t begin, int64_t end, Term&& term) {
  constexpr int64_t few = 8;
  for (int64_t t = begin; t < end; t += few)
    for_channels<V>(C, [&](int64_t c, auto valid) {
      typename V::reg partial[count] = {};
      for (int64_t i = t; i < std::min(t + few, end); ++i) term(i, c, valid, partial);
      for (int j = 0; j < count; ++j) add_channels<V>(sums + j * C + c, partial[j], valid);
    });
}

template <class V>
void sum_tokens(const float* x, int64_t C, float* sums, int64_t begin, int64_t end) {
  add_terms<V, 1>(C, sums, begin, end, [&](int64_t t, int64_t c, auto valid, auto& partial) {
    partial[0] += load_channels<V>(x + t * C + c, valid);
  });
}

template <class V>
void sum_squares(const float* x, const float* mean, int64_t C, float* sums, int64_t begin, int64_t end) {
  add_terms<V, 1>(C, sums, begin, end, [&](int64_t t, int64_t c, auto valid, auto& partial) {
    const auto d = load_channels<V>(x + t * C + c, valid) - load_channels<V>(mean + c, valid);
    partial[0] = V::fma(d, d, partial[0]);
  });
}

template <class V>
void normalise(const BatchStatistics& p, const float* scale, const float* shift, int64_t begin, int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    for (int64_t t = begin; t < end; ++t)
      for_channels<V>(p.C, [&](int64_t c, auto valid) {
        const auto x = load_channels<V>(p.x + t * p.C + c, valid);
        const auto y = V::fma(x, load_channels<V>(scale + c, valid), load_channels<V>(shift + c, valid));
        store_channels<V>(p.y + t * p.C + c, activate<activation(), V>(y), valid);
      });
  });
}

// The gradient before the activation.
template <class V, Activation activation, class Valid>
MMEVM_INLINE typename V::reg before_activation(const BatchStatisticsGradients& p, const float* scale, const float* shift,
                                               int64_t t, int64_t c, typename V::reg x, Valid valid) {
  const auto dy = load_channels<V>(p.dy + t * p.C + c, valid);
  if constexpr (activation == Activation::kNone) return dy;
  const auto y = V::fma(x, load_channels<V>(scale + c, valid), load_channels<V>(shift + c, valid));
  if constexpr (activation == Activation::kRelu) return y > 0 ? dy : V::set(0);
  return dy * derivative<activation, V>(y);
}

// To sums [2][C]: of g and of g (x - mean), g being the gradient before the activation.
template <class V>
void sum_batch_gradients(const BatchStatisticsGradients& p, const float* scale, const float* shift, float* sums, int64_t begin,
                         int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    add_terms<V, 2>(p.C, sums, begin, end, [&](int64_t t, int64_t c, auto valid, auto& partial) {
      const auto x = load_channels<V>(p.x + t * p.C + c, valid);
      const auto g = before_activation<V, activation()>(p, scale, shift, t, c, x, valid);
      partial[0] += g;
      partial[1] = V::fma(g, x - load_channels<V>(p.mean + c, valid), partial[1]);
    });
  });
}

// dx = scale (g - means[0] - (x - mean) means[1]).
template <class V>
void batch_gradients(const BatchStatisticsGradients& p, const float* scale, const float* shift, const float* means,
                     int64_t begin, int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    for (int64_t t = begin; t < end; ++t)
      for_channels<V>(p.C, [&](int64_t c, auto valid) {
        const auto x = load_channels<V>(p.x + t * p.C + c, valid);
        const auto g = before_activation<V, activation()>(p, scale, shift, t, c, x, valid);
        const auto d = x - load_channels<V>(p.mean + c, valid);
        const auto centred = g - load_channels<V>(means + c, valid) - d * load_channels<V>(means + p.C + c, valid);
        store_channels<V>(p.dx + t * p.C + c, centred * load_channels<V>(scale + c, valid), valid);
      });
  });
}

// dx of a layer norm from g, the gradient of the normalised row n: (g - mean(g) - n mean(g n)) / deviation.
template <class V, class Gradient>
MMEVM_INLINE void norm_row_gradient(const float* row, const Moments& m, int64_t C, float* dx, Gradient&& gradient) {
  auto sum = V::set(0), product = V::set(0);
  for_channels<V>(C, [&](int64_t c, auto valid) {
    const auto n = (load_channels<V>(row + c, valid) - m.mean) * m.inverse_deviation;
    const auto g = gradient(c, n, valid);  // zero in lanes that are no channels
    sum += g;
    product = V::fma(g, n, product);
    store_channels<V>(dx + c, g, valid);
  });
  const float mean = lane_sum<V>(sum) / C, slope = lane_sum<V>(product) / C;
  for_channels<V>(C, [&](int64_t c, auto valid) {
    const auto n = (load_channels<V>(row + c, valid) - m.mean) * m.inverse_deviation;
    store_channels<V>(dx + c, (load_channels<V>(dx + c, valid) - mean - n * slope) * m.inverse_deviation, valid);
  });
}

// Adds to sums [2][C]: dweight and dbias.
template <class V>
void norm_gate_gradients(const NormGateGradients& p, float* sums, int64_t begin, int64_t end) {
  for_normed<V>(p.x, p.C, p.eps, begin, end, [&](int64_t t, const Moments& m) {
    const int64_t at = t * p.C;
    norm_row_gradient<V>(p.x + at, m, p.C, p.dx + at, [&](int64_t c, typename V::reg n, auto valid) {
      const auto dy = load_channels<V>(p.dy + at + c, valid), z = load_channels<V>(p.gate + at + c, valid);
      const auto weight = load_channels<V>(p.weight + c, valid), s = sigmoid<V>(z);
      const auto y = V::fma(n, weight, load_channels<V>(p.bias + c, valid));
      store_channels<V>(p.dgate + at + c, dy * y * (s + z * s * (1 - s)), valid);
      const auto g = dy * (z * s);
      add_channels<V>(sums + c, g * n, valid);
      add_channels<V>(sums + p.C + c, g, valid);
      return g * weight;
    });
  });
}

// Adds the normalised tokens [begin, end) of image b to sums [C]. `gradient` is [B][C], of each of them.
template <class V>
void norm_mean_gradients(const NormMeanGradients& p, const float* gradient, int64_t b, float* sums, int64_t begin,
                         int64_t end) {
  for_normed<V>(p.x, p.C, p.eps, b * p.tokens + begin, b * p.tokens + end, [&](int64_t t, const Moments& m) {
    const int64_t at = t * p.C;
    norm_row_gradient<V>(p.x + at, m, p.C, p.dx + at, [&](int64_t c, typename V::reg n, auto valid) {
      add_channels<V>(sums + c, n, valid);
      return load_channels<V>(gradient + b * p.C + c, valid);
    });
  });
}

template <class V>
void blend(const Blend& p, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t)
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      const int64_t i = t * p.C + c, of_image = t / p.tokens * p.C + c;
      auto y = p.x ? load_channels<V>(p.x + i, valid) : V::set(0);
      y = V::fma(load_channels<V>(p.a + i, valid), load_channels<V>(p.scale_a + of_image, valid), y);
      if (p.b) y = V::fma(load_channels<V>(p.b + i, valid), load_channels<V>(p.scale_b + of_image, valid), y);
      store_channels<V>(p.y + i, y, valid);
    });
}

// Tokens of image b; adds to sums [2][C]: the gradients of the scales.
template <class V>
void blend_gradients(const BlendGradients& p, int64_t b, float* sums, int64_t begin, int64_t end) {
  const auto one = [&](int64_t i, int64_t c, const float* map, const float* scale, float* gradient, float* sum, auto valid) {
    const auto dy = load_channels<V>(p.dy + i, valid);
    store_channels<V>(gradient + i, dy * load_channels<V>(scale + b * p.C + c, valid), valid);
    add_channels<V>(sum + c, dy * load_channels<V>(map + i, valid), valid);
  };
  for (int64_t t = b * p.tokens + begin; t < b * p.tokens + end; ++t)
    for_channels<V>(p.C, [&](int64_t c, auto valid) {
      one(t * p.C + c, c, p.a, p.scale_a, p.da, sums, valid);
      if (p.b) one(t * p.C + c, c, p.b, p.scale_b, p.db, sums + p.C, valid);
    });
}

// `rows` rows of dweight, `panels` registers of each: sums over `count` tokens of dy x^T.
template <class V, int rows, int panels>
MMEVM_INLINE void add_products(const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t count, float* to,
                               int64_t to_stride, int64_t valid) {
  typename V::reg sums[rows][panels] = {};
  for (int64_t t = 0; t < count; ++t) {
    typename V::reg v[panels];
    for (int j = 0; j < panels; ++j) v[j] = load_channels<V>(x + t * x_stride + j * V::lanes, valid - j * V::lanes);
    for (int r = 0; r < rows; ++r) {
      const auto factor = V::set(dy[t * dy_stride + r]);
      for (int j = 0; j < panels; ++j) sums[r][j] = V::fma(factor, v[j], sums[r][j]);
    }
  }
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < panels; ++j) {
      const int64_t left = valid - j * V::lanes;
      add_channels<V>(to + r * to_stride + j * V::lanes, sums[r][j], left);
    }
}

template <class V, int panels>
MMEVM_INLINE void add_product_panels(const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t out,
                                     int64_t count, float* to, int64_t to_stride, int64_t valid) {
  constexpr int rows = V::lanes == 16 ? 8 : 4;
  int64_t r = 0;
  for (; r + rows <= out; r += rows)
    add_products<V, rows, panels>(dy + r, dy_stride, x, x_stride, count, to + r * to_stride, to_stride, valid);
  for (; r < out; ++r) add_products<V, 1, panels>(dy + r, dy_stride, x, x_stride, count, to + r * to_stride, to_stride, valid);
}

// Adds dy x^T of `count` tokens at the strides to sums [out][in].
template <class V>
void project_gradient(const float* dy, int64_t dy_stride, const float* x, int64_t x_stride, int64_t out, int64_t in,
                      int64_t count, float* sums) {
  constexpr int64_t group = 3 * V::lanes;
  int64_t d = 0;
  for (; d + group <= in; d += group)
    add_product_panels<V, 3>(dy, dy_stride, x + d, x_stride, out, count, sums + d, in, group);
  for (; d < in; d += V::lanes) add_product_panels<V, 1>(dy, dy_stride, x + d, x_stride, out, count, sums + d, in, in - d);
}
