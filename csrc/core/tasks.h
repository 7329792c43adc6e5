// Shares tasks out to the host's threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "checks.h"

namespace mmevm {

// Calls body(runner, task) for every task. Each of at most `host.threads` runners has a range of tasks of its own, and helps
// the others when it is done: so that a thread finds in its cache what it wrote of a map in the pass before.
template <class Body>
void for_tasks(const Host& host, int64_t tasks, const Body& body) {
  const int64_t runners = std::min<int64_t>(host.threads, tasks);
  if (runners <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(0, task);
    return;
  }
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  struct Call {
    const Body& body;
    int64_t runners;
    std::vector<Range> ranges;
  } call{body, runners, std::vector<Range>(runners)};
  for (int64_t i = 0; i < runners; ++i) {
    call.ranges[i].next.store(tasks * i / runners, std::memory_order_relaxed);
    call.ranges[i].end = tasks * (i + 1) / runners;
  }
  const auto runner = [](void* argument, int64_t i) {
    auto& call = *static_cast<Call*>(argument);
    for (int64_t j = 0; j < call.runners; ++j) {
      Range& range = call.ranges[(i + j) % call.runners];
      for (int64_t task; (task = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;) call.body(i, task);
    }
  };
  host.parallel_for(host.pool, runners, runner, &call);
}

constexpr int64_t kTasks = 4;  // for each thread, because some may start late

// Calls body(task, begin, end) for ranges of [0, count) of about the same length, none shorter than `least`.
template <class Body>
void share(const Host& host, int64_t count, int64_t least, const Body& body) {
  if (count == 0) return;
  const int64_t most = host.threads == 1 ? 1 : kTasks * host.threads;
  const int64_t tasks = std::clamp<int64_t>(count / std::max<int64_t>(least, 1), 1, most);
  for_tasks(host, tasks, [&](int64_t, int64_t i) { body(i, count * i / tasks, count * (i + 1) / tasks); });
}

// Elements that a task should have at least: fewer are done sooner than another thread wakes up.
constexpr int64_t kTask = 8192;

inline int64_t tokens_per_task(int64_t C) { return ceil_div(kTask, std::max<int64_t>(C, 1)); }

}  // namespace mmevm
