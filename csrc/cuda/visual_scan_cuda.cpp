#include "visual_scan_cuda.h"

#include "../routes.h"
#include "launch.h"

namespace mmevm::cuda {
namespace {

using at::Tensor;

// The operator's inputs, checked, contiguous and of one data type.
struct MapInputs {
  MapInputs(const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias, const Tensor& A,
         const OptionalTensor& Ds, int64_t step, at::IntArrayRef flat_routes)
      : context(x), type(data_type(x, x_dbl)), routes(parse_routes(flat_routes, step, A.size(0), x_dbl.size(3))),
        x(x.to(type).contiguous()), x_dbl(x_dbl.to(type).contiguous()), dt_weight(dt_weight.contiguous()),
        A(A.contiguous()), dt_bias(contiguous(dt_bias)), Ds(contiguous(Ds)),
        kernels(choose_kernels(type, map_float, map_half, map_bfloat16)) {
    TORCH_CHECK_VALUE(routes.list.size() <= kMaxRoutes, "the CUDA kernels serve up to ", kMaxRoutes, " routes, got ",
                      routes.list.size(), "; use backend='triton' or backend='reference'");
    fit_int(x.size(1) * x.size(2), "H * W");
    p.B = fit_int(x.size(0), "B"), p.H = int(x.size(1)), p.W = int(x.size(2)), p.D = fit_int(x.size(3), "D");
    p.sets = int(routes.list.size()), p.channels = p.D, p.P = fit_int(x_dbl.size(3), "P"), p.step = fit_int(step, "`step`");
    p.N = int(A.size(2)), p.R = fit_int(dt_weight.size(2), "R");
    p.length = int(ceil_div(p.H, step) * ceil_div(p.W, step));
    p.x = this->x.const_data_ptr(), p.x_dbl = this->x_dbl.const_data_ptr();
    p.dt_weight = this->dt_weight.const_data_ptr<float>(), p.A = this->A.const_data_ptr<float>();
    p.Ds = pointer(this->Ds), p.bias = pointer(this->dt_bias);
    set_routes();
  }

  // Routes that share cells write different copies of the result, which are summed: the same sum in every run.
  void set_routes() {
    for (size_t i = 0; i < routes.list.size(); ++i) {
      const Route& r = routes.list[i];
      int layer = 0, row_layer = 0;
      for (size_t j = 0; j < i; ++j) {
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
    const auto options = x.options().dtype(p.float_outputs ? at::kFloat : type);
    const bool complete = written == copies * p.step * p.step;
    const std::vector<int64_t> shape{copies, p.B, p.H, p.W, p.D};
    return complete ? at::empty(shape, options) : at::zeros(shape, options);
  }

  Tensor new_rows() const {
    const bool complete = p.sets == int64_t(row_layers) * p.step * p.step * p.P;
    const std::vector<int64_t> shape{int64_t(row_layers) * p.channel_blocks, p.B, p.H, p.W, p.P, p.R * p.slices + 2 * p.N};
    const auto options = x.options().dtype(at::kFloat);
    return complete ? at::empty(shape, options) : at::zeros(shape, options);
  }

  Tensor merge_rows(const Tensor& copies, at::ScalarType type) const {
    const Tensor rows = merge(copies, at::kFloat);
    if (p.slices == 1) return rows.to(type);
    const int64_t ranks = int64_t(p.R) * p.slices;
    const Tensor dt = rows.narrow(-1, 0, ranks).unflatten(-1, {p.slices, p.R}).sum(-2);
    return at::cat({dt, rows.narrow(-1, ranks, 2 * p.N)}, -1).to(type);
  }

  Tensor by_parameters(const Tensor& per_route) const { return sum_by_parameters(per_route, routes, A.size(0)); }

  MapParams p{};
  int layers = 1, row_layers = 1;
  const Context context;
  const at::ScalarType type;
  const Routes routes;
  const Tensor x, x_dbl, dt_weight, A;
  const OptionalTensor dt_bias, Ds;
  const Kernels<MapParams>& kernels;
};

}  // namespace

std::tuple<Tensor, Tensor> visual_scan_forward(
    const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias, const Tensor& A,
    const OptionalTensor& Ds, int64_t step, at::IntArrayRef routes, bool save_states) {
  check_visual_scan(x, x_dbl, dt_weight, dt_bias, A, Ds);
  MapInputs in(x, x_dbl, dt_weight, dt_bias, A, Ds, step, routes);
  Scan<MapParams> scan(in.p, in.kernels, in.context, Pass::kForward);
  const auto shape = save_states ? states_shape(in.p) : std::vector<int64_t>{0};
  const Tensor states = at::empty(shape, x.options().dtype(at::kFloat)), y = in.new_map();
  if (x.size(0) > 0) {
    in.p.states = save_states ? states.data_ptr<float>() : nullptr, in.p.y = y.data_ptr();
    scan.run();
  }
  return {merge(y, x.scalar_type()), states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> visual_scan_backward(
    const Tensor& dy, const Tensor& x, const Tensor& x_dbl, const Tensor& dt_weight, const OptionalTensor& dt_bias,
    const Tensor& A, const OptionalTensor& Ds, const Tensor& states, int64_t step, at::IntArrayRef routes) {
  check_visual_scan(x, x_dbl, dt_weight, dt_bias, A, Ds);
  MapInputs in(x, x_dbl, dt_weight, dt_bias, A, Ds, step, routes);
  check_shape(dy, "dy", "[B, H, W, D]", x.sizes());
  check_shape(states, "states", "[B, routes, chunks, N, D]", states_shape(in.p));
  check_parameter(states, "states", x);
  Scan<MapParams> scan(in.p, in.kernels, in.context, Pass::kBackward);
  const Tensor dy_ = dy.to(in.type).contiguous(), states_ = states.contiguous();
  const Tensor dx = in.new_map(), drows = in.new_rows();
  const Tensor partial = new_parameter_gradients(in.p, scan.states_per_block(), x.options());
  if (x.size(0) > 0) {
    in.p.dy = dy_.const_data_ptr(), in.p.states = states_.data_ptr<float>(), in.p.dx = dx.data_ptr();
    in.p.drows = drows.data_ptr<float>(), in.p.dparameters = partial.data_ptr<float>();
    scan.run();
  }
  const ParameterGradients gradients(in.p, scan.states_per_block(), partial);
  const Tensor dbias = in.by_parameters(gradients.bias), dDs = in.by_parameters(gradients.Ds);
  return {merge(dx, x.scalar_type()), in.merge_rows(drows, x_dbl.scalar_type()),
          in.by_parameters(gradients.dt_weight), dt_bias ? dbias : at::zeros_like(dbias),
          in.by_parameters(gradients.A), Ds ? dDs : at::zeros_like(dDs)};
}

}  // namespace mmevm::cuda
