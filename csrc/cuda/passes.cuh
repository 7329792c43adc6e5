// Picks the kernel for a pass and a number of states.
#pragma once

#include "merge.cuh"
#include "scan_backward.cuh"

namespace mmevm::cuda {

// Calls `body` with the number of states as a constant.
template <class Body>
auto with_states(int states, const Body& body) {
  switch (states) {
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    case 4: return body(std::integral_constant<int, 4>());
    case 8: return body(std::integral_constant<int, 8>());
    default: return body(std::integral_constant<int, kMaxStates>());
  }
}

template <class T, template <class, int> class Source, class Params>
constexpr Kernels<Params> make_kernels() {
  Kernels<Params> kernels{};
  kernels.shared_bytes = [](Pass pass, const Params& p, int states, int threads) {
    return with_states(states, [&](auto n) {
      const bool backward = pass == Pass::kBackward;
      const int floats = Source<T, n()>::shared_floats(p, threads, backward);
      return sizeof(float) * (floats + (backward ? backward_floats<n()>(threads) : forward_floats<n()>(threads)));
    });
  };
  kernels.run = [](Pass pass, const Params& p, int states, int threads, size_t bytes, cudaStream_t stream) {
    return with_states(states, [&](auto n) {
      using S = Source<T, n()>;
      const int64_t blocks = int64_t(p.B) * p.segments * p.sets * p.slices * p.channel_blocks;
      void (*kernel)(Params) = scan_forward_kernel<S, n(), true>;
      if (pass == Pass::kForwardLocal) kernel = scan_forward_kernel<S, n(), false>;
      if (pass == Pass::kBackward) kernel = scan_backward_kernel<S, n()>;
      if (pass == Pass::kBackwardLocal) kernel = adjoint_local_kernel<S, n()>;
      return launch(kernel, blocks, threads, bytes, stream, p);
    });
  };
  kernels.merge = merge<T>;
  return kernels;
}

}  // namespace mmevm::cuda
