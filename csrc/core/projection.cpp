#include "projection.h"

#include <algorithm>

#include "kernels.h"

namespace mmevm {
namespace {

constexpr size_t kLine = 64;
constexpr int64_t kCells = 48;  // of one phase, that a task projects at most

template <class T>
int64_t packed_size(const ProjectionParams<T>& p) {
  const int64_t lanes = kernels<T>().lanes;
  return ceil_div(p.M, lanes) * lanes * p.D;
}

// M rows of D weights to [ceil(M / lanes)][D][lanes], with zeros behind the last row.
template <class T>
void pack(const ProjectionParams<T>& p, int64_t set, T* packed) {
  const int64_t lanes = kernels<T>().lanes;
  std::fill_n(packed, packed_size(p), T(0));
  for (int64_t m = 0; m < p.M; ++m) {
    const T* row = p.weight + (set * p.M + m) * p.D;
    T* const to = packed + m / lanes * p.D * lanes + m % lanes;
    for (int64_t d = 0; d < p.D; ++d) to[d * lanes] = row[d];
  }
}

template <class T>
struct Rows {
  const ProjectionParams<T>& p;
  const T* packed;
  int64_t packed_size;

  // A part of a row of an image, phase by phase.
  static void project_part(void* argument, int64_t task) {
    const Rows& self = *static_cast<const Rows*>(argument);
    const auto& p = self.p;
    const int64_t i = task / self.parts, first = task % self.parts * kCells * p.step;
    const int64_t slots = p.slots->per_cell, row = i % p.H % p.step;
    for (int64_t col = 0; col < std::min(p.step, p.W - first); ++col) {
      const int64_t phase = row * p.step + col, cell = i * p.W + first + col;
      const int64_t count = std::min(kCells, ceil_div(p.W - first - col, p.step));
      for (size_t j = 0; j < p.slots->sets[phase].size(); ++j) {
        const T* packed = self.packed + (phase * slots + j) * self.packed_size;
        T* const to = p.x_dbl + (cell * slots + j) * p.M;
        const int64_t from = cell * p.D, x_stride = p.step * p.D, stride = p.step * slots * p.M;
        if (p.half_x) kernels<T>().project_half(p.half_x + from, x_stride, packed, p.D, p.M, to, stride, count);
        else kernels<T>().project(p.x + from, x_stride, packed, p.D, p.M, to, stride, count);
      }
    }
  }

  int64_t parts = ceil_div(ceil_div(p.W, p.step), kCells);
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
size_t projection_workspace(const ProjectionParams<T>& p) {
  return p.slots->per_cell * p.step * p.step * packed_size(p) * sizeof(T) + kLine;
}

template <class T>
void project(const ProjectionParams<T>& p, const Host& host, void* workspace) {
  T* const packed = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(workspace) + kLine - 1) / kLine * kLine);
  const int64_t size = packed_size(p);
  for (size_t phase = 0; phase < p.slots->sets.size(); ++phase)
    for (size_t j = 0; j < p.slots->sets[phase].size(); ++j)
      pack(p, p.slots->sets[phase][j], packed + (phase * p.slots->per_cell + j) * size);
  Rows<T> rows{p, packed, size};
  host.parallel_for(host.pool, p.B * p.H * rows.parts, &Rows<T>::project_part, &rows);
}

#define MMEVM_INSTANTIATE(T)                                         \
  template size_t projection_workspace(const ProjectionParams<T>&); \
  template void project(const ProjectionParams<T>&, const Host&, void*);
MMEVM_INSTANTIATE(float)
MMEVM_INSTANTIATE(double)

}  // namespace mmevm
