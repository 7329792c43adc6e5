// What the operators for ONNX Runtime share: their inputs and attributes, the runtime's threads, errors, and the table of
// functions through which the runtime calls them. mmevm/deploy/functions.py describes the nodes.
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../core/checks.h"
#include "../core/scan.h"
#include "runtime.h"

namespace mmevm {

// The runtime that registered the operators: there is one in a process.
inline const OrtApi* runtime = nullptr;

// A failed call of the runtime, whose status becomes that of the operator.
struct Failure {
  OrtStatus* status;
};

inline void check(OrtStatus* status) {
  if (status) throw Failure{status};
}

// Runs `body` and turns what it throws into a status.
template <class Body>
OrtStatus* guarded(const char* name, Body&& body) {
  const auto status = [&](int code, const std::exception& error) {
    return runtime->create_status()(code, (std::string("mmevm::") + name + ": " + error.what()).c_str());
  };
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::invalid_argument& error) {
    return status(kOrtInvalidArgument, error);
  } catch (const std::exception& error) {
    return status(kOrtFail, error);
  }
}

struct Attributes {
  const OrtKernelInfo* info;

  int64_t integer(const char* name) const {
    int64_t value = 0;
    check(runtime->attribute_int()(info, name, &value));
    return value;
  }

  float number(const char* name) const {
    float value = 0;
    check(runtime->attribute_float()(info, name, &value));
    return value;
  }

  std::vector<int64_t> integers(const char* name) const {
    size_t count = 0;
    check(runtime->attribute_ints()(info, name, nullptr, &count));
    std::vector<int64_t> values(count);
    check(runtime->attribute_ints()(info, name, values.data(), &count));
    return values;
  }
};

struct Input {
  Input(const OrtKernelContext* context, size_t index) {
    const OrtValue* value = nullptr;
    check(runtime->input()(context, index, &value));
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(runtime->shape()(value, &info));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> owner(info,
                                                                                                runtime->release_shape());
    size_t dims = 0;
    check(runtime->dimension_count()(info, &dims));
    sizes.resize(dims);
    check(runtime->dimensions()(info, sizes.data(), dims));
    void* pointer = nullptr;
    check(runtime->mutable_data()(const_cast<OrtValue*>(value), &pointer));
    data = static_cast<const float*>(pointer);
  }

  Shape shape() const { return {sizes.data(), int64_t(sizes.size())}; }

  std::vector<int64_t> sizes;
  const float* data = nullptr;
};

inline float* make_output(OrtKernelContext* context, const std::vector<int64_t>& sizes) {
  OrtValue* output = nullptr;
  check(runtime->output()(context, 0, sizes.data(), sizes.size(), &output));
  void* data = nullptr;
  check(runtime->mutable_data()(output, &data));
  return static_cast<float*>(data);
}

// The runtime's threads, for one call. They are not counted by it: more tasks than threads only wait.
struct Threads {
  const OrtKernelContext* context;

  void run(int64_t count, void (*body)(void*, int64_t), void* argument) const {
    struct Call {
      void (*body)(void*, int64_t);
      void* argument;
    } call{body, argument};
    const auto one = [](void* data, size_t i) {
      const auto& call = *static_cast<Call*>(data);
      call.body(call.argument, int64_t(i));
    };
    // What it reports is that `context` is none.
    (void)runtime->parallel_for()(context, one, size_t(count), 0, &call);
  }

  Host host() const {
    const auto parallel_for = [](void* pool, int64_t count, void (*body)(void*, int64_t), void* argument) {
      static_cast<const Threads*>(pool)->run(count, body, argument);
    };
    const int threads = std::max(1, int(std::min(64u, std::thread::hardware_concurrency())));
    return {parallel_for, const_cast<Threads*>(this), threads};
  }
};

// The runtime's view of `Node`, which has `name`, the number of its `inputs`, a constructor that takes Attributes, and
// `compute(OrtKernelContext*)`. All inputs and the one output are float32.
template <class Node>
const OrtCustomOp* describe() {
  static const OrtCustomOp description = [] {
    OrtCustomOp op{};
    op.version = kOrtVersion;
    op.GetName = [](const OrtCustomOp*) { return Node::name; };
    op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    op.GetInputType = op.GetOutputType = [](const OrtCustomOp*, size_t) { return kOrtFloat; };
    op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t(Node::inputs); };
    op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(1); };
    op.GetInputCharacteristic = op.GetOutputCharacteristic = op.GetInputMemoryType = [](const OrtCustomOp*, size_t) {
      return 0;
    };
    op.GetVariadicInputMinArity = op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    op.GetVariadicInputHomogeneity = op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
      return guarded(Node::name, [&] { *kernel = new Node(Attributes{info}); });
    };
    op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded(Node::name, [&] { static_cast<const Node*>(kernel)->compute(context); });
    };
    op.KernelDestroy = [](void* kernel) { delete static_cast<Node*>(kernel); };
    return op;
  }();
  return &description;
}

// The operators of each source file.
std::vector<const OrtCustomOp*> scan_operators();
std::vector<const OrtCustomOp*> pass_operators();

}  // namespace mmevm
