// What the launchers of maps and sequences share: how a scan is split into blocks, the passes, and the collection of the
// parameters' gradients.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "../checks.h"
#include "context.h"
#include "kernels.h"

namespace mmevm::cuda {

// Warps per multiprocessor that keep its units busy; fewer, and the sequences are cut into segments.
constexpr int64_t kWantedWarps = 12;

// The kernels count in int, and up to a chunk past the end.
inline int fit_int(int64_t value, const char* what) {
  const int64_t limit = std::numeric_limits<int>::max() - 2 * kChunk;
  TORCH_CHECK_VALUE(value <= limit, what, " must be at most ", limit, " on CUDA, got ", value);
  return int(value);
}

// The type that all data tensors are brought to, the widest among theirs.
template <class... Tensors>
at::ScalarType data_type(const at::Tensor& first, const Tensors&... others) {
  at::ScalarType type = first.scalar_type();
  ((type = at::promote_types(type, others.scalar_type())), ...);
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kHalf || type == at::kBFloat16, "the CUDA kernels serve float16, bfloat16 and float32 data, got ", type,
                   "; use backend='triton' or backend='reference'");
  return type;
}

template <class Params>
const Kernels<Params>& choose_kernels(at::ScalarType type, const Kernels<Params>& on_float,
                                      const Kernels<Params>& on_half, const Kernels<Params>& on_bfloat16) {
  return type == at::kFloat ? on_float : type == at::kHalf ? on_half : on_bfloat16;
}

// The sum of the copies that blocks have written.
inline at::Tensor merge(const at::Tensor& copies, at::ScalarType type) {
  return (copies.size(0) == 1 ? copies[0] : copies.sum(0)).to(type);
}

inline const float* pointer(const OptionalTensor& t) {
  return t && t->numel() ? t->const_data_ptr<float>() : nullptr;
}

inline OptionalTensor contiguous(const OptionalTensor& t) {
  return t ? OptionalTensor(t->contiguous()) : std::nullopt;
}

inline std::vector<int64_t> states_shape(const ScanParams& p) {
  return {p.B, p.sets, ceil_div(p.length, kChunk), p.N, p.channels};
}

// Splits a scan whose sizes are set into blocks, and runs its passes.
template <class Params>
class Scan {
 public:
  Scan(Params& p, const Kernels<Params>& kernels, const Context& context, Pass pass)
      : p(p), kernels(kernels), context(context), pass(pass) {
    p.chunks = int(ceil_div(p.length, kChunk));
    states = 1;
    while (states < std::min(p.N, kMaxStates)) states *= 2;
    p.slices = int(ceil_div(p.N, states));
    split_channels();
    split_tokens();
  }

  int states_per_block() const { return states; }

  void run() {
    const auto options = at::TensorOptions(context.device()).dtype(at::kFloat);
    at::Tensor carry, carry_delta;
    if (p.segments > 1) {
      carry = at::empty({p.B, p.sets, p.segments, p.N, p.channels}, options);
      carry_delta = at::empty({p.B, p.sets, p.segments, p.channels}, options);
      p.carry = carry.data_ptr<float>(), p.carry_delta = carry_delta.data_ptr<float>();
      const bool backward = pass == Pass::kBackward;
      run_pass(backward ? Pass::kBackwardLocal : Pass::kForwardLocal);
      check(fold_carry(p, backward, context.stream()));
    }
    run_pass(pass);
  }

 private:
  void run_pass(Pass which) {
    check(kernels.run(which, p, states, threads, kernels.shared_bytes(which, p, states, threads), context.stream()));
  }

  // As few blocks as let two of them share a multiprocessor's memory.
  void split_channels() {
    const size_t limit = context.shared_bytes();
    size_t bytes;
    p.channel_blocks = int(ceil_div(p.channels, kMaxThreads)) - 1;
    do {
      ++p.channel_blocks;
      threads = int(ceil_div(ceil_div(p.channels, p.channel_blocks), 32) * 32);
      bytes = kernels.shared_bytes(pass, p, states, threads);
    } while (2 * bytes > limit && threads > 32);
    p.channel_blocks = int(ceil_div(p.channels, threads));
    TORCH_CHECK_VALUE(bytes <= limit, "N = ", p.N, " states and R = ", p.R, " low-rank values need ", bytes,
                      " bytes of shared memory, this GPU has ", limit, "; use backend='triton' or backend='reference'");
  }

  // Segments cost a second pass, so that they pay from three on.
  void split_tokens() {
    const int64_t blocks = int64_t(p.B) * p.sets * p.slices * p.channel_blocks;
    const int64_t wanted = kWantedWarps * context.multiprocessors() / std::max<int64_t>(1, blocks * threads / 32);
    const int64_t segments = wanted < 3 ? 1 : std::min<int64_t>(wanted, p.chunks);
    p.segment_chunks = int(ceil_div(p.chunks, segments));
    p.segments = int(ceil_div(p.chunks, p.segment_chunks));
    fit_int(blocks * p.segments, "the number of blocks");
  }

  Params& p;
  const Kernels<Params>& kernels;
  const Context& context;
  const Pass pass;
  int states, threads;
};

// Collects [B, segments, slices, sets, states + R + 2, channels] into [sets, channels, N], [sets, channels, R] and twice
// [sets, channels].
struct ParameterGradients {
  ParameterGradients(const ScanParams& p, int states, const at::Tensor& partial) {
    const at::Tensor sums = partial.sum(at::IntArrayRef{0, 1});
    const int64_t sets = sums.size(1);
    A = sums.narrow(2, 0, states).permute({1, 3, 0, 2}).reshape({sets, p.channels, -1}).narrow(2, 0, p.N).contiguous();
    const at::Tensor rest = sums.narrow(2, states, p.R + 2).sum(0);
    dt_weight = rest.narrow(1, 0, p.R).transpose(1, 2).contiguous();
    Ds = rest.select(1, p.R).contiguous(), bias = rest.select(1, p.R + 1).contiguous();
  }

  at::Tensor A, dt_weight, Ds, bias;
};

inline at::Tensor new_parameter_gradients(const ScanParams& p, int states, const at::TensorOptions& options) {
  const int64_t rows = states + p.R + 2;
  return at::empty({p.B, p.segments, p.slices, p.sets, rows, p.channels}, options.dtype(at::kFloat));
}

}  // namespace mmevm::cuda
