// PyTorch's threads, for csrc/core.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../core/scan.h"

namespace mmevm {

inline Host torch_host() {
  const auto parallel_for = [](void*, int64_t count, void (*body)(void*, int64_t), void* argument) {
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(argument, i);
    });
  };
  return {parallel_for, nullptr, int(torch::stable::get_num_threads())};
}

}  // namespace mmevm
