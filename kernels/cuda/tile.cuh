// Shared-memory tiles: asynchronous copies, the thread layout of a 128x128 output tile, and the
// facts by which a kernel picks its cheapest exact form.
#ifndef PAM_TILE_CUH
#define PAM_TILE_CUH

#include "pa.cuh"

// Additions run in ascending k inside chunks of CHUNK terms; chunk sums are then added in ascending
// order. Every kernel of every backend keeps this order, whatever its tiles.
#define CHUNK 256
#define CHUNK_LOG2 8
// Rows of a packed panel, and the edge of an output tile.
#define EDGE 128
#define EDGE_LOG2 7
#define THREADS 256

// What one panel holds inside one chunk. All fields grow from zero by atomic max or or, so the
// order of the blocks that gather them does not matter.
struct Facts {
  u32 low;    // PA_MAG - (smallest non-zero magnitude), 0 when every value is zero
  u32 high;   // largest finite magnitude
  u32 flags;  // HAS_ZERO, HAS_SPECIAL, HAS_TINY
  u32 spare;
};
#define HAS_ZERO 1u
#define HAS_SPECIAL 2u
// Subnormals that were not flushed: only where an operand is read in place instead of packed.
#define HAS_TINY 4u

// What one thread has seen, to be folded into a panel's facts.
struct Seen {
  u32 low, high, flags;
};

PA_FN void note(Seen &seen, u32 bits) {
  u32 m = mag(bits);
  if (m < PA_MIN) {
    seen.flags |= m == 0 ? HAS_ZERO : HAS_ZERO | HAS_TINY;
  } else if (m >= PA_INF) {
    seen.flags |= HAS_SPECIAL;
  } else {
    seen.low = seen.low > PA_MAG - m ? seen.low : PA_MAG - m;
    seen.high = seen.high > m ? seen.high : m;
  }
}

// Folds the block's findings into one entry; every thread takes part. `shared` is zeroed before a
// barrier that precedes the call.
PA_FN void publish(Seen seen, u32 *shared, Facts *entry) {
  seen.low = __reduce_max_sync(0xFFFFFFFFu, seen.low);
  seen.high = __reduce_max_sync(0xFFFFFFFFu, seen.high);
  seen.flags = __reduce_or_sync(0xFFFFFFFFu, seen.flags);
  if ((threadIdx.x & 31) == 0) {
    atomicMax(shared, seen.low);
    atomicMax(shared + 1, seen.high);
    atomicOr(shared + 2, seen.flags);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicMax(&entry->low, shared[0]);
    atomicMax(&entry->high, shared[1]);
    atomicOr(&entry->flags, shared[2]);
  }
}

PA_FN u32 smallest(const Facts &f) { return PA_MAG - f.low; }

// One entry per output tile batch (and per chunk range when a contraction is split along k).
struct Work {
  u64 out;          // element offset of this batch in the output
  u32 left_panel;   // first packed panel of this batch
  u32 right_panel;
  u32 chunk_begin;  // chunks [begin, end) of k
  u32 chunk_end;
  u32 spare[2];
};
#define WORK_BYTES_LOG2 5

PA_FN void copy16_async(void *shared, const void *global) {
#ifdef PAM_HOST_SHIM
  shim_copy_async(shared, global, 16);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   (u32)__cvta_generic_to_shared(shared)),
               "l"(global)
               : "memory");
#endif
}

// Copies one word, or writes zero where there is none. `global` has to be a valid address anyway.
PA_FN void copy4_async(u32 *shared, const u32 *global, bool there) {
#ifdef PAM_HOST_SHIM
  static const u32 zero = 0;
  shim_copy_async(shared, there ? global : &zero, 4);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                   (u32)__cvta_generic_to_shared(shared)),
               "l"(global), "r"(there ? 4u : 0u)
               : "memory");
#endif
}

PA_FN void copy_commit() {
#ifdef PAM_HOST_SHIM
  shim_copy_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most N of this thread's newest copy groups are still under way.
template <int N> PA_FN void copy_wait() {
#ifdef PAM_HOST_SHIM
  shim_copy_wait(N);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Where a thread's 8x8 outputs lie in the tile. Rows are row..row+3 and row+16..row+19, columns
// col..col+3 and col+32..col+35, so that a warp reads each operand in conflict-free 16-byte pieces.
struct Place {
  u32 row, col;
};

PA_FN Place place_of_thread() {
  u32 t = threadIdx.x, lane = t & 31, warp = t >> 5;
  Place p;
  p.row = shl<5>(warp >> 1) + shl<2>(lane >> 3);
  p.col = shl<6>(warp & 1) + shl<2>(lane & 7);
  return p;
}

// Row or column of the i-th of a thread's eight.
PA_FN u32 spread(u32 i, u32 gap) { return i < 4 ? i : gap + i - 4; }

PA_FN void load8(u32 (&v)[8], const u32 *line, u32 gap) {
  uint4 x = *(const uint4 *)line;
  uint4 y = *(const uint4 *)(line + gap);
  v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
  v[4] = y.x, v[5] = y.y, v[6] = y.z, v[7] = y.w;
}

// The strided output of one tile.
struct Out {
  float *base;
  u64 row_stride, col_stride;
  u32 rows, cols;  // valid extent of the whole matrix
};

// Stores the chunk sums of a thread, or adds them to those already there. Each output belongs to
// one thread, so no ordering between threads is involved.
PA_FN void flush_chunk(const Out &out, u32 row, u32 col, float (&acc)[8][8], bool first) {
  bool wide = out.col_stride == 1 && (out.row_stride & 3) == 0 && ((u64)out.base & 15) == 0;
  float *row_at = out.base + 0;
  row_at = at(row_at, stride_mul(row, out.row_stride) + stride_mul(col, out.col_stride));
  u64 gap = stride_mul(12, out.row_stride);
#pragma unroll
  for (u32 i = 0; i < 8; ++i) {
    if (i == 4) row_at = at(row_at, gap);
    if (row + spread(i, 16) < out.rows) {
#pragma unroll
      for (u32 h = 0; h < 2; ++h) {
        u32 first_col = col + (h ? 32 : 0);
        float *p = at(row_at, h ? out.col_stride << 5 : 0);
        if (wide && first_col + 4 <= out.cols) {
          float4 v;
          v.x = acc[i][h ? 4 : 0], v.y = acc[i][h ? 5 : 1];
          v.z = acc[i][h ? 6 : 2], v.w = acc[i][h ? 7 : 3];
          if (!first) {
            float4 old = *(const float4 *)p;
            v.x = old.x + v.x, v.y = old.y + v.y, v.z = old.z + v.z, v.w = old.w + v.w;
          }
          *(float4 *)p = v;
        } else {
#pragma unroll
          for (u32 j = 0; j < 4; ++j) {
            if (first_col + j < out.cols) {
              float v = acc[i][(h ? 4 : 0) + j];
              *p = first ? v : *p + v;
            }
            p = at(p, out.col_stride);
          }
        }
      }
    }
#pragma unroll
    for (u32 j = 0; j < 8; ++j) acc[i][j] = 0.0f;
    row_at = at(row_at, out.row_stride);
  }
}

#endif
