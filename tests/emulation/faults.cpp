// Kernels with the faults that the emulation has to find.
#include <cstring>

#include "emulation.h"

namespace mmevm::emulation {
namespace {

struct Nothing {};

void idle(Nothing) {}

// Reads four floats behind the first one.
void misaligned_read(Nothing) {
  const float4 v = *reinterpret_cast<const float4*>(shared_memory() + 1);
  shared_memory()[0] = v.x;
}

void misaligned_write(Nothing) { *reinterpret_cast<float4*>(shared_memory() + 1) = float4{0, 0, 0, 0}; }

// Each warp reads what the next one has written.
template <bool kBarrier>
void turn(float* result) {
  float* memory = shared_memory();
  memory[threadIdx.x] = float(threadIdx.x);
  if (kBarrier) __syncthreads();
  result[threadIdx.x] = memory[(threadIdx.x + 32) % blockDim.x];
}

// Each warp writes what the next one still reads.
template <bool kBarrier>
void overwrite(float* result) {
  float* memory = shared_memory();
  memory[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  result[threadIdx.x] = memory[(threadIdx.x + 32) % blockDim.x];
  if (kBarrier) __syncthreads();
  memory[threadIdx.x] = -1;
}

// Lanes of a warp exchange values without a barrier of the warp.
template <bool kBarrier>
void turn_lanes(float* result) {
  float* memory = shared_memory();
  memory[threadIdx.x] = float(threadIdx.x);
  if (kBarrier) __syncwarp();
  result[threadIdx.x] = memory[threadIdx.x ^ 1];
}

Tensor run_turning(const Tensor& like, void (*kernel)(float*)) {
  const Tensor result = empty({96}, ScalarType::Float, like);
  launch(kernel, 1, 96, 96 * sizeof(float), machine.stream, mutable_pointer<float>(result));
  return result;
}

}  // namespace

Tensor turned(const Tensor& like, std::string what, bool barrier) {
  if (what == "warps") return run_turning(like, barrier ? turn<true> : turn<false>);
  if (what == "lanes") return run_turning(like, barrier ? turn_lanes<true> : turn_lanes<false>);
  return run_turning(like, barrier ? overwrite<true> : overwrite<false>);
}

void run_faulty(std::string fault) {
  const int64_t blocks = fault == "grid" ? int64_t(1) << 31 : fault == "no blocks" ? 0 : 1;
  const int threads = fault == "block" ? 1056 : fault == "registers" ? 512 : 32;
  const size_t bytes = fault == "shared memory" ? machine.limits.bytes_per_block + 4 : 64;
  const cudaStream_t stream = fault == "stream" ? nullptr : machine.stream;
  auto kernel = fault == "read" ? misaligned_read : fault == "write" ? misaligned_write : idle;
  launch(kernel, blocks, threads, bytes, stream, Nothing());
}

}  // namespace mmevm::emulation

STABLE_TORCH_LIBRARY_FRAGMENT(mmevm_emulated, m) {
  m.def("turned(Tensor like, str what, bool barrier) -> Tensor");
  m.def("run_faulty(str fault) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(mmevm_emulated, CompositeExplicitAutograd, m) {
  m.impl("turned", TORCH_BOX(&mmevm::emulation::turned));
  m.impl("run_faulty", TORCH_BOX(&mmevm::emulation::run_faulty));
}
