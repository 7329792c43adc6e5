// Launchers of the visual scan; csrc/schemas.h has the schemas.
#pragma once

#include <tuple>

#include "../checks.h"

namespace mmevm::cuda {

std::tuple<at::Tensor, at::Tensor> visual_scan_forward(
    const at::Tensor& x, const at::Tensor& x_dbl, const at::Tensor& dt_weight, const OptionalTensor& dt_bias,
    const at::Tensor& A, const OptionalTensor& Ds, int64_t step, at::IntArrayRef routes, bool save_states);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> visual_scan_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& x_dbl, const at::Tensor& dt_weight,
    const OptionalTensor& dt_bias, const at::Tensor& A, const OptionalTensor& Ds, const at::Tensor& states, int64_t step,
    at::IntArrayRef routes);

}  // namespace mmevm::cuda
