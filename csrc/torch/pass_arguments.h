// Arguments of the operators that are passes of csrc/core: what they check, and how they are run.
#pragma once

#include <memory>
#include <type_traits>

#include "../core/passes.h"
#include "cpu_host.h"
#include "operators.h"

namespace mmevm {

using boxed::Arguments;

// Maps have the dtype of the first one, float32 or bfloat16.
inline void check_map(const Tensor& t, const char* name, const Tensor& like) {
  if (scalar_type(t) != scalar_type(like))
    fail("`", name, "` must be ", scalar_type(like), " like the first input, got ", scalar_type(t));
  if (t.dim() != like.dim() || !std::equal(t.sizes().begin(), t.sizes().end(), like.sizes().begin()))
    fail("`", name, "` must have the first input's shape");
  if (!t.is_contiguous()) fail("`", name, "` must be contiguous");
}

inline void check_map(const OptionalTensor& t, const char* name, const Tensor& like) {
  if (t) check_map(*t, name, like);
}

inline void check_first(const Tensor& t, const char* name, int64_t dims) {
  const ScalarType type = scalar_type(t);
  if (type != ScalarType::Float && type != ScalarType::BFloat16)
    fail("`", name, "` must be float32 or bfloat16, got ", type);
  if (dims == 4 && t.dim() != 4) fail("`", name, "` must have shape [B, H, W, C], got ", t.dim(), " dimensions");
  if (t.dim() == 0) fail("`", name, "` must have shape [..., C], got no dimension");
  if (!t.is_contiguous()) fail("`", name, "` must be contiguous");
}

// The values of a parameter. Those of bfloat16 are converted here: a call of PyTorch for each takes as long as a small pass.
template <class T>
class Values {
 public:
  Values() = default;
  explicit Values(const Tensor& t) : tensor_(as_contiguous(t)) {
    const ScalarType own = scalar_type(t);
    if (own == ScalarType::BFloat16) {
      const auto* values = pointer<BFloat16>(*tensor_);
      copy_.resize(tensor_->numel());
      for (size_t i = 0; i < copy_.size(); ++i) copy_[i] = value_of(values[i]);
    } else if (own != (std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float)) {
      tensor_ = as_contiguous(t, std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float);
    }
  }
  explicit Values(const OptionalTensor& t) : Values(t ? Values(*t) : Values()) {}

  const T* data() const { return !tensor_ ? nullptr : copy_.empty() ? pointer<T>(*tensor_) : copy_.data(); }

 private:
  OptionalTensor tensor_;
  std::vector<T> copy_;
};

template <class OneTensor>
Values<float> parameter(const OneTensor& t, const char* name, const char* dims, std::initializer_list<int64_t> expected) {
  check_shape(shape(t), name, dims, expected);
  return Values<float>(t);
}

// A matrix, or the weight of a convolution of kernel size 1, of the map's dtype.
inline void check_matrix(const Tensor& t, const char* name, const char* dims, int64_t rows, int64_t cols, const Tensor& x) {
  const bool of_conv = t.dim() == 4 && t.size(2) == 1 && t.size(3) == 1;
  check_shape({t.sizes().data(), of_conv ? 2 : t.dim()}, name, dims, {rows, cols});
  if (scalar_type(t) != scalar_type(x) || !t.is_contiguous())
    fail("`", name, "` must be contiguous and ", scalar_type(x), " as `x`");
}

inline Activation activation(int64_t index) {
  if (index < 0 || index >= kActivations) fail("`activation` must be below ", kActivations, ", got ", index);
  return Activation(index);
}

// Calls fn with a value of the type of the map's data.
template <class Fn>
void with_data(const Tensor& map, Fn&& fn) {
  if (scalar_type(map) == ScalarType::Float) fn(float());
  else fn(BFloat16());
}

template <class Params>
void run_pass(const Params& p) {
  const Host host = torch_host();
  const std::unique_ptr<char[]> workspace(new char[pass_workspace(p, host.threads)]);
  run(p, host, workspace.get());
}

inline Tensor new_map(const Tensor& t) { return empty(Sizes(t.sizes().begin(), t.sizes().end()), scalar_type(t), t); }

inline int64_t last(const Tensor& t) { return t.size(t.dim() - 1); }
inline int64_t tokens(const Tensor& t) { return last(t) ? t.numel() / last(t) : 0; }

}  // namespace mmevm
