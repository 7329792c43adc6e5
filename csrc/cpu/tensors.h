// Small helpers of the CPU launchers.
#pragma once

#include <ATen/ATen.h>

#include "../checks.h"

namespace mmevm {

// Half precision is widened once; the state and all sums are float32, or float64 for float64 data.
inline at::Tensor widen(const at::Tensor& t, const at::Tensor& first) {
  return t.to(accumulate_type(first)).contiguous();
}

inline OptionalTensor widen(const OptionalTensor& t, const at::Tensor& first) {
  return t ? OptionalTensor(widen(*t, first)) : std::nullopt;
}

template <class T>
T* pointer(const OptionalTensor& t) {
  return t ? t->data_ptr<T>() : nullptr;
}

}  // namespace mmevm
