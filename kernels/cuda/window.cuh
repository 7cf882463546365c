// Windows over space: MaxPool and Col2Im, a thread an element of the result.
#ifndef PAM_WINDOW_CUH
#define PAM_WINDOW_CUH

#include "movement.cuh"

// One axis of the windows; `before` may be negative.
struct Window {
  u32 input, kernel, output, step, dilation;
  i32 before;
  u32 stride, index_stride;
};
// Tables have this many axes; those that are not there have one element. Loops over them are unrolled,
// since an address by a variable axis would be a multiplication.
#define AXES 4

// The position in the image of element `k` of window `w` along an axis, or -1.
PA_FN i64 window_at(const Window &a, u32 w, u32 k) {
  i64 p = (i64)(stride_mul(w, a.step) + stride_mul(k, a.dilation)) - a.before;
  return p >= 0 && p < (i64)a.input ? p : -1;
}

// Counts up an index into the kernel; false after the last.
PA_FN bool next_element(u32 (&k)[AXES], const Window *axes) {
  bool carry = true;
#pragma unroll
  for (int d = AXES - 1; d >= 0; --d) {
    if (carry) {
      ++k[d];
      carry = k[d] == axes[d].kernel;
      if (carry) k[d] = 0;
    }
  }
  return !carry;
}

// The maximum of each window and its index; the first of equal ones, and NaN over everything.
template <int T>
PA_FN void max_pool(const typename Number<T>::raw *image, u32 w, const Window *axes,
                    typename Number<T>::raw &best, u64 &best_at) {
  typedef typename Number<T>::raw raw;
  u32 digits[AXES], k[AXES];
#pragma unroll
  for (int d = AXES - 1; d >= 0; --d) w = divide(w, axes[d].output, digits[d]), k[d] = 0;
  best = Number<T>::lowest();
  best_at = 0;
  bool found = false;
  do {
    u64 flat = 0, index = 0;
    bool inside = true;
#pragma unroll
    for (int d = 0; d < AXES; ++d) {
      i64 p = window_at(axes[d], digits[d], k[d]);
      inside &= p >= 0;
      flat += stride_mul((u32)p, axes[d].stride);
      index += stride_mul((u32)p, axes[d].index_stride);
    }
    if (inside) {
      raw x = *elem(image, flat);
      if (!found || less<T>(best, x) || (is_nan<T>(x) && !is_nan<T>(best)))
        best = x, best_at = index, found = true;
    }
  } while (next_element(k, axes));
}

#define PAM_MAX_POOL(NAME, T)                                                                      \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *values, u64 *indices, u32 count,     \
                  u32 windows, u32 image, const Window *axes) {                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 w, channel = divide((u32)n, windows, w);                                                 \
      u64 first = stride_mul(channel, image), at;                                                  \
      Number<T>::raw best;                                                                         \
      max_pool<T>(elem(data, first), w, axes, best, at);                                           \
      if (values) *elem(values, n) = best;                                                         \
      if (indices) *elem(indices, n) = first + at;                                                 \
    }                                                                                              \
  }

// Adds columns into an image: for each pixel, element after element of the kernel, the one window
// that meets it there.
template <int T>
PA_FN typename Number<T>::raw col2im(const typename Number<T>::raw *column, u32 pixel, u32 windows,
                                     const Window *axes) {
  typename Number<T>::raw sum = 0;
  u32 digits[AXES], k[AXES];
#pragma unroll
  for (int d = AXES - 1; d >= 0; --d) pixel = divide(pixel, axes[d].input, digits[d]), k[d] = 0;
  do {
    u64 w = 0;
    bool inside = true;
#pragma unroll
    for (int d = 0; d < AXES; ++d) {
      i64 p = (i64)digits[d] + axes[d].before - (i64)stride_mul(k[d], axes[d].dilation);
      u32 rest, o = divide(p < 0 ? 0u : (u32)p, axes[d].step, rest);
      inside &= p >= 0 && rest == 0 && o < axes[d].output;
      w = stride_mul((u32)w, axes[d].output) + o;
    }
    if (inside) sum = add<T>(sum, *elem(column, w));
    column = elem(column, windows);
  } while (next_element(k, axes));
  return sum;
}

#define PAM_COL2IM(NAME, T)                                                                        \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *out, u32 count, u32 image,           \
                  u32 windows, u32 block, const Window *axes) {                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 pixel, channel = divide((u32)n, image, pixel);                                           \
      u64 first = product64(stride_mul(channel, block), windows);                                  \
      *elem(out, n) = col2im<T>(elem(data, first), pixel, windows, axes);                          \
    }                                                                                              \
  }

#endif
