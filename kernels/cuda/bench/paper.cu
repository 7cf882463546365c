// Benchmarks only: the matrix product as the literature formulates it (Kosson & Jaggi 2023), written
// from the description there, to have something to measure against on the same device. 32x32 tiles
// of shared memory, 2x2 outputs per thread, and a native multiplication per product that decides
// the range. It contains multiplications on purpose; the audit has to find them.

typedef unsigned int u32;

#define SIDE 32

static __device__ __forceinline__ float product(float a, float b) {
  // The native product tells whether the exponent stays in range; comparisons are in double.
  double native = fabs((double)(a * b));
  u32 x = __float_as_uint(a), y = __float_as_uint(b);
  u32 bits = (x & 0x7FFFFFFFu) + (y & 0x7FFFFFFFu) - 0x3F800000u;
  bits |= (x ^ y) & 0x80000000u;
  if (native < 1.1754943508222875e-38) return 0.0f;
  if (native > 3.4028234663852886e+38) return __uint_as_float((bits & 0x80000000u) | 0x7F800000u);
  return __uint_as_float(bits);
}

// Row-major operands; all dimensions are multiples of 32.
extern "C" __global__ void paper_matmul(const float *left, const float *right, float *out, u32 rows,
                                        u32 cols, u32 depth) {
  __shared__ float a[SIDE][SIDE + 1];
  __shared__ float b[SIDE][SIDE + 1];
  u32 x = threadIdx.x & 15, y = threadIdx.x >> 4;
  u32 row0 = blockIdx.y * SIDE, col0 = blockIdx.x * SIDE;
  float acc[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
  for (u32 k0 = 0; k0 < depth; k0 += SIDE) {
    for (u32 i = threadIdx.x; i < SIDE * SIDE; i += 256) {
      u32 r = i / SIDE, c = i % SIDE;
      a[r][c] = left[(size_t)(row0 + r) * depth + k0 + c];
      b[r][c] = right[(size_t)(k0 + r) * cols + col0 + c];
    }
    __syncthreads();
    for (u32 k = 0; k < SIDE; ++k)
      for (u32 i = 0; i < 2; ++i)
        for (u32 j = 0; j < 2; ++j) acc[i][j] += product(a[y + 16 * i][k], b[k][x + 16 * j]);
    __syncthreads();
  }
  for (u32 i = 0; i < 2; ++i)
    for (u32 j = 0; j < 2; ++j)
      out[(size_t)(row0 + y + 16 * i) * cols + col0 + x + 16 * j] = acc[i][j];
}
