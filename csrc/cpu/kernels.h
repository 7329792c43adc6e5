// What the CPU launchers hand to the kernels: plain structs of sizes and pointers, and one table of entry points for
// each instruction set. Kernels see no ATen header, so that nothing they inline can leak into other translation units.
#pragma once

#include <cstdint>

#include "../chunk.h"
#include "../route.h"

namespace mmevm {

// One task: `routes` (groups, for a sequence) starting at `route` of image `batch`, channel blocks [block, block_end).
struct Task {
  int64_t batch, route, routes, block, block_end, split;
};

// All arrays are contiguous. Optional inputs and outputs are null when absent.
template <class T>
struct SequenceParams {
  int64_t B, D, L, N, G;
  bool delta_softplus;
  const T *x, *delta;         // [B, D, L], x being u
  const T* A;                 // [D, N]
  const T *Bs, *Cs;           // [B, G, N, L]
  const T *Ds, *delta_bias;   // [D]
  T* states;                  // [B, G, chunks, N, D / G], the state before each chunk; written forward, read backward
  T *y, *last_state;          // [B, D, L], [B, D, N]
  const T *dy, *dlast_state;  // as y, last_state
  T *dx, *ddelta;             // [B, D, L]
  T* dA;                      // [B, D, N]
  T *dBs, *dCs;               // [splits, B, G, N, L]
  T *dDs, *ddelta_bias;       // [B, D]
};

template <class T>
struct MapParams {
  int64_t B, H, W, D, N, R, K, P, step;
  bool accumulate;            // routes share cells: outputs start at zero and are added to
  const Route* routes;
  int64_t n_routes;
  const T* x;                 // [B, H, W, D]
  const T* x_dbl;             // [B, H, W, P, R + 2N]
  const T* dt_weight;         // [K, D, R]
  const T *dt_bias, *Ds;      // [K, D]
  const T* A;                 // [K, D, N]
  T* states;                  // [B, n_routes, chunks, N, D]
  T* y;                       // [B, H, W, D]
  const T* dy;                // [B, H, W, D]
  T* dx;                      // [B, H, W, D]
  T* dx_dbl;                  // [splits, B, H, W, P, R + 2N]
  T* ddt_weight;              // [B, n_routes, D, R]
  T *ddt_bias, *dDs;          // [B, n_routes, D]
  T* dA;                      // [B, n_routes, D, N]
};

template <class T>
struct Kernels {
  int lanes;
  void (*sequence_forward)(const SequenceParams<T>&, const Task&);
  void (*sequence_backward)(const SequenceParams<T>&, const Task&);
  void (*map_forward)(const MapParams<T>&, const Task&);
  void (*map_backward)(const MapParams<T>&, const Task&);
};

// Defined in kernels_<isa>.cpp; the x86 tables are null on other machines.
extern const Kernels<float>* const kernels_default;
extern const Kernels<float>* const kernels_avx2;
extern const Kernels<float>* const kernels_avx512;
extern const Kernels<double>* const kernels_double;

}  // namespace mmevm
