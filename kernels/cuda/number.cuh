// Element types as bit patterns, and what generic kernels may ask of them. The host's counterpart is
// runtime/src/host/number.rs; halves compute in float and round after each operation, booleans are
// bytes of 0 or 1.
//
// Integers are multiplied and divided by shifts, additions and subtractions, so that no kernel of this
// folder multiplies.
#ifndef PAM_NUMBER_CUH
#define PAM_NUMBER_CUH

#include "pa.cuh"

typedef unsigned char u8;
typedef unsigned short u16;
typedef long long i64;
typedef int i32;

// The quotient of two numbers by shifts and subtractions, and the rest.
PA_FN u64 divide64(u64 n, u64 d, u64 &rest) {
  u64 q = 0;
  rest = n;
  if (d == 0) return 0;
  int s = __clzll((i64)d) - __clzll((i64)(n | 1));
  for (; s >= 0; --s) {
    u64 step = d << s;
    if (rest >= step) rest -= step, q |= 1ull << s;
  }
  return q;
}
PA_FN u32 divide(u32 n, u32 d, u32 &rest) {
  u32 q = 0;
  rest = n;
  for (int s = __clz((int)d) - __clz((int)(n | 1)); s >= 0; --s) {
    u32 step = d << s;
    if (rest >= step) rest -= step, q |= 1u << s;
  }
  return q;
}

// The product modulo 2^64, by shifts and additions.
PA_FN u64 product64(u64 a, u64 b) {
  u64 sum = 0;
  while (b != 0) {
    if (b & 1) sum += a;
    a += a;
    opaque(a);
    b >>= 1;
  }
  return sum;
}

// Element `i` of an array, for any element size.
template <int SIZE> struct Bits;
template <> struct Bits<1> {
  typedef u8 type;
  enum { LOG2 = 0 };
};
template <> struct Bits<2> {
  typedef u16 type;
  enum { LOG2 = 1 };
};
template <> struct Bits<4> {
  typedef u32 type;
  enum { LOG2 = 2 };
};
template <> struct Bits<8> {
  typedef u64 type;
  enum { LOG2 = 3 };
};
template <typename T> PA_FN T *elem(T *p, u64 i) {
  return (T *)byte_at(p, shl64<Bits<sizeof(T)>::LOG2>(i));
}

PA_FN double as_double(u64 x) { return __longlong_as_double((i64)x); }
PA_FN u64 double_bits(double x) { return (u64)__double_as_longlong(x); }

// binary16 and bfloat16 by integer arithmetic, rounded to nearest even.
PA_FN u32 from_f16(u32 h) {
  u32 sign = shl<16>(h & 0x8000u), e = h >> 10 & 31, m = h & 1023;
  if (e == 31) return sign | PA_INF | shl<13>(m);
  if (e != 0) return sign | shl<23>(e + 112) | shl<13>(m);
  if (m == 0) return sign;
  u32 up = (u32)__clz((int)m) - 21;
  return sign | shl<23>(113 - up) | shl<13>((m << up) & 1023);
}
PA_FN u32 narrow_half(u64 significand, u32 down) {
  // The significand without its lowest `down` bits, rounded.
  if (down > 60) return 0;
  u64 kept = significand >> down, rest = significand & ((1ull << down) - 1);
  u64 half = down == 0 ? ~0ull : 1ull << (down - 1);
  return (u32)(kept + (rest > half || (rest == half && (kept & 1)) ? 1 : 0));
}
// From a double, rounded once: the host goes through doubles for casts and through floats for sums,
// and a float is a double.
PA_FN u32 f16_of(double x) {
  u64 bits = double_bits(x), m = bits & 0xFFFFFFFFFFFFFull;
  u32 sign = (u32)(bits >> 48) & 0x8000u;
  int e = (int)(bits >> 52 & 2047) - 1023;
  if (e == 1024) return m ? sign | 0x7E00u : sign | 0x7C00u;
  if (e > 15) return sign | 0x7C00u;
  m |= 1ull << 52;
  if (e >= -14) return sign | (((u32)(e + 14) << 10) + narrow_half(m, 42));
  return sign | narrow_half(m, (u32)(42 - 14 - e));
}
PA_FN u32 bf16_of(double x) {
  u64 bits = double_bits(x), m = bits & 0xFFFFFFFFFFFFFull;
  u32 sign = (u32)(bits >> 48) & 0x8000u;
  int e = (int)(bits >> 52 & 2047) - 1023;
  if (e == 1024) return m ? sign | 0x7FC0u : sign | 0x7F80u;
  if (e > 127) return sign | 0x7F80u;
  m |= 1ull << 52;
  if (e >= -126) return sign | (((u32)(e + 126) << 7) + narrow_half(m, 45));
  return sign | narrow_half(m, (u32)(45 - 126 - e));
}

// The element types, in the order of the host's `DType`.
enum DType { F32, F64, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };

template <int T> struct Number;

#define PAM_FLOAT(T, RAW, VALUE, GET, PUT, LOW, HIGH)                                              \
  template <> struct Number<T> {                                                                   \
    typedef RAW raw;                                                                               \
    typedef VALUE value;                                                                           \
    enum { FLOAT = 1 };                                                                            \
    static PA_MEMBER value get(raw x) { return GET; }                                              \
    static PA_MEMBER raw put(value x) { return (raw)(PUT); }                                       \
    static PA_MEMBER raw lowest() { return LOW; }                                                  \
    static PA_MEMBER raw highest() { return HIGH; }                                                \
  };
#define PAM_INT(T, RAW, VALUE, LOW, HIGH)                                                          \
  template <> struct Number<T> {                                                                   \
    typedef RAW raw;                                                                               \
    typedef VALUE value;                                                                           \
    enum { FLOAT = 0 };                                                                            \
    static PA_MEMBER value get(raw x) { return (value)x; }                                         \
    static PA_MEMBER raw put(value x) { return (raw)x; }                                           \
    static PA_MEMBER raw lowest() { return (raw)(LOW); }                                           \
    static PA_MEMBER raw highest() { return (raw)(HIGH); }                                         \
  };
#define PA_MEMBER __device__ __forceinline__
PAM_FLOAT(F32, u32, float, as_float(x), as_bits(x), 0xFF800000u, PA_INF)
PAM_FLOAT(F64, u64, double, as_double(x), double_bits(x), 0xFFF0000000000000ull,
          0x7FF0000000000000ull)
PAM_FLOAT(F16, u16, float, as_float(from_f16(x)), f16_of((double)x), 0xFC00u, 0x7C00u)
PAM_FLOAT(BF16, u16, float, as_float(shl<16>(x)), bf16_of((double)x), 0xFF80u, 0x7F80u)
PAM_INT(I64, u64, i64, 1ull << 63, ~(1ull << 63))
PAM_INT(I32, u32, i32, 1u << 31, ~(1u << 31))
PAM_INT(I16, u16, short, 0x8000u, 0x7FFFu)
PAM_INT(I8, u8, signed char, 0x80u, 0x7Fu)
PAM_INT(U64, u64, u64, 0, ~0ull)
PAM_INT(U32, u32, u32, 0, ~0u)
PAM_INT(U16, u16, u16, 0, 0xFFFFu)
PAM_INT(U8, u8, u8, 0, 0xFFu)
template <> struct Number<BOOL> {
  typedef u8 raw;
  typedef u8 value;
  enum { FLOAT = 0 };
  static PA_MEMBER value get(raw x) { return x != 0; }
  static PA_MEMBER raw put(value x) { return x != 0; }
  static PA_MEMBER raw lowest() { return 0; }
  static PA_MEMBER raw highest() { return 1; }
};

template <bool C, typename A, typename B> struct Choose {
  typedef A type;
};
template <typename A, typename B> struct Choose<false, A, B> {
  typedef B type;
};

// Conversions as ONNX Cast: floats are cut towards zero and saturate, integers wrap.
template <int D, bool TO_FLOAT, bool FROM_FLOAT> struct Convert;
template <int D> struct Convert<D, true, true> {
  template <typename V> static PA_MEMBER typename Number<D>::raw of(V x) {
    return of_double((double)x);
  }
  static PA_MEMBER typename Number<D>::raw of_double(double x) {
    if (D == F16) return (typename Number<D>::raw)f16_of(x);
    if (D == BF16) return (typename Number<D>::raw)bf16_of(x);
    return Number<D>::put((typename Number<D>::value)x);
  }
};
template <int D> struct Convert<D, true, false> {
  template <typename V> static PA_MEMBER typename Number<D>::raw of(V x) {
    if (D == F16 || D == BF16) return Convert<D, true, true>::of_double((double)x);
    return Number<D>::put((typename Number<D>::value)x);
  }
};
template <int D> struct Convert<D, false, true> {
  template <typename V> static PA_MEMBER typename Number<D>::raw of(V x) {
    typedef typename Number<D>::value I;
    double v = (double)x;
    if (D == BOOL) return v != 0.0 ? 1 : 0;
    if (v != v) return 0;
    if (v <= (double)(I)Number<D>::lowest()) return Number<D>::lowest();
    if (v >= (double)(I)Number<D>::highest()) return Number<D>::highest();
    return (typename Number<D>::raw)(I)v;
  }
};
template <int D> struct Convert<D, false, false> {
  template <typename V> static PA_MEMBER typename Number<D>::raw of(V x) {
    return D == BOOL ? (typename Number<D>::raw)(x != 0) : (typename Number<D>::raw)x;
  }
};

template <int D, int S> PA_FN typename Number<D>::raw cast(typename Number<S>::raw x) {
  return Convert<D, Number<D>::FLOAT != 0, Number<S>::FLOAT != 0>::of(Number<S>::get(x));
}

template <int T> PA_FN bool is_nan(typename Number<T>::raw x) {
  typename Number<T>::value v = Number<T>::get(x);
  return v != v;
}
template <int T> PA_FN bool less(typename Number<T>::raw a, typename Number<T>::raw b) {
  return Number<T>::get(a) < Number<T>::get(b);
}

// Sums and differences; integers wrap, booleans are joined or differ.
template <int T> PA_FN typename Number<T>::raw add(typename Number<T>::raw a, typename Number<T>::raw b) {
  typedef typename Number<T>::raw raw;
  if (T == BOOL) return (raw)(a | b);
  if (!Number<T>::FLOAT) return (raw)(a + b);
  return Number<T>::put(Number<T>::get(a) + Number<T>::get(b));
}
template <int T> PA_FN typename Number<T>::raw sub(typename Number<T>::raw a, typename Number<T>::raw b) {
  typedef typename Number<T>::raw raw;
  if (T == BOOL) return (raw)(a ^ b);
  if (!Number<T>::FLOAT) return (raw)(a - b);
  return Number<T>::put(Number<T>::get(a) - Number<T>::get(b));
}

// The larger and the smaller; NaN if either is.
template <int T> PA_FN typename Number<T>::raw larger_of(typename Number<T>::raw a, typename Number<T>::raw b) {
  return is_nan<T>(a) || !(less<T>(a, b) || is_nan<T>(b)) ? a : b;
}
template <int T> PA_FN typename Number<T>::raw smaller_of(typename Number<T>::raw a, typename Number<T>::raw b) {
  return is_nan<T>(a) || !(less<T>(b, a) || is_nan<T>(b)) ? a : b;
}

// An index of any integer type.
PA_FN i64 index_at(const void *p, u32 type, u64 i) {
  switch (type) {
    case I64:
    case U64: return (i64)*elem((const u64 *)p, i);
    case I32: return (i32)*elem((const u32 *)p, i);
    case U32: return (i64)*elem((const u32 *)p, i);
    case I16: return (short)*elem((const u16 *)p, i);
    case U16: return (i64)*elem((const u16 *)p, i);
    case I8: return (signed char)((const u8 *)p)[i];
    default: return (i64)((const u8 *)p)[i];
  }
}

// Makes an index non-negative. One out of range is noted in `fault`, which keeps the least, and
// becomes `n`.
PA_FN u64 resolve(i64 i, u64 n, u64 *fault) {
  i64 at = i < 0 ? i + (i64)n : i;
  if (at >= 0 && (u64)at < n) return (u64)at;
  atomicMin(fault, (u64)i ^ 1ull << 63);
  return n;
}

// The global number of this thread, in blocks of 256.
PA_FN u64 thread_number() { return (u64)shl<8>(blockIdx.x) + threadIdx.x; }
PA_FN u64 thread_count() { return (u64)shl<8>(gridDim.x); }

#endif
