// What a GPU has.
#pragma once

#include <cstddef>

namespace mmevm::cuda {

// Bytes are of shared memory.
struct Limits {
  int multiprocessors;
  size_t bytes_per_block;
  // Of one multiprocessor. Each block takes `reserved_bytes` beside its own.
  size_t bytes, reserved_bytes;
  int registers, threads, blocks;
};

}  // namespace mmevm::cuda
