// A host of csrc/core without PyTorch: threads of its own, and a workspace with a fence behind it.
#include <algorithm>
#include <thread>
#include <vector>

#include "core/checks.h"
#include "core/projection.h"

namespace {

constexpr char kFence = 77;
constexpr size_t kFenceBytes = 4096;

void parallel_for(void*, int64_t count, void (*body)(void*, int64_t), void* argument) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) threads.emplace_back(body, argument, i);
  for (auto& thread : threads) thread.join();
}

// Returns whether the run left the bytes behind its workspace alone.
template <class Run>
bool run_fenced(size_t bytes, int threads, Run&& run) {
  // The workspace may start anywhere.
  std::vector<char> workspace(1 + bytes + kFenceBytes, kFence);
  run(mmevm::Host{parallel_for, nullptr, threads}, workspace.data() + 1);
  return std::all_of(workspace.end() - kFenceBytes, workspace.end(), [](char c) { return c == kFence; });
}

bool run_fenced(const mmevm::MapParams<float>& p, const mmevm::Plan& plan, int threads) {
  return run_fenced(plan.workspace_bytes(), threads,
                    [&](const mmevm::Host& host, void* workspace) { mmevm::run(p, plan, host, workspace); });
}

}  // namespace

// sizes: B, H, W, D, N, R, K, P. Returns the copies of dx_dbl, 0 if a run wrote past its workspace, -1 if the routes do not
// fit the sizes. With no dx_dbl, it returns the copies without a run.
extern "C" int64_t scan_map(const int64_t* sizes, int64_t step, const int64_t* routes, int64_t count, int threads,
                            const float* const* inputs, float* const* outputs) try {
  mmevm::MapParams<float> p{};
  static_cast<mmevm::MapSize&>(p) = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[7]};
  const mmevm::Routes parsed = mmevm::parse_routes(routes, size_t(count), step, p);
  p.step = step, p.accumulate = parsed.overlap, p.routes = parsed.list.data(), p.n_routes = parsed.size();
  p.x = inputs[0], p.x_dbl = inputs[1], p.dt_weight = inputs[2], p.dt_bias = inputs[3], p.A = inputs[4], p.Ds = inputs[5];
  p.dy = inputs[6];
  p.y = outputs[0], p.states = outputs[1], p.dx = outputs[2], p.dx_dbl = outputs[3], p.ddt_weight = outputs[4];
  p.ddt_bias = outputs[5], p.dA = outputs[6], p.dDs = outputs[7];
  const mmevm::Plan backward = make_plan(p, mmevm::Direction::kBackward, threads);
  if (!p.dx_dbl) return backward.copies;
  const bool intact = run_fenced(p, make_plan(p, mmevm::Direction::kForward, threads), threads);
  return run_fenced(p, backward, threads) && intact ? backward.copies : 0;
} catch (const std::invalid_argument&) {
  return -1;
}

// sizes: B, H, W, D, N, R, K; inputs: x, x_proj, dt_weight, dt_bias, A, Ds. Returns whether it stayed within its workspace.
extern "C" bool scan_projected(const int64_t* sizes, int64_t step, const int64_t* routes, int64_t count, int threads,
                               const float* const* inputs, float* y) {
  mmevm::MapParams<float> p{};
  static_cast<mmevm::MapSize&>(p) = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6], sizes[6]};
  mmevm::Routes parsed = mmevm::parse_routes(routes, size_t(count), step, p);
  const mmevm::Slots slots = mmevm::assign_slots(parsed.list, step);
  p.step = step, p.accumulate = parsed.overlap, p.routes = parsed.list.data(), p.n_routes = parsed.size();
  p.x = inputs[0], p.dt_weight = inputs[2], p.dt_bias = inputs[3], p.A = inputs[4], p.Ds = inputs[5], p.y = y;
  return run_fenced(mmevm::projected_workspace(p, slots, threads), threads,
                    [&](const mmevm::Host& host, void* workspace) {
                      mmevm::run_projected(p, slots, inputs[1], host, workspace);
                    });
}
