// The operators' arguments and results, the same for every device, and how a device registers its kernels.
#pragma once

#include <array>
#include <utility>

#include "tensors.h"

namespace mmevm {

// One string literal for each operator. mmevm/ops/triton defines its operators by the same file.
constexpr const char* kSchemas[] = {
#include "schemas.inc"
};

struct SequenceInputs {
  Tensor u, delta, A, Bs, Cs;
  OptionalTensor Ds, delta_bias;
  bool delta_softplus = false;

  SequenceSize check() const {
    const SequenceSize size =
        check_sequence(shape(u), shape(delta), shape(A), shape(Bs), shape(Cs), shape(Ds), shape(delta_bias));
    const InputChecks check(u);
    check.data(u, "u");
    check.data(delta, "delta");
    check.data(Bs, "Bs");
    check.data(Cs, "Cs");
    check.parameter(A, "A");
    check.parameter(Ds, "Ds");
    check.parameter(delta_bias, "delta_bias");
    return size;
  }
};

struct MapInputs {
  Tensor x, x_dbl, dt_weight;
  OptionalTensor dt_bias;
  Tensor A;
  OptionalTensor Ds;
  int64_t step = 1;
  Sizes routes;

  MapSize check() const {
    const MapSize size = check_map(shape(x), shape(x_dbl), shape(dt_weight), shape(dt_bias), shape(A), shape(Ds));
    const InputChecks check(x);
    check.data(x, "x");
    check.data(x_dbl, "x_dbl");
    check.parameter(dt_weight, "dt_weight");
    check.parameter(dt_bias, "dt_bias");
    check.parameter(A, "A");
    check.parameter(Ds, "Ds");
    return size;
  }

  Routes parse(const MapSize& size) const { return parse_routes(routes.data(), routes.size(), step, size); }
};

// What the backward passes get beside the inputs.
struct SequenceGradients {
  Tensor dy;
  OptionalTensor dlast_state;
  Tensor states;

  void check(const SequenceInputs& in, const SequenceSize& s) const {
    check_shape(shape(dy), "dy", "[B, D, L]", {s.B, s.D, s.L});
    check_shape(shape(dlast_state), "dlast_state", "[B, D, N]", {s.B, s.D, s.N});
    check_shape(shape(states), "states", "[B, G, chunks, N, D / G]", {s.B, s.G, ceil_div(s.L, kChunk), s.N, s.D / s.G});
    InputChecks(in.u).parameter(states, "states");
  }
};

struct MapGradients {
  Tensor dy, states;

  void check(const MapInputs& in, const MapSize& s, int64_t routes) const {
    check_shape(shape(dy), "dy", "[B, H, W, D]", {s.B, s.H, s.W, s.D});
    check_shape(shape(states), "states", "[B, routes, chunks, N, D]",
                {s.B, routes, ceil_div(route_length(s, in.step), kChunk), s.N, s.D});
    InputChecks(in.x).parameter(states, "states");
  }
};

// A device's kernels; results in the order of the schemas.
struct Operators {
  std::array<Tensor, 3> (*selective_scan)(const SequenceInputs&, bool save_states);
  std::array<Tensor, 7> (*selective_scan_backward)(const SequenceInputs&, const SequenceGradients&);
  std::array<Tensor, 2> (*visual_scan)(const MapInputs&, bool save_states);
  std::array<Tensor, 6> (*visual_scan_backward)(const MapInputs&, const MapGradients&);
};

namespace boxed {

// Takes the arguments off the stack from the first to the last: braces evaluate in order.
struct Arguments {
  StableIValue* next;

  template <class T>
  T take() {
    return torch::stable::detail::to<T>(*next++);
  }
  Tensor tensor() { return take<Tensor>(); }
  OptionalTensor optional() { return take<OptionalTensor>(); }
  SequenceInputs sequence() {
    return {tensor(), tensor(), tensor(), tensor(), tensor(), optional(), optional()};
  }
  MapInputs map() { return {tensor(), tensor(), tensor(), optional(), tensor(), optional()}; }
};

template <size_t n>
void give(StableIValue* stack, const std::array<Tensor, n>& results) {
  for (size_t i = 0; i < n; ++i) stack[i] = torch::stable::detail::from(results[i]);
}

template <const Operators& operators>
void selective_scan(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  SequenceInputs in = arguments.sequence();
  in.delta_softplus = arguments.take<bool>();
  give(stack, operators.selective_scan(in, arguments.take<bool>()));
}

template <const Operators& operators>
void selective_scan_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  SequenceGradients gradients{arguments.tensor(), arguments.optional(), Tensor(nullptr)};
  SequenceInputs in = arguments.sequence();
  gradients.states = arguments.tensor();
  in.delta_softplus = arguments.take<bool>();
  give(stack, operators.selective_scan_backward(in, gradients));
}

template <const Operators& operators>
void visual_scan(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  MapInputs in = arguments.map();
  in.step = arguments.take<int64_t>();
  in.routes = arguments.take<Sizes>();
  give(stack, operators.visual_scan(in, arguments.take<bool>()));
}

template <const Operators& operators>
void visual_scan_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = arguments.tensor();
  MapInputs in = arguments.map();
  const MapGradients gradients{dy, arguments.tensor()};
  in.step = arguments.take<int64_t>();
  in.routes = arguments.take<Sizes>();
  give(stack, operators.visual_scan_backward(in, gradients));
}

}  // namespace boxed

template <const Operators& operators>
void register_kernels(torch::stable::detail::StableLibrary& m) {
  m.impl("selective_scan", &boxed::selective_scan<operators>);
  m.impl("_selective_scan_backward", &boxed::selective_scan_backward<operators>);
  m.impl("visual_scan", &boxed::visual_scan<operators>);
  m.impl("_visual_scan_backward", &boxed::visual_scan_backward<operators>);
}

}  // namespace mmevm
