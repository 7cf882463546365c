// Convolution in piecewise affine arithmetic as an implicit matrix product.
//
// out[o, position] = sum over k = (channel in group, kernel position row-major) of
// pa.mul(weight[o, k], x[window element]), in the order that tile.cuh documents. The weights are
// packed like any left operand; the windows are gathered from the images straight into shared
// memory. Where an element lies is found by additions in tables that the host makes once per shape:
// a coordinate along an axis is the window's start plus the kernel element's distance, and the
// axis's map turns it into an element offset, or NOWHERE outside the image and between the elements
// of a dilated input. Strides, padding, dilations and the two gradients differ only in the tables.
#include "product.cuh"

#define NOWHERE 0xFFFFFFFFu

// One term k: its channel's offset in the image and its distance along three axes.
struct Term {
  u32 channel, d, h, w;
};

// One output column: its image, the window's start along three axes, where its result goes.
struct Column {
  u64 image;
  u32 d, h, w, out;
  u64 spare;
};
#define COLUMN_BYTES_LOG2 5

// One group of one run of images.
struct ConvWork {
  u64 out, source;
  u32 left_panel, chunk_begin, chunk_end, cols;
  u64 spare[4];
};
#define CONV_WORK_BYTES_LOG2 6

// Facts of a tensor that is read in place.
extern "C" __global__ void __launch_bounds__(THREADS)
    pam_facts(const u32 *source, u64 count, Facts *facts) {
  __shared__ u32 shared[3];
  if (threadIdx.x == 0) shared[0] = shared[1] = shared[2] = 0;
  __syncthreads();
  Seen found = {0, 0, 0};
  u64 step = (u64)shl<8>(gridDim.x);
#pragma unroll 1
  for (u64 i = (u64)shl<8>(blockIdx.x) + threadIdx.x; i < count; i += step)
    note(found, *at(source, i));
  publish(found, shared, facts);
}

// Rounds the mantissas of a tensor that is read in place.
extern "C" __global__ void __launch_bounds__(THREADS)
    pam_narrow(const u32 *source, u32 *to, u64 count, u32 mantissa) {
  u64 step = (u64)shl<8>(gridDim.x);
#pragma unroll 1
  for (u64 i = (u64)shl<8>(blockIdx.x) + threadIdx.x; i < count; i += step)
    *at(to, i) = round_mantissa(*at(source, i), mantissa);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    pam_conv(const u32 *left, u64 left_plane, const Facts *left_facts, const u32 *source,
             const Facts *source_facts, u32 source_flags, u64 panel_stride, u32 chunks,
             const ConvWork *works, const Term *terms, const Column *columns, const u32 *map_d,
             const u32 *map_h, const u32 *map_w, float *output, u64 row_stride, u32 rows, u32 depth,
             u32 bias) {
  __shared__ __align__(16) u32 stages[2 * STAGE];
  const ConvWork *work = byte_at(works, (u64)shl<CONV_WORK_BYTES_LOG2>(blockIdx.z));
  u32 cols = work->cols;
  u32 col0 = shl<EDGE_LOG2>(blockIdx.x);
  if (col0 >= cols) return;
  u32 left_panel = work->left_panel + blockIdx.y;
  u32 k = shl<CHUNK_LOG2>(work->chunk_begin), end = shl<CHUNK_LOG2>(work->chunk_end);
  end = end < depth ? end : depth;
  left = at(left, stride_mul(left_panel, panel_stride) + shl<2>(threadIdx.x) +
                      (u64)shl<EDGE_LOG2>(k));
  left_facts = byte_at(left_facts, stride_mul(left_panel, chunks) << 4);
  Facts right_facts = *source_facts;
  right_facts.flags |= source_flags;

  // This thread gathers one column, every other term.
  u32 lane = threadIdx.x & (EDGE - 1), phase = threadIdx.x >> EDGE_LOG2;
  bool mine = col0 + lane < cols;
  const Column *column = byte_at(columns, (u64)shl<COLUMN_BYTES_LOG2>(mine ? col0 + lane : 0));
  source = at(source, work->source + column->image);
  map_d = at(map_d, column->d);
  map_h = at(map_h, column->h);
  map_w = at(map_w, column->w);

  float acc[8][8];
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) acc[i][j] = 0.0f;

  Place place = place_of_thread();
  int form = RAW, next_form = RAW;
  bool first = true;
  u32 loaded = k;
#pragma unroll 1
  for (;;) {
    if (loaded < end) {
      if ((loaded & (CHUNK - 1)) == 0)
        next_form =
            choose(*byte_at(left_facts, (u64)(loaded >> CHUNK_LOG2) << 4), right_facts, bias);
      u32 *to = stage_of(stages, loaded);
      u32 *whole = to + shl<2>(threadIdx.x);
      copy16_async(whole, left);
      copy16_async(whole + THREADS * 4, left + THREADS * 4);
      if (next_form >= COMPARE) {
        const u32 *need = at(left, left_plane);
        copy16_async(whole + PLANE, need);
        copy16_async(whole + PLANE + THREADS * 4, need + THREADS * 4);
      }
      left += PLANE;
      to += 2 * PLANE + threadIdx.x;
      u32 term = loaded + phase;
      const Term *t = byte_at(terms, (u64)shl<4>(term));
#pragma unroll 2
      for (u32 i = 0; i < DEPTH; i += 2) {
        bool there = false;
        u32 offset = 0;
        if (mine && term < end) {
          uint4 where = *(const uint4 *)t;
          u32 d = *at(map_d, where.y), h = *at(map_h, where.z), w = *at(map_w, where.w);
          there = d != NOWHERE && h != NOWHERE && w != NOWHERE;
          offset = there ? where.x + d + h + w : 0;
        }
        copy4_async(to, at(source, offset), there);
        to += THREADS;
        term += 2;
        t += 2;
      }
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
      u32 row = shl<EDGE_LOG2>(blockIdx.y) + place.row;
      float *to = at(output, work->out + stride_mul(row, row_stride));
      u64 gap = stride_mul(12, row_stride);
#pragma unroll
      for (u32 i = 0; i < 8; ++i) {
        if (i == 4) to = at(to, gap);
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
          u32 col = col0 + place.col + spread(j, 32);
          if (row + spread(i, 16) < rows && col < cols) {
            float *p = at(to, byte_at(columns, (u64)shl<COLUMN_BYTES_LOG2>(col))->out);
            *p = first ? acc[i][j] : *p + acc[i][j];
          }
          acc[i][j] = 0.0f;
        }
        to = at(to, row_stride);
      }
      first = false;
    }
    if (k >= end) break;
    form = next_form;
  }
}
