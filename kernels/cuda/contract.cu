// Batched matrix product in piecewise affine arithmetic over packed panels (pack.cu).
//
// out[i, j] = sum over k of pa.mul(left[i, k], right[k, j]), in the order that tile.cuh documents.
// Each block owns a 128x128 tile, each thread 8x8 outputs. For every chunk of k the block looks up
// the facts of its two panels and runs the cheapest form that is exact on them:
//
//   raw      no zero, underflow, overflow or special value is possible    add, fadd
//   masked   zeros in one operand                                         add, fadd under a predicate
//   compare  zeros in both, or underflow                                  add, compare, fadd
//   full     overflow as well                                             4 operations
//   special  infinities or NaN                                            pa_mul itself
//
// A zero product may be skipped whatever its sign, because an accumulator starts at +0 and can
// never become -0. The depth is at least 1; an empty sum is the caller's to fill with +0.
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

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    pam_contract(const u32 *left, u64 left_plane, const Facts *left_facts, const u32 *right,
                 const Facts *right_facts, u64 panel_stride, u32 chunks, const Work *works,
                 float *output, u64 row_stride, u64 col_stride, u32 rows, u32 cols, u32 depth,
                 u32 bias) {
  __shared__ __align__(16) u32 stages[2 * STAGE];
  Work work = *byte_at(works, (u64)shl<WORK_BYTES_LOG2>(blockIdx.z));
  u32 left_panel = work.left_panel + blockIdx.y;
  u32 right_panel = work.right_panel + blockIdx.x;
  Place place = place_of_thread();
  Out out = {at(output, work.out), row_stride, col_stride, rows, cols};
  u32 row = shl<EDGE_LOG2>(blockIdx.y) + place.row, col = shl<EDGE_LOG2>(blockIdx.x) + place.col;
  u32 k = shl<CHUNK_LOG2>(work.chunk_begin), end = shl<CHUNK_LOG2>(work.chunk_end);
  end = end < depth ? end : depth;
  // Panels are contiguous, so a stage is copied in one run of 16-byte pieces.
  u64 mine = shl<2>(threadIdx.x) + (u64)shl<EDGE_LOG2>(k);
  left = at(left, stride_mul(left_panel, panel_stride) + mine);
  right = at(right, stride_mul(right_panel, panel_stride) + mine);
  left_facts = byte_at(left_facts, stride_mul(left_panel, chunks) << 4);
  right_facts = byte_at(right_facts, stride_mul(right_panel, chunks) << 4);

  float acc[8][8];
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) acc[i][j] = 0.0f;

  int form = RAW, next_form = RAW;
  bool first = true;
  u32 loaded = k;  // copies have been issued for everything before this k
#pragma unroll 1
  for (;;) {
    if (loaded < end) {
      if ((loaded & (CHUNK - 1)) == 0) {
        u64 chunk = loaded >> CHUNK_LOG2;
        next_form =
            choose(*byte_at(left_facts, chunk << 4), *byte_at(right_facts, chunk << 4), bias);
      }
      u32 *to = stage_of(stages, loaded) + shl<2>(threadIdx.x);
      copy16_async(to, left);
      copy16_async(to + THREADS * 4, left + THREADS * 4);
      if (next_form >= COMPARE) {
        const u32 *need = at(left, left_plane);
        copy16_async(to + PLANE, need);
        copy16_async(to + PLANE + THREADS * 4, need + THREADS * 4);
      }
      copy16_async(to + 2 * PLANE, right);
      copy16_async(to + 2 * PLANE + THREADS * 4, right + THREADS * 4);
      left += PLANE, right += PLANE;
    }
    copy_commit();
    loaded += DEPTH;
    if (loaded == k + DEPTH) {  // the first tile is on its way: start the second as well
      form = next_form;
      continue;
    }
    copy_wait<1>();
    __syncthreads();
    SHIM_NOTE_FORM(form);
    u32 count = end - k < DEPTH ? end - k : DEPTH;
    const u32 *s = stage_of(stages, k);
    switch (form) {
      case RAW: run_tile<RAW>(acc, s, place, count, bias); break;
      case MASK_LEFT: run_tile<MASK_LEFT>(acc, s, place, count, bias); break;
      case MASK_RIGHT: run_tile<MASK_RIGHT>(acc, s, place, count, bias); break;
      case COMPARE: run_tile<COMPARE>(acc, s, place, count, bias); break;
      case FULL: run_tile<FULL>(acc, s, place, count, bias); break;
      default: run_tile<SPECIAL>(acc, s, place, count, bias); break;
    }
    __syncthreads();
    k += DEPTH;
    if (k >= end || (k & (CHUNK - 1)) == 0) {
      flush_chunk(out, row, col, acc, first);
      first = false;
    }
    if (k >= end) break;
    // The tile that comes up next is the one copied last but one; its chunk decides its form.
    form = next_form;
  }
}

// out[i] = partial[0][i] + partial[1][i] + ..., for contractions split along k.
extern "C" __global__ void __launch_bounds__(THREADS)
    pam_chunk_sum(const float *partial, float *output, u64 count, u32 parts) {
  u64 i = (u64)shl<8>(blockIdx.x) + threadIdx.x;
  if (i >= count) return;
  const float *p = at(partial, i);
  float sum = *p;
#pragma unroll 1
  for (u32 c = 1; c < parts; ++c) {
    p = at(p, count);
    sum += *p;
  }
  *at(output, i) = sum;
}
