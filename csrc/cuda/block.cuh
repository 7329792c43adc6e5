// Where a block stands in the problem, and the arrays that maps and sequences have in common.
#pragma once

#include "device.cuh"

namespace mmevm::cuda {

template <int kStates>
struct Block {
  __device__ Block(const ScanParams& p) {
    unsigned i = blockIdx.x;
    channel_block = i % p.channel_blocks, i /= p.channel_blocks;
    slice = i % p.slices, i /= p.slices;
    set = i % p.sets, i /= p.sets;
    segment = i % p.segments, batch = i / p.segments;
    channel = channel_block * blockDim.x + threadIdx.x;
    active = channel < p.channels;
    first_state = slice * kStates;
    valid_states = min(kStates, p.N - first_state);
    first_chunk = segment * p.segment_chunks;
    end_chunk = min(first_chunk + p.segment_chunks, p.chunks);
  }

  // Element of A for state n, in units of log2; unused states keep their zero for ever.
  __device__ float load_A(const ScanParams& p, int parameters, int n) const {
    if (!active || n >= valid_states) return 0.f;
    return kLog2e * p.A[(int64_t(parameters) * p.channels + channel) * p.N + first_state + n];
  }

  // This channel's first state in A_by_state. Threads without a channel take the last channel's, and states that do not
  // exist the last state's: what they compute of inputs that are zero is zero.
  __device__ const float* A_column(const ScanParams& p, int parameters) const {
    return p.A_by_state + (int64_t(parameters) * p.N + first_state) * p.channels + min(channel, p.channels - 1);
  }
  __device__ float A_of(const ScanParams& p, const float* column, int n) const {
    return *element(column, min(n, valid_states - 1), p.channels);
  }

  __device__ float load_parameter(const ScanParams& p, const float* from, int parameters) const {
    return from && active ? from[int64_t(parameters) * p.channels + channel] : 0.f;
  }

  // Each slice of the states adds its part of the output; the first one brings the skip term.
  __device__ float load_skip(const ScanParams& p, int parameters) const {
    return slice == 0 ? load_parameter(p, p.Ds, parameters) : 0.f;
  }

  // How many of the block's states exist for this thread's channel; all of them do, or none.
  __device__ int held_states() const { return active ? valid_states : 0; }

  // This channel's first state in an array [B, sets, count, N, channels]; the others follow `channels` apart.
  __device__ float* states(const ScanParams& p, float* array, int count, int i) const {
    const int64_t row = (int64_t(batch) * p.sets + set) * count + i;
    return array + (row * p.N + first_state) * p.channels + channel;
  }

  __device__ float* carry(const ScanParams& p) const { return states(p, p.carry, p.segments, segment); }

  __device__ void store_carry_delta(const ScanParams& p, float sum) const {
    const int64_t row = (int64_t(batch) * p.sets + set) * p.segments + segment;
    if (slice == 0 && active) p.carry_delta[row * p.channels + channel] = sum;
  }

  // Index of this channel's first state in [B, sets * channels, N]; the others follow.
  __device__ int64_t last_state_index(const ScanParams& p) const {
    return ((int64_t(batch) * p.sets + set) * p.channels + channel) * p.N + first_state;
  }

  // This channel's first row in dparameters; the others follow `channels` apart.
  __device__ float* gradients(const ScanParams& p) const {
    const int64_t copy = (int64_t(batch) * p.segments + segment) * p.slices + slice;
    return p.dparameters + (copy * p.sets + set) * (kStates + p.R + 2) * p.channels + channel;
  }

  int channel_block, slice, set, segment, batch;
  int channel;  // of this thread, within the set
  bool active;  // whether that channel exists
  int first_state, valid_states, first_chunk, end_chunk;
};

}  // namespace mmevm::cuda
