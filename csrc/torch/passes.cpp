// The fused passes of core/passes.h and the scan with its projection: operators of the CPU, for inference.
// mmevm/ops/passes.py checks what it gives them; what is checked here keeps them within their memory.
#include "../core/passes.h"

#include "../core/projection.h"
#include "pass_arguments.h"

namespace mmevm {
namespace {

constexpr const char* kPassSchemas[] = {
    "depthwise_conv(Tensor x, Tensor weight, Tensor? bias, Tensor? mean, Tensor? var, Tensor? gamma, Tensor? beta, "
    "float eps, int top, int left, int activation, bool flip=False) -> Tensor",
    "batch_norm_(Tensor(a!) y, Tensor mean, Tensor var, Tensor weight, Tensor bias, float eps, int activation, "
    "Tensor? residual) -> ()",
    "gated_norm_(Tensor(a!) y, Tensor gate, Tensor weight, Tensor bias, float eps) -> ()",
    "layer_norm(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor",
    "rms_norm(Tensor x, Tensor weight, float eps) -> Tensor",
    "gated_mean_(Tensor(a!) a, Tensor b, Tensor gate) -> ()",
    "map_mean(Tensor x) -> Tensor",
    "norm_mean(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor",
    "channel_gate(Tensor x, Tensor reduce, Tensor? reduce_bias, int activation, Tensor expand, Tensor? expand_bias) -> Tensor",
    "scaled_sum_(Tensor(a!) a, Tensor x, Tensor scale_a, Tensor b, Tensor scale_b) -> ()",
    "linear(Tensor x, Tensor weight, Tensor? bias, Tensor? mean, Tensor? var, Tensor? gamma, Tensor? beta, float eps, "
    "int activation, Tensor? residual) -> Tensor",
    "projected_visual_scan(Tensor x, Tensor x_proj, Tensor dt_weight, Tensor? dt_bias, Tensor A_logs, Tensor? Ds, "
    "int step, int[] routes) -> Tensor",
};

// The parameters of a batch norm, with which its pointers live.
struct NormValues {
  Values<float> mean, var, weight, bias;

  static NormValues take(Arguments& arguments, int64_t C, bool optional) {
    OptionalTensor t[4];
    for (auto& tensor : t) tensor = optional ? arguments.optional() : OptionalTensor(arguments.tensor());
    Values<float> values[4];
    for (int i = 0; i < 4; ++i) {
      if (t[i].has_value() != t[0].has_value()) fail("a batch norm has all of `mean`, `var`, `gamma` and `beta`");
      values[i] = parameter(t[i], "norm", "[C]", {C});
    }
    return {values[0], values[1], values[2], values[3]};
  }

  BatchNorm with(double eps) const { return {mean.data(), var.data(), weight.data(), bias.data(), eps}; }
};

void depthwise_conv(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 4);
  const int64_t C = x.size(3);
  const Tensor kernels = arguments.tensor();
  const int64_t dims = kernels.dim(), rows = dims == 4 ? kernels.size(2) : 1, cols = dims < 3 ? 0 : kernels.size(dims - 1);
  if (dims > 4 || !serves_depthwise(rows, cols)) fail("`weight` must have shape [C, 1, 3, 3], [C, 1, 1, 4] or [C, 1, 4]");
  const auto weight = dims == 4 ? parameter(kernels, "weight", "[C, 1, rows, columns]", {C, 1, rows, cols})
                                : parameter(kernels, "weight", "[C, 1, columns]", {C, 1, cols});
  const auto bias = parameter(arguments.optional(), "bias", "[C]", {C});
  const NormValues norm = NormValues::take(arguments, C, true);
  const double eps = arguments.take<double>();
  const int64_t top = arguments.take<int64_t>(), left = arguments.take<int64_t>();
  if (top < 0 || top >= rows || left < 0 || left >= cols)
    fail("the kernel must cover its own cell, got `top` ", top, " and `left` ", left);
  const Activation chosen = activation(arguments.take<int64_t>());
  const bool flip = arguments.take<bool>();
  const Tensor y = new_map(x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(DepthwiseParams<Data>{x.size(0), x.size(1), x.size(2), C, rows, cols, top, left, pointer<Data>(x), weight.data(),
                                   bias.data(), norm.with(eps), chosen, mutable_pointer<Data>(y), flip});
  });
  stack[0] = torch::stable::detail::from(y);
}

void batch_norm_(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor y = arguments.tensor();
  check_first(y, "y", 4);
  const NormValues norm = NormValues::take(arguments, y.size(3), false);
  const double eps = arguments.take<double>();
  const Activation chosen = activation(arguments.take<int64_t>());
  const OptionalTensor residual = arguments.optional();
  check_map(residual, "residual", y);
  with_data(y, [&](auto data) {
    using Data = decltype(data);
    run_pass(BatchNormParams<Data>{tokens(y), y.size(3), mutable_pointer<Data>(y), norm.with(eps), chosen,
                                   pointer<Data>(residual)});
  });
}

void gated_norm_(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor y = arguments.tensor(), gate = arguments.tensor();
  check_first(y, "y", 4);
  check_map(gate, "gate", y);
  const auto weight = parameter(arguments.tensor(), "weight", "[C]", {y.size(3)});
  const auto bias = parameter(arguments.tensor(), "bias", "[C]", {y.size(3)});
  const double eps = arguments.take<double>();
  with_data(y, [&](auto data) {
    using Data = decltype(data);
    run_pass(GatedNormParams<Data>{tokens(y), y.size(3), pointer<Data>(y), pointer<Data>(gate), weight.data(), bias.data(),
                                   eps, mutable_pointer<Data>(y)});
  });
}

void layer_norm(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 0);
  const auto weight = parameter(arguments.tensor(), "weight", "[C]", {last(x)});
  const auto bias = parameter(arguments.tensor(), "bias", "[C]", {last(x)});
  const double eps = arguments.take<double>();
  const Tensor y = new_map(x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(GatedNormParams<Data>{tokens(x), last(x), pointer<Data>(x), nullptr, weight.data(), bias.data(), eps,
                                   mutable_pointer<Data>(y)});
  });
  stack[0] = torch::stable::detail::from(y);
}

void rms_norm(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 0);
  const auto weight = parameter(arguments.tensor(), "weight", "[C]", {last(x)});
  const double eps = arguments.take<double>();
  const Tensor y = new_map(x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(RmsNormParams<Data>{tokens(x), last(x), pointer<Data>(x), weight.data(), eps, mutable_pointer<Data>(y)});
  });
  stack[0] = torch::stable::detail::from(y);
}

void gated_mean_(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor a = arguments.tensor(), b = arguments.tensor(), gate = arguments.tensor();
  check_first(a, "a", 0);
  check_map(b, "b", a);
  check_map(gate, "gate", a);
  with_data(a, [&](auto data) {
    using Data = decltype(data);
    run_pass(GatedMeanParams<Data>{a.numel(), pointer<Data>(a), pointer<Data>(b), pointer<Data>(gate),
                                   mutable_pointer<Data>(a)});
  });
}

void map_mean(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 4);
  const int64_t B = x.size(0), C = x.size(3);
  const Tensor mean = empty({B, 1, 1, C}, scalar_type(x), x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(MeanParams<Data>{B, x.size(1) * x.size(2), C, pointer<Data>(x), mutable_pointer<Data>(mean)});
  });
  stack[0] = torch::stable::detail::from(mean);
}

void norm_mean(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 4);
  const int64_t B = x.size(0), C = x.size(3);
  const auto weight = parameter(arguments.tensor(), "weight", "[C]", {C});
  const auto bias = parameter(arguments.tensor(), "bias", "[C]", {C});
  const double eps = arguments.take<double>();
  const Tensor mean = empty({B, 1, 1, C}, scalar_type(x), x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(NormMeanParams<Data>{B, x.size(1) * x.size(2), C, pointer<Data>(x), weight.data(), bias.data(), eps,
                                  mutable_pointer<Data>(mean)});
  });
  stack[0] = torch::stable::detail::from(mean);
}

void channel_gate(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 0);
  const int64_t C = last(x);
  const Tensor reduce = arguments.tensor();
  const int64_t hidden = reduce.dim() ? reduce.size(0) : 0;
  const auto reduce_bias = parameter(arguments.optional(), "reduce_bias", "[hidden]", {hidden});
  const Activation chosen = activation(arguments.take<int64_t>());
  const Tensor expand = arguments.tensor();
  const auto expand_bias = parameter(arguments.optional(), "expand_bias", "[C]", {C});
  check_matrix(reduce, "reduce", "[hidden, C]", hidden, C, x);
  check_matrix(expand, "expand", "[C, hidden]", C, hidden, x);
  const Tensor y = new_map(x);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(ChannelGateParams<Data>{tokens(x), C, hidden, pointer<Data>(x), pointer<Data>(reduce), reduce_bias.data(), chosen,
                                     pointer<Data>(expand), expand_bias.data(), mutable_pointer<Data>(y)});
  });
  stack[0] = torch::stable::detail::from(y);
}

void scaled_sum_(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor a = arguments.tensor(), x = arguments.tensor();
  check_first(a, "a", 4);
  const int64_t B = a.size(0), C = a.size(3);
  check_map(x, "x", a);
  const auto scale_a = parameter(arguments.tensor(), "scale_a", "[B, 1, 1, C]", {B, 1, 1, C});
  const Tensor b = arguments.tensor();
  check_map(b, "b", a);
  const auto scale_b = parameter(arguments.tensor(), "scale_b", "[B, 1, 1, C]", {B, 1, 1, C});
  with_data(a, [&](auto data) {
    using Data = decltype(data);
    run_pass(ScaledSumParams<Data>{B, a.size(1) * a.size(2), C, pointer<Data>(x), pointer<Data>(a), pointer<Data>(b),
                                   scale_a.data(), scale_b.data(), mutable_pointer<Data>(a)});
  });
}

void linear(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = arguments.tensor();
  check_first(x, "x", 0);
  const Tensor weight = arguments.tensor();
  const int64_t in = last(x), out = weight.dim() ? weight.size(0) : 0;
  check_matrix(weight, "weight", "[out, in]", out, in, x);
  const auto bias = parameter(arguments.optional(), "bias", "[out]", {out});
  const NormValues norm = NormValues::take(arguments, out, true);
  const double eps = arguments.take<double>();
  const Activation chosen = activation(arguments.take<int64_t>());
  const OptionalTensor residual = arguments.optional();
  Sizes sizes(x.sizes().begin(), x.sizes().end());
  sizes.back() = out;
  const Tensor y = empty(sizes, scalar_type(x), x);
  check_map(residual, "residual", y);
  with_data(x, [&](auto data) {
    using Data = decltype(data);
    run_pass(LinearParams<Data>{tokens(y), in, out, pointer<Data>(x), pointer<Data>(weight), bias.data(), norm.with(eps),
                                chosen, pointer<Data>(residual), mutable_pointer<Data>(y)});
  });
  stack[0] = torch::stable::detail::from(y);
}

template <class T>
Tensor scan_projected(const MapInputs& in, const Tensor& x_proj, const MapSize& size, Routes& routes) {
  // bfloat16 is read and written in place, unless routes share cells: sums are float32.
  const bool half = scalar_type(in.x) == ScalarType::BFloat16, half_y = half && !routes.overlap;
  const ScalarType type = accumulate_type(in.x);
  const Tensor x = half ? as_contiguous(in.x) : as_contiguous(in.x, type);
  const Values<T> weight(x_proj), dt_weight(in.dt_weight), dt_bias(in.dt_bias), A(in.A), Ds(in.Ds);
  const Slots slots = assign_slots(routes.list, in.step);
  MapParams<T> p{};
  static_cast<MapSize&>(p) = size;
  p.step = in.step, p.accumulate = routes.overlap, p.routes = routes.list.data(), p.n_routes = routes.size();
  if (half) p.half_x = pointer<BFloat16>(x);
  else p.x = pointer<T>(x);
  p.dt_weight = dt_weight.data(), p.dt_bias = dt_bias.data(), p.A = A.data(), p.Ds = Ds.data(), p.log_A = true;
  const Sizes sizes{p.B, p.H, p.W, p.D};
  const ScalarType result = half_y ? ScalarType::BFloat16 : type;
  const Tensor y = routes.complete ? empty(sizes, result, x) : zeros(sizes, result, x);
  if (half_y) p.half_y = mutable_pointer<BFloat16>(y);
  else p.y = mutable_pointer<T>(y);
  const Host host = torch_host();
  const std::unique_ptr<char[]> workspace(new char[projected_workspace(p, slots, host.threads)]);
  run_projected(p, slots, weight.data(), host, workspace.get());
  return to(y, scalar_type(in.x));
}

// The shape of a parameter in sets; leading dimensions of size one may be left out.
Sizes shape_in_sets(const Tensor& t, size_t dims) {
  Sizes sizes(t.sizes().begin(), t.sizes().end());
  while (sizes.size() < dims) sizes.insert(sizes.begin(), 1);
  return sizes;
}

Sizes shape_in_sets(const OptionalTensor& t, size_t dims) { return t ? shape_in_sets(*t, dims) : Sizes(); }

void projected_visual_scan(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  MapInputs in = arguments.map();
  in.step = arguments.take<int64_t>();
  in.routes = arguments.take<Sizes>();
  const Tensor x_proj = in.x_dbl;
  if (in.x.dim() != 4) fail("`x` must have shape [B, H, W, D], got ", in.x.dim(), " dimensions");
  const Sizes sets = shape_in_sets(x_proj, 3), dt_weight = shape_in_sets(in.dt_weight, 3), A = shape_in_sets(in.A, 3);
  const Sizes dt_bias = shape_in_sets(in.dt_bias, 2), Ds = shape_in_sets(in.Ds, 2);
  if (sets.size() != 3) fail("`x_proj` must have shape [P, R + 2N, D], got ", x_proj.dim(), " dimensions");
  check_shape(shape(sets), "x_proj", "[P, R + 2N, D]", {sets[0], dt_weight.back() + 2 * A.back(), in.x.size(3)});
  const Sizes x_dbl{in.x.size(0), in.x.size(1), in.x.size(2), sets[0], sets[1]};
  const MapSize size =
      mmevm::check_map(shape(in.x), shape(x_dbl), shape(dt_weight), shape(dt_bias), shape(A), shape(Ds));
  const InputChecks check(in.x);
  const std::pair<const char*, OptionalTensor> tensors[]{{"x", in.x}, {"x_proj", x_proj}, {"dt_weight", in.dt_weight},
                                                         {"dt_bias", in.dt_bias}, {"A_logs", in.A}, {"Ds", in.Ds}};
  for (const auto& [name, tensor] : tensors)
    if (tensor) check.data(*tensor, name);
  Routes routes = in.parse(size);
  const bool is_double = scalar_type(in.x) == ScalarType::Double;
  const Tensor y = is_double ? scan_projected<double>(in, x_proj, size, routes) : scan_projected<float>(in, x_proj, size, routes);
  stack[0] = torch::stable::detail::from(y);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mmevm, m) {
  for (const char* schema : kPassSchemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(mmevm, CPU, m) {
  m.impl("depthwise_conv", &depthwise_conv);
  m.impl("batch_norm_", &batch_norm_);
  m.impl("gated_norm_", &gated_norm_);
  m.impl("layer_norm", &layer_norm);
  m.impl("rms_norm", &rms_norm);
  m.impl("gated_mean_", &gated_mean_);
  m.impl("map_mean", &map_mean);
  m.impl("norm_mean", &norm_mean);
  m.impl("channel_gate", &channel_gate);
  m.impl("scaled_sum_", &scaled_sum_);
  m.impl("linear", &linear);
  m.impl("projected_visual_scan", &projected_visual_scan);
}

}  // namespace mmevm
