#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../routes.h"
#include "dispatch.h"
#include "tensors.h"

namespace mmevm {
namespace {

using at::Tensor;

// The operator's inputs, checked, contiguous and in the accumulation type.
struct Inputs {
  Inputs(const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias, const Tensor& A,
         const OptionalTensor& Ds, int64_t step, at::IntArrayRef flat_routes)
      : B(x.size(0)), H(x.size(1)), W(x.size(2)), D(x.size(3)), N(A.size(2)), R(dt_weight.size(2)), K(A.size(0)),
        P(x_dbl.size(3)), step(step), routes(parse_routes(flat_routes, step, K, P)), n_routes(routes.list.size()),
        options(x.options().dtype(accumulate_type(x))), x(widen(x, x)), x_dbl(widen(x_dbl, x)),
        dt_weight(dt_weight.contiguous()), A(A.contiguous()), dt_bias(widen(dt_bias, x)), Ds(widen(Ds, x)) {}

  template <class T>
  MapParams<T> params(const Tensor& states) const {
    MapParams<T> p{};
    p.B = B, p.H = H, p.W = W, p.D = D, p.N = N, p.R = R, p.K = K, p.P = P, p.step = step;
    p.accumulate = routes.overlap, p.routes = routes.list.data(), p.n_routes = n_routes;
    p.x = x.data_ptr<T>(), p.x_dbl = x_dbl.data_ptr<T>(), p.dt_weight = dt_weight.data_ptr<T>(), p.A = A.data_ptr<T>();
    p.dt_bias = pointer<T>(dt_bias), p.Ds = pointer<T>(Ds);
    p.states = states.numel() ? states.data_ptr<T>() : nullptr;
    return p;
  }

  // A result on the map: zero where cells are summed or never visited.
  Tensor new_map() const {
    return routes.overlap || !routes.complete ? at::zeros({B, H, W, D}, options) : at::empty({B, H, W, D}, options);
  }

  std::vector<int64_t> states_shape() const {
    return {B, n_routes, ceil_div(ceil_div(H, step) * ceil_div(W, step), kChunk), N, D};
  }

  // From the gradients [B, n_routes, ...].
  Tensor by_parameters(const Tensor& grad) const { return sum_by_parameters(grad.sum(0), routes, K); }

  const int64_t B, H, W, D, N, R, K, P, step;
  const Routes routes;
  const int64_t n_routes;
  const at::TensorOptions options;
  const Tensor x, x_dbl, dt_weight, A;
  const OptionalTensor dt_bias, Ds;
};

std::tuple<Tensor, Tensor> visual_scan_forward_cpu(
    const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias, const Tensor& A,
    const OptionalTensor& Ds, int64_t step, at::IntArrayRef routes, bool save_states) {
  check_visual_scan(x, x_dbl, dt_weight, dt_bias, A, Ds);
  const Inputs in(x, x_dbl, dt_weight, dt_bias, A, Ds, step, routes);
  const Tensor y = in.new_map();
  const Tensor states = at::empty(save_states ? in.states_shape() : std::vector<int64_t>{0}, in.options);
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "visual_scan", [&] {
    auto p = in.params<scalar_t>(states);
    p.y = y.data_ptr<scalar_t>();
    const auto& kernels = cpu_kernels<scalar_t>();
    int64_t splits;
    const auto tasks = make_tasks(in.B, in.n_routes, in.routes.overlap, in.D, kernels.lanes, &splits);
    run_tasks(tasks, [&](const Task& task) { kernels.map_forward(p, task); });
  });
  return {y.to(x.scalar_type()), states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> visual_scan_backward_cpu(
    const Tensor& dy, const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias,
    const Tensor& A, const OptionalTensor& Ds, const Tensor& states, int64_t step, at::IntArrayRef routes) {
  check_visual_scan(x, x_dbl, dt_weight, dt_bias, A, Ds);
  const Inputs in(x, x_dbl, dt_weight, dt_bias, A, Ds, step, routes);
  check_shape(dy, "dy", "[B, H, W, D]", {in.B, in.H, in.W, in.D});
  check_shape(states, "states", "[B, routes, chunks, N, D]", in.states_shape());
  check_parameter(states, "states", x);
  const Tensor dy_ = widen(dy, x);
  const Tensor dx = in.new_map();
  const int64_t B = in.B, r = in.n_routes, D = in.D;
  const Tensor ddt_weight = at::empty({B, r, D, in.R}, in.options), dA = at::empty({B, r, D, in.N}, in.options);
  // Absent inputs get gradients of zero: a sum over no rows.
  const Tensor ddt_bias = at::empty({dt_bias ? B : 0, r, D}, in.options), dDs = at::empty({Ds ? B : 0, r, D}, in.options);
  Tensor dx_dbl;
  AT_DISPATCH_FLOATING_TYPES(dx.scalar_type(), "_visual_scan_backward", [&] {
    const auto& kernels = cpu_kernels<scalar_t>();
    int64_t splits;
    const auto tasks = make_tasks(B, r, in.routes.overlap, D, kernels.lanes, &splits);
    dx_dbl = at::zeros({splits, B, in.H, in.W, in.P, in.R + 2 * in.N}, in.options);
    auto p = in.params<scalar_t>(states);
    p.dy = dy_.data_ptr<scalar_t>(), p.dx = dx.data_ptr<scalar_t>(), p.dx_dbl = dx_dbl.data_ptr<scalar_t>();
    p.ddt_weight = ddt_weight.data_ptr<scalar_t>(), p.dA = dA.data_ptr<scalar_t>();
    p.ddt_bias = dt_bias ? ddt_bias.data_ptr<scalar_t>() : nullptr, p.dDs = Ds ? dDs.data_ptr<scalar_t>() : nullptr;
    run_tasks(tasks, [&](const Task& task) { kernels.map_backward(p, task); });
  });
  const Tensor dx_dbl_sum = dx_dbl.size(0) == 1 ? dx_dbl[0] : dx_dbl.sum(0);
  return {dx.to(x.scalar_type()), dx_dbl_sum.to(x_dbl.scalar_type()), in.by_parameters(ddt_weight),
          in.by_parameters(ddt_bias), in.by_parameters(dA), in.by_parameters(dDs)};
}

}  // namespace

TORCH_LIBRARY_IMPL(mmevm, CPU, m) {
  m.impl("visual_scan", &visual_scan_forward_cpu);
  m.impl("_visual_scan_backward", &visual_scan_backward_cpu);
}

}  // namespace mmevm
