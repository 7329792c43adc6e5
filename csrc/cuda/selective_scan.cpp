#include "launch.h"

namespace mmevm::cuda {
namespace {

// The operator's inputs, checked, contiguous and of one data type.
struct SequenceScan {
  explicit SequenceScan(const SequenceInputs& in)
      : size(in.check()), context(in.u),
        type(data_type({scalar_type(in.u), scalar_type(in.delta), scalar_type(in.Bs), scalar_type(in.Cs)})),
        u(as_contiguous(in.u, type)), delta(as_contiguous(in.delta, type)), A(as_contiguous(in.A)),
        Bs(as_contiguous(in.Bs, type)), Cs(as_contiguous(in.Cs, type)), Ds(as_contiguous(in.Ds, ScalarType::Float)),
        delta_bias(as_contiguous(in.delta_bias, ScalarType::Float)),
        kernels(choose_kernels(type, sequence_float, sequence_half, sequence_bfloat16)) {
    p.B = fit_int(size.B, "B"), p.length = fit_int(size.L, "L"), p.sets = fit_int(size.G, "G");
    p.channels = fit_int(size.D, "D") / p.sets, p.N = int(size.N), p.R = 0;
    p.delta_softplus = in.delta_softplus;
    p.u = u.const_data_ptr(), p.delta = delta.const_data_ptr(), p.A = pointer<float>(A);
    p.Bs = Bs.const_data_ptr(), p.Cs = Cs.const_data_ptr();
    p.Ds = pointer<float>(Ds), p.bias = pointer<float>(delta_bias);
  }

  Tensor new_floats(const Sizes& sizes) const { return empty(sizes, ScalarType::Float, u); }

  // Copies of a result [B, D, L], one per slice of the states, which are summed.
  Tensor new_sequence() {
    p.float_outputs = p.slices > 1;
    return empty({p.slices, size.B, size.D, size.L}, p.float_outputs ? ScalarType::Float : type, u);
  }

  SequenceParams p{};
  const SequenceSize size;
  const Context context;
  const ScalarType type;
  const Tensor u, delta, A, Bs, Cs;
  const OptionalTensor Ds, delta_bias;
  const Kernels<SequenceParams>& kernels;
};

// One of the two results that share a tensor, as a tensor of its own.
Tensor part(const Tensor& rows, int64_t i, ScalarType type) {
  const auto none = std::nullopt;
  return torch::stable::to(torch::stable::select(rows, 0, i), type, none, none, none, false, /*copy=*/true);
}

}  // namespace

std::array<Tensor, 3> selective_scan(const SequenceInputs& in, bool save_states) {
  SequenceScan scan(in);
  auto& p = scan.p;
  Scan<SequenceParams> passes(p, scan.kernels, scan.context, Pass::kForward);
  const Tensor states = scan.new_floats(save_states ? states_shape(p) : Sizes{0});
  const Tensor last_state = scan.new_floats({scan.size.B, scan.size.D, scan.size.N}), y = scan.new_sequence();
  if (p.B > 0) {
    p.states = mutable_pointer<float>(states), p.y = mutable_pointer<void>(y);
    p.last_state = mutable_pointer<float>(last_state);
    passes.run(scan.u);
  }
  return {merge(scan, y, scalar_type(in.u)), last_state, states};
}

std::array<Tensor, 7> selective_scan_backward(const SequenceInputs& in, const SequenceGradients& gradients) {
  SequenceScan scan(in);
  gradients.check(in, scan.size);
  auto& p = scan.p;
  Scan<SequenceParams> passes(p, scan.kernels, scan.context, Pass::kBackward);
  const Tensor A_by_state = turned(torch::stable::reshape(scan.A, {p.sets, p.channels, p.N}));
  p.A_by_state = pointer<float>(A_by_state);
  const Tensor dy = as_contiguous(gradients.dy, scan.type), states = as_contiguous(gradients.states);
  const OptionalTensor dlast_state = as_contiguous(gradients.dlast_state, ScalarType::Float);
  const Tensor du = scan.new_sequence(), ddelta = scan.new_sequence();
  const Tensor drows = scan.new_floats({p.channel_blocks, 2, p.B, p.sets, p.N, p.length});
  const Tensor partial = new_parameter_gradients(p, passes.states_per_block(), scan.u);
  if (p.B > 0) {
    p.dy = dy.const_data_ptr(), p.states = mutable_pointer<float>(states), p.dlast_state = pointer<float>(dlast_state);
    p.du = mutable_pointer<void>(du), p.ddelta = mutable_pointer<void>(ddelta), p.drows = mutable_pointer<float>(drows);
    p.dparameters = mutable_pointer<float>(partial);
    passes.run(scan.u);
  }
  const ParameterGradients sums = collect(p, passes.states_per_block(), partial);
  const Tensor rows = sum_first(drows);
  const auto absent = [&] { return zeros({scan.size.D}, ScalarType::Float, scan.u); };
  return {merge(scan, du, scalar_type(in.u)),
          merge(scan, ddelta, scalar_type(in.delta)),
          torch::stable::reshape(sums.A, {scan.size.D, scan.size.N}),
          part(rows, 0, scalar_type(in.Bs)),
          part(rows, 1, scalar_type(in.Cs)),
          in.Ds ? torch::stable::flatten(sums.Ds) : absent(),
          in.delta_bias ? torch::stable::flatten(sums.bias) : absent()};
}

}  // namespace mmevm::cuda
