// mmevm::VisualScan for ONNX Runtime.
#include <array>
#include <cstring>

#include "../core/projection.h"
#include "operator.h"

namespace mmevm {
namespace {

class VisualScan {
 public:
  static constexpr const char* name = "VisualScan";
  static constexpr int inputs = 6;

  explicit VisualScan(Attributes attributes) : step_(attributes.integer("step")), routes_(attributes.integers("routes")) {
    if (step_ < 1) fail("`step` must be at least 1, got ", step_);
  }

  void compute(OrtKernelContext* context) const {
    const Input x(context, 0), x_proj(context, 1), dt_weight(context, 2), dt_bias(context, 3), A(context, 4), Ds(context, 5);
    MapParams<float> p{};
    Routes routes = check_inputs(x, x_proj, dt_weight, dt_bias, A, Ds, p);
    const Slots slots = assign_slots(routes.list, step_);
    p.step = step_;
    p.accumulate = routes.overlap;
    p.routes = routes.list.data(), p.n_routes = routes.size();
    p.x = x.data, p.dt_weight = dt_weight.data, p.dt_bias = dt_bias.data, p.A = A.data, p.Ds = Ds.data;
    p.y = make_output(context, x.sizes);
    const int64_t cells = p.B * p.H * p.W;
    if (cells == 0) return;
    if (!routes.complete) std::memset(p.y, 0, sizeof(float) * cells * p.D);

    const Threads threads{context};
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

  int64_t step_;
  std::vector<int64_t> routes_;
};

}  // namespace

std::vector<const OrtCustomOp*> scan_operators() { return {describe<VisualScan>()}; }

}  // namespace mmevm
