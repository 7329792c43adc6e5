// Checks of shapes and routes, for every host and device. They throw std::invalid_argument, which PyTorch's Python sees as
// ValueError. mmevm/ops/checks.py says the same in Python, where most users meet them first.
#pragma once

#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "scan.h"

namespace mmevm {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message(std::ios_base::out);  // the default constructor is newer than manylinux_2_28
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// Sizes of an array; of an absent one, null.
struct Shape {
  const int64_t* sizes = nullptr;
  int64_t dims = 0;

  int64_t operator[](int i) const { return sizes[i]; }
};

// ``delta` must have shape [B, D, L] = [2, 96, 49], got [2, 96, 50]`, unless it is absent.
void check_shape(Shape shape, const char* name, const char* dims, std::initializer_list<int64_t> expected);

SequenceSize check_sequence(Shape u, Shape delta, Shape A, Shape Bs, Shape Cs, Shape Ds, Shape delta_bias);
MapSize check_map(Shape x, Shape x_dbl, Shape dt_weight, Shape dt_bias, Shape A, Shape Ds);

// The routes of a visual scan.
struct Routes {
  std::vector<Route> list;
  bool overlap = false;   // some cell is visited twice: results are sums
  bool complete = false;  // every cell is visited

  int64_t size() const { return int64_t(list.size()); }
};

// From the operator's flat list of six integers for each route.
Routes parse_routes(const int64_t* flat, size_t count, int64_t step, const MapSize& size);

// Tokens of every route, those past the map's edge among them.
inline int64_t route_length(const MapSize& size, int64_t step) {
  return ceil_div(size.H, step) * ceil_div(size.W, step);
}

}  // namespace mmevm
