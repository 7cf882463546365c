// Packs a strided operand into panels of 128 rows, k-major, and gathers its facts.
//
// A panel is [k][128]; planes of the same operand follow each other at `plane_stride` elements.
// The left operand of a product holds `bits - bias` (so that one integer addition per product is
// left) and the compare threshold; the right operand its bits with subnormals flushed; an incoming
// gradient its exponent part, mantissa part and threshold.
#include "tile.cuh"

#define SLICE 32

enum Role { LEFT, RIGHT, GRADIENT };

// The magnitude that the other factor needs for the product not to underflow. A zero needs more
// than any finite float has: PA_MAG is a NaN to a float comparison and INT_MAX to an integer one.
PA_FN u32 threshold(u32 bits, u32 bias) {
  u32 m = mag(bits);
  if (m < PA_MIN) return PA_MAG;
  u32 need = bias + PA_MIN - m;
  return (int)need < (int)PA_MIN ? PA_MIN : need;
}

// The tile is k-major with one word of padding a line, so that both directions are free of bank
// conflicts.
PA_FN u32 *line_of(u32 *tile, u32 depth, u32 row) {
  return at(tile, shl<EDGE_LOG2>(depth) + depth + row);
}

template <int ROLE>
PA_FN void pack(const u32 *source, const u64 *batch_offsets, u32 rows, u32 depth, u64 row_stride,
                u64 depth_stride, u32 *planes, u64 plane_stride, u64 panel_stride,
                u32 panels_per_batch, Facts *facts, u32 chunks, u32 bias, u32 mantissa) {
  __shared__ u32 tile[SLICE * (EDGE + 1)];
  __shared__ u32 seen[3];
  u32 lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  u32 k0 = shl<5>(blockIdx.x), row0 = shl<EDGE_LOG2>(blockIdx.y);
  if (threadIdx.x == 0) seen[0] = seen[1] = seen[2] = 0;
  source = at(source, *byte_at(batch_offsets, (u64)shl<3>(blockIdx.z)));
  Seen found = {0, 0, 0};
  // Lanes run along whichever dimension is contiguous.
  bool along_depth = depth_stride == 1;
  u32 k = k0 + (along_depth ? lane : warp), row = row0 + (along_depth ? warp : lane);
  u64 start = stride_mul(row, row_stride) + stride_mul(k, depth_stride);
  u64 step = along_depth ? row_stride << 3 : row_stride << 5;
  u64 next_k = depth_stride << 3;
  __syncthreads();
#pragma unroll 1
  for (u32 outer = 0; outer < 4; ++outer) {
    u64 here = start;
#pragma unroll
    for (u32 inner = 0; inner < 4; ++inner) {
      u32 r = row - row0, d = k - k0;
      u32 bits = PA_BIAS;  // rows past the end hold a harmless 1; their outputs are never stored
      if (row < rows && k < depth) {
        bits = flush(round_mantissa(*at(source, here), mantissa));
        note(found, bits);
      }
      *line_of(tile, d, r) = bits;
      here += step;
      opaque(here);
      row += along_depth ? 8 : 32;
      opaque(row);
    }
    if (along_depth) {
      start = here;
    } else {
      row -= 128;
      k += 8;
      start += next_k;
    }
  }
  u32 panel = (u32)stride_mul(blockIdx.z, panels_per_batch) + blockIdx.y;
  u64 entry = stride_mul(panel, chunks) + (k0 >> CHUNK_LOG2);
  // The barrier inside also completes the tile.
  publish(found, seen, byte_at(facts, entry << 4));
  u32 *out = at(planes, stride_mul(panel, panel_stride));
  u64 depth_end = panel_stride >> EDGE_LOG2;
#pragma unroll 1
  for (u32 d = warp; d < SLICE; d += 8) {
    if (k0 + d >= depth_end) break;
    u32 *line = at(out, shl<EDGE_LOG2>(k0 + d) + lane);
#pragma unroll
    for (u32 i = 0; i < 4; ++i) {
      u32 bits = line_of(tile, d, lane)[i * 32];
      if (ROLE == LEFT) {
        line[i * 32] = bits - bias;
        *at(line + i * 32, plane_stride) = threshold(bits, bias);
      } else if (ROLE == RIGHT) {
        line[i * 32] = bits;
      } else {
        line[i * 32] = (bits & ~PA_MANT) - PA_BIAS;
        *at(line + i * 32, plane_stride) = bits & PA_MANT;
        u32 t = threshold(bits, PA_BIAS);
        // The slope is a power of two, so the threshold moves up to the next one.
        t = t == PA_MAG ? t : (t + PA_MANT) & ~PA_MANT;
        *at(line + i * 32, plane_stride << 1) = t;
      }
    }
  }
}

#define PACK(NAME, ROLE)                                                                          \
  extern "C" __global__ void __launch_bounds__(THREADS) NAME(                                     \
      const u32 *source, const u64 *batch_offsets, u32 rows, u32 depth, u64 row_stride,           \
      u64 depth_stride, u32 *planes, u64 plane_stride, u64 panel_stride, u32 panels_per_batch,    \
      Facts *facts, u32 chunks, u32 bias, u32 mantissa) {                                         \
    pack<ROLE>(source, batch_offsets, rows, depth, row_stride, depth_stride, planes,              \
               plane_stride, panel_stride, panels_per_batch, facts, chunks, bias, mantissa);      \
  }

PACK(pam_pack_left, LEFT)
PACK(pam_pack_right, RIGHT)
PACK(pam_pack_gradient, GRADIENT)
