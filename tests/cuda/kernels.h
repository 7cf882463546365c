// What the CPU tests call of the kernel sources; each .cu is its own translation unit.
#pragma once
#include "../../kernels/cuda/tile.cuh"

extern "C" {
void pam_pack_left(const u32 *, const u64 *, u32, u32, u64, u64, u32 *, u64, u64, u32, Facts *, u32,
                   u32, u32);
void pam_pack_right(const u32 *, const u64 *, u32, u32, u64, u64, u32 *, u64, u64, u32, Facts *,
                    u32, u32, u32);
void pam_pack_gradient(const u32 *, const u64 *, u32, u32, u64, u64, u32 *, u64, u64, u32, Facts *,
                       u32, u32, u32);
void pam_contract(const u32 *, u64, const Facts *, const u32 *, const Facts *, u64, u32,
                  const Work *, float *, u64, u64, u32, u32, u32, u32);
void pam_contract_grad(const u32 *, u64, const Facts *, const u32 *, const Facts *, u64, u32,
                       const Work *, const u32 *, const u64 *, u64, u64, float *, u64, u64, u32,
                       u32, u32, u32, u32);
void pam_chunk_sum(const float *, float *, u64, u32);
void pam_facts(const u32 *, u64, Facts *);
void pam_conv(const u32 *, u64, const Facts *, const u32 *, const Facts *, u32, u64, u32,
              const void *, const void *, const void *, const u32 *, const u32 *, const u32 *,
              float *, u64, u32, u32, u32);
void pam_reduce_rows(const float *, u32, u32, u32, u32, float *);
void pam_reduce_columns(const float *, u32, u32, u32, u32, float *);
void pam_reduce_chunks(const float *, float *, u64, u32, u32);
}

static inline u32 host_mul(u32 a, u32 b, u32 bias) { return pa_mul_bias(a, b, bias); }
static inline u32 host_div(u32 a, u32 b, u32 bias) { return pa_div_bias(a, b, bias); }
static inline u32 host_exp2(u32 x) { return pa_exp2(x); }
static inline u32 host_log2(u32 x) { return pa_log2(x); }
static inline u32 host_mul_grad(u32 a, u32 b, u32 d, u32 bias) {
  return pa_mul_grad_bias(a, b, d, bias);
}
static inline u32 host_narrow(u32 x, u32 keep) { return flush(round_mantissa(x, keep)); }
