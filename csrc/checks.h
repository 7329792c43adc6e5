// Input checks that every device shares. mmevm/ops/checks.py says the same in Python, where most users meet them first.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

namespace mmevm {

using OptionalTensor = std::optional<at::Tensor>;

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// ``delta` must have shape [B, D, L] = [2, 96, 49], got [2, 96, 50]`
inline void check_shape(const at::Tensor& t, const char* name, const char* dims, at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(t.sizes() == expected, "`", name, "` must have shape ", dims, " = ", expected, ", got ", t.sizes());
}

inline void check_optional_shape(const OptionalTensor& t, const char* name, const char* dims, at::IntArrayRef expected) {
  if (t) check_shape(*t, name, dims, expected);
}

inline void check_dim(const at::Tensor& t, const char* name, const char* dims, int64_t ndim) {
  TORCH_CHECK_VALUE(t.dim() == ndim, "`", name, "` must have shape ", dims, ", got ", t.sizes());
}

inline at::ScalarType accumulate_type(const at::Tensor& input) {
  return input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Data tensors: float16, bfloat16, float32 or float64.
inline void check_data(const at::Tensor& t, const char* name, const at::Tensor& first) {
  TORCH_CHECK_TYPE(at::isFloatingType(t.scalar_type()), "`", name, "` must be float16, bfloat16, float32 or float64, got ",
                   t.scalar_type());
  TORCH_CHECK_VALUE(t.device() == first.device(), "`", name, "` must be on ", first.device(), " like the first input, got ",
                    t.device());
}

// Parameter tensors: float32, or float64 beside float64 data.
inline void check_parameter(const OptionalTensor& t, const char* name, const at::Tensor& first) {
  if (!t) return;
  TORCH_CHECK_TYPE(t->scalar_type() == accumulate_type(first), "`", name, "` must be ", accumulate_type(first), " for ",
                   first.scalar_type(), " data, got ", t->scalar_type());
  TORCH_CHECK_VALUE(t->device() == first.device(), "`", name, "` must be on ", first.device(), " like the first input, got ",
                    t->device());
}

inline void check_selective_scan(const at::Tensor& u, const at::Tensor& delta, const at::Tensor& A, const at::Tensor& Bs,
                                 const at::Tensor& Cs, const OptionalTensor& Ds, const OptionalTensor& delta_bias) {
  check_dim(u, "u", "[B, D, L]", 3);
  check_dim(A, "A", "[D, N]", 2);
  check_dim(Bs, "Bs", "[B, G, N, L]", 4);
  const int64_t B = u.size(0), D = u.size(1), L = u.size(2), N = A.size(1), G = Bs.size(1);
  TORCH_CHECK_VALUE(L > 0 && D > 0, "`u` must have at least one channel and one token, got shape ", u.sizes());
  TORCH_CHECK_VALUE(N >= 1 && N <= 256, "`A` must have 1 to 256 states, got ", N);
  TORCH_CHECK_VALUE(G > 0 && D % G == 0, "`Bs` must have a number of groups that divides D = ", D, ", got ", G);
  check_shape(delta, "delta", "[B, D, L]", {B, D, L});
  check_shape(A, "A", "[D, N]", {D, N});
  check_shape(Bs, "Bs", "[B, G, N, L]", {B, G, N, L});
  check_shape(Cs, "Cs", "[B, G, N, L]", {B, G, N, L});
  check_optional_shape(Ds, "Ds", "[D]", {D});
  check_optional_shape(delta_bias, "delta_bias", "[D]", {D});
  check_data(u, "u", u);
  check_data(delta, "delta", u);
  check_data(Bs, "Bs", u);
  check_data(Cs, "Cs", u);
  check_parameter(A, "A", u);
  check_parameter(Ds, "Ds", u);
  check_parameter(delta_bias, "delta_bias", u);
}

inline void check_visual_scan(const at::Tensor& x, const at::Tensor& x_dbl, const at::Tensor& dt_weight,
                              const OptionalTensor& dt_bias, const at::Tensor& A, const OptionalTensor& Ds) {
  check_dim(x, "x", "[B, H, W, D]", 4);
  check_dim(x_dbl, "x_dbl", "[B, H, W, P, R + 2N]", 5);
  check_dim(dt_weight, "dt_weight", "[K, D, R]", 3);
  check_dim(A, "A", "[K, D, N]", 3);
  const int64_t B = x.size(0), H = x.size(1), W = x.size(2), D = x.size(3);
  const int64_t K = dt_weight.size(0), R = dt_weight.size(2), N = A.size(2);
  TORCH_CHECK_VALUE(H > 0 && W > 0 && D > 0, "`x` must have at least one cell and one channel, got shape ", x.sizes());
  TORCH_CHECK_VALUE(N >= 1 && N <= 256, "`A` must have 1 to 256 states, got ", N);
  check_shape(x_dbl, "x_dbl", "[B, H, W, P, R + 2N]", {B, H, W, x_dbl.size(3), R + 2 * N});
  check_shape(dt_weight, "dt_weight", "[K, D, R]", {K, D, R});
  check_shape(A, "A", "[K, D, N]", {K, D, N});
  check_optional_shape(dt_bias, "dt_bias", "[K, D]", {K, D});
  check_optional_shape(Ds, "Ds", "[K, D]", {K, D});
  check_data(x, "x", x);
  check_data(x_dbl, "x_dbl", x);
  check_parameter(dt_weight, "dt_weight", x);
  check_parameter(dt_bias, "dt_bias", x);
  check_parameter(A, "A", x);
  check_parameter(Ds, "Ds", x);
}

}  // namespace mmevm
