// The kernels for x86-64 with AVX2 and FMA.

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
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace mmevm {
namespace {
#define MMEVM_LANES 8
#include "entry_points.h"

constexpr Kernels<float> table = make_table<Vec<float>>();
constexpr PassTables pass_tables = make_pass_tables();
}  // namespace

const Kernels<float>* const kernels_avx2 = &table;
const PassTables* const passes_avx2 = &pass_tables;
}  // namespace mmevm

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
