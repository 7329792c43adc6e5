// Tensors through LibTorch's stable ABI, for the launchers of every device: allocation, conversion and checks.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "../core/checks.h"

namespace mmevm {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

inline Shape shape(const Tensor& t) { return {t.sizes().data(), t.dim()}; }
inline Shape shape(const OptionalTensor& t) { return t ? shape(*t) : Shape(); }

// An uninitialised tensor on the device of `like`.
inline Tensor empty(const Sizes& sizes, ScalarType type, const Tensor& like) {
  Sizes strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  using torch::stable::detail::from;
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  const auto dtype = torch::stable::detail::to<int32_t>(from(type));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), dtype, device_type,
                                                  like.get_device_index(), &handle));
  return Tensor(handle);
}

inline Tensor zeros(const Sizes& sizes, ScalarType type, const Tensor& like) {
  Tensor t = empty(sizes, type, like);
  TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(t.get()));
  return t;
}

// Without the dispatcher where there is nothing to do.
inline Tensor to(const Tensor& t, ScalarType type) { return t.scalar_type() == type ? t : torch::stable::to(t, type); }
inline Tensor as_contiguous(const Tensor& t) { return t.is_contiguous() ? t : torch::stable::contiguous(t); }
inline Tensor as_contiguous(const Tensor& t, ScalarType type) { return as_contiguous(to(t, type)); }
inline OptionalTensor as_contiguous(const OptionalTensor& t, ScalarType type) {
  return t ? OptionalTensor(as_contiguous(*t, type)) : std::nullopt;
}

// A view of `length` entries of a dimension.
inline Tensor slice(Tensor t, int64_t dim, int64_t start, int64_t length) {
  return torch::stable::narrow(t, dim, start, length);
}

inline Tensor sum_over(const Tensor& t, const Sizes& dims) { return torch::stable::sum(t, dims); }

// The sum of the copies [copies, ...] that tasks or blocks have written.
inline Tensor merge(const Tensor& copies) {
  return copies.size(0) == 1 ? torch::stable::select(copies, 0, 0) : sum_over(copies, {0});
}

// Sums the routes' gradients [routes, ...] into the K parameter sets.
inline Tensor sum_by_parameters(const Tensor& per_route, const std::vector<Route>& routes, int64_t parameter_sets) {
  const int64_t n = int64_t(routes.size());
  bool same = n == parameter_sets;
  for (int64_t i = 0; i < n; ++i) same = same && routes[i].parameters == i;
  if (same) return per_route;
  Sizes sizes(per_route.sizes().begin(), per_route.sizes().end());
  sizes[0] = parameter_sets;
  const Tensor total = zeros(sizes, per_route.scalar_type(), per_route);
  for (int64_t i = 0; i < n; ++i) {
    Tensor row = torch::stable::select(total, 0, routes[i].parameters);
    torch::stable::copy_(row, torch::stable::subtract(row, torch::stable::select(per_route, 0, i), -1.0));
  }
  return total;
}

template <class T>
const T* pointer(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
const T* pointer(const OptionalTensor& t) {
  return t ? pointer<T>(*t) : nullptr;
}

template <class T>
T* mutable_pointer(const Tensor& t) {
  return t.numel() ? static_cast<T*>(t.mutable_data_ptr()) : nullptr;
}

// The type of states and sums: float32, or float64 for float64 data.
inline ScalarType accumulate_type(const Tensor& first) {
  return first.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline std::string device_name(const Tensor& t) {
  return t.is_cpu() ? "cpu" : (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
}

inline void check_device(const Tensor& t, const char* name, const Tensor& first) {
  if (t.is_cpu() != first.is_cpu() || t.is_cuda() != first.is_cuda() || t.get_device_index() != first.get_device_index())
    fail("`", name, "` must be on ", device_name(first), " like the first input, got ", device_name(t));
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
         type == ScalarType::Double || std::string(torch::headeronly::toString(type)).find("Float8") == 0;
}

inline void check_data(const Tensor& t, const char* name, const Tensor& first) {
  if (!is_floating(t.scalar_type()))
    fail("`", name, "` must be float16, bfloat16, float32 or float64, got ", t.scalar_type());
  check_device(t, name, first);
}

// Parameter tensors: float32, or float64 beside float64 data.
inline void check_parameter(const Tensor& t, const char* name, const Tensor& first) {
  if (t.scalar_type() != accumulate_type(first))
    fail("`", name, "` must be ", accumulate_type(first), " for ", first.scalar_type(), " data, got ", t.scalar_type());
  check_device(t, name, first);
}

inline void check_parameter(const OptionalTensor& t, const char* name, const Tensor& first) {
  if (t) check_parameter(*t, name, first);
}

}  // namespace mmevm
