// Work along one axis, a thread a line, in order: for the element types and ops that reduce.cu does
// not serve. A tensor is seen as outer x size x inner.
#ifndef PAM_LINES_CUH
#define PAM_LINES_CUH

#include "movement.cuh"

// The first element of line `l`.
PA_FN u64 line_at(u32 l, u32 size, u32 inner) {
  u32 i, o = divide(l, inner, i);
  return product64(stride_mul(o, size), inner) + i;
}

// Larger first; NaN counts as larger than everything: negative, zero or positive as a comes before b.
template <int T> PA_FN i32 descending(typename Number<T>::raw a, typename Number<T>::raw b) {
  bool an = is_nan<T>(a), bn = is_nan<T>(b);
  if (an || bn) return (bn ? 1 : 0) - (an ? 1 : 0);
  return less<T>(b, a) ? -1 : less<T>(a, b) ? 1 : 0;
}

template <int T> PA_FN u32 extreme(const typename Number<T>::raw *line, u32 size, u32 inner, bool least, bool last) {
  typedef typename Number<T>::raw raw;
  u32 best = 0;
  raw y = *line;
  const raw *p = line;
  for (u32 k = 1; k < size; ++k) {
    p = elem(p, inner);
    raw x = *p;
    i32 order = least && !is_nan<T>(x) && !is_nan<T>(y) ? descending<T>(y, x) : descending<T>(x, y);
    if (order < 0 || (last && order == 0)) best = k, y = x;
  }
  return best;
}

#define PAM_ARG(NAME, T, LEAST, LAST)                                                              \
  PAM_KERNEL NAME(const Number<T>::raw *data, u64 *out, u32 lines, u32 size, u32 inner) {          \
    PAM_EACH(l, lines)                                                                             \
    *elem(out, l) = extreme<T>(elem(data, line_at((u32)l, size, inner)), size, inner, LEAST, LAST); \
  }

#define PAM_HARDMAX(NAME, T)                                                                       \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *out, u32 lines, u32 size,            \
                  u32 inner) {                                                                     \
    PAM_EACH(l, lines) {                                                                           \
      u64 at = line_at((u32)l, size, inner);                                                       \
      u32 best = extreme<T>(elem(data, at), size, inner, false, false);                            \
      for (u32 k = 0; k < size; ++k) {                                                             \
        *elem(out, at) = k == best ? one<T>() : (Number<T>::raw)0;                                 \
        at += inner;                                                                               \
      }                                                                                            \
    }                                                                                              \
  }

#define PAM_CUMSUM(NAME, T)                                                                        \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *out, u32 lines, u32 size, u32 inner, \
                  u32 exclusive, u32 reverse) {                                                    \
    PAM_EACH(l, lines) {                                                                           \
      u64 at = line_at((u32)l, size, inner);                                                       \
      if (reverse) at += stride_mul(size - 1, inner);                                              \
      Number<T>::raw sum = 0;                                                                      \
      for (u32 k = 0; k < size; ++k) {                                                             \
        Number<T>::raw next = add<T>(sum, *elem(data, at));                                        \
        *elem(out, at) = exclusive ? sum : next;                                                   \
        sum = next;                                                                                \
        at = reverse ? at - inner : at + inner;                                                    \
      }                                                                                            \
    }                                                                                              \
  }

// The first `k` of each line, ties by position: each the best after the one before.
#define PAM_TOPK(NAME, T)                                                                          \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *values, u64 *indices, u32 lines,     \
                  u32 size, u32 inner, u32 k, u32 largest) {                                       \
    typedef Number<T>::raw raw;                                                                    \
    PAM_EACH(l, lines) {                                                                           \
      u64 at = line_at((u32)l, size, inner), to = line_at((u32)l, k, inner);                       \
      u32 last = 0;                                                                                \
      raw previous = 0;                                                                            \
      for (u32 j = 0; j < k; ++j) {                                                                \
        u32 best = size;                                                                           \
        raw value = 0;                                                                             \
        u64 p = at;                                                                                \
        for (u32 i = 0; i < size; ++i, p += inner) {                                               \
          raw x = *elem(data, p);                                                                  \
          i32 after = largest ? descending<T>(previous, x) : descending<T>(x, previous);           \
          if (j > 0 && !(after < 0 || (after == 0 && i > last))) continue;                         \
          i32 order = best == size ? -1                                                            \
                      : largest    ? descending<T>(x, value)                                       \
                                   : descending<T>(value, x);                                      \
          if (order < 0) best = i, value = x;                                                      \
        }                                                                                          \
        if (values) *elem(values, to) = value;                                                     \
        if (indices) *elem(indices, to) = best;                                                    \
        previous = value, last = best;                                                             \
        to += inner;                                                                               \
      }                                                                                            \
    }                                                                                              \
  }

// A reduction of any element type: y after x, beginning with START.
#define PAM_FOLD(NAME, T, START, STEP)                                                             \
  PAM_KERNEL NAME(const Number<T>::raw *data, Number<T>::raw *out, u32 lines, u32 size,            \
                  u32 inner) {                                                                     \
    PAM_EACH(l, lines) {                                                                           \
      u64 at = line_at((u32)l, size, inner);                                                       \
      Number<T>::raw y = START;                                                                    \
      for (u32 k = 0; k < size; ++k, at += inner) {                                                \
        Number<T>::raw x = *elem(data, at);                                                        \
        y = STEP;                                                                                  \
      }                                                                                            \
      *elem(out, l) = y;                                                                           \
    }                                                                                              \
  }

#endif
