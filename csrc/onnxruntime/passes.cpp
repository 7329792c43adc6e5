// The fused passes of core/passes.h for ONNX Runtime.
#include "../core/passes.h"

#include "operator.h"

namespace mmevm {
namespace {

template <class Params>
void run_pass(const Params& p, OrtKernelContext* context) {
  const Threads threads{context};
  const Host host = threads.host();
  const std::unique_ptr<char[]> workspace(new char[pass_workspace(p, host.threads)]);
  run(p, host, workspace.get());
}

// A map [B, H, W, C] or tokens [..., C].
struct Map : Input {
  Map(const OrtKernelContext* context, size_t index, const char* name, size_t dims = 0) : Input(context, index) {
    if (dims && sizes.size() != dims) fail("`", name, "` must have shape [B, H, W, C], got ", sizes.size(), " dimensions");
    if (sizes.empty()) fail("`", name, "` must have shape [..., C], got no dimension");
    for (const int64_t size : sizes) elements *= size;
  }

  int64_t C() const { return sizes.back(); }
  int64_t tokens() const { return C() ? elements / C() : 0; }

  int64_t elements = 1;
};

Input input_like(const Map& x, const OrtKernelContext* context, size_t index, const char* name) {
  Input input(context, index);
  if (input.sizes != x.sizes) fail("`", name, "` must have the first input's shape");
  return input;
}

Input parameter(const OrtKernelContext* context, size_t index, const char* name, const char* dims,
                std::initializer_list<int64_t> expected) {
  Input input(context, index);
  check_shape(input.shape(), name, dims, expected);
  return input;
}

template <Activation activation>
class Depthwise {
 public:
  static constexpr const char* name = activation == Activation::kSilu ? "DepthwiseSilu" : "DepthwiseGelu";
  static constexpr int inputs = 3;

  explicit Depthwise(Attributes attributes) : pads_(attributes.integers("pads")) {
    if (pads_.size() != 4) fail("`pads` must be four integers, got ", pads_.size());
  }

  void compute(OrtKernelContext* context) const {
    const Map x(context, 0, "x", 4);
    const Input weight(context, 1);
    const int64_t C = x.C(), rows = pads_[0] + 1 + pads_[2], cols = pads_[1] + 1 + pads_[3];
    check_shape(weight.shape(), "weight", "[C, 1, rows, columns]", {C, 1, rows, cols});
    if (*std::min_element(pads_.begin(), pads_.end()) < 0 || !serves_depthwise(rows, cols))
      fail("`weight` must have shape [C, 1, 3, 3] or [C, 1, 1, 4] and cover its own cell");
    const Input bias = parameter(context, 2, "bias", "[C]", {C});
    float* const y = make_output(context, x.sizes);
    run_pass(DepthwiseParams<float>{x.sizes[0], x.sizes[1], x.sizes[2], C, rows, cols, pads_[0], pads_[1], x.data,
                                    weight.data, bias.data, BatchNorm(), activation, y},
             context);
  }

 private:
  std::vector<int64_t> pads_;  // above, before, below, behind
};

// An operator with an `epsilon`.
class Norm {
 public:
  explicit Norm(Attributes attributes) : epsilon_(attributes.number("epsilon")) {}

 protected:
  float epsilon_;
};

class GatedNorm : Norm {
 public:
  static constexpr const char* name = "GatedNorm";
  static constexpr int inputs = 4;
  using Norm::Norm;

  void compute(OrtKernelContext* context) const {
    const Map x(context, 0, "x");
    const Input gate = input_like(x, context, 1, "gate");
    const Input weight = parameter(context, 2, "weight", "[C]", {x.C()}), bias = parameter(context, 3, "bias", "[C]", {x.C()});
    float* const y = make_output(context, x.sizes);
    run_pass(GatedNormParams<float>{x.tokens(), x.C(), x.data, gate.data, weight.data, bias.data, epsilon_, y}, context);
  }
};

class NormMean : Norm {
 public:
  static constexpr const char* name = "NormMean";
  static constexpr int inputs = 3;
  using Norm::Norm;

  void compute(OrtKernelContext* context) const {
    const Map x(context, 0, "x", 4);
    const int64_t B = x.sizes[0], C = x.C();
    const Input weight = parameter(context, 1, "weight", "[C]", {C}), bias = parameter(context, 2, "bias", "[C]", {C});
    float* const mean = make_output(context, {B, 1, 1, C});
    run_pass(NormMeanParams<float>{B, x.sizes[1] * x.sizes[2], C, x.data, weight.data, bias.data, epsilon_, mean}, context);
  }
};

class RmsNorm : Norm {
 public:
  static constexpr const char* name = "RmsNorm";
  static constexpr int inputs = 2;
  using Norm::Norm;

  void compute(OrtKernelContext* context) const {
    const Map x(context, 0, "x");
    const Input weight = parameter(context, 1, "weight", "[C]", {x.C()});
    float* const y = make_output(context, x.sizes);
    run_pass(RmsNormParams<float>{x.tokens(), x.C(), x.data, weight.data, epsilon_, y}, context);
  }
};

class GatedMean {
 public:
  static constexpr const char* name = "GatedMean";
  static constexpr int inputs = 3;

  explicit GatedMean(Attributes) {}

  void compute(OrtKernelContext* context) const {
    const Map a(context, 0, "a");
    const Input b = input_like(a, context, 1, "b"), gate = input_like(a, context, 2, "gate");
    float* const y = make_output(context, a.sizes);
    run_pass(GatedMeanParams<float>{a.elements, a.data, b.data, gate.data, y}, context);
  }
};

class ScaledSum {
 public:
  static constexpr const char* name = "ScaledSum";
  static constexpr int inputs = 5;

  explicit ScaledSum(Attributes) {}

  void compute(OrtKernelContext* context) const {
    const Map x(context, 0, "x", 4);
    const int64_t B = x.sizes[0], C = x.C();
    const Input a = input_like(x, context, 1, "a"), b = input_like(x, context, 3, "b");
    const Input scale_a = parameter(context, 2, "scale_a", "[B, 1, 1, C]", {B, 1, 1, C});
    const Input scale_b = parameter(context, 4, "scale_b", "[B, 1, 1, C]", {B, 1, 1, C});
    float* const y = make_output(context, x.sizes);
    run_pass(ScaledSumParams<float>{B, x.sizes[1] * x.sizes[2], C, x.data, a.data, b.data, scale_a.data, scale_b.data, y},
             context);
  }
};

}  // namespace

std::vector<const OrtCustomOp*> pass_operators() {
  return {describe<Depthwise<Activation::kSilu>>(), describe<Depthwise<Activation::kGelu>>(), describe<GatedNorm>(),
          describe<NormMean>(), describe<RmsNorm>(), describe<GatedMean>(), describe<ScaledSum>()};
}

}  // namespace mmevm
