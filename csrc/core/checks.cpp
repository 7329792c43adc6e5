#include "checks.h"

#include <algorithm>
#include <string>
#include <utility>

// libstdc++ would read glibc 2.32's variable, and bind the library to it, to save shared pointers their atomics while
// there is one thread; in the hosts there are many.
#if defined(__GLIBC__)
extern "C" {
char __libc_single_threaded = 0;
}
#endif

namespace mmevm {
namespace {

std::string text(const int64_t* sizes, int64_t dims) {
  std::string result = "[";
  for (int64_t i = 0; i < dims; ++i) result += (i ? ", " : "") + std::to_string(sizes[i]);
  return result + "]";
}

void check_dims(Shape shape, const char* name, const char* dims, int64_t expected) {
  if (shape.dims != expected) fail("`", name, "` must have shape ", dims, ", got ", text(shape.sizes, shape.dims));
}

void check_states(int64_t N) {
  if (N < 1 || N > 256) fail("`A` must have 1 to 256 states, got ", N);
}

}  // namespace

void check_shape(Shape shape, const char* name, const char* dims, std::initializer_list<int64_t> expected) {
  if (!shape.sizes || std::equal(shape.sizes, shape.sizes + shape.dims, expected.begin(), expected.end())) return;
  fail("`", name, "` must have shape ", dims, " = ", text(expected.begin(), int64_t(expected.size())), ", got ",
       text(shape.sizes, shape.dims));
}

SequenceSize check_sequence(Shape u, Shape delta, Shape A, Shape Bs, Shape Cs, Shape Ds, Shape delta_bias) {
  check_dims(u, "u", "[B, D, L]", 3);
  check_dims(A, "A", "[D, N]", 2);
  check_dims(Bs, "Bs", "[B, G, N, L]", 4);
  const int64_t B = u[0], D = u[1], L = u[2], N = A[1], G = Bs[1];
  if (L < 1 || D < 1) fail("`u` must have at least one channel and one token, got shape ", text(u.sizes, u.dims));
  check_states(N);
  if (G < 1 || D % G) fail("`Bs` must have a number of groups that divides D = ", D, ", got ", G);
  check_shape(delta, "delta", "[B, D, L]", {B, D, L});
  check_shape(A, "A", "[D, N]", {D, N});
  check_shape(Bs, "Bs", "[B, G, N, L]", {B, G, N, L});
  check_shape(Cs, "Cs", "[B, G, N, L]", {B, G, N, L});
  check_shape(Ds, "Ds", "[D]", {D});
  check_shape(delta_bias, "delta_bias", "[D]", {D});
  return {B, D, L, N, G};
}

MapSize check_map(Shape x, Shape x_dbl, Shape dt_weight, Shape dt_bias, Shape A, Shape Ds) {
  check_dims(x, "x", "[B, H, W, D]", 4);
  check_dims(x_dbl, "x_dbl", "[B, H, W, P, R + 2N]", 5);
  check_dims(dt_weight, "dt_weight", "[K, D, R]", 3);
  check_dims(A, "A", "[K, D, N]", 3);
  const int64_t B = x[0], H = x[1], W = x[2], D = x[3], K = dt_weight[0], R = dt_weight[2], N = A[2], P = x_dbl[3];
  if (H < 1 || W < 1 || D < 1)
    fail("`x` must have at least one cell and one channel, got shape ", text(x.sizes, x.dims));
  check_states(N);
  check_shape(x_dbl, "x_dbl", "[B, H, W, P, R + 2N]", {B, H, W, P, R + 2 * N});
  check_shape(dt_weight, "dt_weight", "[K, D, R]", {K, D, R});
  check_shape(A, "A", "[K, D, N]", {K, D, N});
  check_shape(dt_bias, "dt_bias", "[K, D]", {K, D});
  check_shape(Ds, "Ds", "[K, D]", {K, D});
  return {B, H, W, D, N, R, K, P};
}

Routes parse_routes(const int64_t* flat, size_t count, int64_t step, const MapSize& size) {
  if (step < 1) fail("`step` must be at least 1, got ", step);
  if (count == 0 || count % 6) fail("`routes` must hold 6 integers per route, got ", count);
  Routes routes;
  std::vector<std::pair<int64_t, int64_t>> phases;
  for (const int64_t* f = flat; f != flat + count; f += 6) {
    const Route r{f[0], f[1], f[2] != 0, f[3] != 0, f[4], f[5]};
    if (r.row < 0 || r.row >= step || r.col < 0 || r.col >= step)
      fail("a route must start inside the first ", step, " x ", step, " cells, got (", r.row, ", ", r.col, ")");
    if (r.parameters < 0 || r.parameters >= size.K)
      fail("a route's parameter set must be below K = ", size.K, ", got ", r.parameters);
    if (r.projection < 0 || r.projection >= size.P)
      fail("a route's projection must be below P = ", size.P, ", got ", r.projection);
    routes.list.push_back(r);
    phases.emplace_back(r.row, r.col);
  }
  std::sort(phases.begin(), phases.end());
  phases.erase(std::unique(phases.begin(), phases.end()), phases.end());
  routes.overlap = phases.size() < routes.list.size();
  routes.complete = int64_t(phases.size()) == step * step;
  return routes;
}

}  // namespace mmevm
