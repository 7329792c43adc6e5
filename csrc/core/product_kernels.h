// Products of tokens with weights, [tokens, D] times [M, D] transposed: the projection of a scan, and linear layers.
// Weights are packed: [panels][D][lanes], zeros behind M, so that a register holds one column of as many rows.
//
// No include guard on purpose, see vec.h.

template <class T>
MMEVM_INLINE T value_of(T x) {
  return x;
}

template <class V, int rows, int panels, class Data, class T>
MMEVM_INLINE void multiply_rows(const Data* x, int64_t x_stride, const T* packed, int64_t D, int64_t M, T* y, int64_t y_stride) {
  typename V::reg sums[rows][panels] = {};
  for (int64_t d = 0; d < D; ++d) {
    typename V::reg w[panels];
    for (int j = 0; j < panels; ++j) w[j] = V::load(packed + (j * D + d) * V::lanes);
    for (int r = 0; r < rows; ++r) {
      const auto v = V::set(value_of(x[r * x_stride + d]));
      for (int j = 0; j < panels; ++j) sums[r][j] = V::fma(v, w[j], sums[r][j]);
    }
  }
  // Unrolled, or else all sums would be zeroed and stored in memory first.
#pragma GCC unroll 24
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 3
    for (int j = 0; j < panels; ++j)
      if (j * V::lanes < M) store_channels<V>(y + r * y_stride + j * V::lanes, sums[r][j], M - j * V::lanes);
}

// So many rows at once as long as there are, then half as many.
template <class V, int rows, int panels, class Data, class T>
void multiply_panels(const Data* x, int64_t x_stride, const T* packed, int64_t D, int64_t M, T* y, int64_t y_stride,
                     int64_t count) {
  int64_t r = 0;
  for (; r + rows <= count; r += rows)
    multiply_rows<V, rows, panels>(x + r * x_stride, x_stride, packed, D, M, y + r * y_stride, y_stride);
  if constexpr (rows > 1)
    multiply_panels<V, rows / 2, panels>(x + r * x_stride, x_stride, packed, D, M, y + r * y_stride, y_stride, count - r);
}

// y[r][m] = weight[m] . x[r], by as many sums as there are registers for: 32 with AVX-512, otherwise 16.
template <class V, class Data, class T>
void project(const Data* x, int64_t x_stride, const T* packed, int64_t D, int64_t M, T* y, int64_t y_stride, int64_t count) {
  constexpr int sums = V::lanes * sizeof(T) == 64 ? 24 : 12;
  constexpr int64_t group = kPanels * V::lanes;
  for (; M > 2 * V::lanes; M -= group, y += group, packed += group * D)
    multiply_panels<V, sums / 3, 3>(x, x_stride, packed, D, M, y, y_stride, count);
  if (M > V::lanes) multiply_panels<V, sums / 2, 2>(x, x_stride, packed, D, M, y, y_stride, count);
  else if (M > 0) multiply_panels<V, sums, 1>(x, x_stride, packed, D, M, y, y_stride, count);
}

// The product of a linear layer in floats; weights of BFloat16 are converted where they are packed.
template <class V>
struct Product {
  template <class Data>
  static void pack(const Data* weight, int64_t rows, int64_t in, float* packed) {
    pack_panels<V>(weight, rows, in, packed);
  }

  template <class Data>
  static void run(const Data* x, const float* packed, int64_t in, int64_t out, float* y, int64_t y_stride, int64_t count) {
    project<V, Data, float>(x, in, packed, in, out, y, y_stride, count);
  }
};

// Writes tokens [begin, end), channels [first, last) of the result, of the products in `sums` at the stride.
template <class V, class Data>
void finish_linear(const LinearParams<Data>& p, const float* scale, const float* shift, const float* sums, int64_t stride,
                   int64_t first, int64_t last, int64_t begin, int64_t end) {
  with_activation(p.activation, [&](auto activation) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t c = first; c < last; c += V::lanes) {
        const int64_t valid = last - c, i = t * p.out + c;
        auto v = load_channels<V>(sums + (t - begin) * stride + c - first, valid);
        if (scale) v = V::fma(v, load_channels<V>(scale + c, valid), load_channels<V>(shift + c, valid));
        v = activate<activation(), V>(v);
        if (p.residual) v += load_channels<V>(p.residual + i, valid);
        store_channels<V>(p.y + i, v, valid);
      }
  });
}

// Output channels [first, last) of tokens [begin, end). `packed` holds their weights. What follows the product is done for a
// few tokens at a time, which the first cache still has.
template <class V, class Product, class Data>
void linear(const LinearParams<Data>& p, const float* scale, const float* shift, float* packed, int64_t first, int64_t last,
            int64_t begin, int64_t end) {
  constexpr int64_t few = 24, width = kPanels * V::lanes;
  float tile[few * width];
  Product::pack(p.weight + first * p.in, last - first, p.in, packed);
  for (int64_t t = begin; t < end; t += few) {
    const int64_t until = std::min(t + few, end);
    float* sums = tile;
    int64_t stride = width;
    if constexpr (std::is_same_v<Data, float>) sums = p.y + t * p.out + first, stride = p.out;
    Product::run(p.x + t * p.in, packed, p.in, last - first, sums, stride, until - t);
    if (scale || sums == tile) finish_linear<V>(p, scale, shift, sums, stride, first, last, t, until);
  }
}
