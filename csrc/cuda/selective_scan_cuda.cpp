#include "selective_scan_cuda.h"

#include "launch.h"

namespace mmevm::cuda {
namespace {

using at::Tensor;

// The operator's inputs, checked, contiguous and of one data type.
struct SequenceInputs {
  SequenceInputs(const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& Bs, const Tensor& Cs,
         const OptionalTensor& Ds, const OptionalTensor& delta_bias, bool delta_softplus)
      : context(u), type(data_type(u, delta, Bs, Cs)), u(u.to(type).contiguous()), delta(delta.to(type).contiguous()),
        A(A.contiguous()), Bs(Bs.to(type).contiguous()), Cs(Cs.to(type).contiguous()), Ds(contiguous(Ds)),
        delta_bias(contiguous(delta_bias)),
        kernels(choose_kernels(type, sequence_float, sequence_half, sequence_bfloat16)) {
    p.B = fit_int(u.size(0), "B"), p.length = fit_int(u.size(2), "L"), p.sets = fit_int(Bs.size(1), "G");
    p.channels = fit_int(u.size(1), "D") / p.sets, p.N = int(A.size(1)), p.R = 0;
    p.delta_softplus = delta_softplus;
    p.u = this->u.const_data_ptr(), p.delta = this->delta.const_data_ptr(), p.A = this->A.const_data_ptr<float>();
    p.Bs = this->Bs.const_data_ptr(), p.Cs = this->Cs.const_data_ptr();
    p.Ds = pointer(this->Ds), p.bias = pointer(this->delta_bias);
  }

  // Copies of a result [B, D, L], one per slice of the states, which are summed.
  Tensor new_sequence() {
    p.float_outputs = p.slices > 1;
    return at::empty({p.slices, p.B, int64_t(p.sets) * p.channels, p.length},
                     u.options().dtype(p.float_outputs ? at::kFloat : type));
  }

  SequenceParams p{};
  const Context context;
  const at::ScalarType type;
  const Tensor u, delta, A, Bs, Cs;
  const OptionalTensor Ds, delta_bias;
  const Kernels<SequenceParams>& kernels;
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor> selective_scan_forward(
    const Tensor& u, const Tensor& delta, const Tensor& A, const Tensor& Bs, const Tensor& Cs, const OptionalTensor& Ds,
    const OptionalTensor& delta_bias, bool delta_softplus, bool save_states) {
  check_selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias);
  SequenceInputs in(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus);
  Scan<SequenceParams> scan(in.p, in.kernels, in.context, Pass::kForward);
  const auto shape = save_states ? states_shape(in.p) : std::vector<int64_t>{0};
  const auto options = u.options().dtype(at::kFloat);
  const Tensor states = at::empty(shape, options), last_state = at::empty({u.size(0), u.size(1), A.size(1)}, options);
  const Tensor y = in.new_sequence();
  if (u.size(0) > 0) {
    in.p.states = save_states ? states.data_ptr<float>() : nullptr, in.p.y = y.data_ptr();
    in.p.last_state = last_state.data_ptr<float>();
    scan.run();
  }
  return {merge(y, u.scalar_type()), last_state, states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> selective_scan_backward(
    const Tensor& dy, const OptionalTensor& dlast_state, const Tensor& u, const Tensor& delta, const Tensor& A,
    const Tensor& Bs, const Tensor& Cs, const OptionalTensor& Ds, const OptionalTensor& delta_bias, const Tensor& states,
    bool delta_softplus) {
  check_selective_scan(u, delta, A, Bs, Cs, Ds, delta_bias);
  SequenceInputs in(u, delta, A, Bs, Cs, Ds, delta_bias, delta_softplus);
  check_shape(dy, "dy", "[B, D, L]", u.sizes());
  check_optional_shape(dlast_state, "dlast_state", "[B, D, N]", {u.size(0), u.size(1), A.size(1)});
  check_shape(states, "states", "[B, G, chunks, N, D / G]", states_shape(in.p));
  check_parameter(states, "states", u);
  Scan<SequenceParams> scan(in.p, in.kernels, in.context, Pass::kBackward);
  const Tensor dy_ = dy.to(in.type).contiguous(), states_ = states.contiguous();
  const OptionalTensor dlast_ = dlast_state ? OptionalTensor(dlast_state->to(at::kFloat).contiguous()) : std::nullopt;
  const Tensor du = in.new_sequence(), ddelta = in.new_sequence();
  const Tensor drows = at::empty({in.p.channel_blocks, 2, in.p.B, in.p.sets, in.p.N, in.p.length},
                                 u.options().dtype(at::kFloat));
  const Tensor partial = new_parameter_gradients(in.p, scan.states_per_block(), u.options());
  if (u.size(0) > 0) {
    in.p.dy = dy_.const_data_ptr(), in.p.states = states_.data_ptr<float>(), in.p.dlast_state = pointer(dlast_);
    in.p.du = du.data_ptr(), in.p.ddelta = ddelta.data_ptr(), in.p.drows = drows.data_ptr<float>();
    in.p.dparameters = partial.data_ptr<float>();
    scan.run();
  }
  const ParameterGradients gradients(in.p, scan.states_per_block(), partial);
  const Tensor rows = merge(drows, at::kFloat);
  const Tensor dDs = gradients.Ds.flatten(), dbias = gradients.bias.flatten();
  return {merge(du, u.scalar_type()), merge(ddelta, delta.scalar_type()),
          gradients.A.reshape({u.size(1), A.size(1)}), rows[0].to(Bs.scalar_type(), false, true),
          rows[1].to(Cs.scalar_type(), false, true), Ds ? dDs : at::zeros_like(dDs),
          delta_bias ? dbias : at::zeros_like(dbias)};
}

}  // namespace mmevm::cuda
