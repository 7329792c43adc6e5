#include "merge.cuh"

namespace mmevm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kEach = 4;  // elements of a thread, whose loads start at once; neighbouring threads take neighbours

template <class T>
__global__ void merge_kernel(const Copies p) {
  const int64_t first = int64_t(blockIdx.x) * kEach * kThreads + threadIdx.x;
  const float* from = p.from + first;
  float sum[kEach] = {};
#pragma unroll 4
  for (int copy = 0; copy < p.count; ++copy, from += p.size) {
#pragma unroll
    for (int i = 0; i < kEach; ++i)
      if (first + i * kThreads < p.size) sum[i] += from[i * kThreads];
  }
  T* to = static_cast<T*>(p.to) + first;
#pragma unroll
  for (int i = 0; i < kEach; ++i)
    if (first + i * kThreads < p.size) assign(to[i * kThreads], sum[i]);
}

}  // namespace

template <class T>
cudaError_t merge(const Copies& p, cudaStream_t stream) {
  constexpr int64_t elements = kEach * kThreads;
  return launch(merge_kernel<T>, (p.size + elements - 1) / elements, kThreads, 0, stream, p);
}

template cudaError_t merge<float>(const Copies& p, cudaStream_t stream);
template cudaError_t merge<__half>(const Copies& p, cudaStream_t stream);
template cudaError_t merge<__nv_bfloat16>(const Copies& p, cudaStream_t stream);

}  // namespace mmevm::cuda
