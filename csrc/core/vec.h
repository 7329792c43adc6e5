// Fixed-width vectors for the CPU scan kernels, written once for every instruction set.
//
// No include guard on purpose: each kernels_<isa>.cpp includes this file inside its own anonymous namespace, after it
// has selected the target and MMEVM_LANES (float lanes per register), so that no symbol is shared between instruction sets.

#if defined(__clang__)
#define MMEVM_INLINE inline __attribute__((always_inline))
#else
#define MMEVM_INLINE inline __attribute__((always_inline, artificial))
#endif

template <class T>
struct Vec;

template <>
struct Vec<float> {
  using scalar = float;
  static constexpr int lanes = MMEVM_LANES;
  typedef float reg __attribute__((vector_size(4 * MMEVM_LANES)));
  typedef int32_t ireg __attribute__((vector_size(4 * MMEVM_LANES)));
  typedef uint16_t hreg __attribute__((vector_size(2 * MMEVM_LANES)));

  static MMEVM_INLINE reg load(const float* p) {
    reg r;
    __builtin_memcpy(&r, p, sizeof(r));
    return r;
  }
  static MMEVM_INLINE void store(float* p, reg v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static MMEVM_INLINE reg load(const BFloat16* p) {
    hreg h;
    __builtin_memcpy(&h, p, sizeof(h));
    return (reg)(__builtin_convertvector(h, ireg) << 16);
  }
  // To the nearest, and to even where two are near; what is not a number stays so.
  static MMEVM_INLINE void store(BFloat16* p, reg v) {
#ifdef MMEVM_AVX512BF16
    const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
    const ireg bits = (ireg)v, rounded = bits + 0x7fff + ((bits >> 16) & 1);
    const hreg h = __builtin_convertvector((v == v ? rounded : bits | 0x400000) >> 16, hreg);
#endif
    __builtin_memcpy(p, &h, sizeof(h));
  }
  static MMEVM_INLINE reg set(float s) { return s - reg{}; }

  // a b + c, rounded once where the processor can.
  static MMEVM_INLINE reg fma(reg a, reg b, reg c) {
#if MMEVM_LANES == 16
    return (reg)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif MMEVM_LANES == 8
    return (reg)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
  }

  // 2^x to 2 units in the last place; exact at 0, where a bias would compound over long sequences.
  static MMEVM_INLINE reg exp2(reg x) {
#ifdef MMEVM_AVX512
    // x = n + j / 16 + f: the power of j / 16 is looked up, and f is so small that a cubic polynomial does (1e-8). The
    // zero-masking forms with a full mask: GCC 12 warns of its own header in the plain ones.
    constexpr __mmask16 all = -1;
    const reg sixteenths = {1.0f,          1.044273782f,  1.090507733f,  1.138788635f,  1.189207115f,  1.241857812f,
                            1.296839555f,  1.354255547f,  1.414213562f,  1.476826146f,  1.542210825f,  1.610490332f,
                            1.681792831f,  1.756252160f,  1.834008086f,  1.915206561f};
    const reg f = (reg)_mm512_maskz_reduce_ps(all, (__m512)x, 4 << 4), rounded = x - f;
    const reg shifted = rounded + 786432.0f;  // 1.5 * 2^19: the low four bits of the mantissa are j
    const reg power = (reg)_mm512_maskz_permutexvar_ps(all, (__m512i)shifted, (__m512)sixteenths);
    const reg p = ((f * 0.0555041087f + 0.2402265070f) * f + 0.6931471806f) * f + 1.0f;
    return (reg)_mm512_maskz_scalef_ps(all, (__m512)(power * p), (__m512)rounded);
#else
    // Comparisons are written so that NaN passes through. 2^-127 comes out as 0 and 2^128 as infinity.
    x = x < -127.0f ? set(-127.0f) : x;
    x = x > 128.0f ? set(128.0f) : x;
    const reg shifted = x + 12582912.0f;  // 1.5 * 2^23: the integer part moves to the low mantissa bits
    const reg f = x - (shifted - 12582912.0f);
    return (reg)((ireg)poly_exp2(f) + ((ireg)shifted << 23));
#endif
  }

  // 2^(a b) where |a b| is at most 126; faster where exp2 clamps its argument.
#ifdef MMEVM_AVX512
  static constexpr bool exp2_clamps = false;
  static MMEVM_INLINE reg exp2_of_small(reg a, reg b) { return exp2(a * b); }
#else
  static constexpr bool exp2_clamps = true;
  static MMEVM_INLINE reg exp2_of_small(reg a, reg b) {
    const reg shifted = fma(a, b, set(12582912.0f)), f = fma(a, b, 12582912.0f - shifted);
    return (reg)((ireg)poly_exp2(f) + ((ireg)shifted << 23));
  }
#endif

  // log1p(t) for t in [0, 1], relative error 5e-9 before rounding.
  static MMEVM_INLINE reg log1p01(reg t) {
    reg p = set(-0.00324402461459f);
    p = p * t + 0.0198514598454f;
    p = p * t - 0.0569595295848f;
    p = p * t + 0.106036544189f;
    p = p * t - 0.153055923055f;
    p = p * t + 0.196759391713f;
    p = p * t - 0.249541336417f;
    p = p * t + 0.333299624158f;
    p = p * t - 0.499999024228f;
    p = p * t + 0.999999995287f;
    return p * t;
  }

#ifndef MMEVM_AVX512
 private:
  // The minimax polynomial on [-1/2, 1/2] (relative error 4e-9) with its constant term fixed at 1.
  static MMEVM_INLINE reg poly_exp2(reg f) {
    reg p = set(0.000154697319775f);
    p = p * f + 0.00134100009661f;
    p = p * f + 0.00961803078251f;
    p = p * f + 0.055502973142f;
    p = p * f + 0.240226510841f;
    p = p * f + 0.693147225395f;
    return p * f + 1.0f;
  }
#endif
};

#if defined(__x86_64__) && defined(__GLIBC__)
// The name that the function has had since 2002, instead of glibc 2.29's: wheels serve older systems.
__asm__(".symver exp2,exp2@GLIBC_2.2.5");
#endif

// Double precision serves gradient checks: correctness matters, speed does not.
template <>
struct Vec<double> {
  using scalar = double;
  static constexpr int lanes = MMEVM_LANES / 2;
  typedef double reg __attribute__((vector_size(4 * MMEVM_LANES)));

  static MMEVM_INLINE reg load(const double* p) {
    reg r;
    __builtin_memcpy(&r, p, sizeof(r));
    return r;
  }
  static MMEVM_INLINE void store(double* p, reg v) { __builtin_memcpy(p, &v, sizeof(v)); }
  static MMEVM_INLINE reg set(double s) { return s - reg{}; }
  static MMEVM_INLINE reg fma(reg a, reg b, reg c) { return a * b + c; }
  static MMEVM_INLINE reg exp2(reg x) {
    for (int i = 0; i < lanes; ++i) x[i] = ::exp2(x[i]);
    return x;
  }
  static constexpr bool exp2_clamps = false;
  static MMEVM_INLINE reg exp2_of_small(reg a, reg b) { return exp2(a * b); }
  static MMEVM_INLINE reg log1p01(reg t) {
    for (int i = 0; i < lanes; ++i) t[i] = ::log1p(t[i]);
    return t;
  }
};

// Exchanges the blocks of `size` lanes of two registers: a gets b's even blocks in place of its odd ones, b the opposite.
template <class V, int size, int... lane>
MMEVM_INLINE void exchange(typename V::reg& a, typename V::reg& b, std::integer_sequence<int, lane...>) {
  constexpr int W = V::lanes;
  const auto low = __builtin_shufflevector(a, b, (lane & size ? W + lane - size : lane)...);
  b = __builtin_shufflevector(a, b, (lane & size ? W + lane : lane + size)...);
  a = low;
}

// Transposes a square of registers: blocks of half its size first, then those of a quarter, down to single lanes.
template <class V, int size = V::lanes / 2>
MMEVM_INLINE void transpose(typename V::reg (&v)[V::lanes]) {
  if constexpr (size > 0) {
    for (int i = 0; i < V::lanes; ++i)
      if (!(i & size)) exchange<V, size>(v[i], v[i + size], std::make_integer_sequence<int, V::lanes>());
    transpose<V, size / 2>(v);
  }
}

// The sums over lanes of four registers, added to out[0..3]. Every 128-bit part is transposed and summed on the way.
MMEVM_INLINE void add_lane_sums(
    Vec<float>::reg a, Vec<float>::reg b, Vec<float>::reg c, Vec<float>::reg d, float* out) {
  typedef float quad __attribute__((vector_size(16)));
#if MMEVM_LANES == 16
#define MMEVM_SHUFFLE(x, y, i, j, k, l)                                                                            \
  __builtin_shufflevector(x, y, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, \
                          k + 12, l + 12)
#elif MMEVM_LANES == 8
#define MMEVM_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
#else
#define MMEVM_SHUFFLE(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#endif
  constexpr int W = MMEVM_LANES;
  const auto ab = MMEVM_SHUFFLE(a, b, 0, W, 1, W + 1) + MMEVM_SHUFFLE(a, b, 2, W + 2, 3, W + 3);
  const auto cd = MMEVM_SHUFFLE(c, d, 0, W, 1, W + 1) + MMEVM_SHUFFLE(c, d, 2, W + 2, 3, W + 3);
  const auto abcd = MMEVM_SHUFFLE(ab, cd, 0, 1, W, W + 1) + MMEVM_SHUFFLE(ab, cd, 2, 3, W + 2, W + 3);
#undef MMEVM_SHUFFLE
  quad parts[W / 4];
  __builtin_memcpy(parts, &abcd, sizeof(parts));
  quad sum;
  __builtin_memcpy(&sum, out, sizeof(sum));
  for (int i = 0; i < W / 4; ++i) sum += parts[i];
  __builtin_memcpy(out, &sum, sizeof(sum));
}

// The sum over lanes, halved until one is left.
template <int lanes, class T>
MMEVM_INLINE T halved_sum(const T* v) {
  if constexpr (lanes == 1) {
    return *v;
  } else {
    typedef T half __attribute__((vector_size(lanes / 2 * sizeof(T))));
    half low, high;
    __builtin_memcpy(&low, v, sizeof(half));
    __builtin_memcpy(&high, v + lanes / 2, sizeof(half));
    low += high;
    return halved_sum<lanes / 2>(reinterpret_cast<const T*>(&low));
  }
}

template <class V>
MMEVM_INLINE typename V::scalar lane_sum(typename V::reg v) {
  return halved_sum<V::lanes>(reinterpret_cast<const typename V::scalar*>(&v));
}

// The sums over lanes of `count` registers, added to out[0..count).
template <class V, int count>
MMEVM_INLINE void add_lane_sums(const typename V::reg* v, typename V::scalar* out) {
  if constexpr (count == 4 && std::is_same_v<V, Vec<float>>) {
    add_lane_sums(v[0], v[1], v[2], v[3], out);
  } else {
    for (int i = 0; i < count; ++i) out[i] += lane_sum<V>(v[i]);
  }
}

template <class V>
MMEVM_INLINE typename V::reg abs_of(typename V::reg x) {
  return x < 0 ? -x : x;
}

// softplus(x) = max(x, 0) + log1p(exp(-|x|)): no overflow, and small results keep their relative precision.
template <class V>
MMEVM_INLINE typename V::reg softplus(typename V::reg x) {
  using T = typename V::scalar;
  const auto t = V::exp2(abs_of<V>(x) * T(-1.4426950408889634));
  return (x < 0 ? V::set(T(0)) : x) + V::log1p01(t);
}

// The derivative of softplus, from the same exponential.
template <class V>
MMEVM_INLINE typename V::reg sigmoid(typename V::reg x) {
  using T = typename V::scalar;
  const auto t = V::exp2(abs_of<V>(x) * T(-1.4426950408889634));
  return (x < 0 ? t : V::set(T(1))) / (t + T(1));
}

// The normal distribution: its density at x, and its integral from |x| on. The latter's polynomial: Abramowitz and Stegun,
// 7.1.26.
template <class V>
struct Normal {
  typename V::reg density, tail;
};

template <class V>
MMEVM_INLINE Normal<V> normal(typename V::reg x) {
  using T = typename V::scalar;
  const auto a = abs_of<V>(x);
  const auto t = T(1) / (T(1) + a * T(0.23164189));  // 0.3275911 / sqrt(2)
  auto p = T(0.5307027145) * t - T(0.7265760135);
  p = p * t + T(0.7107068705);
  p = p * t - T(0.1422483680);
  p = p * t + T(0.1274147960);
  auto exponent = x * x * T(-0.7213475204444817);
  exponent = exponent < T(-100) ? V::set(T(-100)) : exponent;  // subnormal numbers are slow
  const auto e = V::exp2(exponent);
  return {e * T(0.3989422804014327), p * t * e};
}

// x times the normal distribution's integral up to x.
template <class V>
MMEVM_INLINE typename V::reg gelu(typename V::reg x) {
  const auto tail = normal<V>(x).tail;
  return x * (x < 0 ? tail : typename V::scalar(1) - tail);
}

template <class V>
MMEVM_INLINE typename V::reg gelu_derivative(typename V::reg x) {
  const auto [density, tail] = normal<V>(x);
  return (x < 0 ? tail : typename V::scalar(1) - tail) + x * density;
}
