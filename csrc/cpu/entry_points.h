// The table of entry points of one instruction set. Include inside its anonymous namespace.
//
// No include guard on purpose, see vec.h.

#include "vec.h"

#include "scan_tile.h"

#include "scan_driver.h"

#include "sequence_source.h"

#include "map_source.h"

template <class V>
void sequence_forward(const SequenceParams<typename V::scalar>& p, const Task& task) {
  SequenceSource<V> src(p, task);
  scan_forward<V>(src);
}

template <class V>
void sequence_backward(const SequenceParams<typename V::scalar>& p, const Task& task) {
  SequenceSource<V> src(p, task);
  scan_backward<V>(src);
}

// Routes that share cells run one after the other inside a task, so that no two threads add to the same cell.
template <class V>
void map_forward(const MapParams<typename V::scalar>& p, Task task) {
  for (const int64_t end = task.route + task.routes; task.route < end; ++task.route) {
    MapSource<V> src(p, task);
    scan_forward<V>(src);
  }
}

template <class V>
void map_backward(const MapParams<typename V::scalar>& p, Task task) {
  for (const int64_t end = task.route + task.routes; task.route < end; ++task.route) {
    MapSource<V> src(p, task);
    scan_backward<V>(src);
  }
}

template <class V>
constexpr Kernels<typename V::scalar> make_table() {
  return {V::lanes, &sequence_forward<V>, &sequence_backward<V>,
          [](const MapParams<typename V::scalar>& p, const Task& task) { map_forward<V>(p, task); },
          [](const MapParams<typename V::scalar>& p, const Task& task) { map_backward<V>(p, task); }};
}
