// Programs over rows. Half a warp takes a row: its threads are the sixteen lanes of a reduction, so that
// the order of additions is that of reduce.cu, and after a reduction all of them know the result.
#ifndef PAM_ROWS_CUH
#define PAM_ROWS_CUH

#include "lane.cuh"
#include "movement.cuh"

PA_FN u32 row_thread() { return threadIdx.x & 15; }

#define PAM_EACH_CHUNK(BEGIN, END, COUNT)                                                          \
  for (u32 BEGIN = 0, END = (COUNT) < SUM_CHUNK ? (COUNT) : SUM_CHUNK; BEGIN < (COUNT);            \
       BEGIN += SUM_CHUNK, END = (COUNT)-BEGIN < SUM_CHUNK ? (COUNT) : BEGIN + SUM_CHUNK)
#define PAM_EACH_OF_ROW(E, BEGIN, END) for (u32 E = (BEGIN) + row_thread(); E < (END); E += 16)

// The value of a row after one more chunk. Each of the threads adds the lanes as the same tree.
PA_FN u32 next_chunk(u32 reduction, u32 begin, u32 before, Lane lane) {
#pragma unroll
  for (u32 half = 8; half > 0; half >>= 1) {
    float value = __shfl_xor_sync(0xFFFFFFFFu, lane.value, half);
    u32 zero = as_bits(__shfl_xor_sync(0xFFFFFFFFu, as_float(lane.zero), half));
    merge(lane, reduction, value, zero);
  }
  float value = finish(lane, reduction);
  return as_bits(begin == 0 ? value : fold(reduction, as_float(before), value));
}

#endif
