// Scalar piecewise affine primitives on bit patterns, and the address arithmetic that every kernel
// of this folder shares. docs/numerics.md is the specification.
//
// Nothing here multiplies. Float values meet only additions and comparisons; products are integer
// additions of bit patterns. Integer strides are applied by `stride_mul`, a shift-and-add loop, and
// constant scalings by `shl`, which hides its shift behind an opaque instruction because the
// compiler would otherwise rewrite it as `mul` or `mad`.
//
// The same text compiles for the CPU with PAM_HOST_SHIM defined (tests/cuda/shim.h), so that the
// kernels can be checked bit for bit where there is no GPU.
#ifndef PAM_PA_CUH
#define PAM_PA_CUH

typedef unsigned int u32;
typedef unsigned long long u64;

#define PA_SIGN 0x80000000u
#define PA_MAG 0x7FFFFFFFu
#define PA_BIAS 0x3F800000u
#define PA_MIN 0x00800000u
#define PA_INF 0x7F800000u
#define PA_MANT 0x007FFFFFu
#define PA_NAN 0x7FC00000u

// Lets the CPU tests count which forms a kernel ran.
#ifndef SHIM_NOTE_FORM
#define SHIM_NOTE_FORM(form)
#endif

#define PA_FN static __device__ __forceinline__

// Shifts left by a constant without letting the optimizer see a multiplication.
template <int S> PA_FN u32 shl(u32 x) {
#ifdef PAM_HOST_SHIM
  return x << S;
#else
  u32 r;
  asm("shl.b32 %0, %1, %2;" : "=r"(r) : "r"(x), "n"(S));
  return r;
#endif
}

template <int S> PA_FN u64 shl64(u64 x) {
#ifdef PAM_HOST_SHIM
  return x << S;
#else
  u64 r;
  asm("shl.b64 %0, %1, %2;" : "=l"(r) : "l"(x), "n"(S));
  return r;
#endif
}

// Byte offset of the 4-byte element `i`.
PA_FN u64 offset4(u64 i) { return shl64<2>(i); }

// Address of element `i` of an array of 4-byte elements.
template <typename T> PA_FN const T *at(const T *p, u64 i) {
  static_assert(sizeof(T) == 4, "at() addresses 4-byte elements");
  return (const T *)((const char *)p + offset4(i));
}
template <typename T> PA_FN T *at(T *p, u64 i) {
  static_assert(sizeof(T) == 4, "at() addresses 4-byte elements");
  return (T *)((char *)p + offset4(i));
}

// Address `bytes` further on, whatever the type.
template <typename T> PA_FN T *byte_at(T *p, u64 bytes) { return (T *)((char *)p + bytes); }
template <typename T> PA_FN const T *byte_at(const T *p, u64 bytes) {
  return (const T *)((const char *)p + bytes);
}

// Keeps the optimizer from folding additions of `x` into one multiplication.
PA_FN void opaque(u64 &x) {
#ifndef PAM_HOST_SHIM
  asm volatile("" : "+l"(x));
#endif
}
PA_FN void opaque(u32 &x) {
#ifndef PAM_HOST_SHIM
  asm volatile("" : "+r"(x));
#endif
}

// i * stride by shifts and additions. It runs once per block or thread, never per element.
PA_FN u64 stride_mul(u32 i, u64 stride) {
  u64 sum = 0;
  while (i != 0) {
    if (i & 1) sum += stride;
#ifdef PAM_HOST_SHIM
    stride += stride;
#else
    asm("add.u64 %0, %0, %0;" : "+l"(stride));
#endif
    i >>= 1;
  }
  return sum;
}

PA_FN u32 mag(u32 x) { return x & PA_MAG; }

// A subnormal counts as a zero of its sign.
PA_FN u32 flush(u32 x) { return mag(x) < PA_MIN ? x & PA_SIGN : x; }

// pa.mul with `bias` = BIAS - (bits(offset) - BIAS); plain pa.mul has bias = BIAS.
PA_FN u32 pa_mul_bias(u32 a, u32 b, u32 bias) {
  u32 sign = (a ^ b) & PA_SIGN;
  u32 ma = mag(a), mb = mag(b);
  if (ma > PA_INF || mb > PA_INF) return PA_NAN;
  bool za = ma < PA_MIN, zb = mb < PA_MIN;
  if (ma == PA_INF || mb == PA_INF) return za || zb ? PA_NAN : sign | PA_INF;
  if (za || zb) return sign;
  u32 sum = ma + mb;  // below 2^32, since both are below INF
  if (sum < bias + PA_MIN) return sign;
  if (sum >= bias + PA_INF) return sign | PA_INF;
  return sign | (sum - bias);
}

PA_FN u32 pa_mul(u32 a, u32 b) { return pa_mul_bias(a, b, PA_BIAS); }

// pa.div with the same `bias`.
PA_FN u32 pa_div_bias(u32 a, u32 b, u32 bias) {
  u32 sign = (a ^ b) & PA_SIGN;
  u32 ma = mag(a), mb = mag(b);
  if (ma > PA_INF || mb > PA_INF) return PA_NAN;
  bool za = ma < PA_MIN, zb = mb < PA_MIN;
  if (ma == PA_INF) return mb == PA_INF ? PA_NAN : sign | PA_INF;
  if (zb) return za ? PA_NAN : sign | PA_INF;
  if (za || mb == PA_INF) return sign;
  u32 sum = ma + bias;
  if (sum < mb + PA_MIN) return sign;
  if (sum >= mb + PA_INF) return sign | PA_INF;
  return sign | (sum - mb);
}

PA_FN u32 pa_div(u32 a, u32 b) { return pa_div_bias(a, b, PA_BIAS); }

// x * 2^23 rounded to the nearest integer, ties to even, plus BIAS.
PA_FN u32 pa_exp2(u32 x) {
  u32 m = mag(x);
  if (m > PA_INF) return PA_NAN;
  bool negative = (x & PA_SIGN) != 0;
  if (!negative && m >= 0x43000000u) return PA_INF;  // x >= 128
  if (negative && m > 0x42FC0000u) return 0;         // x < -126
  if (m < PA_MIN) return PA_BIAS;
  u32 exponent = m >> 23;
  u32 significand = (m & PA_MANT) | PA_MIN;
  u32 fixed;
  if (exponent >= 127) {
    fixed = significand << (exponent - 127);
  } else {
    u32 down = 127 - exponent;
    if (down > 25) return PA_BIAS;
    u32 kept = significand >> down;
    u32 rest = significand & ((1u << down) - 1);
    u32 half = 1u << (down - 1);
    fixed = kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
  }
  return negative ? PA_BIAS - fixed : PA_BIAS + fixed;
}

// Scales a float by 2^-n exactly where the result stays normal, as an exponent subtraction.
PA_FN u32 exponent_down(u32 x, u32 n) { return mag(x) == 0 ? x : x - (n << 23); }

// (bits(x) - BIAS) * 2^-23, rounded once.
PA_FN u32 pa_log2(u32 x) {
  u32 m = mag(x);
  if (m > PA_INF) return PA_NAN;
  if (m < PA_MIN) return PA_SIGN | PA_INF;
  if (x & PA_SIGN) return PA_NAN;
  if (m == PA_INF) return PA_INF;
  u32 whole = __float_as_uint(__int2float_rn((int)(m - PA_BIAS)));
  return exponent_down(whole, 23);
}

// Slope of pa.mul in its first operand: a power of two with the sign of b, or zero or infinity.
PA_FN u32 mul_slope(u32 a, u32 b, u32 bias) {
  u32 ma = mag(a), mb = mag(b);
  if (mb < PA_MIN) return b & PA_SIGN;
  u32 mantissa = ma < PA_MIN ? 0 : ma & PA_MANT;
  if (ma >= PA_INF) mantissa = 0;
  u32 sum = mb + mantissa + (PA_BIAS - bias);  // the offset is added before masking
  // An offset can take the sum below the smallest normal or, with carry, past infinity.
  if ((int)sum < (int)PA_MIN && bias > PA_BIAS) return b & PA_SIGN;
  if (sum >= PA_INF) return (b & PA_SIGN) | PA_INF;
  return (b & PA_SIGN) | (sum & ~PA_MANT);
}

// d pa.mul(a, b) / da applied to the incoming gradient d.
PA_FN u32 pa_mul_grad_bias(u32 a, u32 b, u32 d, u32 bias) {
  if (mag(a) > PA_INF || mag(b) > PA_INF || mag(d) > PA_INF) return PA_NAN;
  return pa_mul(d, mul_slope(a, b, bias));
}

// Rounds to `keep` mantissa bits, half to even on the bit pattern; the carry may enter the exponent.
PA_FN u32 round_mantissa(u32 x, u32 keep) {
  u32 m = mag(x);
  if (keep >= 23 || m >= PA_INF) return x;
  u32 drop = 23 - keep;
  u32 even = (m >> drop) & 1;
  u32 rounded = (m + ((1u << (drop - 1)) - 1) + even) >> drop << drop;
  return (x & PA_SIGN) | rounded;
}

PA_FN float as_float(u32 x) { return __uint_as_float(x); }
PA_FN u32 as_bits(float x) { return __float_as_uint(x); }

#endif
