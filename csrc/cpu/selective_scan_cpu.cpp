#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "dispatch.h"
#include "tensors.h"

namespace mmevm {
namespace {

using at::Tensor;

// The operator's inputs, checked, contiguous and in the accumulation type.
struct Inputs {
  Inputs(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& Bs, const Tensor& Cs,
         const OptionalTensor& Ds, const OptionalTensor& delta_bias, bool delta_softplus)
      : B(u.size(0)), D(u.size(1)), L(u.size(2)), N(A.size(1)), G(Bs.size(1)), delta_softplus(delta_softplus),
        options(u.options().dtype(accumulate_type(u))), u(widen(u, u)), delta(widen(delta, u)), A(A.contiguous()),
        Bs(widen(Bs, u)), Cs(widen(Cs, u)), Ds(widen(Ds, u)), delta_bias(widen(delta_bias, u)) {}

  template <class T>
  SequenceParams<T> params(const Tensor& states) const {
    SequenceParams<T> p{};
    p.B = B, p.D = D, p.L = L, p.N = N, p.G = G, p.delta_softplus = delta_softplus;
    p.x = u.data_ptr<T>(), p.delta = delta.data_ptr<T>(), p.A = A.data_ptr<T>();
    p.Bs = Bs.data_ptr<T>(), p.Cs = Cs.data_ptr<T>();
    p.Ds = pointer<T>(Ds), p.delta_bias = pointer<T>(delta_bias);
    p.states = states.numel() ? states.data_ptr<T>() : nullptr;
    return p;
  }

  std::vector<int64_t> states_shape() const { return {B, G, ceil_div(L, kChunk), N, D / G}; }

  const int64_t B, D, L, N, G;
  const bool delta_softplus;
  const at::TensorOptions options;
  const Tensor u, delta, A, Bs, Cs;
  const OptionalTensor Ds, delta_bias;
};

std::tuple<Tensor, Tensor, Tensor> selective_scan_forward_cpu(
    const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& Bs, const Tensor& Cs, const OptionalTensor& Ds,
    const OptionalTensor& delta_bias, bool delta_softplus, bool save_states) {
  check_selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias);
  const Inputs in(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus);
  const Tensor y = at::empty({in.B, in.D, in.L}, in.options);
  const Tensor last_state = at::empty({in.B, in.D, in.N}, in.options);
  const Tensor states = at::empty(save_states ? in.states_shape() : std::vector<int64_t>{0}, in.options);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "selective_scan", [&] {
    auto p = in.params<scalar_t>(states);
    p.y = y.data_ptr<scalar_t>(), p.last_state = last_state.data_ptr<scalar_t>();
    const auto& kernels = cpu_kernels<scalar_t>();
    int64_t splits;
    const auto tasks = make_tasks(in.B, in.G, false, in.D / in.G, kernels.lanes, &splits);
    run_tasks(tasks, [&](const Task& task) { kernels.sequence_forward(p, task); });
  });
  return {y.to(u.scalar_type()), last_state, states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> selective_scan_backward_cpu(
    const Tensor& dy, const OptionalTensor& dlast_state, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& Bs, const Tensor& Cs, const OptionalTensor& Ds, const OptionalTensor& delta_bias, const Tensor& states,
    bool delta_softplus) {
  check_selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias);
  const Inputs in(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus);
  check_shape(dy, "dy", "[B, D, L]", {in.B, in.D, in.L});
  check_optional_shape(dlast_state, "dlast_state", "[B, D, N]", {in.B, in.D, in.N});
  check_shape(states, "states", "[B, G, chunks, N, D / G]", in.states_shape());
  check_parameter(states, "states", u);
  const Tensor dy_ = widen(dy, u);
  const OptionalTensor dlast_ = widen(dlast_state, u);
  const Tensor du = at::empty({in.B, in.D, in.L}, in.options), ddelta = at::empty_like(du);
  const Tensor dA = at::empty({in.B, in.D, in.N}, in.options);
  // Absent inputs get gradients of zero: a sum over no rows.
  const Tensor dDs = at::empty({Ds ? in.B : 0, in.D}, in.options);
  const Tensor dbias = at::empty({delta_bias ? in.B : 0, in.D}, in.options);
  Tensor dBs, dCs;
  AT_DISPATCH_FLOATING_TYPES(du.scalar_type(), "_selective_scan_backward", [&] {
    const auto& kernels = cpu_kernels<scalar_t>();
    int64_t splits;
    const auto tasks = make_tasks(in.B, in.G, false, in.D / in.G, kernels.lanes, &splits);
    dBs = at::empty({splits, in.B, in.G, in.N, in.L}, in.options), dCs = at::empty_like(dBs);
    auto p = in.params<scalar_t>(states);
    p.dy = dy_.data_ptr<scalar_t>(), p.dlast_state = pointer<scalar_t>(dlast_);
    p.dx = du.data_ptr<scalar_t>(), p.ddelta = ddelta.data_ptr<scalar_t>(), p.dA = dA.data_ptr<scalar_t>();
    p.dBs = dBs.data_ptr<scalar_t>(), p.dCs = dCs.data_ptr<scalar_t>();
    p.dDs = Ds ? dDs.data_ptr<scalar_t>() : nullptr;
    p.ddelta_bias = delta_bias ? dbias.data_ptr<scalar_t>() : nullptr;
    run_tasks(tasks, [&](const Task& task) { kernels.sequence_backward(p, task); });
  });
  return {du.to(u.scalar_type()), ddelta.to(delta.scalar_type()), dA.sum(0), dBs.sum(0).to(Bs.scalar_type()),
          dCs.sum(0).to(Cs.scalar_type()), dDs.sum(0), dbias.sum(0)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmevm, CPU, m) {
  m.impl("selective_scan", &selective_scan_forward_cpu);
  m.impl("_selective_scan_backward", &selective_scan_backward_cpu);
}

}  // namespace mmevm
