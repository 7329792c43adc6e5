// One route of a visual scan.
#pragma once

#include <cstdint>

namespace mmevm {

// Which cells of the map a route visits, in which order, with which parameters. mmevm/ops/routes.py describes the fields;
// their order here is the order of the operator's flat list of integers.
struct Route {
  int64_t row, col;      // first cell; the others follow at multiples of the step
  bool column_major;     // down the columns instead of along the rows
  bool reverse;          // from the last token to the first
  int64_t parameters;    // index into A, Ds, dt_weight, dt_bias
  int64_t projection;    // index into x_dbl's fourth dimension
};

}  // namespace mmevm
