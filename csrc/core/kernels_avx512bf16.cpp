// The passes over maps of BFloat16 for x86-64 with AVX-512 (F, BW, DQ, VL, BF16): products take two terms of a sum at once.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

// As in kernels_avx512.cpp.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx512bf16,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx512bf16,avx2,fma")
#endif

namespace mmevm {
namespace {
#define MMEVM_LANES 16
#define MMEVM_AVX512
#define MMEVM_AVX512BF16
#include "entry_points.h"

// Two neighbours in BFloat16 in the place of each float, for products alone: only `load`, `set`, `fma` and, of sums, `store`
// are of use.
struct Pair {
  BFloat16 low, high;
};

MMEVM_INLINE int32_t value_of(Pair pair) {
  int32_t bits;
  __builtin_memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

struct Pairs : Vec<float> {
  using Vec<float>::load;
  static MMEVM_INLINE reg load(const Pair* p) {
    reg r;
    __builtin_memcpy(&r, p, sizeof(r));
    return r;
  }
  static MMEVM_INLINE reg set(int32_t pair) { return (reg)_mm512_set1_epi32(pair); }
  static MMEVM_INLINE reg fma(reg a, reg b, reg sum) {
    return (reg)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};

struct PairProduct {
  static const Pair* pairs(const BFloat16* x) { return reinterpret_cast<const Pair*>(x); }

  static void pack(const BFloat16* weight, int64_t rows, int64_t in, float* packed) {
    if (in % 2) Product<Vec<float>>::pack(weight, rows, in, packed);
    else pack_panels<Pairs>(pairs(weight), rows, in / 2, packed);
  }

  static void run(const BFloat16* x, const float* packed, int64_t in, int64_t out, float* y, int64_t y_stride, int64_t count) {
    if (in % 2) Product<Vec<float>>::run(x, packed, in, out, y, y_stride, count);
    else project<Pairs, Pair, float>(pairs(x), in / 2, packed, in / 2, out, y, y_stride, count);
  }
};

constexpr Passes<BFloat16> make_half() {
  Passes<BFloat16> passes = make_passes<Vec<float>, BFloat16>();
  passes.linear = &linear<Vec<float>, PairProduct, BFloat16>;
  return passes;
}

constexpr Passes<BFloat16> table = make_half();
}  // namespace

const Passes<BFloat16>* const half_avx512bf16 = &table;
}  // namespace mmevm

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
