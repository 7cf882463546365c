// Batched matrix product in piecewise affine arithmetic over packed panels (pack.cu).
//
// out[i, j] = sum over k of pa.mul(left[i, k], right[k, j]), in the order that tile.cuh documents.
// Each block owns a 128x128 tile, each thread 8x8 outputs. For every chunk of k the block looks up
// the facts of its two panels and runs the cheapest exact form (product.cuh). The depth is at least
// 1; an empty sum is the caller's to fill with +0.
#include "product.cuh"

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
