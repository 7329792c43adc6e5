// The projection of a map's cells to what their scans read: low-rank time steps, B and C.
#pragma once

#include <vector>

#include "checks.h"

namespace mmevm {

// A cell is projected for the routes of its own phase alone. What `x_dbl` holds of a cell are its slots; a route's
// `projection` is a slot then, and the sets of weights stand here.
struct Slots {
  int64_t per_cell = 1;
  std::vector<std::vector<int64_t>> sets;  // by phase: row * step + column
};

// Renumbers the projections of the routes, which name sets of weights, to slots.
Slots assign_slots(std::vector<Route>& routes, int64_t step);

template <class T>
struct ProjectionParams {
  int64_t B, H, W, D, M, step;
  const Slots* slots;
  const T* x;       // [B, H, W, D]
  const BFloat16* half_x;  // if it is not null, the map instead of x
  const T* weight;  // [sets, M, D]
  T* x_dbl;         // [B, H, W, slots per cell, M]; slots that a phase does not have are left as they are
};

template <class T>
size_t projection_workspace(const ProjectionParams<T>& params);

// As `run` in scan.h.
template <class T>
void project(const ProjectionParams<T>& params, const Host& host, void* workspace);

}  // namespace mmevm
