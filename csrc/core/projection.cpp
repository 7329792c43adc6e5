#include "projection.h"

#include <algorithm>

#include "kernels.h"
#include "tasks.h"
#include "workspace.h"

namespace mmevm {
namespace {

constexpr int64_t kCells = 24;  // of one phase, that a task projects at most; 24, 12 or 8 are projected at once

template <class T>
struct Projection {
  const MapParams<T>& p;
  const Slots& slots;
  T* packed;  // the sets of weights, by phase and slot
  T* x_dbl;   // [B, H, W, slots per cell, M]; slots that a phase does not have are left as they are

  const int64_t M = p.R + 2 * p.N;
  const int64_t lanes = kernels<T>().lanes;
  const int64_t set_size = ceil_div(M, lanes) * lanes * p.D;
  const int64_t parts = ceil_div(ceil_div(p.W, p.step), kCells);  // of a row

  size_t packed_bytes() const { return slots.sets.size() * slots.per_cell * set_size * sizeof(T) + kAlignment; }
  size_t x_dbl_bytes() const { return p.B * p.H * p.W * slots.per_cell * M * sizeof(T) + kAlignment; }

  T* packed_set(size_t phase, size_t slot) const { return packed + (phase * slots.per_cell + slot) * set_size; }

  // How many sets one product projects to, from this slot on: those that lie one after the other in memory are one matrix,
  // of which fewer lanes are wasted. None where an earlier slot's product does.
  int64_t joined(int64_t phase, int64_t slot) const {
    const auto& sets = slots.sets[phase];
    const auto continues = [&](int64_t j) { return sets[j] == sets[j - 1] + 1; };
    const int64_t end = sets.size();
    if (slot >= end || (slot > 0 && continues(slot))) return 0;
    int64_t next = slot + 1;
    while (next < end && continues(next)) ++next;
    return next - slot;
  }

  // A panel of the weights of a product.
  void pack(const T* x_proj, int64_t task, int64_t panels) const {
    const int64_t first = task % panels * lanes, phase = task / panels / slots.per_cell, slot = task / panels % slots.per_cell;
    const int64_t rows = joined(phase, slot) * M;
    if (first >= rows) return;
    const T* const weight = x_proj + slots.sets[phase][slot] * M * p.D;
    kernels<T>().pack(weight + first * p.D, std::min(lanes, rows - first), p.D, packed_set(phase, slot) + first * p.D);
  }

  // A part of a row of an image, phase by phase.
  void project_part(int64_t task) const {
    const int64_t i = task / parts, first = task % parts * kCells * p.step;
    const int64_t per_cell = slots.per_cell, row = i % p.H % p.step;
    for (int64_t col = 0; col < std::min(p.step, p.W - first); ++col) {
      const int64_t phase = row * p.step + col, cell = i * p.W + first + col;
      const int64_t count = std::min(kCells, ceil_div(p.W - first - col, p.step));
      for (int64_t j = 0, sets; (sets = joined(phase, j)) > 0; j += sets) {
        const T* weight = packed_set(phase, j);
        T* const to = x_dbl + (cell * per_cell + j) * M;
        const int64_t from = cell * p.D, x_stride = p.step * p.D, stride = p.step * per_cell * M;
        if (p.half_x) kernels<T>().project_half(p.half_x + from, x_stride, weight, p.D, sets * M, to, stride, count);
        else kernels<T>().project(p.x + from, x_stride, weight, p.D, sets * M, to, stride, count);
      }
    }
  }

  void run(const T* x_proj, const Host& host) const {
    const int64_t products = slots.sets.size() * slots.per_cell, panels = ceil_div(slots.per_cell * M, lanes);
    for_tasks(host, products * panels, [&](int64_t, int64_t task) { pack(x_proj, task, panels); });
    for_tasks(host, p.B * p.H * parts, [&](int64_t, int64_t task) { project_part(task); });
  }
};

}  // namespace

Slots assign_slots(std::vector<Route>& routes, int64_t step) {
  Slots found;
  found.sets.resize(step * step);
  for (Route& route : routes) {
    auto& sets = found.sets[route.row * step + route.col];
    const auto known = std::find(sets.begin(), sets.end(), route.projection);
    const int64_t slot = known - sets.begin();
    if (known == sets.end()) sets.push_back(route.projection);
    route.projection = slot;
    found.per_cell = std::max(found.per_cell, slot + 1);
  }
  return found;
}

template <class T>
size_t projected_workspace(MapParams<T> p, const Slots& slots, int threads) {
  p.P = slots.per_cell;
  const Projection<T> projection{p, slots, nullptr, nullptr};
  const size_t scan = make_plan(p, Direction::kForward, threads).workspace_bytes();
  return projection.x_dbl_bytes() + std::max(projection.packed_bytes(), scan);
}

template <class T>
void run_projected(MapParams<T> p, const Slots& slots, const T* x_proj, const Host& host, void* workspace) {
  p.P = slots.per_cell;
  Projection<T> projection{p, slots, nullptr, aligned<T>(workspace)};
  void* const rest = static_cast<char*>(workspace) + projection.x_dbl_bytes();
  projection.packed = aligned<T>(rest);
  projection.run(x_proj, host);
  p.x_dbl = projection.x_dbl;
  run(p, make_plan(p, Direction::kForward, host.threads), host, rest);
}

#define MMEVM_INSTANTIATE(T)                                              \
  template size_t projected_workspace(MapParams<T>, const Slots&, int); \
  template void run_projected(MapParams<T>, const Slots&, const T*, const Host&, void*);
MMEVM_INSTANTIATE(float)
MMEVM_INSTANTIATE(double)

}  // namespace mmevm
