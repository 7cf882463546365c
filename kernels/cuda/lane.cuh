// What a lane of a sum or extreme holds; reduce.cu states the order of additions.
#ifndef PAM_LANE_CUH
#define PAM_LANE_CUH

#include "pa.cuh"

#define SUM_CHUNK_LOG2 12
#define SUM_CHUNK 4096u

enum Reduction { SUM, MAX, MIN };

PA_FN float larger(float a, float b) { return a != a ? a : (a > b ? a : b); }
PA_FN float lesser(float a, float b) { return a != a ? a : (a < b ? a : b); }

// What a lane holds: the sum or extreme, and which zero it met last.
struct Lane {
  float value;
  u32 zero;  // 0, or 1 + twice the position of the last zero plus its sign
};

PA_FN Lane start(u32 reduction) {
  float value = reduction == SUM ? 0.0f : as_float(reduction == MAX ? PA_SIGN | PA_INF : PA_INF);
  Lane lane = {value, 0};
  return lane;
}

PA_FN void take(Lane &lane, u32 reduction, float x, u32 position) {
  if (reduction == SUM) {
    lane.value += x;
  } else {
    lane.value = reduction == MAX ? larger(lane.value, x) : lesser(lane.value, x);
    if (x == 0.0f) lane.zero = 1 + shl<1>(position) + (as_bits(x) >> 31);
  }
}

PA_FN void merge(Lane &lane, u32 reduction, float value, u32 zero) {
  if (reduction == SUM) {
    lane.value += value;
  } else {
    lane.value = reduction == MAX ? larger(lane.value, value) : lesser(lane.value, value);
    lane.zero = lane.zero > zero ? lane.zero : zero;
  }
}

PA_FN float finish(const Lane &lane, u32 reduction) {
  if (reduction == SUM || lane.value != 0.0f) return lane.value;
  return as_float(lane.zero & 1 ? 0 : PA_SIGN);
}

// Folds the values of chunks that follow each other.
PA_FN float fold(u32 reduction, float before, float value) {
  if (reduction == SUM) return before + value;
  return reduction == MAX ? larger(before, value) : lesser(before, value);
}

#endif
