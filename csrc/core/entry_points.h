// The table of entry points of one instruction set. Include inside its anonymous namespace.
//
// No include guard on purpose, see vec.h.

#include "vec.h"

#include "scan_tile.h"

#include "scan_driver.h"

#include "sequence_source.h"

#include "map_source.h"

#include "pass_kernels.h"

#include "product_kernels.h"

#include "training_kernels.h"

// Routes that share cells run one after the other inside a task, so that no two threads add to the same cell.
template <class V, template <class> class Source, class Params>
void run_task(const Params& p, Direction direction, const Task& task, void* memory) {
  using T = typename V::scalar;
  Task one = task;
  for (const int64_t end = task.route + task.routes; one.route < end; ++one.route) {
    Scratch<T> scratch{static_cast<T*>(memory)};
    Source<V> src(p, direction, one, scratch);
    if (direction == Direction::kForward) scan_forward<V>(src, scratch);
    else scan_backward<V>(src, scratch);
  }
}

template <class V, template <class> class Source, class Params>
int64_t count_scratch(const Params& p, Direction direction, int64_t blocks) {
  const int64_t row_length = Source<V>::row_length_of(p);
  return Source<V>::scratch(p, direction, blocks) + driver_scratch<V>(direction, blocks, p.N, row_length);
}

template <class V>
constexpr auto project_half() -> decltype(Kernels<typename V::scalar>::project_half) {
  if constexpr (std::is_same_v<typename V::scalar, float>) return &project<V, BFloat16, float>;
  return nullptr;
}

template <class V>
constexpr Kernels<typename V::scalar> make_table() {
  using T = typename V::scalar;
  return {V::lanes,
          {&count_scratch<V, SequenceSource, SequenceParams<T>>, &run_task<V, SequenceSource, SequenceParams<T>>},
          {&count_scratch<V, MapSource, MapParams<T>>, &run_task<V, MapSource, MapParams<T>>},
          &pack_panels<V, T>,
          &project<V, T, T>,
          project_half<V>()};
}

template <class V, class Data>
constexpr Passes<Data> make_passes() {
  return {&depthwise_blocks<V, Data>,    &batch_norm_tokens<V, Data>, &gated_norm_tokens<V, Data>, &rms_norm_tokens<V, Data>,
          &gated_mean_elements<V, Data>, &add_tokens<V, Data>, &add_normed_tokens<V, Data>, &gate_hidden<V, Data>,
          &gate_channels<V, Data>,       &scaled_sum_tokens<V, Data>, &linear<V, Product<V>, Data>};
}

template <class V>
constexpr TrainingPasses make_training_passes() {
  return {&depthwise_gradient_blocks<V>, &sum_tokens<V>,      &sum_squares<V>,         &normalise<V>,
          &sum_batch_gradients<V>,       &batch_gradients<V>, &norm_gate_gradients<V>, &norm_mean_gradients<V>,
          &blend<V>,                     &blend_gradients<V>, &project_gradient<V>};
}

constexpr PassTables make_pass_tables() {
  return {make_passes<Vec<float>, float>(), make_passes<Vec<float>, BFloat16>(),
          make_training_passes<Vec<float>>()};
}
