// The table of entry points that each instruction set fills in.
#pragma once

#include "scan.h"

namespace mmevm {

// One task: `routes` (groups, for a sequence) starting at `route` of image `batch`, channel blocks [block, block_end).
struct Task {
  int64_t batch, route, routes, block, block_end, split;
};

template <class Params>
struct Entry {
  // Elements of scratch that a task of so many blocks needs.
  int64_t (*scratch)(const Params&, Direction, int64_t blocks);
  void (*run)(const Params&, Direction, const Task&, void* scratch);
};

template <class T>
struct Kernels {
  int lanes;
  Entry<SequenceParams<T>> sequence;
  Entry<MapParams<T>> map;
};

// Defined in kernels_<isa>.cpp; the x86 tables are null on other machines.
extern const Kernels<float>* const kernels_default;
extern const Kernels<float>* const kernels_avx2;
extern const Kernels<float>* const kernels_avx512;
extern const Kernels<double>* const kernels_double;

}  // namespace mmevm
