// The scan of a map that projects its cells itself, to what the scan reads: low-rank time steps, B and C.
#pragma once

#include <vector>

#include "checks.h"

namespace mmevm {

// A cell is projected for the routes of its own phase alone. What is kept of a cell are its slots; a route's `projection`
// is a slot then, and the sets of weights stand here.
struct Slots {
  int64_t per_cell = 1;
  std::vector<std::vector<int64_t>> sets;  // by phase: row * step + column
};

// Renumbers the projections of the routes, which name sets of weights, to slots.
Slots assign_slots(std::vector<Route>& routes, int64_t step);

template <class T>
size_t projected_workspace(MapParams<T> params, const Slots& slots, int threads);

// As `run` in scan.h, forward. `x_proj` is [sets, R + 2N, D]; P and x_dbl of the parameters are not read.
template <class T>
void run_projected(MapParams<T> params, const Slots& slots, const T* x_proj, const Host& host, void* workspace);

}  // namespace mmevm
