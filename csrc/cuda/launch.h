// What the launchers of maps and sequences share: how a scan is split into blocks, the passes, and the collection of the
// parameters' gradients.
#pragma once

#include <algorithm>
#include <limits>

#include "context.h"
#include "kernels.h"
#include "launchers.h"

namespace mmevm::cuda {

// Warps per multiprocessor that keep its units busy; fewer, and the sequences are cut into segments.
constexpr int64_t kWantedWarps = 12;

// The backward pass takes half the states a block, and twice the blocks, rather than fewer warps than these. Each block
// computes the time steps for itself, and the results have to be added up, for which the forward pass is too short.
constexpr int64_t kFewWarps = 9;
constexpr int kLeastStates = 4;

// The kernels count in int, and up to a chunk past the end.
inline int fit_int(int64_t value, const char* what) {
  const int64_t limit = std::numeric_limits<int>::max() - 2 * kChunk;
  if (value > limit) fail(what, " must be at most ", limit, " on CUDA, got ", value);
  return int(value);
}

// The type that all data tensors are brought to: theirs, or float32 where they differ.
inline ScalarType data_type(std::initializer_list<ScalarType> types) {
  bool same = true;
  for (const ScalarType type : types) {
    if (type != ScalarType::Float && type != ScalarType::Half && type != ScalarType::BFloat16)
      fail("the CUDA kernels serve float16, bfloat16 and float32 data, got ", type,
           "; use backend='triton' or backend='reference'");
    same = same && type == *types.begin();
  }
  return same ? *types.begin() : ScalarType::Float;
}

template <class Params>
const Kernels<Params>& choose_kernels(ScalarType type, const Kernels<Params>& on_float, const Kernels<Params>& on_half,
                                      const Kernels<Params>& on_bfloat16) {
  return type == ScalarType::Float ? on_float : type == ScalarType::Half ? on_half : on_bfloat16;
}

// Parameters [sets, channels, i] as [sets, i, channels], so that neighbouring threads read neighbours.
inline Tensor turned(const Tensor& t) { return as_contiguous(torch::stable::transpose(t, 1, 2)); }

inline Sizes states_shape(const ScanParams& p) {
  return {p.B, p.sets, ceil_div(p.length, kChunk), p.N, p.channels};
}

// Blocks of a pass that fit into a multiprocessor.
inline int64_t resident_blocks(const Limits& limits, Pass pass, int threads, size_t bytes) {
  const int registers = 65536 / (kMaxThreads * (pass == Pass::kBackward ? kBackwardBlocks : kForwardBlocks)) / 8 * 8;
  // Each of the four parts of a multiprocessor has a quarter of the registers for its warps.
  const int64_t warps = limits.registers / 4 / (32 * registers) * 4;
  const int64_t by_bytes = int64_t(limits.bytes / (size_t(ceil_div(bytes, 128)) * 128 + limits.reserved_bytes));
  const int64_t blocks = std::min(32 * warps / threads, by_bytes);
  return std::clamp<int64_t>(blocks, 1, std::min(limits.threads / threads, limits.blocks));
}

// Splits a scan whose sizes are set into blocks, and runs its passes.
template <class Params>
class Scan {
 public:
  Scan(Params& p, const Kernels<Params>& kernels, const Context& context, Pass pass)
      : p(p), kernels(kernels), context(context), limits(context.limits()), pass(pass) {
    p.chunks = int(ceil_div(p.length, kChunk));
    states = 1;
    while (states < std::min(p.N, kMaxStates)) states *= 2;
    split_channels();
    if (pass == Pass::kBackward) split_states();
    split_tokens();
  }

  int states_per_block() const { return states; }

  // How the scan is split: states and threads of a block, slices of the states, blocks of channels, segments of tokens,
  // and bytes of shared memory that a block takes.
  std::vector<int64_t> plan() const {
    const size_t bytes = kernels.shared_bytes(pass, p, states, threads);
    return {states, threads, p.slices, p.channel_blocks, p.segments, int64_t(bytes)};
  }

  // Temporary arrays come from the device of `like`.
  void run(const Tensor& like) {
    std::optional<Tensor> carry, carry_delta;
    if (p.segments > 1) {
      carry = empty({p.B, p.sets, p.segments, p.N, p.channels}, ScalarType::Float, like);
      carry_delta = empty({p.B, p.sets, p.segments, p.channels}, ScalarType::Float, like);
      p.carry = mutable_pointer<float>(*carry), p.carry_delta = mutable_pointer<float>(*carry_delta);
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

  // As few blocks as there can be, for each stages the tokens' rows; more where smaller ones let a multiprocessor hold a
  // quarter more channels.
  void split_channels() {
    p.slices = int(ceil_div(p.N, states));
    int64_t best = 0;
    size_t least = 0;
    for (int64_t count = ceil_div(p.channels, kMaxThreads), size = kMaxThreads + 32; size > 32; ++count) {
      size = ceil_div(ceil_div(p.channels, count), 32) * 32;
      least = kernels.shared_bytes(pass, p, states, int(size));
      if (least > limits.bytes_per_block) continue;
      const int64_t blocks = ceil_div(p.channels, size);
      const int64_t resident = resident_blocks(limits, pass, int(size), least) * p.channels / blocks;
      if (4 * resident <= 5 * best) continue;
      best = resident, threads = int(size), p.channel_blocks = int(blocks);
    }
    if (!best)
      fail("N = ", p.N, " states and R = ", p.R, " low-rank values need ", least, " bytes of shared memory, this GPU has ",
           limits.bytes_per_block, "; use backend='triton' or backend='reference'");
  }

  // Where there are too many warps for segments and too few to keep the units busy.
  void split_states() {
    if (states <= kLeastStates || !few_segments() || warps() >= kFewWarps * limits.multiprocessors) return;
    states /= 2;
    split_channels();
  }

  int64_t blocks() const { return int64_t(p.B) * p.sets * p.slices * p.channel_blocks; }
  int64_t warps() const { return blocks() * threads / 32; }
  int64_t wanted_segments() const { return kWantedWarps * limits.multiprocessors / std::max<int64_t>(1, warps()); }

  // Segments cost a second pass, so that they pay from three on.
  bool few_segments() const { return wanted_segments() < 3; }

  void split_tokens() {
    const int64_t segments = few_segments() ? 1 : std::min<int64_t>(wanted_segments(), p.chunks);
    p.segment_chunks = int(ceil_div(p.chunks, segments));
    p.segments = int(ceil_div(p.chunks, p.segment_chunks));
    fit_int(blocks() * p.segments, "the number of blocks");
  }

  Params& p;
  const Kernels<Params>& kernels;
  const Context& context;
  const Limits limits;
  const Pass pass;
  int states, threads;
};

// The sum over the first dimension of a scan's results, which are in the data's type or, where there are several, in float32.
template <class Scan>
Tensor merge(const Scan& scan, const Tensor& copies, ScalarType type) {
  const auto sizes = copies.sizes();
  if (sizes[0] == 1 || copies.numel() == 0) return to(sum_first(copies), type);
  const Tensor sum = empty({sizes.begin() + 1, sizes.end()}, scan.type, copies);
  const Copies p{pointer<float>(copies), int(sizes[0]), sum.numel(), sum.mutable_data_ptr()};
  check(scan.kernels.merge(p, scan.context.stream()));
  return to(sum, type);
}

// The gradients of the parameters of each set.
struct ParameterGradients {
  Tensor A, dt_weight, Ds, bias;  // [sets, channels, N], [sets, channels, R], [sets, channels], [sets, channels]
};

// From [B, segments, slices, sets, states + R + 2, channels].
inline ParameterGradients collect(const ScanParams& p, int states, const Tensor& partial) {
  using torch::stable::transpose, torch::stable::select;
  const Tensor sums = sum_over(partial, {0, 1});
  // [slices, sets, states, channels] -> [sets, channels, slices, states]
  const Tensor A = transpose(transpose(transpose(slice(sums, 2, 0, states), 0, 1), 1, 3), 2, 3);
  const Tensor all_states = torch::stable::reshape(A, {p.sets, p.channels, int64_t(p.slices) * states});
  const Tensor others = sum_over(slice(sums, 2, states, p.R + 2), {0});
  return {as_contiguous(slice(all_states, 2, 0, p.N)), as_contiguous(transpose(slice(others, 1, 0, p.R), 1, 2)),
          as_contiguous(select(others, 1, p.R)), as_contiguous(select(others, 1, p.R + 1))};
}

inline Tensor new_parameter_gradients(const ScanParams& p, int states, const Tensor& like) {
  const int64_t rows = states + p.R + 2;
  return empty({p.B, p.segments, p.slices, p.sets, rows, p.channels}, ScalarType::Float, like);
}

}  // namespace mmevm::cuda
