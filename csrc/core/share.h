// How passes are shared out to the host's threads.
#pragma once

#include <algorithm>

#include "checks.h"

namespace mmevm {

constexpr int64_t kTasks = 4;  // for each thread, because some may start late

// Calls body(task, begin, end) for ranges of [0, count) of about the same length, none shorter than `least`.
template <class Body>
void share(const Host& host, int64_t count, int64_t least, const Body& body) {
  struct Call {
    int64_t count, tasks;
    const Body& body;
  };
  if (count == 0) return;
  const int64_t tasks = std::clamp<int64_t>(count / std::max<int64_t>(least, 1), 1, host.threads == 1 ? 1 : kTasks * host.threads);
  Call call{count, tasks, body};
  const auto one = [](void* argument, int64_t i) {
    const Call& call = *static_cast<const Call*>(argument);
    call.body(i, call.count * i / call.tasks, call.count * (i + 1) / call.tasks);
  };
  if (tasks == 1) one(&call, 0);
  else host.parallel_for(host.pool, tasks, one, &call);
}

// Elements that a task should have at least: fewer are done sooner than another thread wakes up.
constexpr int64_t kTask = 8192;

inline int64_t tokens_per_task(int64_t C) { return ceil_div(kTask, std::max<int64_t>(C, 1)); }

}  // namespace mmevm
