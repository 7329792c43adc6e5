// Where a host's workspace begins. Hosts give a cache line more than is used.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mmevm {

constexpr size_t kAlignment = 64;

template <class T>
T* aligned(void* workspace) {
  return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(workspace) + kAlignment - 1) / kAlignment * kAlignment);
}

}  // namespace mmevm
