// Moving elements by tables and indices. Each macro defines one kernel for one element size; threads
// go over the elements of the result, whose places follow from divisions by shifts and subtractions.
//
// Descriptors are lists of 64-bit pairs (dimension, stride), outermost first, made by the host.
#ifndef PAM_MOVEMENT_CUH
#define PAM_MOVEMENT_CUH

#include "elementwise.cuh"

#define PAM_KERNEL extern "C" __global__ void __launch_bounds__(256)
#define PAM_EACH(N, COUNT) for (u64 N = thread_number(); N < (COUNT); N += thread_count())
#define NOWHERE 0xFFFFFFFFu

// Launches of one program on several sets of operands: a table with `words` words for each set, of which
// the first is the number of its first block and the second its number of elements.
PA_FN const u64 *item_of_block(const u64 *table, u32 items, u32 words) {
  u32 low = 0, high = items;
  while (high - low > 1) {
    u32 middle = (low + high) >> 1;
    if (*elem(table, stride_mul(middle, words)) <= blockIdx.x)
      low = middle;
    else
      high = middle;
  }
  return elem(table, stride_mul(low, words));
}
// A block takes 1024 elements, so that a thread takes four.
#define PAM_EACH_OF_ITEM(N, ITEM)                                                                  \
  for (u64 N = shl64<10>((u32)(blockIdx.x - (ITEM)[0])) + threadIdx.x, own = 0;                    \
       own < 4 && N < (ITEM)[1]; ++own, N += 256)

// Where element `flat` of an index space lies: the sum of digits times strides.
PA_FN u64 place(u32 flat, const u64 *axes, u32 rank) {
  u64 at = 0;
  for (u32 d = rank; d-- > 0;) {
    u32 digit;
    const u64 *axis = elem(axes, shl<1>(d));
    flat = divide(flat, (u32)axis[0], digit);
    at += stride_mul(digit, axis[1]);
  }
  return at;
}

// Rows of `width` elements, to rows of another pitch from element `first` on.
#define PAM_COPY_ROWS(NAME, T)                                                                     \
  PAM_KERNEL NAME(const T *from, T *to, u32 count, u32 width, u64 pitch, u64 first) {              \
    PAM_EACH(n, count) {                                                                           \
      u32 column, row = divide((u32)n, width, column);                                             \
      *elem(to, first + stride_mul(row, pitch) + column) = *elem(from, n);                         \
    }                                                                                              \
  }

// Adds to each channel of an image a number of its own.
#define PAM_ADD_BIAS(NAME, T)                                                                      \
  PAM_KERNEL NAME(Number<T>::raw *out, const Number<T>::raw *bias, u32 count, u32 positions,       \
                  u32 channels) {                                                                  \
    PAM_EACH(n, count) {                                                                           \
      u32 position, channel;                                                                       \
      divide(divide((u32)n, positions, position), channels, channel);                              \
      *elem(out, n) = add<T>(*elem(out, n), *elem(bias, channel));                                 \
    }                                                                                              \
  }

// Each axis maps an output position to an offset in the data, or to NOWHERE.
#define PAM_PAD(NAME, T)                                                                           \
  PAM_KERNEL NAME(const T *data, const T *border, T *out, u32 count, const u32 *lengths,           \
                  const u32 *tables, u32 rank, u32 entries) {                                      \
    T outside = border ? *border : (T)0;                                                           \
    PAM_EACH(n, count) {                                                                           \
      u32 flat = (u32)n, first = entries, offset = 0;                                              \
      bool inside = true;                                                                          \
      for (u32 d = rank; d-- > 0;) {                                                               \
        u32 length = *elem(lengths, d), digit;                                                     \
        first -= length;                                                                           \
        flat = divide(flat, length, digit);                                                        \
        u32 entry = *elem(tables, first + digit);                                                  \
        inside &= entry != NOWHERE;                                                                \
        offset += entry;                                                                           \
      }                                                                                            \
      *elem(out, n) = inside ? *elem(data, offset) : outside;                                      \
    }                                                                                              \
  }

#define PAM_TRIANGLE(NAME, T)                                                                      \
  PAM_KERNEL NAME(const T *data, T *out, u32 count, u32 height, u32 width, u32 k, u32 upper) {     \
    PAM_EACH(n, count) {                                                                           \
      u32 column, row;                                                                             \
      divide(divide((u32)n, width, column), height, row);                                          \
      i64 diagonal = (i64)row + (i32)k;                                                            \
      bool kept = upper ? (i64)column >= diagonal : (i64)column <= diagonal;                       \
      *elem(out, n) = kept ? *elem(data, n) : (T)0;                                                \
    }                                                                                              \
  }

// Reverses a prefix of each of `batch` sequences; `fault` keeps a length out of range.
#define PAM_REVERSE(NAME, T)                                                                       \
  PAM_KERNEL NAME(const T *data, const void *lengths, u32 type, T *out, u32 count, u32 time,       \
                  u32 batch, u32 slice, u32 time_first, u64 *fault) {                              \
    PAM_EACH(n, count) {                                                                           \
      u32 element, inner, outer = divide((u32)n, slice, element);                                  \
      outer = divide(outer, time_first ? batch : time, inner);                                     \
      u32 t = time_first ? outer : inner, b = time_first ? inner : outer;                          \
      i64 length = index_at(lengths, type, b);                                                     \
      if (length < 0 || length > (i64)time) {                                                      \
        atomicMin(fault, (u64)length ^ 1ull << 63);                                                \
        continue;                                                                                  \
      }                                                                                            \
      u32 from = (i64)t < length ? (u32)length - 1 - t : t;                                        \
      u64 row = time_first ? stride_mul(from, batch) + b : stride_mul(b, time) + from;             \
      *elem(out, n) = *elem(data, stride_mul((u32)row, slice) + element);                          \
    }                                                                                              \
  }

// Slices of `inner` elements along an axis of `size`, for `indices` indices.
#define PAM_GATHER(NAME, T)                                                                        \
  PAM_KERNEL NAME(const T *data, const void *at, u32 type, T *out, u32 count, u32 inner,           \
                  u32 indices, u32 size, u64 *fault) {                                             \
    PAM_EACH(n, count) {                                                                           \
      u32 element, j, o = divide(divide((u32)n, inner, element), indices, j);                      \
      u64 i = resolve(index_at(at, type, j), size, fault);                                         \
      u64 row = stride_mul(o, size) + i;                                                           \
      *elem(out, n) = i < size ? *elem(data, product64(row, inner) + element) : (T)0;              \
    }                                                                                              \
  }

#define PAM_GATHER_ELEMENTS(NAME, T)                                                               \
  PAM_KERNEL NAME(const T *data, const void *at, u32 type, T *out, u32 count, const u64 *axes,     \
                  u32 rank, u64 stride, u32 size, u64 *fault) {                                    \
    PAM_EACH(n, count) {                                                                           \
      u64 i = resolve(index_at(at, type, n), size, fault);                                         \
      u64 base = place((u32)n, axes, rank);                                                        \
      *elem(out, n) = i < size ? *elem(data, base + stride_mul((u32)i, stride)) : (T)0;            \
    }                                                                                              \
  }

// Where the slice that tuple `t` names begins, in slices; NOWHERE where an index is out of range.
PA_FN u64 tuple_at(const void *at, u32 type, u32 t, const u64 *dims, u32 members, u64 base,
                   u64 *fault) {
  u64 first = stride_mul(t, members);
  bool inside = true;
  for (u32 j = 0; j < members; ++j) {
    const u64 *dim = elem(dims, shl<1>(j));
    u64 i = resolve(index_at(at, type, first + j), dim[0], fault);
    inside &= i < dim[0];
    base += stride_mul((u32)i, dim[1]);
  }
  return inside ? base : NOWHERE;
}

#define PAM_GATHER_ND(NAME, T)                                                                     \
  PAM_KERNEL NAME(const T *data, const void *at, u32 type, T *out, u32 count, u32 slice,           \
                  const u64 *dims, u32 members, u32 tuples, u64 batch, u64 *fault) {               \
    PAM_EACH(n, count) {                                                                           \
      u32 element, rest, t = divide((u32)n, slice, element), b = divide(t, tuples, rest);          \
      u64 from = tuple_at(at, type, t, dims, members, stride_mul(b, batch), fault);                \
      *elem(out, n) = from == NOWHERE ? (T)0 : *elem(data, product64(from, slice) + element);      \
    }                                                                                              \
  }

#define PAM_ONE_HOT(NAME, T)                                                                       \
  PAM_KERNEL NAME(const void *at, u32 type, const T *values, T *out, u32 count, u32 depth,         \
                  u32 inner) {                                                                     \
    PAM_EACH(n, count) {                                                                           \
      u32 j, own, block = divide(divide((u32)n, inner, j), depth, own);                            \
      i64 i = index_at(at, type, stride_mul(block, inner) + j);                                    \
      i = i < 0 ? i + (i64)depth : i;                                                              \
      *elem(out, n) = *elem(values, (u64)(i == (i64)own));                                         \
    }                                                                                              \
  }

// Applies the updates of each slice in ascending order along its list (scatter.cu). Without `data`
// a slice begins with zeros.
#define PAM_SCATTER(NAME, T, FOLD)                                                                 \
  PAM_KERNEL NAME(const Number<T>::raw *data, const Number<T>::raw *updates,                       \
                  Number<T>::raw *out, u32 count, u32 slice, const u32 *heads, const u32 *next) {  \
    typedef Number<T>::raw raw;                                                                    \
    PAM_EACH(n, count) {                                                                           \
      u32 element, s = divide((u32)n, slice, element);                                             \
      raw x = data ? *elem(data, n) : (raw)0;                                                      \
      for (u32 u = *elem(heads, s); u != NOWHERE; u = *elem(next, u)) {                            \
        raw y = *elem(updates, stride_mul(u, slice) + element);                                    \
        x = FOLD;                                                                                  \
      }                                                                                            \
      *elem(out, n) = x;                                                                           \
    }                                                                                              \
  }

#define PAM_UNIFORM(NAME)                                                                          \
  PAM_KERNEL NAME(const u64 *step, u32 *out, u32 count, u32 key0, u32 key1) {                      \
    PAM_EACH(n, count) *elem(out, n) = as_bits(uniform(threefry(key0, key1, (u32)*step, (u32)n))); \
  }

#define PAM_BERNOULLI(NAME, S, D)                                                                  \
  PAM_KERNEL NAME(const Number<S>::raw *p, Number<D>::raw *out, u32 count, u32 key0, u32 key1,     \
                  const u32 *run) {                                                                \
    PAM_EACH(n, count) {                                                                           \
      double u = (double)uniform(threefry(key0, key1, *run, (u32)n));                              \
      *elem(out, n) = cast<D, BOOL>(u < (double)Number<S>::get(*elem(p, n)));                      \
    }                                                                                              \
  }

#endif
