// Sums and extremes along one axis of [outer, reduced, inner] views.
//
// Order of additions: element r of the axis goes to lane r mod 16 within chunks of 4096; each lane
// starts at +0 and takes its elements ascending; the lanes are added as a halving tree (8, 4, 2, 1);
// the sums of the chunks are added in ascending order. An extreme is a fold with r ascending in
// which the later of two equal values wins, which shows only for zeros of both signs; NaN wins over
// everything.
//
// Either kernel leaves one value per chunk, chunk-major; pam_reduce_chunks folds them. With one
// chunk the output itself is the destination.
#include "lane.cuh"

// inner = 1: sixteen threads per chunk of a row, a block per sixteen chunks. With several chunks per
// row, the block's y and z are the row; with one, the chunks of a block are those of sixteen rows.
extern "C" __global__ void __launch_bounds__(256)
    pam_reduce_rows(const float *source, u32 outer, u32 reduced, u32 reduction, u32 chunks,
                    float *output) {
  u32 group = shl<4>(blockIdx.x) + (threadIdx.x >> 4), lane_index = threadIdx.x & 15;
  u32 own = (u32)stride_mul(blockIdx.z, gridDim.y) + blockIdx.y;
  u32 row = chunks == 1 ? group : own, chunk = chunks == 1 ? 0 : group;
  bool there = row < outer && chunk < chunks;
  Lane lane = start(reduction);
  if (there) {
    u32 begin = shl<SUM_CHUNK_LOG2>(chunk);
    u32 count = reduced - begin < SUM_CHUNK ? reduced - begin : SUM_CHUNK;
    const float *p = at(source, stride_mul(row, reduced) + begin + lane_index);
#pragma unroll 4
    for (u32 r = lane_index; r < count; r += 16) {
      take(lane, reduction, *p, r);
      p += 16;
    }
  }
#pragma unroll
  for (u32 half = 8; half > 0; half >>= 1) {
    float value = __shfl_down_sync(0xFFFFFFFFu, lane.value, half);
    u32 zero = as_bits(__shfl_down_sync(0xFFFFFFFFu, as_float(lane.zero), half));
    merge(lane, reduction, value, zero);
  }
  if (there && lane_index == 0)
    *at(output, stride_mul(chunk, outer) + row) = finish(lane, reduction);
}

// inner > 1: a block takes 32 neighbouring columns, thread y of 8 the lanes y and y + 8. Block z takes plane
// z and those that follow it at a distance of the grid.
extern "C" __global__ void __launch_bounds__(256)
    pam_reduce_columns(const float *source, u32 outer, u32 reduced, u32 inner, u32 reduction,
                       float *output) {
  __shared__ float values[8 * 32];
  __shared__ u32 zeros[8 * 32];
  u32 x = threadIdx.x & 31, y = threadIdx.x >> 5;
  u32 col = shl<5>(blockIdx.x) + x, chunk = blockIdx.y;
  u32 begin = shl<SUM_CHUNK_LOG2>(chunk);
  u32 count = reduced - begin < SUM_CHUNK ? reduced - begin : SUM_CHUNK;
  u64 plane = stride_mul(reduced, inner);
#pragma unroll 1
  for (u32 o = blockIdx.z; o < outer; o += gridDim.z) {
    Lane low = start(reduction), high = start(reduction);
    if (col < inner) {
      const float *p = at(source, stride_mul(o, plane) + stride_mul(begin + y, inner) + col);
      u64 step = shl64<3>(inner);
#pragma unroll 2
      for (u32 r = y; r < count; r += 16) {
        take(low, reduction, *p, r);
        p = at(p, step);
        if (r + 8 < count) take(high, reduction, *p, r + 8);
        p = at(p, step);
      }
    }
    merge(low, reduction, high.value, high.zero);
    float *value = at(values, threadIdx.x);
    u32 *zero = at(zeros, threadIdx.x);
#pragma unroll
    for (u32 half = 4; half > 0; half >>= 1) {
      *value = low.value, *zero = low.zero;
      __syncthreads();
      if (y < half) merge(low, reduction, value[half * 32], zero[half * 32]);
      __syncthreads();
    }
    if (y == 0 && col < inner) {
      u64 place = stride_mul(chunk, stride_mul(outer, inner)) + stride_mul(o, inner) + col;
      *at(output, place) = finish(low, reduction);
    }
  }
}

// Folds the chunks' values in ascending order.
extern "C" __global__ void __launch_bounds__(256)
    pam_reduce_chunks(const float *partial, float *output, u64 count, u32 chunks, u32 reduction) {
  u64 i = (u64)shl<8>(blockIdx.x) + threadIdx.x;
  if (i >= count) return;
  const float *p = at(partial, i);
  float value = *p;
#pragma unroll 1
  for (u32 c = 1; c < chunks; ++c) {
    p = at(p, count);
    value = fold(reduction, value, *p);
  }
  *at(output, i) = value;
}
