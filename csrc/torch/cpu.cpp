// The CPU's operators: brings tensors to csrc/core, and runs it on PyTorch's threads.
#include <memory>

#include "cpu_host.h"
#include "operators.h"

namespace mmevm {
namespace {

template <class Params>
void run_on_torch(const Params& params, const Plan& plan, const Host& host) {
  const std::unique_ptr<char[]> workspace(new char[plan.workspace_bytes()]);
  run(params, plan, host, workspace.get());
}

// The inputs of a sequence, contiguous and in the accumulation type T.
template <class T>
struct Sequence {
  explicit Sequence(const SequenceInputs& in)
      : size(in.check()), type(accumulate_type(in.u)), u(as_contiguous(in.u, type)), delta(as_contiguous(in.delta, type)),
        A(as_contiguous(in.A)), Bs(as_contiguous(in.Bs, type)), Cs(as_contiguous(in.Cs, type)), Ds(as_contiguous(in.Ds, type)),
        delta_bias(as_contiguous(in.delta_bias, type)) {
    static_cast<SequenceSize&>(p) = size;
    p.delta_softplus = in.delta_softplus;
    p.x = pointer<T>(u), p.delta = pointer<T>(delta), p.A = pointer<T>(A);
    p.Bs = pointer<T>(Bs), p.Cs = pointer<T>(Cs), p.Ds = pointer<T>(Ds), p.delta_bias = pointer<T>(delta_bias);
  }

  Tensor empty(const Sizes& sizes) const { return mmevm::empty(sizes, type, u); }

  SequenceParams<T> p{};
  const SequenceSize size;
  const ScalarType type;
  const Tensor u, delta, A, Bs, Cs;
  const OptionalTensor Ds, delta_bias;
};

template <class T>
std::array<Tensor, 3> sequence_forward(const SequenceInputs& in, bool save_states) {
  Sequence<T> scan(in);
  auto& p = scan.p;
  const Tensor y = scan.empty({p.B, p.D, p.L}), last_state = scan.empty({p.B, p.D, p.N});
  const Tensor states =
      scan.empty(save_states ? Sizes{p.B, p.G, ceil_div(p.L, kChunk), p.N, p.D / p.G} : Sizes{0});
  p.y = mutable_pointer<T>(y), p.last_state = mutable_pointer<T>(last_state), p.states = mutable_pointer<T>(states);
  const Host host = torch_host();
  run_on_torch(p, make_plan(p, Direction::kForward, host.threads), host);
  return {to(y, scalar_type(in.u)), last_state, states};
}

template <class T>
std::array<Tensor, 7> sequence_backward(const SequenceInputs& in, const SequenceGradients& gradients) {
  Sequence<T> scan(in);
  auto& p = scan.p;
  gradients.check(in, scan.size);
  const Tensor dy = as_contiguous(gradients.dy, scan.type), states = as_contiguous(gradients.states);
  const OptionalTensor dlast_state = as_contiguous(gradients.dlast_state, scan.type);
  const Host host = torch_host();
  const Plan plan = make_plan(p, Direction::kBackward, host.threads);
  const Tensor du = scan.empty({p.B, p.D, p.L}), ddelta = scan.empty({p.B, p.D, p.L});
  const Tensor dA = scan.empty({p.B, p.D, p.N});
  const Tensor dBs = scan.empty({plan.copies, p.B, p.G, p.N, p.L}), dCs = scan.empty({plan.copies, p.B, p.G, p.N, p.L});
  const Tensor dDs = scan.empty({p.Ds ? p.B : 0, p.D}), dbias = scan.empty({p.delta_bias ? p.B : 0, p.D});
  p.dy = pointer<T>(dy), p.dlast_state = pointer<T>(dlast_state), p.states = mutable_pointer<T>(states);
  p.dx = mutable_pointer<T>(du), p.ddelta = mutable_pointer<T>(ddelta), p.dA = mutable_pointer<T>(dA);
  p.dBs = mutable_pointer<T>(dBs), p.dCs = mutable_pointer<T>(dCs);
  p.dDs = mutable_pointer<T>(dDs), p.ddelta_bias = mutable_pointer<T>(dbias);
  run_on_torch(p, plan, host);
  return {to(du, scalar_type(in.u)), to(ddelta, scalar_type(in.delta)), sum_first(dA),
          to(sum_first(dBs), scalar_type(in.Bs)), to(sum_first(dCs), scalar_type(in.Cs)), sum_first(dDs), sum_first(dbias)};
}

// The inputs of a map, contiguous and in the accumulation type T.
template <class T>
struct Map {
  explicit Map(const MapInputs& in)
      : size(in.check()), routes(in.parse(size)), type(accumulate_type(in.x)), x(as_contiguous(in.x, type)),
        x_dbl(as_contiguous(in.x_dbl, type)), dt_weight(as_contiguous(in.dt_weight)), A(as_contiguous(in.A)),
        dt_bias(as_contiguous(in.dt_bias, type)), Ds(as_contiguous(in.Ds, type)) {
    static_cast<MapSize&>(p) = size;
    p.step = in.step, p.accumulate = routes.overlap, p.routes = routes.list.data(), p.n_routes = routes.size();
    p.x = pointer<T>(x), p.x_dbl = pointer<T>(x_dbl), p.dt_weight = pointer<T>(dt_weight), p.A = pointer<T>(A);
    p.dt_bias = pointer<T>(dt_bias), p.Ds = pointer<T>(Ds);
  }

  Tensor empty(const Sizes& sizes) const { return mmevm::empty(sizes, type, x); }

  // A result on the map: zero where cells are never visited.
  Tensor new_map() const {
    const Sizes sizes{p.B, p.H, p.W, p.D};
    return routes.complete ? empty(sizes) : zeros(sizes, type, x);
  }

  // From the gradients [B, routes, ...].
  Tensor by_parameters(const Tensor& gradient) const {
    return sum_by_parameters(sum_first(gradient), routes.list, p.K);
  }

  MapParams<T> p{};
  const MapSize size;
  const Routes routes;
  const ScalarType type;
  const Tensor x, x_dbl, dt_weight, A;
  const OptionalTensor dt_bias, Ds;
};

template <class T>
std::array<Tensor, 2> map_forward(const MapInputs& in, bool save_states) {
  Map<T> scan(in);
  auto& p = scan.p;
  const Tensor y = scan.new_map();
  const int64_t chunks = ceil_div(route_length(p, p.step), kChunk);
  const Tensor states = scan.empty(save_states ? Sizes{p.B, p.n_routes, chunks, p.N, p.D} : Sizes{0});
  p.y = mutable_pointer<T>(y), p.states = mutable_pointer<T>(states);
  const Host host = torch_host();
  run_on_torch(p, make_plan(p, Direction::kForward, host.threads), host);
  return {to(y, scalar_type(in.x)), states};
}

template <class T>
std::array<Tensor, 6> map_backward(const MapInputs& in, const MapGradients& gradients) {
  Map<T> scan(in);
  auto& p = scan.p;
  gradients.check(in, scan.size, p.n_routes);
  const Tensor dy = as_contiguous(gradients.dy, scan.type), states = as_contiguous(gradients.states);
  const Host host = torch_host();
  const Plan plan = make_plan(p, Direction::kBackward, host.threads);
  const Tensor dx = scan.new_map();
  const Tensor dx_dbl = zeros({plan.copies, p.B, p.H, p.W, p.P, p.R + 2 * p.N}, scan.type, scan.x);
  const Tensor ddt_weight = scan.empty({p.B, p.n_routes, p.D, p.R}), dA = scan.empty({p.B, p.n_routes, p.D, p.N});
  const Tensor ddt_bias = scan.empty({p.dt_bias ? p.B : 0, p.n_routes, p.D});
  const Tensor dDs = scan.empty({p.Ds ? p.B : 0, p.n_routes, p.D});
  p.dy = pointer<T>(dy), p.states = mutable_pointer<T>(states);
  p.dx = mutable_pointer<T>(dx), p.dx_dbl = mutable_pointer<T>(dx_dbl);
  p.ddt_weight = mutable_pointer<T>(ddt_weight), p.dA = mutable_pointer<T>(dA);
  p.ddt_bias = mutable_pointer<T>(ddt_bias), p.dDs = mutable_pointer<T>(dDs);
  run_on_torch(p, plan, host);
  return {to(dx, scalar_type(in.x)), to(sum_first(dx_dbl), scalar_type(in.x_dbl)), scan.by_parameters(ddt_weight),
          scan.by_parameters(ddt_bias), scan.by_parameters(dA), scan.by_parameters(dDs)};
}

bool is_double(const Tensor& first) { return scalar_type(first) == ScalarType::Double; }

constexpr Operators cpu_operators{
    [](const SequenceInputs& in, bool save_states) {
      return is_double(in.u) ? sequence_forward<double>(in, save_states) : sequence_forward<float>(in, save_states);
    },
    [](const SequenceInputs& in, const SequenceGradients& gradients) {
      return is_double(in.u) ? sequence_backward<double>(in, gradients) : sequence_backward<float>(in, gradients);
    },
    [](const MapInputs& in, bool save_states) {
      return is_double(in.x) ? map_forward<double>(in, save_states) : map_forward<float>(in, save_states);
    },
    [](const MapInputs& in, const MapGradients& gradients) {
      return is_double(in.x) ? map_backward<double>(in, gradients) : map_backward<float>(in, gradients);
    },
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(mmevm, CPU, m) {
  register_kernels<cpu_operators>(m);
}

}  // namespace mmevm
