// mmevm::VisualScan for ONNX Runtime, on the kernels of csrc/core; mmevm/deploy/functions.py describes the node.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../core/checks.h"
#include "../core/projection.h"
#include "../core/scan.h"
#include "runtime.h"

namespace mmevm {
namespace {

// A failed call of the runtime, whose status becomes that of the operator.
struct Failure {
  OrtStatus* status;
};

void check(OrtStatus* status) {
  if (status) throw Failure{status};
}

// Runs `body` and turns what it throws into a status.
template <class Body>
OrtStatus* guarded(const OrtApi* api, Body&& body) {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const std::invalid_argument& error) {
    return api->create_status()(kOrtInvalidArgument, (std::string("mmevm::VisualScan: ") + error.what()).c_str());
  } catch (const std::exception& error) {
    return api->create_status()(kOrtFail, (std::string("mmevm::VisualScan: ") + error.what()).c_str());
  }
}

struct Input {
  Input(const OrtApi* api, const OrtKernelContext* context, size_t index) {
    const OrtValue* value = nullptr;
    check(api->input()(context, index, &value));
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api->shape()(value, &info));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, void (*)(OrtTensorTypeAndShapeInfo*)> owner(info, api->release_shape());
    size_t dims = 0;
    check(api->dimension_count()(info, &dims));
    sizes.resize(dims);
    check(api->dimensions()(info, sizes.data(), dims));
    void* pointer = nullptr;
    check(api->mutable_data()(const_cast<OrtValue*>(value), &pointer));
    data = static_cast<const float*>(pointer);
  }

  Shape shape() const { return {sizes.data(), int64_t(sizes.size())}; }

  std::vector<int64_t> sizes;
  const float* data = nullptr;
};

// The runtime's threads, for one call. They are not counted by it: more tasks than threads only wait.
struct Threads {
  const OrtApi* api;
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
    (void)api->parallel_for()(context, one, size_t(count), 0, &call);
  }

  Host host() const {
    const auto parallel_for = [](void* pool, int64_t count, void (*body)(void*, int64_t), void* argument) {
      static_cast<const Threads*>(pool)->run(count, body, argument);
    };
    const int threads = std::max(1, int(std::min(64u, std::thread::hardware_concurrency())));
    return {parallel_for, const_cast<Threads*>(this), threads};
  }
};

class Kernel {
 public:
  Kernel(const OrtApi* api, const OrtKernelInfo* info) : api_(api) {
    check(api->attribute()(info, "step", &step_));
    size_t count = 0;
    check(api->attributes()(info, "routes", nullptr, &count));
    routes_.resize(count);
    check(api->attributes()(info, "routes", routes_.data(), &count));
    if (step_ < 1) fail("`step` must be at least 1, got ", step_);
  }

  void compute(OrtKernelContext* context) const {
    const Input x(api_, context, 0), x_proj(api_, context, 1), dt_weight(api_, context, 2), dt_bias(api_, context, 3),
        A(api_, context, 4), Ds(api_, context, 5);
    MapParams<float> p{};
    Routes routes = check_inputs(x, x_proj, dt_weight, dt_bias, A, Ds, p);
    const Slots slots = assign_slots(routes.list, step_);
    p.step = step_;
    p.accumulate = routes.overlap;
    p.routes = routes.list.data(), p.n_routes = routes.size();
    p.x = x.data, p.dt_weight = dt_weight.data, p.dt_bias = dt_bias.data, p.A = A.data, p.Ds = Ds.data;

    OrtValue* output = nullptr;
    check(api_->output()(context, 0, x.sizes.data(), x.sizes.size(), &output));
    void* y = nullptr;
    check(api_->mutable_data()(output, &y));
    p.y = static_cast<float*>(y);
    const int64_t cells = p.B * p.H * p.W;
    if (cells == 0) return;
    if (p.accumulate || !routes.complete) std::memset(p.y, 0, sizeof(float) * cells * p.D);

    const Threads threads{api_, context};
    const Host host = threads.host();
    const std::unique_ptr<char[]> workspace(new char[projected_workspace(p, slots, host.threads)]);
    run_projected(p, slots, x_proj.data, host, workspace.get());
  }

 private:
  Routes check_inputs(const Input& x, const Input& x_proj, const Input& dt_weight, const Input& dt_bias, const Input& A,
                      const Input& Ds, MapParams<float>& p) const {
    if (x.sizes.size() != 4) fail("`x` must have shape [B, H, W, D], got ", x.sizes.size(), " dimensions");
    if (x_proj.sizes.size() != 3) fail("`x_proj` must have shape [P, R + 2N, D], got ", x_proj.sizes.size(), " dimensions");
    const int64_t sets = x_proj.sizes[0], M = x_proj.sizes[1], D = x.sizes[3];
    check_shape(x_proj.shape(), "x_proj", "[P, R + 2N, D]", {sets, M, D});
    const std::array<int64_t, 5> x_dbl{x.sizes[0], x.sizes[1], x.sizes[2], sets, M};
    static_cast<MapSize&>(p) =
        check_map(x.shape(), {x_dbl.data(), 5}, dt_weight.shape(), dt_bias.shape(), A.shape(), Ds.shape());
    return parse_routes(routes_.data(), routes_.size(), step_, p);
  }

  const OrtApi* api_;
  int64_t step_ = 0;
  std::vector<int64_t> routes_;
};

const OrtApi* registered_api = nullptr;

OrtCustomOp make_op() {
  OrtCustomOp op{};
  op.version = kOrtVersion;
  op.GetName = [](const OrtCustomOp*) { return "VisualScan"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  op.GetInputType = op.GetOutputType = [](const OrtCustomOp*, size_t) { return kOrtFloat; };
  op.GetInputTypeCount = [](const OrtCustomOp*) { return size_t(6); };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(1); };
  op.GetInputCharacteristic = op.GetOutputCharacteristic = op.GetInputMemoryType = [](const OrtCustomOp*, size_t) {
    return 0;
  };
  op.GetVariadicInputMinArity = op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    return guarded(api, [&] { *kernel = new Kernel(api, info); });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    return guarded(registered_api, [&] { static_cast<Kernel*>(kernel)->compute(context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

}  // namespace
}  // namespace mmevm

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kOrtVersion);
  if (!api) return base->GetApi(1)->create_status()(kOrtFail, "mmevm needs ONNX Runtime 1.17 or newer");
  mmevm::registered_api = api;
  static const OrtCustomOp op = mmevm::make_op();
  return mmevm::guarded(api, [&] {
    // Lives as long as the process: sessions refer to it, and there is one for each set of options.
    OrtCustomOpDomain* domain = nullptr;
    mmevm::check(api->create_domain()("mmevm", &domain));
    mmevm::check(api->add_op()(domain, &op));
    mmevm::check(api->add_domain()(options, domain));
  });
}
