// Launchers of the selective scan; csrc/schemas.h has the schemas.
#pragma once

#include <tuple>

#include "../checks.h"

namespace mmevm::cuda {

std::tuple<at::Tensor, at::Tensor, at::Tensor> selective_scan_forward(
    const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A, const at::Tensor& Bs, const at::Tensor& Cs,
    const OptionalTensor& Ds, const OptionalTensor& delta_bias, bool delta_softplus, bool save_states);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> selective_scan_backward(
    const at::Tensor& dy, const OptionalTensor& dlast_state, const at::Tensor& u, const at::Tensor& delta,
    const at::Tensor& A, const at::Tensor& Bs, const at::Tensor& Cs, const OptionalTensor& Ds,
    const OptionalTensor& delta_bias, const at::Tensor& states, bool delta_softplus);

}  // namespace mmevm::cuda
