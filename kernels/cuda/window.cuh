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
#define MAX_AXES 4

// The position in the image of element `k` of window `w` along an axis, or -1.
PA_FN i64 window_at(const Window &a, u32 w, u32 k) {
  i64 p = (i64)(stride_mul(w, a.step) + stride_mul(k, a.dilation)) - a.before;
  return p >= 0 && p < (i64)a.input ? p : -1;
}

// The maximum of each window and its index; the first of equal ones, and NaN over everything.
#define PAM_MAX_POOL(NAME, T)                                                                      \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *values, u64 *indices, u32 count,     \
                  u32 windows, u32 image, const Window *axes, u32 rank) {                          \
    typedef Number<T>::raw raw;                                                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 w, channel = divide((u32)n, windows, w), digits[MAX_AXES], k[MAX_AXES];                  \
      for (u32 d = rank; d-- > 0;) w = divide(w, axes[d].output, digits[d]), k[d] = 0;             \
      u64 first = stride_mul(channel, image);                                                      \
      raw best = Number<T>::lowest();                                                              \
      u64 best_at = 0;                                                                             \
      bool found = false, more = true;                                                             \
      while (more) {                                                                               \
        u64 flat = 0, index = 0;                                                                   \
        bool inside = true;                                                                        \
        for (u32 d = 0; d < rank; ++d) {                                                           \
          i64 p = window_at(axes[d], digits[d], k[d]);                                             \
          inside &= p >= 0;                                                                        \
          flat += stride_mul((u32)p, axes[d].stride);                                              \
          index += stride_mul((u32)p, axes[d].index_stride);                                       \
        }                                                                                          \
        if (inside) {                                                                              \
          raw x = *elem(data, first + flat);                                                       \
          if (!found || less<T>(best, x) || (is_nan<T>(x) && !is_nan<T>(best)))                    \
            best = x, best_at = index, found = true;                                               \
        }                                                                                          \
        u32 d = rank;                                                                              \
        while (d > 0 && ++k[d - 1] == axes[d - 1].kernel) k[--d] = 0;                              \
        more = d > 0;                                                                              \
      }                                                                                            \
      if (values) *elem(values, n) = best;                                                         \
      if (indices) *elem(indices, n) = first + best_at;                                            \
    }                                                                                              \
  }

// Adds columns into an image: for each pixel, element after element of the kernel, the one window
// that meets it there.
#define PAM_COL2IM(NAME, T)                                                                        \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *out, u32 count, u32 image,           \
                  u32 windows, u32 block, const Window *axes, u32 rank) {                          \
    typedef Number<T>::raw raw;                                                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 pixel, channel = divide((u32)n, image, pixel), digits[MAX_AXES], k[MAX_AXES];            \
      for (u32 d = rank; d-- > 0;) pixel = divide(pixel, axes[d].input, digits[d]), k[d] = 0;      \
      u64 column = product64(stride_mul(channel, block), windows);                                 \
      raw sum = 0;                                                                                 \
      for (u32 b = 0; b < block; ++b, column += windows) {                                         \
        u64 w = 0;                                                                                 \
        bool inside = true;                                                                        \
        for (u32 d = 0; d < rank; ++d) {                                                           \
          i64 p = (i64)digits[d] + axes[d].before - (i64)stride_mul(k[d], axes[d].dilation);       \
          u32 rest, o = divide(p < 0 ? 0u : (u32)p, axes[d].step, rest);                           \
          inside &= p >= 0 && rest == 0 && o < axes[d].output;                                     \
          w = stride_mul((u32)w, axes[d].output) + o;                                              \
        }                                                                                          \
        if (inside) sum = add<T>(sum, *elem(data, column + w));                                    \
        u32 d = rank;                                                                              \
        while (d > 0 && ++k[d - 1] == axes[d - 1].kernel) k[--d] = 0;                              \
      }                                                                                            \
      *elem(out, n) = sum;                                                                         \
    }                                                                                              \
  }

#endif
