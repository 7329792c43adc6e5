// Reads and checks the routes of a visual scan.
#pragma once

#include <ATen/ATen.h>

#include <set>
#include <utility>
#include <vector>

#include "route.h"

namespace mmevm {

struct Routes {
  std::vector<Route> list;
  bool overlap = false;   // some cell is visited twice: results are sums
  bool complete = false;  // every cell is visited
};

inline Routes parse_routes(at::IntArrayRef flat, int64_t step, int64_t parameter_sets, int64_t projections) {
  TORCH_CHECK_VALUE(step >= 1, "`step` must be at least 1, got ", step);
  TORCH_CHECK_VALUE(!flat.empty() && flat.size() % 6 == 0, "`routes` must hold 6 integers per route, got ", flat.size());
  Routes routes;
  std::set<std::pair<int64_t, int64_t>> phases;
  for (size_t i = 0; i < flat.size(); i += 6) {
    const Route r{flat[i], flat[i + 1], flat[i + 2] != 0, flat[i + 3] != 0, flat[i + 4], flat[i + 5]};
    TORCH_CHECK_VALUE(r.row >= 0 && r.row < step && r.col >= 0 && r.col < step,
                      "a route must start inside the first ", step, " x ", step, " cells, got (", r.row, ", ", r.col, ")");
    TORCH_CHECK_VALUE(r.parameters >= 0 && r.parameters < parameter_sets, "a route's parameter set must be below K = ",
                      parameter_sets, ", got ", r.parameters);
    TORCH_CHECK_VALUE(r.projection >= 0 && r.projection < projections, "a route's projection must be below P = ",
                      projections, ", got ", r.projection);
    routes.overlap |= !phases.emplace(r.row, r.col).second;
    routes.list.push_back(r);
  }
  routes.complete = int64_t(phases.size()) == step * step;
  return routes;
}

// Sums the routes' gradients [routes, ...] into the K parameter sets.
inline at::Tensor sum_by_parameters(const at::Tensor& per_route, const Routes& routes, int64_t parameter_sets) {
  const int64_t n = routes.list.size();
  bool same = n == parameter_sets;
  for (int64_t i = 0; i < n; ++i) same = same && routes.list[i].parameters == i;
  if (same) return per_route;
  auto shape = per_route.sizes().vec();
  shape[0] = parameter_sets;
  const at::Tensor sum = at::zeros(shape, per_route.options());
  for (int64_t i = 0; i < n; ++i) sum[routes.list[i].parameters].add_(per_route[i]);
  return sum;
}

}  // namespace mmevm
