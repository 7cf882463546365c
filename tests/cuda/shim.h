// Runs CUDA C++ kernels on the CPU, one fiber per thread, blocks one after the other.
//
// Barriers and warp operations switch fibers. Between barriers each warp runs as far as it can before
// the next starts, first to last or last to first; an asynchronous copy happens as late as the waits
// allow in the one order and at once in the other. A missing wait or barrier thus leaves stale data
// behind, or overwrites data still in use, and shows in the result.
#pragma once
#define PAM_HOST_SHIM 1
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// Set by the scheduler before a fiber runs.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// Upwards with late copies, or downwards with early ones; a race shows under one of them.
enum ShimOrder { SHIM_UP, SHIM_DOWN };
// Without fibers, for kernels whose threads do not meet: one after the other.
void shim_run(dim3 grid, unsigned threads, ShimOrder order, const std::function<void()> &kernel);
void shim_launch(dim3 grid, unsigned threads, ShimOrder order, const std::function<void()> &kernel);

void __syncthreads();
int __syncthreads_or(int predicate);
unsigned __reduce_max_sync(unsigned mask, unsigned value);
unsigned __reduce_min_sync(unsigned mask, unsigned value);
unsigned __reduce_or_sync(unsigned mask, unsigned value);
unsigned shim_shuffle(unsigned value, unsigned lane);
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  unsigned bits;
  std::memcpy(&bits, &value, 4);
  bits = shim_shuffle(bits, (threadIdx.x & 31) ^ (unsigned)mask);
  std::memcpy(&value, &bits, 4);
  return value;
}
inline float __shfl_down_sync(unsigned, float value, unsigned delta) {
  unsigned bits, lane = threadIdx.x & 31;
  std::memcpy(&bits, &value, 4);
  bits = shim_shuffle(bits, lane + delta < 32 ? lane + delta : lane);
  std::memcpy(&value, &bits, 4);
  return value;
}

void shim_copy_async(void *to, const void *from, unsigned bytes);
void shim_copy_commit();
void shim_copy_wait(unsigned newest);

inline unsigned atomicMax(unsigned *p, unsigned v) {
  unsigned old = *p;
  *p = old > v ? old : v;
  return old;
}
inline unsigned atomicOr(unsigned *p, unsigned v) {
  unsigned old = *p;
  *p = old | v;
  return old;
}

inline unsigned atomicExch(unsigned *p, unsigned v) {
  unsigned old = *p;
  *p = v;
  return old;
}
inline unsigned long long atomicMin(unsigned long long *p, unsigned long long v) {
  unsigned long long old = *p;
  *p = old < v ? old : v;
  return old;
}
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz((unsigned)x); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll((unsigned long long)x); }
inline double __longlong_as_double(long long x) {
  double d;
  std::memcpy(&d, &x, 8);
  return d;
}
inline long long __double_as_longlong(double d) {
  long long x;
  std::memcpy(&x, &d, 8);
  return x;
}

inline float __uint_as_float(unsigned x) {
  float f;
  std::memcpy(&f, &x, 4);
  return f;
}
inline unsigned __float_as_uint(float f) {
  unsigned x;
  std::memcpy(&x, &f, 4);
  return x;
}
inline float __int2float_rn(int x) { return (float)x; }
inline float __uint2float_rn(unsigned x) { return (float)x; }

extern unsigned long shim_forms[16];
#define SHIM_NOTE_FORM(form) (threadIdx.x == 0 ? (void)++shim_forms[form] : (void)0)
