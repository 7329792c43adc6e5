#include "launch.h"

namespace mmevm::cuda {
namespace {

// The operator's inputs, checked, contiguous and of one data type.
struct MapScan {
  explicit MapScan(const MapInputs& in)
      : size(in.check()), routes(in.parse(size)), context(in.x),
        type(data_type({scalar_type(in.x), scalar_type(in.x_dbl)})), x(as_contiguous(in.x, type)),
        x_dbl(as_contiguous(in.x_dbl, type)), dt_weight(turned(in.dt_weight)), A(as_contiguous(in.A)),
        dt_bias(as_contiguous(in.dt_bias, ScalarType::Float)), Ds(as_contiguous(in.Ds, ScalarType::Float)),
        kernels(choose_kernels(type, map_float, map_half, map_bfloat16)) {
    if (routes.size() > kMaxRoutes)
      fail("the CUDA kernels serve up to ", kMaxRoutes, " routes, got ", routes.size(),
           "; use backend='triton' or backend='reference'");
    fit_int(size.H * size.W, "H * W");
    p.B = fit_int(size.B, "B"), p.H = int(size.H), p.W = int(size.W), p.D = fit_int(size.D, "D");
    p.sets = int(routes.size()), p.channels = p.D, p.P = fit_int(size.P, "P"), p.step = fit_int(in.step, "`step`");
    p.N = int(size.N), p.R = fit_int(size.R, "R"), p.length = int(route_length(size, in.step));
    p.x = x.const_data_ptr(), p.x_dbl = x_dbl.const_data_ptr();
    p.dt_weight = pointer<float>(dt_weight), p.A = pointer<float>(A);
    p.Ds = pointer<float>(Ds), p.bias = pointer<float>(dt_bias);
    set_routes();
  }

  // Routes that share cells write different copies of the result, which are summed: the same sum in every run.
  void set_routes() {
    for (int64_t i = 0; i < routes.size(); ++i) {
      const Route& r = routes.list[i];
      int layer = 0, row_layer = 0;
      for (int64_t j = 0; j < i; ++j) {
        const Route& other = routes.list[j];
        if (other.row != r.row || other.col != r.col) continue;
        ++layer;
        row_layer += other.projection == r.projection;
      }
      layers = std::max(layers, layer + 1), row_layers = std::max(row_layers, row_layer + 1);
      p.routes[i] = {int(r.row), int(r.col), int(r.parameters), int(r.projection), layer, row_layer, r.column_major,
                     r.reverse};
    }
  }

  // Copies of a result on the map; zero where not every cell of every copy is written.
  Tensor new_map() {
    const int64_t copies = int64_t(layers) * p.slices, written = int64_t(p.sets) * p.slices;
    p.float_outputs = copies > 1;
    const bool complete = written == copies * p.step * p.step;
    const auto make = complete ? &empty : &zeros;
    return make({copies, p.B, p.H, p.W, p.D}, p.float_outputs ? ScalarType::Float : type, x);
  }

  Tensor new_rows() const {
    const bool complete = p.sets == int64_t(row_layers) * p.step * p.step * p.P;
    const auto make = complete ? &empty : &zeros;
    const int64_t copies = int64_t(row_layers) * p.channel_blocks;
    return make({copies, p.B, p.H, p.W, p.P, int64_t(p.R) * p.slices + 2 * p.N}, ScalarType::Float, x);
  }

  // Sums the copies of the rows' gradients, and the low-rank values' over the slices of the states.
  Tensor merge_rows(const Tensor& copies, ScalarType to_type) const {
    if (p.slices == 1) return merge(*this, copies, to_type);
    const Tensor rows = sum_first(copies);
    Tensor result = empty({p.B, p.H, p.W, p.P, p.R + 2 * p.N}, to_type, x);
    const int64_t ranks = int64_t(p.R) * p.slices;
    const Tensor by_slice =
        torch::stable::reshape(slice(rows, -1, 0, ranks), {p.B, p.H, p.W, p.P, p.slices, p.R});
    Tensor result_ranks = slice(result, -1, 0, p.R), result_states = slice(result, -1, p.R, 2 * p.N);
    torch::stable::copy_(result_ranks, sum_over(by_slice, {4}));
    torch::stable::copy_(result_states, slice(rows, -1, ranks, 2 * p.N));
    return result;
  }

  Tensor by_parameters(const Tensor& per_route) const { return sum_by_parameters(per_route, routes.list, size.K); }

  MapParams p{};
  int layers = 1, row_layers = 1;
  const MapSize size;
  const Routes routes;
  const Context context;
  const ScalarType type;
  const Tensor x, x_dbl, dt_weight, A;
  const OptionalTensor dt_bias, Ds;
  const Kernels<MapParams>& kernels;
};

}  // namespace

std::array<Tensor, 2> visual_scan(const MapInputs& in, bool save_states) {
  MapScan scan(in);
  auto& p = scan.p;
  Scan<MapParams> passes(p, scan.kernels, scan.context, Pass::kForward);
  const Tensor states = empty(save_states ? states_shape(p) : Sizes{0}, ScalarType::Float, scan.x);
  const Tensor y = scan.new_map();
  if (p.B > 0) {
    p.states = mutable_pointer<float>(states), p.y = mutable_pointer<void>(y);
    passes.run(scan.x);
  }
  return {merge(scan, y, scalar_type(in.x)), states};
}

std::array<Tensor, 6> visual_scan_backward(const MapInputs& in, const MapGradients& gradients) {
  MapScan scan(in);
  auto& p = scan.p;
  gradients.check(in, scan.size, scan.routes.size());
  Scan<MapParams> passes(p, scan.kernels, scan.context, Pass::kBackward);
  const Tensor A_by_state = turned(scan.A);
  p.A_by_state = pointer<float>(A_by_state);
  const Tensor dy = as_contiguous(gradients.dy, scan.type), states = as_contiguous(gradients.states);
  const Tensor dx = scan.new_map(), drows = scan.new_rows();
  const Tensor partial = new_parameter_gradients(p, passes.states_per_block(), scan.x);
  if (p.B > 0) {
    p.dy = dy.const_data_ptr(), p.states = mutable_pointer<float>(states), p.dx = mutable_pointer<void>(dx);
    p.drows = mutable_pointer<float>(drows), p.dparameters = mutable_pointer<float>(partial);
    passes.run(scan.x);
  }
  const ParameterGradients sums = collect(p, passes.states_per_block(), partial);
  const auto absent = [&] { return zeros({scan.size.K, scan.size.D}, ScalarType::Float, scan.x); };
  return {merge(scan, dx, scalar_type(in.x)),
          scan.merge_rows(drows, scalar_type(in.x_dbl)),
          scan.by_parameters(sums.dt_weight),
          in.dt_bias ? scan.by_parameters(sums.bias) : absent(),
          scan.by_parameters(sums.A),
          in.Ds ? scan.by_parameters(sums.Ds) : absent()};
}

std::vector<int64_t> plan_visual_scan(Tensor x, Tensor x_dbl, Tensor dt_weight, OptionalTensor dt_bias, Tensor A,
                                      OptionalTensor Ds, int64_t step, std::vector<int64_t> routes, bool backward) {
  MapScan scan({x, x_dbl, dt_weight, dt_bias, A, Ds, step, routes});
  return Scan<MapParams>(scan.p, scan.kernels, scan.context, backward ? Pass::kBackward : Pass::kForward).plan();
}

}  // namespace mmevm::cuda
