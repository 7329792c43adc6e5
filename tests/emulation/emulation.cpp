#include "emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
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
constexpr int64_t kMaxGrid = std::numeric_limits<int32_t>::max();
constexpr int kMaxBlock = 1024, kMaxRegisters = 255;  // of a block, and of a thread

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
std::exception_ptr error;  // the first of a block's threads; exceptions cannot leave a fiber
std::mt19937 random_order;

void wait(State state) {
  Fiber& fiber = *fibers[current];
  fiber.state = state;
  swapcontext(&fiber.context, &scheduler);
}

void enter() {
  try {
    (*body)();
  } catch (...) {
    if (!error) error = std::current_exception();
  }
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

// The threads of a warp, or the warps of a block, in the machine's order.
std::vector<unsigned> arrange(unsigned count) {
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0);
  if (machine.order == 1) std::reverse(order.begin(), order.end());
  if (machine.order > 1) std::shuffle(order.begin(), order.end(), random_order);
  return order;
}

// Runs a warp until all of its threads wait or are done; returns whether any ran.
bool run_warp(unsigned warp) {
  bool ran = false;
  for (const unsigned lane : arrange(32)) {
    current = 32 * warp + lane;
    if (fibers[current]->state != State::kRunning) continue;
    thread_index.x = current;
    swapcontext(&scheduler, &fibers[current]->context);
    ran = true;
  }
  return release(32 * warp, 32 * warp + 32, State::kAtWarpBarrier) || ran;
}

// In random order a warp may run up to the block's next barrier before another has begun.
void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) start(*fibers[i]);
  error = nullptr;
  for (;;) {
    bool ran = false;
    for (const unsigned warp : arrange(threads / 32))
      while (run_warp(warp)) {
        ran = true;
        if (machine.order < 2 || random_order() % 2) break;
      }
    if (!ran) ran = release(0, threads, State::kAtBlockBarrier);
    if (error) std::rethrow_exception(error);
    if (ran) continue;
    for (unsigned i = 0; i < threads; ++i)
      STD_TORCH_CHECK(fibers[i]->state == State::kDone, "threads wait for different barriers");
    return;
  }
}

void check_launch(int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream) {
  const cuda::Limits& limits = machine.limits;
  STD_TORCH_CHECK(stream == machine.stream, "a kernel is started on a stream that is not the current one");
  STD_TORCH_CHECK(blocks > 0 && blocks <= kMaxGrid, "a grid has 1 to ", kMaxGrid, " blocks, got ", blocks);
  STD_TORCH_CHECK(threads > 0 && threads <= kMaxBlock, "a block has up to ", kMaxBlock, " threads, got ", threads);
  STD_TORCH_CHECK(threads % 32 == 0, "the emulation runs whole warps, got ", threads, " threads");
  STD_TORCH_CHECK(shared_bytes <= limits.bytes_per_block, "a block has up to ", limits.bytes_per_block,
                  " bytes of shared memory, got ", shared_bytes);
  // The emulation does not know how many registers a kernel takes.
  STD_TORCH_CHECK(threads * kMaxRegisters <= limits.registers, "a block has ", limits.registers, " registers, which ",
                  threads, " threads of ", kMaxRegisters, " exceed");
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

bool all_of_warp(bool value) {
  Fiber& fiber = *fibers[current];
  const int slot = fiber.exchanges++ % 2;
  fiber.sent[slot] = value;
  warp_barrier();
  const unsigned first = current / 32 * 32;
  return std::all_of(fibers.begin() + first, fibers.begin() + first + 32, [&](const auto& f) { return f->sent[slot]; });
}

void check_alignment(const void* address, size_t bytes) {
  STD_TORCH_CHECK(reinterpret_cast<uintptr_t>(address) % bytes == 0, "a vector of ", bytes,
                  " bytes lies at an address that it does not divide");
}

void run(int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream, const std::function<void()>& thread) {
  check_launch(blocks, threads, shared_bytes, stream);
  random_order.seed(unsigned(machine.order));
  while (fibers.size() < size_t(threads)) fibers.push_back(std::make_unique<Fiber>());
  const size_t floats = shared_bytes / sizeof(float), aligned = 4 * ((floats + 3) / 4);
  std::vector<float> memory(aligned + kFence + 3);
  shared = memory.data() + (16 - reinterpret_cast<uintptr_t>(memory.data()) % 16) % 16 / 4;
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

// Threads take turns in the order of their numbers (0), the inverse (1), or by chance, with `order` as the seed.
void set_machine(int64_t multiprocessors, int64_t shared_bytes, int64_t order) {
  machine = Machine();
  machine.limits.multiprocessors = int(multiprocessors);
  machine.limits.bytes_per_block = size_t(shared_bytes);
  machine.limits.bytes = size_t(shared_bytes) + machine.limits.reserved_bytes;
  machine.order = order;
  machine.stream = &machine;  // the default one, null, is wrong
}

// In the order of cuda::Limits.
void set_limits(std::vector<int64_t> l) {
  machine.limits = {int(l.at(0)), size_t(l.at(1)), size_t(l.at(2)), size_t(l.at(3)),
                    int(l.at(4)), int(l.at(5)),    int(l.at(6))};
}

}  // namespace mmevm::emulation

STABLE_TORCH_LIBRARY(mmevm_emulated, m) {
  for (const char* schema : mmevm::kSchemas) m.def(schema);
  m.def(mmevm::cuda::kPlanSchema);
  m.def("set_machine(int multiprocessors, int shared_bytes, int order) -> ()");
  m.def("set_limits(int[] limits) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(mmevm_emulated, CPU, m) {
  mmevm::register_kernels<mmevm::cuda::operators>(m);
  m.impl("_visual_scan_plan", TORCH_BOX(&mmevm::cuda::plan_visual_scan));
}

// Without a tensor that would tell a device.
STABLE_TORCH_LIBRARY_IMPL(mmevm_emulated, CompositeExplicitAutograd, m) {
  m.impl("set_machine", TORCH_BOX(&mmevm::emulation::set_machine));
  m.impl("set_limits", TORCH_BOX(&mmevm::emulation::set_limits));
}
