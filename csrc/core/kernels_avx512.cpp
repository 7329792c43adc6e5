// The kernels for x86-64 with AVX-512 (F, BW, DQ, VL).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels.h"

#ifdef __x86_64__
#include <immintrin.h>

// Selected here rather than by a compiler flag, so that the headers above are compiled for every processor.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#endif

namespace mmevm {
namespace {
#define MMEVM_LANES 16
#define MMEVM_AVX512
#include "entry_points.h"

constexpr Kernels<float> table = make_table<Vec<float>>();
constexpr PassTables pass_tables = make_pass_tables();
}  // namespace

const Kernels<float>* const kernels_avx512 = &table;
const PassTables* const passes_avx512 = &pass_tables;
}  // namespace mmevm

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
