// docs/numerics.md once more, written down independently of the kernels: wide integers, one corner
// a line, and sums element by element.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

namespace spec {
using i64 = std::int64_t;
using u32 = std::uint32_t;
constexpr i64 BIAS = 0x3F800000, MIN = 0x00800000, INF = 0x7F800000, MANT = 0x007FFFFF;
constexpr u32 NAN_BITS = 0x7FC00000, SIGN = 0x80000000;

inline i64 magnitude(u32 x) { return x & 0x7FFFFFFF; }
inline bool is_nan(u32 x) { return magnitude(x) > INF; }
inline bool is_inf(u32 x) { return magnitude(x) == INF; }
inline bool is_zero(u32 x) { return magnitude(x) < MIN; }
inline float f(u32 x) {
  float r;
  std::memcpy(&r, &x, 4);
  return r;
}
inline u32 bits(float x) {
  u32 r;
  std::memcpy(&r, &x, 4);
  return r;
}
inline u32 ranged(u32 sign, i64 m) {
  if (m < MIN) return sign;
  if (m >= INF) return sign | (u32)INF;
  return sign | (u32)m;
}

inline u32 mul(u32 a, u32 b, i64 offset = 0) {
  u32 sign = (a ^ b) & SIGN;
  if (is_nan(a) || is_nan(b)) return NAN_BITS;
  if ((is_inf(a) && is_zero(b)) || (is_zero(a) && is_inf(b))) return NAN_BITS;
  if (is_inf(a) || is_inf(b)) return sign | (u32)INF;
  if (is_zero(a) || is_zero(b)) return sign;
  return ranged(sign, magnitude(a) + magnitude(b) - BIAS + offset);
}

inline u32 div(u32 a, u32 b, i64 offset = 0) {
  u32 sign = (a ^ b) & SIGN;
  if (is_nan(a) || is_nan(b)) return NAN_BITS;
  if ((is_zero(a) && is_zero(b)) || (is_inf(a) && is_inf(b))) return NAN_BITS;
  if (is_inf(a)) return sign | (u32)INF;
  if (is_zero(b)) return sign | (u32)INF;
  if (is_zero(a) || is_inf(b)) return sign;
  return ranged(sign, magnitude(a) - magnitude(b) + BIAS - offset);
}

// A double holds x * 2^23 and the half-way cases exactly.
inline u32 exp2(u32 x) {
  if (is_nan(x)) return NAN_BITS;
  float v = f(x);
  if (v >= 128.0f) return (u32)INF;
  if (v < -126.0f) return 0;
  if (is_zero(x)) return (u32)BIAS;
  return (u32)((i64)__builtin_nearbyint((double)v * 8388608.0) + BIAS);
}

inline u32 log2(u32 x) {
  if (is_nan(x)) return NAN_BITS;
  if (is_zero(x)) return SIGN | (u32)INF;
  if (x & SIGN) return NAN_BITS;
  if (is_inf(x)) return x;
  return bits((float)((double)((i64)x - BIAS) / 8388608.0));
}

inline u32 mul_grad(u32 a, u32 b, u32 d, i64 offset = 0) {
  if (is_nan(a) || is_nan(b) || is_nan(d)) return NAN_BITS;
  u32 s;
  if (is_zero(b)) {
    s = b & SIGN;
  } else {
    i64 mantissa = is_zero(a) ? 0 : (i64)(a & MANT);
    i64 m = (magnitude(b) + mantissa + offset) & ~MANT;
    s = ranged(b & SIGN, m);
  }
  return mul(d, s);
}

// Rounded on the bit pattern first, then a subnormal counts as a zero.
inline u32 narrow(u32 x, unsigned keep) {
  i64 m = magnitude(x);
  if (keep < 23 && m < INF) {
    unsigned drop = 23 - keep;
    i64 unit = (i64)1 << drop, low = m / unit * unit, rest = m - low;
    bool odd = (m / unit) % 2 == 1;
    if (rest * 2 > unit || (rest * 2 == unit && odd)) low += unit;
    m = low;
  }
  return (x & SIGN) | (m < MIN ? 0 : (u32)m);
}

inline bool same(u32 a, u32 b) { return a == b || (is_nan(a) && is_nan(b)); }

// Sums products k ascending in chunks of 256, then the chunk sums ascending.
template <typename Product> float contract(unsigned depth, const Product &product) {
  float total = 0.0f;
  for (unsigned begin = 0; begin < depth; begin += 256) {
    float chunk = 0.0f;
    for (unsigned k = begin; k < depth && k < begin + 256; ++k) chunk += f(product(k));
    total += chunk;
  }
  return total;
}
}  // namespace spec
