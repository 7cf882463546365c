// The exact derivative of a matrix product: a contraction of three operands.
//
// out[i, j] = sum over k of pa.mul_grad(own[i, j], right[k, j], gradient[i, k]): the slope is a
// power of two that depends on the mantissas of the differentiated factor `own`, which belongs to
// the output, and of the other factor `right`. The derivative in the other factor is the same
// kernel with rows and columns exchanged through the strides.
//
// With bits split as gradient = E + M (exponent part with the bias taken off, mantissa part), a
// product is ((right + mantissa(own) + E) & ~MANT) | M: one three-input addition, one logic
// operation and one float addition, since the low bits of the sum are thrown away and E has none.
#include "tile.cuh"

#define DEPTH 8
#define PLANE (DEPTH * EDGE)
#define STAGE (4 * PLANE)
// Marks a NaN in the table of own mantissas; no mantissa plus offset reaches it.
#define OWN_NAN 0x7FFFFFFFu

enum Form { RAW, MASK_GRADIENT, COMPARE, SPECIAL };

PA_FN int choose(const Facts &g, const Facts &b, u32 offset, bool own_nan) {
  if (own_nan || ((g.flags | b.flags) & HAS_SPECIAL)) return SPECIAL;
  if ((b.flags & HAS_ZERO) && b.high == 0) return COMPARE;
  // Largest and smallest magnitude that a slope can have.
  u32 steepest = (b.high + PA_MANT + offset) & ~PA_MANT;
  if ((int)steepest < 0 || steepest >= PA_INF || g.high + steepest >= PA_BIAS + PA_INF)
    return SPECIAL;
  int flattest = (int)(smallest(b) + offset) & (int)~PA_MANT;
  if (flattest < (int)PA_MIN) return SPECIAL;
  if ((b.flags & HAS_ZERO) || smallest(g) + (u32)flattest < PA_BIAS + PA_MIN) return COMPARE;
  return (g.flags & HAS_ZERO) ? MASK_GRADIENT : RAW;
}

PA_FN u32 *stage_of(u32 *stages, u32 k) { return stages + ((0u - ((k >> 3) & 1)) & STAGE); }

PA_FN void add_if(float &acc, u32 product, u32 alive) {
#ifdef PAM_HOST_SHIM
  if (alive != 0) acc += as_float(product);
#else
  asm("{\n\t.reg .pred p;\n\tsetp.ne.u32 p, %2, 0;\n\t@p add.f32 %0, %0, %1;\n\t}"
      : "+f"(acc)
      : "f"(as_float(product)), "r"(alive));
#endif
}

template <int FORM>
PA_FN void step(float (&acc)[8][8], const u32 (&own)[8][8], const u32 *line, const u32 *right) {
  u32 e[8], m[8], t[8], b[8], size[8];
  load8(e, line, 16);
  load8(m, line + PLANE, 16);
  load8(b, right, 32);
  if (FORM != RAW) load8(t, line + 2 * PLANE, 16);
  if (FORM == COMPARE) {
    // A zero factor has slope zero whatever the other mantissa and offset: this is so negative that
    // no threshold lets the sum pass.
#pragma unroll
    for (int j = 0; j < 8; ++j) size[j] = mag(b[j]) == 0 ? 0xC0000000u : mag(b[j]);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      u32 product = ((b[j] + own[i][j] + e[i]) & ~PA_MANT) | m[i];
      if (FORM == RAW) acc[i][j] += as_float(product);
      if (FORM == MASK_GRADIENT) add_if(acc[i][j], product, t[i] - PA_MAG);
      if (FORM == COMPARE) {
        if ((int)(size[j] + own[i][j]) >= (int)t[i]) acc[i][j] += as_float(product);
      }
    }
  }
}

PA_FN void special(float (&acc)[8][8], const u32 (&own)[8][8], const u32 *line, const u32 *right) {
  u32 e[8], m[8], b[8];
  load8(e, line, 16);
  load8(m, line + PLANE, 16);
  load8(b, right, 32);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    u32 gradient = (e[i] + PA_BIAS) | m[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      u32 size = mag(b[j]);
      u32 slope = size + own[i][j];
      u32 kept = slope >= PA_INF ? PA_INF : slope & ~PA_MANT;
      // A negative offset can take a slope below the smallest normal.
      kept = (int)slope < (int)PA_MIN && own[i][j] > OWN_NAN ? 0 : kept;
      kept = size < PA_MIN ? 0 : kept;
      u32 product = pa_mul(gradient, kept | (b[j] & PA_SIGN));
      acc[i][j] += as_float(own[i][j] == OWN_NAN || size > PA_INF ? PA_NAN : product);
    }
  }
}

template <int FORM>
PA_FN void run_tile(float (&acc)[8][8], const u32 (&own)[8][8], const u32 *stage,
                    const Place &place, u32 count) {
  const u32 *line = stage + place.row;
  const u32 *right = stage + 3 * PLANE + place.col;
  u32 k = 0;
#pragma unroll 1
  for (; k + 2 <= count; k += 2) {
    step<FORM>(acc, own, line, right);
    step<FORM>(acc, own, line + EDGE, right + EDGE);
    line += 2 * EDGE, right += 2 * EDGE;
  }
  if (k < count) step<FORM>(acc, own, line, right);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    pam_contract_grad(const u32 *gradient, u64 gradient_plane, const Facts *gradient_facts,
                      const u32 *right, const Facts *right_facts, u64 panel_stride, u32 chunks,
                      const Work *works, const u32 *own_values, const u64 *own_offsets,
                      u64 own_row_stride, u64 own_col_stride, float *output, u64 row_stride,
                      u64 col_stride, u32 rows, u32 cols, u32 depth, u32 offset, u32 mantissa) {
  __shared__ __align__(16) u32 stages[2 * STAGE];
  Work work = *byte_at(works, (u64)shl<WORK_BYTES_LOG2>(blockIdx.z));
  u32 left_panel = work.left_panel + blockIdx.y;
  u32 right_panel = work.right_panel + blockIdx.x;
  Place place = place_of_thread();
  Out out = {at(output, work.out), row_stride, col_stride, rows, cols};
  u32 row = shl<EDGE_LOG2>(blockIdx.y) + place.row, col = shl<EDGE_LOG2>(blockIdx.x) + place.col;
  u32 k = shl<CHUNK_LOG2>(work.chunk_begin), end = shl<CHUNK_LOG2>(work.chunk_end);
  end = end < depth ? end : depth;
  u64 mine = shl<2>(threadIdx.x) + (u64)shl<EDGE_LOG2>(k);
  gradient = at(gradient, stride_mul(left_panel, panel_stride) + mine);
  right = at(right, stride_mul(right_panel, panel_stride) + mine);
  gradient_facts = byte_at(gradient_facts, stride_mul(left_panel, chunks) << 4);
  right_facts = byte_at(right_facts, stride_mul(right_panel, chunks) << 4);

  float acc[8][8];
  u32 own[8][8];  // mantissa of the differentiated factor, plus the offset
  bool nan = false;
  own_values = at(own_values, *byte_at(own_offsets, (u64)shl<3>(blockIdx.z)) +
                                  stride_mul(row, own_row_stride) +
                                  stride_mul(col, own_col_stride));
  u64 row_gap = stride_mul(12, own_row_stride), col_gap = stride_mul(28, own_col_stride);
#pragma unroll
  for (u32 i = 0; i < 8; ++i) {
    if (i == 4) own_values = at(own_values, row_gap);
    const u32 *p = own_values;
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
      if (j == 4) p = at(p, col_gap);
      u32 bits = 0;
      if (row + spread(i, 16) < rows && col + spread(j, 32) < cols)
        bits = flush(round_mantissa(*p, mantissa));
      bool is_nan = mag(bits) > PA_INF;
      nan |= is_nan;
      own[i][j] = is_nan ? OWN_NAN : (bits & PA_MANT) + offset;
      acc[i][j] = 0.0f;
      p = at(p, own_col_stride);
    }
    own_values = at(own_values, own_row_stride);
  }
  bool own_nan = __syncthreads_or(nan);

  int form = RAW, next_form = RAW;
  bool first = true;
  u32 loaded = k;
#pragma unroll 1
  for (;;) {
    if (loaded < end) {
      if ((loaded & (CHUNK - 1)) == 0) {
        u64 chunk = loaded >> CHUNK_LOG2;
        next_form = choose(*byte_at(gradient_facts, chunk << 4), *byte_at(right_facts, chunk << 4),
                           offset, own_nan);
      }
      u32 *to = stage_of(stages, loaded) + shl<2>(threadIdx.x);
      const u32 *plane = at(gradient, gradient_plane);
      copy16_async(to, gradient);
      copy16_async(to + PLANE, plane);
      copy16_async(to + 2 * PLANE, at(plane, gradient_plane));
      copy16_async(to + 3 * PLANE, right);
      gradient += PLANE, right += PLANE;
    }
    copy_commit();
    loaded += DEPTH;
    if (loaded == k + DEPTH) {
      form = next_form;
      continue;
    }
    copy_wait<1>();
    __syncthreads();
    SHIM_NOTE_FORM(form);
    u32 count = end - k < DEPTH ? end - k : DEPTH;
    const u32 *s = stage_of(stages, k);
    switch (form) {
      case RAW: run_tile<RAW>(acc, own, s, place, count); break;
      case MASK_GRADIENT: run_tile<MASK_GRADIENT>(acc, own, s, place, count); break;
      case COMPARE: run_tile<COMPARE>(acc, own, s, place, count); break;
      default:
#pragma unroll 1
        for (u32 d = 0; d < count; ++d)
          special(acc, own, s + shl<EDGE_LOG2>(d) + place.row,
                  s + 3 * PLANE + shl<EDGE_LOG2>(d) + place.col);
    }
    __syncthreads();
    k += DEPTH;
    if (k >= end || (k & (CHUNK - 1)) == 0) {
      flush_chunk(out, row, col, acc, first);
      first = false;
    }
    if (k >= end) break;
    form = next_form;
  }
}
