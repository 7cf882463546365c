// Native arithmetic, for the nodes that a policy leaves native: everything here multiplies, and no
// program of a multiplication-free plan includes it.
#ifndef PAM_NATIVE_CUH
#define PAM_NATIVE_CUH

#include "movement.cuh"

template <int T> PA_FN typename Number<T>::raw native_mul(typename Number<T>::raw a, typename Number<T>::raw b) {
  return Number<T>::put(Number<T>::get(a) * Number<T>::get(b));
}
template <int T> PA_FN typename Number<T>::raw native_div(typename Number<T>::raw a, typename Number<T>::raw b) {
  return Number<T>::put(Number<T>::get(a) / Number<T>::get(b));
}

// Floats in single precision, other types in double and rounded once, as on the host.
#define PAM_NATIVE1(NAME, SINGLE, DOUBLE)                                                          \
  template <int T> PA_FN typename Number<T>::raw NAME(typename Number<T>::raw a) {                 \
    if (T == F32) {                                                                                \
      float x = (float)Number<T>::get(a);                                                          \
      return Number<T>::put((typename Number<T>::value)(SINGLE));                                  \
    }                                                                                              \
    double x = (double)Number<T>::get(a);                                                          \
    return Convert<T, true, true>::of(DOUBLE);                                                     \
  }
#define PAM_NATIVE2(NAME, SINGLE, DOUBLE)                                                          \
  template <int T> PA_FN typename Number<T>::raw NAME(typename Number<T>::raw a, typename Number<T>::raw b) { \
    if (T == F32) {                                                                                \
      float x = (float)Number<T>::get(a), y = (float)Number<T>::get(b);                            \
      return Number<T>::put((typename Number<T>::value)(SINGLE));                                  \
    }                                                                                              \
    double x = (double)Number<T>::get(a), y = (double)Number<T>::get(b);                           \
    return Convert<T, true, true>::of(DOUBLE);                                                     \
  }
PAM_NATIVE1(native_exp, expf(x), exp(x))
PAM_NATIVE1(native_log, logf(x), log(x))
PAM_NATIVE1(native_sqrt, sqrtf(x), sqrt(x))
PAM_NATIVE1(native_reciprocal, 1.0f / x, 1.0 / x)
PAM_NATIVE1(native_tanh, tanhf(x), tanh(x))
PAM_NATIVE1(native_sigmoid, x >= 0.0f ? 1.0f / (1.0f + expf(-x)) : expf(x) / (1.0f + expf(x)), 1.0 / (1.0 + exp(-x)))
PAM_NATIVE1(native_erf, erff(x), erf(x))
PAM_NATIVE1(native_sin, sinf(x), sin(x))
PAM_NATIVE1(native_cos, cosf(x), cos(x))
PAM_NATIVE1(native_tan, tanf(x), tan(x))
PAM_NATIVE1(native_asin, asinf(x), asin(x))
PAM_NATIVE1(native_acos, acosf(x), acos(x))
PAM_NATIVE1(native_atan, atanf(x), atan(x))
PAM_NATIVE1(native_sinh, sinhf(x), sinh(x))
PAM_NATIVE1(native_cosh, coshf(x), cosh(x))
PAM_NATIVE1(native_asinh, asinhf(x), asinh(x))
PAM_NATIVE1(native_acosh, acoshf(x), acosh(x))
PAM_NATIVE1(native_atanh, atanhf(x), atanh(x))
PAM_NATIVE2(native_pow, powf(x, y), pow(x, y))
PAM_NATIVE2(native_rem, fmodf(x, y), fmod(x, y))

// out[b, i, j] = sum of left[i, k] right[k, j] with k ascending, a thread an element.
#define PAM_NATIVE_PRODUCT(NAME, T)                                                                \
  PAM_KERNEL NAME(const Number<T>::raw *left, const Number<T>::raw *right, Number<T>::raw *out,    \
                  u32 count, u32 rows, u32 cols, u32 depth, const u64 *offsets, u64 left_row,      \
                  u64 left_col, u64 right_row, u64 right_col) {                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 j, i, b = divide(divide((u32)n, cols, j), rows, i);                                      \
      const Number<T>::raw *x = left + offsets[2 * b] + i * left_row;                              \
      const Number<T>::raw *y = right + offsets[2 * b + 1] + j * right_col;                        \
      Number<T>::raw sum = 0;                                                                      \
      for (u32 k = 0; k < depth; ++k, x += left_col, y += right_row)                               \
        sum = add<T>(sum, Number<T>::FLOAT ? native_mul<T>(*x, *y) : int_mul<T>(*x, *y));          \
      *elem(out, n) = sum;                                                                         \
    }                                                                                              \
  }

struct ConvAxis {
  u32 input, kernel, output, step, dilation, input_dilation;
  i32 before;
  u32 spare;
};

// A convolution of up to three axes, a thread an element.
#define PAM_NATIVE_CONV(NAME, T)                                                                   \
  PAM_KERNEL NAME(const Number<T>::raw *x, const Number<T>::raw *w, Number<T>::raw *out,           \
                  u32 count, const ConvAxis *axes, u32 groups, u32 channels, u32 outputs) {        \
    ConvAxis d = axes[0], h = axes[1], v = axes[2];                                                \
    u64 pixels = (u64)d.input * h.input * v.input, taps = (u64)d.kernel * h.kernel * v.kernel;     \
    PAM_EACH(n, count) {                                                                           \
      u32 at[3], o, flat = divide((u32)n, v.output, at[2]);                                        \
      flat = divide(divide(flat, h.output, at[1]), d.output, at[0]);                               \
      u32 image = divide(flat, groups * outputs, o), rest, group = divide(o, outputs, rest);       \
      const Number<T>::raw *from = x + ((u64)image * groups + group) * channels * pixels;          \
      const Number<T>::raw *weight = w + (u64)o * channels * taps;                                 \
      Number<T>::raw sum = 0;                                                                      \
      for (u32 c = 0; c < channels; ++c, from += pixels)                                           \
        for (u32 i = 0; i < d.kernel; ++i)                                                         \
          for (u32 j = 0; j < h.kernel; ++j)                                                       \
            for (u32 k = 0; k < v.kernel; ++k, ++weight) {                                         \
              i64 p = (i64)at[0] * d.step + (i64)i * d.dilation - d.before;                        \
              i64 q = (i64)at[1] * h.step + (i64)j * h.dilation - h.before;                        \
              i64 r = (i64)at[2] * v.step + (i64)k * v.dilation - v.before;                        \
              if (p < 0 || q < 0 || r < 0) continue;                                               \
              if (p % d.input_dilation || q % h.input_dilation || r % v.input_dilation) continue;  \
              p /= d.input_dilation, q /= h.input_dilation, r /= v.input_dilation;                 \
              if (p >= d.input || q >= h.input || r >= v.input) continue;                          \
              Number<T>::raw y = from[(p * h.input + q) * v.input + r];                            \
              sum = add<T>(sum, Number<T>::FLOAT ? native_mul<T>(y, *weight)                       \
                                                 : int_mul<T>(y, *weight));                        \
            }                                                                                      \
      *elem(out, n) = sum;                                                                         \
    }                                                                                              \
  }

#endif
