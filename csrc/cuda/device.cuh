// Device functions that every kernel shares: conversions, softplus, sums over the lanes of a warp.
#pragma once

#include <type_traits>

#include "params.h"
#include "runtime.cuh"

namespace mmevm::cuda {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(__half v) { return __half2float(v); }
__device__ __forceinline__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }

__device__ __forceinline__ void assign(float& to, float v) { to = v; }
__device__ __forceinline__ void assign(__half& to, float v) { to = __float2half_rn(v); }
__device__ __forceinline__ void assign(__nv_bfloat16& to, float v) { to = __float2bfloat16_rn(v); }

template <class T>
__device__ __forceinline__ float load(const void* from, int64_t i) {
  return to_float(static_cast<const T*>(from)[i]);
}

// Element `i` of those that lie `stride` elements apart from `first`. A multiplication of 32 bits by 32, where an index of
// 64 bits would take a chain of them.
template <class T>
__device__ __forceinline__ T* element(T* first, int i, int stride) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + uint64_t(unsigned(i)) * unsigned(stride * sizeof(T)));
}

__device__ __forceinline__ void load4(const float* from, float (&v)[4]) {
  const float4 all = *reinterpret_cast<const float4*>(from);
  v[0] = all.x, v[1] = all.y, v[2] = all.z, v[3] = all.w;
}

// max(x, 0) + log1p(exp(-|x|)), to a relative 1e-6. The polynomial is log1p(t) / t on [0, 1], fitted for the least relative
// error; the special-function unit's logarithm would lose the small values, which time steps are.
__device__ __forceinline__ float softplus(float x) {
  const float t = exp2_approx(-kLog2e * fabsf(x));
  float v = 0.00523268804f;
  v = fmaf(v, t, -0.0295052137f);
  v = fmaf(v, t, 0.0782259107f);
  v = fmaf(v, t, -0.136632428f);
  v = fmaf(v, t, 0.191060051f);
  v = fmaf(v, t, -0.24842982f);
  v = fmaf(v, t, 0.333190978f);
  v = fmaf(v, t, -0.499994934f);
  v = fmaf(v, t, 0.99999994f);
  return fmaf(v, t, fmaxf(x, 0.f));
}

// Derivative of softplus, from its value v: 1 - exp(-v), by its series where the difference would cancel.
__device__ __forceinline__ float softplus_slope(float v) {
  const float series = v * fmaf(v, fmaf(v, fmaf(v, fmaf(v, 1.f / 120, -1.f / 24), 1.f / 6), -0.5f), 1.f);
  return v < 0.25f ? series : 1.f - exp2_approx(-kLog2e * v);
}

// Fills a thread's column of shared memory, [kCount][blockDim.x][kWidth], with the first `count` of values that lie a
// stride apart, and with zeros. Running pointers take a third of the instructions that indices of 64 bits do.
template <int kCount, int kWidth = 1>
__device__ __forceinline__ void load_column(float* to, const float* from, int stride, int count) {
#pragma unroll (kCount < 8 ? kCount : 8)
  for (int n = 0; n < kCount; ++n, to += kWidth * blockDim.x, from += stride) *to = n < count ? *from : 0.f;
}

// The inverse; the array's other values stay.
template <int kCount, int kWidth = 1>
__device__ __forceinline__ void store_column(float* to, int stride, const float* from, int count) {
#pragma unroll (kCount < 8 ? kCount : 8)
  for (int n = 0; n < kCount; ++n, to += stride, from += kWidth * blockDim.x)
    if (n < count) *to = *from;
}

// Exchanges halves of 2 * kHalf values between lanes that differ in one bit, and adds what both have left.
template <int kHalf>
__device__ __forceinline__ void halve(float (&v)[kTile], int lane) {
  const bool upper = lane & (2 * kHalf);
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float send = upper ? v[i] : v[i + kHalf], keep = upper ? v[i + kHalf] : v[i];
    v[i] = keep + __shfl_xor_sync(kAllLanes, send, 2 * kHalf);
  }
}

// Sums each of 16 values over the lanes of equal parity; lane l gets that of value l / 2. Every exchange halves the
// number of values a lane still carries, so that 15 do instead of 16 times 4.
__device__ __forceinline__ float transpose_sum(float (&v)[kTile], int lane) {
  static_assert(kTile == 16, "four halvings");
  halve<8>(v, lane);
  halve<4>(v, lane);
  halve<2>(v, lane);
  halve<1>(v, lane);
  return v[0];
}

// Completes two transpose_sums with one exchange: even lanes get the sum of `a`, odd lanes that of `b`.
__device__ __forceinline__ float pair_sum(float a, float b, int lane) {
  const bool odd = lane & 1;
  const float other = __shfl_xor_sync(kAllLanes, odd ? a : b, 1);
  return (odd ? b : a) + other;
}

}  // namespace mmevm::cuda
