// A program that checks csrc/core by itself, for processors that the tests in Python do not run on: the scans and some passes
// against their formulas, written out in double. `make test-arm` runs it.
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "core/checks.h"
#include "core/training.h"

using namespace mmevm;

namespace {

using Floats = std::vector<float>;
using Exact = std::vector<double>;

int failures = 0;

Floats random_floats(size_t count, float low = -1, float high = 1) {
  static std::mt19937 generator(0);
  Floats values(count);
  for (float& v : values) v = std::uniform_real_distribution<float>(low, high)(generator);
  return values;
}

// Largest error relative to the largest value.
void expect_close(const char* name, const Floats& got, const Exact& expected, double tolerance = 2e-5) {
  double error = 0, largest = 1e-12;
  for (size_t i = 0; i < got.size(); ++i) {
    error = std::fmax(error, std::isfinite(got[i]) ? std::fabs(got[i] - expected[i]) : INFINITY);
    largest = std::fmax(largest, std::fabs(expected[i]));
  }
  const bool good = error <= tolerance * largest;
  std::printf("%-34s %.1e %s\n", name, error / largest, good ? "ok" : "FAILED");
  failures += !good;
}

// One after the other, but as for several threads.
const Host host{[](void*, int64_t count, void (*body)(void*, int64_t), void* argument) {
                  for (int64_t i = 0; i < count; ++i) body(argument, i);
                },
                nullptr, 3};

template <class Params>
void run_pass(const Params& p) {
  std::vector<char> workspace(pass_workspace(p, host.threads));
  run(p, host, workspace.data());
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// A scan of a map along its rows and back, with one set of parameters each.
struct Scan {
  static constexpr int64_t B = 2, H = 5, W = 9, D = 21, N = 3, R = 2, K = 2, M = R + 2 * N;
  Floats x = random_floats(B * H * W * D), x_dbl = random_floats(B * H * W * M), dt_weight = random_floats(K * D * R);
  Floats dt_bias = random_floats(K * D), A = random_floats(K * D * N, -2, -0.1f), Ds = random_floats(K * D);
  std::vector<Route> routes{{0, 0, false, false, 0, 0}, {0, 0, false, true, 1, 0}};

  Exact formula(const Floats& x) const {
    Exact y(x.size());
    for (int64_t b = 0; b < B; ++b)
      for (const Route& route : routes)
        for (int64_t d = 0; d < D; ++d) {
          const int64_t kd = route.parameters * D + d;
          double h[N] = {};
          for (int64_t t = 0; t < H * W; ++t) {
            const int64_t cell = b * H * W + (route.reverse ? H * W - 1 - t : t);
            const float* const row = &x_dbl[cell * M];
            double delta = dt_bias[kd], out = double(Ds[kd]) * x[cell * D + d];
            for (int64_t r = 0; r < R; ++r) delta += double(dt_weight[kd * R + r]) * row[r];
            delta = std::log1p(std::exp(delta));
            for (int64_t n = 0; n < N; ++n) {
              h[n] = std::exp(delta * A[kd * N + n]) * h[n] + delta * row[R + n] * x[cell * D + d];
              out += h[n] * row[R + N + n];
            }
            y[cell * D + d] += out;
          }
        }
    return y;
  }

  MapParams<float> params() const {
    MapParams<float> p{};
    static_cast<MapSize&>(p) = {B, H, W, D, N, R, K, 1};
    p.step = 1, p.accumulate = true, p.routes = routes.data(), p.n_routes = int64_t(routes.size());
    p.x = x.data(), p.x_dbl = x_dbl.data(), p.dt_weight = dt_weight.data(), p.dt_bias = dt_bias.data();
    p.A = A.data(), p.Ds = Ds.data();
    return p;
  }

  static void launch(const MapParams<float>& p, const Plan& plan) {
    std::vector<char> workspace(plan.workspace_bytes());
    run(p, plan, host, workspace.data());
  }

  void check() const {
    MapParams<float> p = params();
    Floats y(x.size()), states(B * routes.size() * ceil_div(H * W, kChunk) * N * D);
    p.y = y.data(), p.states = states.data();
    launch(p, make_plan(p, Direction::kForward, host.threads));
    expect_close("scan", y, formula(x));

    const Floats dy = random_floats(x.size());
    const Plan plan = make_plan(p, Direction::kBackward, host.threads);
    Floats dx(x.size()), dx_dbl(plan.copies * x_dbl.size()), dweight(B * 2 * D * R), dbias(B * 2 * D), dDs(B * 2 * D);
    Floats dA(B * 2 * D * N);
    p.dy = dy.data(), p.dx = dx.data(), p.dx_dbl = dx_dbl.data(), p.ddt_weight = dweight.data();
    p.ddt_bias = dbias.data(), p.dDs = dDs.data(), p.dA = dA.data();
    launch(p, plan);
    // The scan is linear in x: dy . y(v) = dx . v for any v.
    const Floats v = random_floats(x.size());
    const Exact of_v = formula(v);
    double expected = 0, got = 0;
    for (size_t i = 0; i < v.size(); ++i) expected += dy[i] * of_v[i], got += double(dx[i]) * v[i];
    expect_close("scan, gradient", {float(got)}, {expected}, 1e-4);
  }
};

constexpr int64_t B = 2, H = 4, W = 7, C = 21, tokens = H * W;

double at(const Floats& x, int64_t b, int64_t h, int64_t w, int64_t c) {
  return h < 0 || h >= H || w < 0 || w >= W ? 0 : x[((b * H + h) * W + w) * C + c];
}

template <class Fn>
void for_cells(const Fn& fn) {
  for (int64_t b = 0; b < B; ++b)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t w = 0; w < W; ++w)
        for (int64_t c = 0; c < C; ++c) fn(b, h, w, c, ((b * H + h) * W + w) * C + c);
}

void check_convolution() {
  const Floats x = random_floats(B * tokens * C), weight = random_floats(C * 9), bias = random_floats(C);
  Floats y(x.size()), dx(x.size()), dweight(weight.size()), dbias(C);
  Exact sum(x.size()), expected(x.size()), g(x.size()), of_weight(weight.size()), of_bias(C), of_x(x.size());
  const Floats dy = random_floats(x.size());
  for_cells([&](int64_t b, int64_t h, int64_t w, int64_t c, int64_t i) {
    sum[i] = bias[c];
    for (int64_t k = 0; k < 9; ++k) sum[i] += weight[c * 9 + k] * at(x, b, h + k / 3 - 1, w + k % 3 - 1, c);
    const double s = sigmoid(sum[i]);
    expected[i] = sum[i] * s, g[i] = dy[i] * (s + sum[i] * s * (1 - s)), of_bias[c] += g[i];
  });
  for_cells([&](int64_t b, int64_t h, int64_t w, int64_t c, int64_t i) {
    for (int64_t k = 0; k < 9; ++k) {
      const int64_t row = h + k / 3 - 1, col = w + k % 3 - 1;
      of_weight[c * 9 + k] += g[i] * at(x, b, row, col, c);
      if (row >= 0 && row < H && col >= 0 && col < W) of_x[((b * H + row) * W + col) * C + c] += g[i] * weight[c * 9 + k];
    }
  });
  run_pass(DepthwiseParams<float>{B, H, W, C, 3, 3, 1, 1, x.data(), weight.data(), bias.data(), {}, Activation::kSilu, y.data()});
  run_pass(DepthwiseGradients{B, H, W, C, dy.data(), x.data(), weight.data(), bias.data(), Activation::kSilu, dx.data(),
                              dweight.data(), dbias.data()});
  expect_close("depthwise convolution", y, expected);
  expect_close("its gradient", dx, of_x);
  expect_close("its weights' gradient", dweight, of_weight);
  expect_close("its bias' gradient", dbias, of_bias);
}

void check_norms() {
  const Floats x = random_floats(B * tokens * C, 4, 6), gate = random_floats(x.size()), weight = random_floats(C);
  const Floats bias = random_floats(C);
  const double eps = 1e-3;
  Exact gated(x.size()), mean(B * C), batch(x.size());
  for (int64_t t = 0; t < B * tokens; ++t) {
    double m = 0, var = 0;
    for (int64_t c = 0; c < C; ++c) m += x[t * C + c] / C;
    for (int64_t c = 0; c < C; ++c) var += (x[t * C + c] - m) * (x[t * C + c] - m) / C;
    for (int64_t c = 0; c < C; ++c) {
      const double y = (x[t * C + c] - m) / std::sqrt(var + eps) * weight[c] + bias[c], z = gate[t * C + c];
      gated[t * C + c] = y * z * sigmoid(z), mean[t / tokens * C + c] += y / tokens;
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    double m = 0, var = 0;
    for (int64_t t = 0; t < B * tokens; ++t) m += double(x[t * C + c]) / (B * tokens);
    for (int64_t t = 0; t < B * tokens; ++t) var += (x[t * C + c] - m) * (x[t * C + c] - m) / (B * tokens);
    for (int64_t t = 0; t < B * tokens; ++t) {
      const double y = (x[t * C + c] - m) / std::sqrt(var + eps) * weight[c] + bias[c];
      batch[t * C + c] = y / 2 * std::erfc(-y / std::sqrt(2.0));
    }
  }
  Floats y(x.size()), of_images(B * C), means(C), vars(C);
  run_pass(GatedNormParams<float>{B * tokens, C, x.data(), gate.data(), weight.data(), bias.data(), eps, y.data()});
  expect_close("layer norm and gate", y, gated);
  run_pass(NormMeanParams<float>{B, tokens, C, x.data(), weight.data(), bias.data(), eps, of_images.data()});
  expect_close("mean of a layer norm", of_images, mean);
  run_pass(BatchStatistics{B * tokens, C, x.data(), weight.data(), bias.data(), eps, Activation::kGelu, y.data(), means.data(),
                           vars.data()});
  expect_close("batch norm and GELU", y, batch);
}

// weight [out, in] times x [count, in].
Exact multiply(const Exact& x, const Floats& weight, const Floats& bias, int64_t count, int64_t in, int64_t out) {
  Exact y(count * out);
  for (int64_t t = 0; t < count; ++t)
    for (int64_t o = 0; o < out; ++o) {
      y[t * out + o] = bias[o];
      for (int64_t i = 0; i < in; ++i) y[t * out + o] += x[t * in + i] * weight[o * in + i];
    }
  return y;
}

void check_products() {
  const int64_t out = 2 * C + 5, hidden = C / 2;
  const Floats x = random_floats(B * tokens * C), weight = random_floats(out * C), bias = random_floats(out);
  const Floats reduce = random_floats(hidden * C), expand = random_floats(C * hidden), zeros(hidden);
  Exact expected = multiply(Exact(x.begin(), x.end()), weight, bias, B * tokens, C, out);
  for (double& v : expected) v = std::max(v, 0.0);
  Floats y(expected.size()), gate(B * C);
  LinearParams<float> p{B * tokens, C, out, x.data(), weight.data(), bias.data(), {}, Activation::kRelu, nullptr, y.data()};
  run_pass(p);
  expect_close("linear layer and ReLU", y, expected);
  Exact inner = multiply(Exact(x.begin(), x.begin() + B * C), reduce, zeros, B, C, hidden);
  for (double& v : inner) v *= sigmoid(v);
  expected = multiply(inner, expand, bias, B, hidden, C);
  for (double& v : expected) v = sigmoid(v);
  run_pass(ChannelGateParams<float>{B, C, hidden, x.data(), reduce.data(), nullptr, Activation::kSilu, expand.data(), bias.data(),
                                    gate.data()});
  expect_close("channel gate", gate, expected);
}

}  // namespace

int main() {
  Scan().check();
  check_convolution();
  check_norms();
  check_products();
  return failures ? 1 : 0;
}
