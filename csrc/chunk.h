// The chunk, which the kernels of every device share.
#pragma once

namespace mmevm {

// Tokens between two saved states. mmevm/ops/autograd.py repeats it for the shapes of fake tensors.
constexpr int kChunk = 32;

}  // namespace mmevm
