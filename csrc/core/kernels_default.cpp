// The kernels for any processor, and the float64 ones.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels.h"

namespace mmevm {
namespace {
#define MMEVM_LANES 4
#include "entry_points.h"

constexpr Kernels<float> table = make_table<Vec<float>>();
constexpr PassTables pass_tables = make_pass_tables();
constexpr Kernels<double> table_double = make_table<Vec<double>>();
}  // namespace

const Kernels<float>* const kernels_default = &table;
const PassTables* const passes_default = &pass_tables;
const Kernels<double>* const kernels_double = &table_double;
}  // namespace mmevm
