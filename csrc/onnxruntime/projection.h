// Projection of a map's cells: a matrix product, for the widths that scans have.
#pragma once

#include <cstdint>
#include <vector>

namespace mmevm {

constexpr int kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4)));

// M rows of D weights, transposed to [M / kLanes][D][kLanes] with zeros behind the last row.
inline void pack(const float* weight, int64_t M, int64_t D, float* packed) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t d = 0; d < D; ++d) packed[(m / kLanes * D + d) * kLanes + m % kLanes] = weight[m * D + d];
}

inline int64_t packed_size(int64_t M, int64_t D) { return (M + kLanes - 1) / kLanes * kLanes * D; }

template <int rows>
inline __attribute__((always_inline)) void project_rows(
    const float* x, int64_t x_stride, const float* packed, int64_t M, int64_t D, float* y, int64_t y_stride) {
  for (int64_t m = 0; m < M; m += kLanes, packed += D * kLanes) {
    Lanes sums[rows] = {};
    for (int64_t d = 0; d < D; ++d) {
      const Lanes w = *reinterpret_cast<const Lanes*>(packed + d * kLanes);
      for (int r = 0; r < rows; ++r) sums[r] += x[r * x_stride + d] * w;
    }
    const int64_t width = M - m < kLanes ? M - m : kLanes;
    for (int r = 0; r < rows; ++r)
      for (int64_t j = 0; j < width; ++j) y[r * y_stride + m + j] = sums[r][j];
  }
}

// y[c] = weight . x[c] for `count` cells at the strides, on the best instructions of this processor.
#ifdef __x86_64__
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
inline void project(const float* x, int64_t x_stride, const float* packed, int64_t M, int64_t D, float* y,
                    int64_t y_stride, int64_t count) {
  constexpr int kRows = 6;
  int64_t c = 0;
  for (; c + kRows <= count; c += kRows)
    project_rows<kRows>(x + c * x_stride, x_stride, packed, M, D, y + c * y_stride, y_stride);
  for (; c < count; ++c) project_rows<1>(x + c * x_stride, x_stride, packed, M, D, y + c * y_stride, y_stride);
}

}  // namespace mmevm
