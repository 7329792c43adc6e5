// The launchers of the CUDA kernels; results in the order of the schemas.
#pragma once

#include "../torch/operators.h"

namespace mmevm::cuda {

std::array<Tensor, 3> selective_scan(const SequenceInputs& in, bool save_states);
std::array<Tensor, 7> selective_scan_backward(const SequenceInputs& in, const SequenceGradients& gradients);
std::array<Tensor, 2> visual_scan(const MapInputs& in, bool save_states);
std::array<Tensor, 6> visual_scan_backward(const MapInputs& in, const MapGradients& gradients);

// See Scan::plan. For tests, and for benchmarks, whose floors depend on it.
std::vector<int64_t> plan_visual_scan(Tensor x, Tensor x_dbl, Tensor dt_weight, OptionalTensor dt_bias, Tensor A,
                                      OptionalTensor Ds, int64_t step, std::vector<int64_t> routes, bool backward);
constexpr const char* kPlanSchema =
    "_visual_scan_plan(Tensor x, Tensor x_dbl, Tensor dt_weight, Tensor? dt_bias, Tensor A, Tensor? Ds, int step, "
    "int[] routes, bool backward) -> int[]";

constexpr Operators operators{&selective_scan, &selective_scan_backward, &visual_scan, &visual_scan_backward};

}  // namespace mmevm::cuda
