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
inline Shape shape(const Sizes& sizes) { return sizes.empty() ? Shape() : Shape{sizes.data(), int64_t(sizes.size())}; }

// With one call through the ABI where the tensor's own needs a dozen: these are asked for often.
inline ScalarType scalar_type(const Tensor& t) {
  static const int32_t float32 = aoti_torch_dtype_float32(), bfloat16 = aoti_torch_dtype_bfloat16();
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &dtype));
  return dtype == float32 ? ScalarType::Float : dtype == bfloat16 ? ScalarType::BFloat16 : t.scalar_type();
}

struct DeviceOf {
  explicit DeviceOf(const Tensor& t) : index(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t.get(), &type));
  }
  bool operator!=(const DeviceOf& other) const { return type != other.type || index != other.index; }

  int32_t type, index;
};

// An uninitialised tensor on the device of `like`.
inline Tensor empty(const Sizes& sizes, ScalarType type, const Tensor& like) {
  Sizes strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(sizes[i], 1);
  const auto dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  const DeviceOf device(like);
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides.data(), dtype, device.type,
                                                  device.index, &handle));
  return Tensor(handle);
}

inline Tensor zeros(const Sizes& sizes, ScalarType type, const Tensor& like) {
  Tensor t = empty(sizes, type, like);
  TORCH_ERROR_CODE_CHECK(aoti_torch_zero_(t.get()));
  return t;
}

// Without the dispatcher where there is nothing to do.
inline Tensor to(const Tensor& t, ScalarType type) { return scalar_type(t) == type ? t : torch::stable::to(t, type); }
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

// The sum over the first dimension; of one entry, a view without it.
inline Tensor sum_first(const Tensor& t) {
  const auto sizes = t.sizes(), strides = t.strides();
  if (sizes[0] != 1) return sum_over(t, {0});
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch__reinterpret_tensor(t.get(), t.dim() - 1, sizes.data() + 1, strides.data() + 1,
                                                        t.storage_offset(), &handle));
  return Tensor(handle);
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
  return scalar_type(first) == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16 ||
         type == ScalarType::Double || std::string(torch::headeronly::toString(type)).find("Float8") == 0;
}

// Compares tensors with an operator's first input.
class InputChecks {
 public:
  explicit InputChecks(const Tensor& first) : first(first), type(accumulate_type(first)), device(first) {}

  void data(const Tensor& t, const char* name) const {
    const ScalarType own = scalar_type(t);
    if (!is_floating(own)) fail("`", name, "` must be float16, bfloat16, float32 or float64, got ", own);
    same_device(t, name);
  }

  // Parameter tensors: float32, or float64 beside float64 data.
  void parameter(const Tensor& t, const char* name) const {
    const ScalarType own = scalar_type(t);
    if (own != type) fail("`", name, "` must be ", type, " for ", scalar_type(first), " data, got ", own);
    same_device(t, name);
  }

  void parameter(const OptionalTensor& t, const char* name) const {
    if (t) parameter(*t, name);
  }

 private:
  void same_device(const Tensor& t, const char* name) const {
    if (DeviceOf(t) != device) fail("`", name, "` must be on ", text(first), " like the first input, got ", text(t));
  }

  static std::string text(const Tensor& t) {
    return t.is_cpu() ? "cpu" : (t.is_cuda() ? "cuda:" : "device ") + std::to_string(t.get_device_index());
  }

  const Tensor& first;
  const ScalarType type;
  const DeviceOf device;
};

}  // namespace mmevm
