// Elementwise operations on bit patterns: what generated programs are made of. The host's
// counterparts are kernels/src/function.rs, kernels/src/pa.rs and runtime/src/host/pointwise.rs.
//
// A function without a type in its name works on floats; `T` and `S` are element types of number.cuh.
#ifndef PAM_ELEMENTWISE_CUH
#define PAM_ELEMENTWISE_CUH

#include "number.cuh"

// A delta times a slope, which is a power of two or zero or infinity.
PA_FN u32 times_slope(u32 delta, u32 slope, bool nan) { return pa_mul(delta, nan ? PA_NAN : slope); }

// The power of two at or below a bit pattern that may be out of range.
PA_FN u32 slope_bits(i32 pattern) {
  u32 inside = pattern < 0 ? 0 : (u32)pattern & ~PA_MANT;
  inside = inside < PA_INF ? inside : PA_INF;
  return inside < PA_MIN ? 0 : inside;
}

PA_FN u32 mantissa_of(u32 x) { return mag(x) < PA_MIN ? 0 : x & PA_MANT; }

PA_FN u32 pam_mul(u32 a, u32 b, i32 offset) { return pa_mul_bias(a, b, PA_BIAS - (u32)offset); }
PA_FN u32 pam_div(u32 a, u32 b, i32 offset) { return pa_div_bias(a, b, PA_BIAS - (u32)offset); }

PA_FN u32 pam_mul_grad(u32 a, u32 b, u32 d, i32 offset) {
  u32 mb = mag(b);
  i32 sum = (i32)(mb + mantissa_of(a));
  u32 slope = (u32)(sum + offset) & ~PA_MANT;
  if ((u32)sum >= PA_INF - (u32)offset) slope = PA_INF;
  if (sum < (i32)PA_MIN - offset || mb < PA_MIN) slope = 0;
  return times_slope(d, slope | (b & PA_SIGN), mag(a) > PA_INF || mb > PA_INF);
}

PA_FN u32 pam_div_grad_a(u32 a, u32 b, u32 d, i32 offset) {
  u32 mb = mag(b), one = PA_BIAS + mantissa_of(a);
  u32 slope = slope_bits((i32)one - (i32)mb + ((i32)PA_BIAS - offset));
  if (mb < PA_MIN) slope = PA_INF;
  if (mb == PA_INF) slope = 0;
  return times_slope(d, slope | (b & PA_SIGN), mag(a) > PA_INF || mb > PA_INF);
}

PA_FN u32 pam_div_grad_b(u32 a, u32 b, u32 d, i32 offset) {
  u32 q = pam_div(a, b, offset), mq = mag(q), mb = mag(b);
  i32 exponents = (i32)(mq & ~PA_MANT) - (i32)(mb & ~PA_MANT);
  // A saturating sum: the difference is at most the exponent of infinity.
  u32 slope = exponents > (i32)(PA_MAG - PA_BIAS) ? PA_INF : slope_bits(exponents + (i32)PA_BIAS);
  if (mq == PA_INF || mb < PA_MIN) slope = PA_INF;
  if (mq == 0) slope = 0;
  return times_slope(d, slope | ((a & PA_SIGN) ^ PA_SIGN), mq > PA_INF);
}

PA_FN u32 pam_exp2_grad(u32 x, u32 d) {
  // A negative subnormal counts as a zero.
  float floor = mag(x) < PA_MIN ? 0.0f : floorf(as_float(x));
  i32 exponent = floor < -127.0f ? -127 : floor > 128.0f ? 128 : (i32)floor;
  bool nan = mag(x) > PA_INF;
  return times_slope(d, nan ? 0 : (u32)(exponent + 127) << 23, nan);
}

PA_FN u32 pam_log2_grad(u32 x, u32 d) {
  u32 m = mag(x);
  u32 slope = slope_bits((i32)(PA_BIAS + PA_BIAS) - (i32)(m & ~PA_MANT));
  if (m < PA_MIN) slope = PA_INF;
  if (m == PA_INF) slope = 0;
  return times_slope(d, slope, m > PA_INF || ((x & PA_SIGN) && m >= PA_MIN));
}

// Exact scaling by a power of two, rounded to nearest even where the result is subnormal.
PA_FN u32 pam_scale(u32 x, i32 exponent) {
  u32 m = mag(x);
  exponent = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
  i32 e = (i32)(m >> 23), target = e + exponent;
  if (e != 0 && e != 255 && target > 0 && target < 255) return x + ((u32)exponent << 23);
  if (m >= PA_INF) return m > PA_INF ? PA_NAN : x;
  if (m == 0) return x;
  u32 significand = m < PA_MIN ? m : (m & PA_MANT) | PA_MIN;
  i32 power = m < PA_MIN ? 0 : e - 1;
  i32 up = __clz((int)significand) - 8;
  power += exponent - up;
  significand <<= up;
  u32 magnitude;
  if (power >= 254) {
    magnitude = PA_INF;
  } else if (power >= 0) {
    magnitude = ((u32)power << 23) + significand;
  } else {
    u32 down = -power < 31 ? (u32)-power : 31u;
    u32 kept = significand >> down, rest = significand & ((1u << down) - 1);
    u32 half = 1u << (down - 1);
    magnitude = kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0);
  }
  return (x & PA_SIGN) | magnitude;
}

PA_FN u32 f32_add(u32 a, u32 b) { return as_bits(as_float(a) + as_float(b)); }
PA_FN u32 f32_sub(u32 a, u32 b) { return as_bits(as_float(a) - as_float(b)); }
PA_FN u32 f32_max(u32 a, u32 b) {
  float x = as_float(a), y = as_float(b);
  return x != x ? a : x > y ? a : b;
}
PA_FN u32 f32_min(u32 a, u32 b) {
  float x = as_float(a), y = as_float(b);
  return x != x ? a : x < y ? a : b;
}
PA_FN u32 f32_neg(u32 x) { return x ^ PA_SIGN; }
PA_FN u32 f32_abs(u32 x) { return mag(x); }
PA_FN u32 f32_floor(u32 x) { return as_bits(floorf(as_float(x))); }
PA_FN u32 f32_ceil(u32 x) { return as_bits(ceilf(as_float(x))); }
PA_FN u32 f32_round(u32 x) { return as_bits(rintf(as_float(x))); }
PA_FN u32 f32_sign(u32 x) {
  float v = as_float(x);
  return v > 0.0f ? PA_BIAS : v < 0.0f ? PA_BIAS | PA_SIGN : v == 0.0f ? 0 : x;
}
PA_FN u32 f32_relu(u32 x) { return as_float(x) < 0.0f ? 0 : x; }

template <int T> PA_FN typename Number<T>::raw negate(typename Number<T>::raw x) {
  typedef typename Number<T>::raw raw;
  if (Number<T>::FLOAT) return (raw)(x ^ (raw)((raw)1 << (sizeof(raw) * 8 - 1)));
  return sub<T>(0, x);
}
template <int T> PA_FN typename Number<T>::raw absolute(typename Number<T>::raw x) {
  typedef typename Number<T>::raw raw;
  if (Number<T>::FLOAT) return (raw)(x & (raw) ~((raw)1 << (sizeof(raw) * 8 - 1)));
  return less<T>(x, 0) ? sub<T>(0, x) : x;
}
template <int T> PA_FN typename Number<T>::raw one() { return cast<T, U8>(1); }
template <int T> PA_FN typename Number<T>::raw sign_of(typename Number<T>::raw x) {
  return less<T>(0, x) ? one<T>() : less<T>(x, 0) ? sub<T>(0, one<T>()) : is_nan<T>(x) ? x : 0;
}
template <int T> PA_FN typename Number<T>::raw relu(typename Number<T>::raw x) {
  return larger_of<T>(x, 0);
}
template <int T> PA_FN typename Number<T>::raw threshold_relu(typename Number<T>::raw x, float alpha) {
  return (double)Number<T>::get(x) > (double)alpha ? x : 0;
}
template <int T> PA_FN typename Number<T>::raw shrink(typename Number<T>::raw x, float bias, float lambda) {
  double v = (double)Number<T>::get(x);
  double y = v < -(double)lambda ? v + (double)bias
             : v > (double)lambda ? v - (double)bias
                                  : 0.0;
  return Convert<T, Number<T>::FLOAT != 0, true>::of(y);
}
template <int T> PA_FN typename Number<T>::raw floor_of(typename Number<T>::raw x) {
  return Convert<T, true, true>::of(floor((double)Number<T>::get(x)));
}
template <int T> PA_FN typename Number<T>::raw ceil_of(typename Number<T>::raw x) {
  return Convert<T, true, true>::of(ceil((double)Number<T>::get(x)));
}
template <int T> PA_FN typename Number<T>::raw round_of(typename Number<T>::raw x) {
  return Convert<T, true, true>::of(rint((double)Number<T>::get(x)));
}

template <int T> PA_FN u8 is_less(typename Number<T>::raw a, typename Number<T>::raw b) {
  return Number<T>::get(a) < Number<T>::get(b);
}
template <int T> PA_FN u8 is_less_or_equal(typename Number<T>::raw a, typename Number<T>::raw b) {
  return Number<T>::get(a) <= Number<T>::get(b);
}
template <int T> PA_FN u8 is_equal(typename Number<T>::raw a, typename Number<T>::raw b) {
  // Booleans are compared as bytes, as the host does.
  return T == BOOL ? a == b : Number<T>::get(a) == Number<T>::get(b);
}
template <int T> PA_FN u8 is_infinite(typename Number<T>::raw x, i32 signs) {
  double v = (double)Number<T>::get(x);
  return ((signs & 1) && v == -as_double(0x7FF0000000000000ull)) ||
         ((signs & 2) && v == as_double(0x7FF0000000000000ull));
}

// Integers: products by shifts and additions, quotients by shifts and subtractions.
template <int T> PA_FN u64 size_of_number(typename Number<T>::raw x) {
  return less<T>(x, 0) ? (u64)0 - (u64)(i64)Number<T>::get(x) : (u64)Number<T>::get(x);
}
template <int T> PA_FN typename Number<T>::raw int_mul(typename Number<T>::raw a, typename Number<T>::raw b) {
  typedef typename Number<T>::raw raw;
  return T == BOOL ? (raw)(a & b) : (raw)product64((u64)a, (u64)b);
}
template <int T> PA_FN typename Number<T>::raw int_div(typename Number<T>::raw a, typename Number<T>::raw b) {
  typedef typename Number<T>::raw raw;
  if (T == BOOL) return (raw)(a & b);
  if (b == 0) return 0;
  u64 rest, q = divide64(size_of_number<T>(a), size_of_number<T>(b), rest);
  return (raw)(less<T>(a, 0) != less<T>(b, 0) ? (u64)0 - q : q);
}
// The rest has the sign of the dividend, or of the divisor where `fmod` is 0.
template <int T> PA_FN typename Number<T>::raw int_mod(typename Number<T>::raw a, typename Number<T>::raw b, i32 fmod) {
  typedef typename Number<T>::raw raw;
  if (b == 0) return 0;
  u64 rest;
  divide64(size_of_number<T>(a), size_of_number<T>(b), rest);
  bool negative = less<T>(a, 0);
  raw r = (raw)(negative ? (u64)0 - rest : rest);
  return fmod == 0 && rest != 0 && negative != less<T>(b, 0) ? (raw)(r + b) : r;
}
template <int T> PA_FN typename Number<T>::raw int_pow(typename Number<T>::raw a, typename Number<T>::raw b) {
  typedef typename Number<T>::raw raw;
  if (a == 1) return 1;
  if (less<T>(a, 0) && (raw)(a + 1) == 0) return b & 1 ? a : (raw)1;
  if (less<T>(b, 0)) return 0;
  u64 y = (u64)b, result = 1, base = (u64)(i64)Number<T>::get(a);
  y = y < (1ull << 20) ? y : 1ull << 20;
  for (; y != 0; y >>= 1) {
    if (y & 1) result = product64(result, base);
    base = product64(base, base);
  }
  return (raw)result;
}
// A negative distance is a large one here, and leaves nothing but the sign.
template <int T> PA_FN typename Number<T>::raw shift_left(typename Number<T>::raw a, typename Number<T>::raw b) {
  u64 by = (u64)Number<T>::get(b);
  return by >= 64 ? 0 : (typename Number<T>::raw)((u64)a << by);
}
template <int T> PA_FN typename Number<T>::raw shift_right(typename Number<T>::raw a, typename Number<T>::raw b) {
  u64 by = (u64)Number<T>::get(b), sign = less<T>(a, 0) ? ~0ull : 0;
  u64 flipped = (u64)Number<T>::get(a) ^ sign;
  return (typename Number<T>::raw)((by >= 64 ? 0 : flipped >> by) ^ sign);
}

// Threefry-2x32 with 20 rounds; see kernels/src/random.rs.
PA_FN u32 rotate(u32 x, u32 by) { return x << by | x >> (32 - by); }
PA_FN u32 threefry(u32 key0, u32 key1, u32 counter0, u32 counter1) {
  u32 keys[3] = {key0, key1, 0x1BD11BDAu ^ key0 ^ key1};
  const u32 turns[8] = {13, 15, 26, 6, 17, 29, 16, 24};
  u32 x0 = counter0 + keys[0], x1 = counter1 + keys[1];
#pragma unroll
  for (u32 block = 0; block < 5; ++block) {
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      x0 += x1;
      x1 = rotate(x1, turns[(block & 1 ? 4 : 0) + i]) ^ x0;
    }
    x0 += keys[(block + 1) % 3];
    x1 += keys[(block + 2) % 3] + block + 1;
  }
  return x0;
}
PA_FN float uniform(u32 word) { return as_float(PA_BIAS | word >> 9) - 1.0f; }

#endif
