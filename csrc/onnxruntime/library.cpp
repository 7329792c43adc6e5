// The library's one entry point, by which ONNX Runtime takes our operators.
#include "operator.h"

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(kOrtVersion);
  if (!api) return base->GetApi(1)->create_status()(kOrtFail, "mmevm needs ONNX Runtime 1.17 or newer");
  mmevm::runtime = api;
  return mmevm::guarded("RegisterCustomOps", [&] {
    // Lives as long as the process: sessions refer to it, and there is one for each set of options.
    OrtCustomOpDomain* domain = nullptr;
    mmevm::check(api->create_domain()("mmevm", &domain));
    for (const auto& operators : {mmevm::scan_operators(), mmevm::pass_operators()})
      for (const OrtCustomOp* op : operators) mmevm::check(api->add_op()(domain, op));
    mmevm::check(api->add_domain()(options, domain));
  });
}
