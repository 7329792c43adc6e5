// The passes of core/training.h: operators of the CPU with gradients, for training, in float32.
// mmevm/ops/training.py checks what it gives them; what is checked here keeps them within their memory.
#include "../core/training.h"

#include "pass_arguments.h"

namespace mmevm {
namespace {

constexpr const char* kTrainingSchemas[] = {
    "depthwise_activation(Tensor x, Tensor weight, Tensor? bias, int activation) -> Tensor",
    "_depthwise_activation_backward(Tensor dy, Tensor x, Tensor weight, Tensor? bias, int activation) "
    "-> (Tensor dx, Tensor dweight, Tensor dbias)",
    "batch_norm_activation(Tensor x, Tensor weight, Tensor bias, float eps, int activation) "
    "-> (Tensor y, Tensor mean, Tensor var)",
    "_batch_norm_activation_backward(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps, "
    "int activation) -> (Tensor dx, Tensor dweight, Tensor dbias)",
    "norm_gate(Tensor x, Tensor gate, Tensor weight, Tensor bias, float eps) -> Tensor",
    "_norm_gate_backward(Tensor dy, Tensor x, Tensor gate, Tensor weight, Tensor bias, float eps) "
    "-> (Tensor dx, Tensor dgate, Tensor dweight, Tensor dbias)",
    "norm_average(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor",
    "_norm_average_backward(Tensor dmean, Tensor x, Tensor weight, Tensor bias, float eps) "
    "-> (Tensor dx, Tensor dweight, Tensor dbias)",
    "blend(Tensor? x, Tensor a, Tensor scale_a, Tensor? b, Tensor? scale_b) -> Tensor",
    "_blend_backward(Tensor dy, Tensor a, Tensor scale_a, Tensor? b, Tensor? scale_b) "
    "-> (Tensor da, Tensor dscale_a, Tensor db, Tensor dscale_b)",
    "phase_projection(Tensor x, Tensor weight, int step, int[] sets) -> Tensor",
    "_phase_projection_backward(Tensor dy, Tensor x, Tensor weight, int step, int[] sets) -> (Tensor dx, Tensor dweight)",
};

// The first map: [B, H, W, C] in float32, to which the others are compared.
Tensor first_map(Arguments& arguments, const char* name) {
  Tensor t = arguments.tensor();
  check_first(t, name, 4);
  if (scalar_type(t) != ScalarType::Float) fail("`", name, "` must be float32, got ", scalar_type(t));
  return t;
}

Tensor next_map(Arguments& arguments, const char* name, const Tensor& like) {
  Tensor t = arguments.tensor();
  check_map(t, name, like);
  return t;
}

Values<float> channels(Arguments& arguments, const char* name, int64_t C) {
  return parameter(arguments.tensor(), name, "[C]", {C});
}

Tensor new_channels(int64_t C, const Tensor& like) { return empty({C}, ScalarType::Float, like); }
int64_t image_tokens(const Tensor& map) { return map.size(1) * map.size(2); }
float* data(const Tensor& t) { return mutable_pointer<float>(t); }
const float* read(const Tensor& t) { return pointer<float>(t); }
const float* read(const OptionalTensor& t) { return pointer<float>(t); }

// The kernels and the bias of a 3 x 3 convolution, and what follows it.
struct Depthwise {
  Depthwise(Arguments& arguments, int64_t C)
      : weight(parameter(arguments.tensor(), "weight", "[C, 1, 3, 3]", {C, 1, 3, 3})),
        bias(parameter(given = arguments.optional(), "bias", "[C]", {C})),
        after(activation(arguments.take<int64_t>())) {}

  OptionalTensor given;
  const Values<float> weight, bias;
  const Activation after;
};

void depthwise_activation(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = first_map(arguments, "x"), y = new_map(x);
  const Depthwise conv(arguments, x.size(3));
  run_pass(DepthwiseParams<float>{x.size(0), x.size(1), x.size(2), x.size(3), 3, 3, 1, 1, read(x), conv.weight.data(),
                                  conv.bias.data(), BatchNorm(), conv.after, data(y)});
  boxed::give<1>(stack, {y});
}

void depthwise_activation_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = first_map(arguments, "dy"), x = next_map(arguments, "x", dy), dx = new_map(x);
  const int64_t C = x.size(3);
  const Depthwise conv(arguments, C);
  const Tensor dweight = empty({C, 1, 3, 3}, ScalarType::Float, x), dbias = new_channels(conv.given ? C : 0, x);
  run_pass(DepthwiseGradients{x.size(0), x.size(1), x.size(2), C, read(dy), read(x), conv.weight.data(), conv.bias.data(),
                              conv.after, data(dx), data(dweight), data(dbias)});
  boxed::give<3>(stack, {dx, dweight, dbias});
}

void batch_norm_activation(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = first_map(arguments, "x"), y = new_map(x);
  const int64_t C = x.size(3);
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  const double eps = arguments.take<double>();
  const Tensor mean = new_channels(C, x), var = new_channels(C, x);
  run_pass(BatchStatistics{tokens(x), C, read(x), weight.data(), bias.data(), eps, activation(arguments.take<int64_t>()),
                           data(y), data(mean), data(var)});
  boxed::give<3>(stack, {y, mean, var});
}

void batch_norm_activation_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = first_map(arguments, "dy"), x = next_map(arguments, "x", dy), dx = new_map(x);
  const int64_t C = x.size(3);
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  const auto mean = channels(arguments, "mean", C), var = channels(arguments, "var", C);
  const double eps = arguments.take<double>();
  const Tensor dweight = new_channels(C, x), dbias = new_channels(C, x);
  run_pass(BatchStatisticsGradients{tokens(x), C, read(dy), read(x), mean.data(), var.data(), weight.data(), bias.data(), eps,
                                    activation(arguments.take<int64_t>()), data(dx), data(dweight), data(dbias)});
  boxed::give<3>(stack, {dx, dweight, dbias});
}

void norm_gate(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = first_map(arguments, "x"), gate = next_map(arguments, "gate", x), y = new_map(x);
  const int64_t C = x.size(3);
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  run_pass(GatedNormParams<float>{tokens(x), C, read(x), read(gate), weight.data(), bias.data(), arguments.take<double>(),
                                  data(y)});
  boxed::give<1>(stack, {y});
}

void norm_gate_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = first_map(arguments, "dy"), x = next_map(arguments, "x", dy), gate = next_map(arguments, "gate", dy);
  const int64_t C = x.size(3);
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  const Tensor dx = new_map(x), dgate = new_map(x), dweight = new_channels(C, x), dbias = new_channels(C, x);
  run_pass(NormGateGradients{tokens(x), C, read(dy), read(x), read(gate), weight.data(), bias.data(),
                             arguments.take<double>(), data(dx), data(dgate), data(dweight), data(dbias)});
  boxed::give<4>(stack, {dx, dgate, dweight, dbias});
}

void norm_average(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = first_map(arguments, "x");
  const int64_t B = x.size(0), C = x.size(3);
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  const Tensor mean = empty({B, 1, 1, C}, ScalarType::Float, x);
  run_pass(NormMeanParams<float>{B, image_tokens(x), C, read(x), weight.data(), bias.data(), arguments.take<double>(),
                                 data(mean)});
  boxed::give<1>(stack, {mean});
}

void norm_average_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor given = arguments.tensor(), x = first_map(arguments, "x");
  const int64_t B = x.size(0), C = x.size(3);
  const auto dmean = parameter(given, "dmean", "[B, 1, 1, C]", {B, 1, 1, C});
  const auto weight = channels(arguments, "weight", C), bias = channels(arguments, "bias", C);
  const Tensor dx = new_map(x), dweight = new_channels(C, x), dbias = new_channels(C, x);
  run_pass(NormMeanGradients{B, image_tokens(x), C, dmean.data(), read(x), weight.data(), arguments.take<double>(), data(dx),
                             data(dweight), data(dbias)});
  boxed::give<3>(stack, {dx, dweight, dbias});
}

// The maps a and, perhaps, b with the scales of their channels.
struct Blended {
  Blended(Arguments& arguments, const Tensor* like) : a(arguments.tensor()) {
    check_first(a, "a", 4);
    if (scalar_type(a) != ScalarType::Float) fail("`a` must be float32, got ", scalar_type(a));
    if (like) check_map(*like, "dy", a);
    const int64_t B = a.size(0), C = a.size(3);
    scale_a = parameter(arguments.tensor(), "scale_a", "[B, 1, 1, C]", {B, 1, 1, C});
    b = arguments.optional();
    check_map(b, "b", a);
    const OptionalTensor scale = arguments.optional();
    if (b.has_value() != scale.has_value()) fail("`b` and `scale_b` must be given together");
    scale_b = parameter(scale, "scale_b", "[B, 1, 1, C]", {B, 1, 1, C});
  }

  const Tensor a;
  OptionalTensor b;
  Values<float> scale_a, scale_b;
};

void blend(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const OptionalTensor x = arguments.optional();
  const Blended in(arguments, nullptr);
  check_map(x, "x", in.a);
  const Tensor& a = in.a;
  const Tensor y = new_map(a);
  run_pass(Blend{a.size(0), image_tokens(a), a.size(3), read(x), read(a), read(in.b), in.scale_a.data(), in.scale_b.data(),
                 data(y)});
  boxed::give<1>(stack, {y});
}

void blend_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = arguments.tensor();
  const Blended in(arguments, &dy);
  const int64_t B = in.a.size(0), C = in.a.size(3);
  const Sizes none{0}, scale{B, 1, 1, C};
  const Tensor da = new_map(in.a), dscale_a = empty(scale, ScalarType::Float, dy);
  const Tensor db = in.b ? new_map(*in.b) : empty(none, ScalarType::Float, dy);
  const Tensor dscale_b = empty(in.b ? scale : none, ScalarType::Float, dy);
  run_pass(BlendGradients{B, image_tokens(dy), C, read(dy), read(in.a), read(in.b), in.scale_a.data(), in.scale_b.data(),
                          data(da), data(dscale_a), data(db), data(dscale_b)});
  boxed::give<4>(stack, {da, dscale_a, db, dscale_b});
}

// The weight [sets, out, in], the step, and the sets of the phases.
struct Phases {
  Phases(Arguments& arguments, int64_t in) : weight(arguments.tensor()) {
    if (weight.dim() != 3) fail("`weight` must have shape [sets, out, in], got ", weight.dim(), " dimensions");
    values = parameter(weight, "weight", "[sets, out, in]", {weight.size(0), weight.size(1), in});
    step = arguments.take<int64_t>();
    sets = arguments.take<Sizes>();
    if (step < 1 || int64_t(sets.size()) != step * step) fail("`sets` must have step * step entries, got ", sets.size());
    for (const int64_t set : sets)
      if (set < 0 || set >= weight.size(0)) fail("`sets` must be below ", weight.size(0), ", got ", set);
  }

  const Tensor weight;
  Values<float> values;
  int64_t step;
  Sizes sets;
};

void phase_projection(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor x = first_map(arguments, "x");
  const Phases phases(arguments, x.size(3));
  const int64_t B = x.size(0), H = x.size(1), W = x.size(2), out = phases.weight.size(1);
  const Tensor y = empty({B, H, W, out}, ScalarType::Float, x);
  run_pass(PhaseProjection{B, H, W, x.size(3), out, phases.step, phases.sets.data(), phases.weight.size(0), read(x),
                           phases.values.data(), false, data(y)});
  boxed::give<1>(stack, {y});
}

void phase_projection_backward(StableIValue* stack, uint64_t, uint64_t) {
  Arguments arguments{stack};
  const Tensor dy = first_map(arguments, "dy"), x = first_map(arguments, "x");
  const Phases phases(arguments, x.size(3));
  const int64_t B = x.size(0), H = x.size(1), W = x.size(2), in = x.size(3), out = phases.weight.size(1);
  check_shape(shape(dy), "dy", "[B, H, W, out]", {B, H, W, out});
  const Tensor dx = new_map(x), dweight = empty({phases.weight.size(0), out, in}, ScalarType::Float, x);
  run_pass(PhaseProjection{B, H, W, out, in, phases.step, phases.sets.data(), phases.weight.size(0), read(dy),
                           phases.values.data(), true, data(dx)});
  run_pass(PhaseProjectionGradients{B, H, W, in, out, phases.step, phases.sets.data(), phases.weight.size(0), read(dy),
                                    read(x), data(dweight)});
  boxed::give<2>(stack, {dx, dweight});
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mmevm, m) {
  for (const char* schema : kTrainingSchemas) m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(mmevm, CPU, m) {
  m.impl("depthwise_activation", &depthwise_activation);
  m.impl("_depthwise_activation_backward", &depthwise_activation_backward);
  m.impl("batch_norm_activation", &batch_norm_activation);
  m.impl("_batch_norm_activation_backward", &batch_norm_activation_backward);
  m.impl("norm_gate", &norm_gate);
  m.impl("_norm_gate_backward", &norm_gate_backward);
  m.impl("norm_average", &norm_average);
  m.impl("_norm_average_backward", &norm_average_backward);
  m.impl("blend", &blend);
  m.impl("_blend_backward", &blend_backward);
  m.impl("phase_projection", &phase_projection);
  m.impl("_phase_projection_backward", &phase_projection_backward);
}

}  // namespace mmevm
