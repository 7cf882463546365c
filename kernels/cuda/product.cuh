// The inner loops of a product: one tile of DEPTH terms per call, in the cheapest form that is exact on
// what the panels hold.
//
//   raw      no zero, underflow, overflow or special value is possible    add, fadd
//   masked   zeros in one operand                                         add, fadd under a predicate
//   compare  zeros in both, or underflow                                  add, compare, fadd
//   full     overflow as well                                             4 operations
//   special  infinities or NaN                                            pa_mul itself
//
// A zero product may be skipped whatever its sign, because an accumulator starts at +0 and can
// never become -0.
#ifndef PAM_PRODUCT_CUH
#define PAM_PRODUCT_CUH

#include "tile.cuh"

#define DEPTH 16

// How many of a thread's eight columns add on the integer pipe in the raw form. The compiler turns
// two-operand additions into IMAD (by 1) on the float pipe; a third operand that is zero, but only
// at run time, keeps them where the float additions do not compete.
#ifndef ALU_COLUMNS
#define ALU_COLUMNS 4
#endif

enum Form { RAW, MASK_LEFT, MASK_RIGHT, COMPARE, FULL, SPECIAL };

PA_FN int choose(const Facts &a, const Facts &b, u32 bias) {
  if ((a.flags | b.flags) & HAS_SPECIAL) return SPECIAL;
  if (a.high + b.high >= bias + PA_INF) return FULL;
  if (smallest(a) + smallest(b) < bias + PA_MIN) return COMPARE;
  if ((a.flags | b.flags) & HAS_TINY) return COMPARE;
  bool za = a.flags & HAS_ZERO, zb = b.flags & HAS_ZERO;
  return za ? (zb ? COMPARE : MASK_LEFT) : (zb ? MASK_RIGHT : RAW);
}

// A stage holds three planes of DEPTH lines: left, thresholds of left, right.
#define PLANE (DEPTH * EDGE)
#define STAGE (3 * PLANE)

// First word of the stage that holds the tile starting at `k`.
PA_FN u32 *stage_of(u32 *stages, u32 k) { return stages + ((0u - ((k >> 4) & 1)) & STAGE); }

// acc += product where `alive` is not zero. Written as one predicated addition, since the compiler
// would branch.
PA_FN void add_if(float &acc, u32 product, u32 alive) {
#ifdef PAM_HOST_SHIM
  if (alive != 0) acc += as_float(product);
#else
  asm("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %2, 0;\n\t@p add.f32 %0, %0, %1;\n\t}"
      : "+f"(acc)
      : "f"(as_float(product)), "r"(alive));
#endif
}

// a + b + c in one instruction of the integer pipe.
PA_FN u32 add3(u32 a, u32 b, u32 c) {
#ifdef PAM_HOST_SHIM
  return a + b + c;
#else
  u32 r;
  asm("{\n\t.reg .u32 t;\n\tadd.u32 t, %1, %2;\n\tadd.u32 %0, t, %3;\n\t}"
      : "=r"(r)
      : "r"(a), "r"(b), "r"(c));
  return r;
#endif
}

template <int FORM>
PA_FN void step(float (&acc)[8][8], const u32 *left, const u32 *need, const u32 *right, u32 bias, u32 zero) {
  u32 a[8], b[8], t[8];
  load8(a, left, 16);
  load8(b, right, 32);
  if (FORM == COMPARE || FORM == FULL) load8(t, need, 16);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (FORM == RAW) acc[i][j] += as_float(j < ALU_COLUMNS ? add3(a[i], b[j], zero) : a[i] + b[j]);
      if (FORM == MASK_LEFT) add_if(acc[i][j], a[i] + b[j], mag(a[i] + bias));
      if (FORM == MASK_RIGHT) add_if(acc[i][j], a[i] + b[j], mag(b[j]));
      if (FORM == COMPARE) {
        // Both are magnitudes, so their order as floats is that of their bits; a zero's threshold
        // is a NaN and never passes. The float comparison takes |b| for free.
        if (fabsf(as_float(b[j])) >= as_float(t[i])) acc[i][j] += as_float(a[i] + b[j]);
      }
      if (FORM == FULL) {
        u32 whole = a[i] + bias;
        u32 sum = mag(whole) + mag(b[j]);
        u32 most = bias + PA_INF;
        sum = sum < most ? sum : most;
        u32 signs = (whole & PA_SIGN) - bias;
        if (fabsf(as_float(b[j])) >= as_float(t[i]))
          acc[i][j] += as_float(sum + signs + (b[j] & PA_SIGN));
      }
      if (FORM == SPECIAL) acc[i][j] += as_float(pa_mul_bias(a[i] + bias, b[j], bias));
    }
  }
}

template <int FORM>
PA_FN void run_tile(float (&acc)[8][8], const u32 *stage, const Place &place, u32 count,
                    u32 bias) {
  const u32 *left = stage + place.row;
  const u32 *need = stage + PLANE + place.row;
  const u32 *right = stage + 2 * PLANE + place.col;
  u32 zero = bias & PA_SIGN;
  // The other forms have no registers left to load ahead.
  constexpr u32 UNROLL = FORM == RAW ? 4 : 1;
  u32 k = 0;
  if (FORM != SPECIAL) {
#pragma unroll 1
    for (; k + UNROLL <= count; k += UNROLL) {
#pragma unroll
      for (u32 u = 0; u < UNROLL; ++u)
        step<FORM>(acc, left + u * EDGE, need + u * EDGE, right + u * EDGE, bias, zero);
      left += UNROLL * EDGE, need += UNROLL * EDGE, right += UNROLL * EDGE;
    }
  }
#pragma unroll 1
  for (; k < count; ++k) {
    step<FORM>(acc, left, need, right, bias, zero);
    left += EDGE, need += EDGE, right += EDGE;
  }
}

#endif
