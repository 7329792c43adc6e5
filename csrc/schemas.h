// Schemas of the operators. Kernels register in csrc/<device>/; fake kernels and gradients in mmevm/ops/autograd.py.
#pragma once

#include <torch/library.h>

namespace mmevm {

inline void define_operators(torch::Library& m) {
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs, Tensor? Ds, Tensor? delta_bias, "
      "bool delta_softplus, bool save_states) -> (Tensor y, Tensor last_state, Tensor states)");
  m.def(
      "_selective_scan_backward(Tensor dy, Tensor? dlast_state, Tensor u, Tensor delta, Tensor A, Tensor Bs, Tensor Cs, "
      "Tensor? Ds, Tensor? delta_bias, Tensor states, bool delta_softplus) "
      "-> (Tensor du, Tensor ddelta, Tensor dA, Tensor dBs, Tensor dCs, Tensor dDs, Tensor ddelta_bias)");
  m.def(
      "visual_scan(Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor? dt_bias, Tensor A, Tensor? Ds, int step, "
      "int[] routes, bool save_states) -> (Tensor y, Tensor states)");
  m.def(
      "_visual_scan_backward(Tensor dy, Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor? dt_bias, Tensor A, Tensor? Ds, "
      "Tensor states, int step, int[] routes) "
      "-> (Tensor dx, Tensor dx_dbl, Tensor ddt_weight, Tensor ddt_bias, Tensor dA, Tensor dDs)");
}

}  // namespace mmevm
