#include "emulation.h"

#include <ucontext.h>

#include <limits>
#include <memory>
#include <vector>

#include "cuda/launchers.h"

namespace mmevm::emulation {

Index thread_index, block_index, block_size;
float* shared = nullptr;
Machine machine;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kFence = 64;       // floats behind the shared memory
constexpr float kFenceValue = 77;

enum class State { kRunning, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  State state;
  float sent[2];   // values of this and the last exchange: one barrier between them is enough
  int exchanges;
};

std::vector<std::unique_ptr<Fiber>> fibers;
ucontext_t scheduler;
const std::function<void()>* body;
unsigned current;

void wait(State state) {
  Fiber& fiber = *fibers[current];
  fiber.state = state;
  swapcontext(&fiber.context, &scheduler);
}

void enter() {
  (*body)();
  fibers[current]->state = State::kDone;
}

void start(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get(), fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = &scheduler;
  fiber.state = State::kRunning, fiber.exchanges = 0;
  makecontext(&fiber.context, enter, 0);
}

// Lets the fibers [begin, end) go on if all that are not done wait for `barrier`.
bool release(unsigned begin, unsigned end, State barrier) {
  bool any = false;
  for (unsigned i = begin; i < end; ++i) {
    if (fibers[i]->state == State::kDone) continue;
    if (fibers[i]->state != barrier) return false;
    any = true;
  }
  for (unsigned i = begin; i < end; ++i)
    if (fibers[i]->state == barrier) fibers[i]->state = State::kRunning;
  return any;
}

void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) start(*fibers[i]);
  for (;;) {
    bool ran = false;
    for (unsigned i = 0; i < threads; ++i) {
      current = machine.reversed ? threads - 1 - i : i;
      if (fibers[current]->state != State::kRunning) continue;
      thread_index.x = current;
      swapcontext(&scheduler, &fibers[current]->context);
      ran = true;
    }
    for (unsigned warp = 0; warp < threads; warp += 32) ran |= release(warp, warp + 32, State::kAtWarpBarrier);
    ran |= release(0, threads, State::kAtBlockBarrier);
    if (ran) continue;
    for (unsigned i = 0; i < threads; ++i)
      STD_TORCH_CHECK(fibers[i]->state == State::kDone, "threads wait for different barriers");
    return;
  }
}

}  // namespace

void block_barrier() { wait(State::kAtBlockBarrier); }
void warp_barrier() { wait(State::kAtWarpBarrier); }

float exchange(float value, int lane_mask) {
  Fiber& fiber = *fibers[current];
  const int slot = fiber.exchanges++ % 2;
  fiber.sent[slot] = value;
  warp_barrier();
  return fibers[current ^ unsigned(lane_mask)]->sent[slot];
}

void run(int64_t blocks, int threads, size_t shared_bytes, const std::function<void()>& thread) {
  STD_TORCH_CHECK(threads % 32 == 0, "the emulation runs whole warps, got ", threads, " threads");
  while (fibers.size() < size_t(threads)) fibers.push_back(std::make_unique<Fiber>());
  const size_t floats = shared_bytes / sizeof(float), aligned = 4 * ((floats + 3) / 4);
  std::vector<float4> memory(aligned / 4 + kFence / 4);
  shared = reinterpret_cast<float*>(memory.data());
  body = &thread;
  block_size.x = unsigned(threads);
  for (int64_t i = 0; i < blocks; ++i) {
    std::fill_n(shared, floats, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(shared + floats, aligned - floats + kFence, kFenceValue);
    block_index.x = unsigned(i);
    run_block(unsigned(threads));
    for (size_t k = floats; k < aligned + kFence; ++k)
      STD_TORCH_CHECK(shared[k] == kFenceValue, "a kernel wrote past its shared memory");
  }
}

void set_machine(int64_t multiprocessors, int64_t shared_bytes, bool reversed) {
  machine = {multiprocessors, shared_bytes, reversed};
}

}  // namespace mmevm::emulation

STABLE_TORCH_LIBRARY(mmevm_emulated, m) {
  for (const char* schema : mmevm::kSchemas) m.def(schema);
  m.def("set_machine(int multiprocessors, int shared_bytes, bool reversed) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(mmevm_emulated, CPU, m) {
  mmevm::register_kernels<mmevm::cuda::operators>(m);
}

// Without a tensor that would tell a device.
STABLE_TORCH_LIBRARY_IMPL(mmevm_emulated, CompositeExplicitAutograd, m) {
  m.impl("set_machine", TORCH_BOX(&mmevm::emulation::set_machine));
}
