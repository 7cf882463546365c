// Checks the primitives and the contraction kernels, run on the CPU, against spec.h bit for bit.
#include "testing.h"

static void primitives() {
  bool mul = true, div = true, exp = true, log = true, grad = true, offset = true, narrow = true;
  for (u32 high = 0; high < 0x10000; ++high)
    for (int p = 0; p < 64; ++p) {
      u32 a = high << 16 | (PARTNERS[p] & 0xFFFF), b = PARTNERS[p], d = PARTNERS[(p * 7 + high) & 63];
      mul &= host_mul(a, b, 0x3F800000) == spec::mul(a, b);
      div &= host_div(a, b, 0x3F800000) == spec::div(a, b);
      div &= host_div(b, a, 0x3F800000) == spec::div(b, a);
      exp &= host_exp2(a) == spec::exp2(a);
      log &= host_log2(a) == spec::log2(a);
      grad &= host_mul_grad(a, b, d, 0x3F800000) == spec::mul_grad(a, b, d);
      grad &= host_mul_grad(b, a, d, 0x3F800000) == spec::mul_grad(b, a, d);
      for (int o : {0x00080000, -0x00030000}) {
        offset &= host_mul(a, b, 0x3F800000 - o) == spec::mul(a, b, o);
        offset &= host_div(a, b, 0x3F800000 - o) == spec::div(a, b, o);
        offset &= host_mul_grad(a, b, d, 0x3F800000 - o) == spec::mul_grad(a, b, d, o);
      }
      narrow &= host_narrow(a, p % 24) == spec::narrow(a, p % 24);
    }
  check(mul, "pa_mul");
  check(div, "pa_div");
  check(exp, "pa_exp2");
  check(log, "pa_log2");
  check(grad, "pa_mul_grad");
  check(offset, "offsets");
  check(narrow, "narrow mantissas");
}

struct Shape {
  u32 batch, rows, cols, depth;
  bool left_transposed, right_transposed, out_transposed, split;
};

struct Packed {
  std::vector<u32> planes;
  std::vector<Facts> facts;
  u64 plane_stride, panel_stride;
  u32 panels, chunks;
};

// Packs `batch` matrices of rows x depth with the given strides.
static Packed pack(int role, const std::vector<u32> &source, u32 batch, u32 rows, u32 depth,
                   u64 row_stride, u64 depth_stride, u32 bias, u32 mantissa, ShimOrder order) {
  Packed p;
  p.panels = up(rows, 128) / 128;
  p.chunks = up(depth, 256) / 256;
  p.panel_stride = (u64)up(depth, 16) * 128;
  p.plane_stride = p.panel_stride * p.panels * batch;
  p.planes.assign(p.plane_stride * (role == 0 ? 2 : role == 1 ? 1 : 3), 0xDEADBEEF);
  p.facts.assign(batch * p.panels * p.chunks, Facts{0, 0, 0, 0});
  std::vector<u64> offsets(batch);
  for (u32 i = 0; i < batch; ++i) offsets[i] = (u64)i * rows * depth;
  auto kernel = role == 0 ? pam_pack_left : role == 1 ? pam_pack_right : pam_pack_gradient;
  shim_launch({up(depth, 32) / 32, p.panels, batch}, 256, order, [&] {
    kernel(source.data(), offsets.data(), rows, depth, row_stride, depth_stride, p.planes.data(),
           p.plane_stride, p.panel_stride, p.panels, p.facts.data(), p.chunks, bias, mantissa);
  });
  return p;
}

static std::vector<Work> works(const Shape &s, const Packed &a, const Packed &b) {
  std::vector<Work> w;
  u32 parts = s.split ? a.chunks : 1;
  for (u32 c = 0; c < parts; ++c)
    for (u32 i = 0; i < s.batch; ++i)
      w.push_back({((u64)c * s.batch + i) * s.rows * s.cols, i * a.panels, i * b.panels,
                   s.split ? c : 0, s.split ? c + 1 : a.chunks, {0, 0}});
  return w;
}

static std::vector<float> finish(const Shape &s, u32 chunks, std::vector<float> out,
                                 ShimOrder order) {
  if (!s.split) return out;
  std::vector<float> sum((u64)s.batch * s.rows * s.cols, -7.0f);
  shim_launch({(u32)(up(sum.size(), 256) / 256), 1, 1}, 256, order,
              [&] { pam_chunk_sum(out.data(), sum.data(), sum.size(), chunks); });
  return sum;
}

static std::string name(const char *what, const Shape &s, Kind kind) {
  char text[200];
  std::snprintf(text, sizeof text, "%s %ux%ux%ux%u t%d%d%d split %d, %s", what, s.batch, s.rows,
                s.cols, s.depth, s.left_transposed, s.right_transposed, s.out_transposed, s.split,
                KIND[kind]);
  return text;
}

static u64 at(bool transposed, u32 i, u32 j, u32 rows, u32 cols) {
  return transposed ? (u64)j * rows + i : (u64)i * cols + j;
}

static void contraction(const Shape &s, Kind kind, int offset, u32 mantissa, ShimOrder order) {
  std::vector<u32> a((u64)s.batch * s.rows * s.depth), b((u64)s.batch * s.depth * s.cols);
  for (u32 &x : a) x = draw(kind, true);
  for (u32 &x : b) x = draw(kind, false);
  u32 bias = 0x3F800000 - offset;
  Packed pa = pack(0, a, s.batch, s.rows, s.depth, s.left_transposed ? 1 : s.depth,
                   s.left_transposed ? s.rows : 1, bias, mantissa, order);
  Packed pb = pack(1, b, s.batch, s.cols, s.depth, s.right_transposed ? s.depth : 1,
                   s.right_transposed ? 1 : s.cols, bias, mantissa, order);
  auto w = works(s, pa, pb);
  std::vector<float> out((u64)w.size() * s.rows * s.cols, -7.0f);
  shim_launch({pb.panels, pa.panels, (u32)w.size()}, 256, order, [&] {
    pam_contract(pa.planes.data(), pa.plane_stride, pa.facts.data(), pb.planes.data(),
                 pb.facts.data(), pa.panel_stride, pa.chunks, w.data(), out.data(),
                 s.out_transposed ? 1 : s.cols, s.out_transposed ? s.rows : 1, s.rows, s.cols,
                 s.depth, bias);
  });
  out = finish(s, pa.chunks, out, order);
  u64 wrong = 0;
  for (u32 z = 0; z < s.batch; ++z)
    for (u32 i = 0; i < s.rows; ++i)
      for (u32 j = 0; j < s.cols; ++j) {
        float want = spec::contract(s.depth, [&](u32 k) {
          return spec::mul(
              spec::narrow(a[z * s.rows * s.depth + at(s.left_transposed, i, k, s.rows, s.depth)],
                           mantissa),
              spec::narrow(b[z * s.depth * s.cols + at(s.right_transposed, k, j, s.depth, s.cols)],
                           mantissa),
              offset);
        });
        float got = out[z * s.rows * s.cols + at(s.out_transposed, i, j, s.rows, s.cols)];
        wrong += !spec::same(spec::bits(want), spec::bits(got));
      }
  check(wrong == 0, name("contract", s, kind) + ": " + std::to_string(wrong) + " wrong");
}

static void gradient(const Shape &s, Kind kind, int offset, ShimOrder order) {
  std::vector<u32> own((u64)s.batch * s.rows * s.cols), g((u64)s.batch * s.rows * s.depth),
      b((u64)s.batch * s.depth * s.cols);
  for (u32 &x : own) x = draw(kind, true);
  for (u32 &x : g) x = draw(kind, true);
  for (u32 &x : b) x = draw(kind, false);
  Packed pg = pack(2, g, s.batch, s.rows, s.depth, s.left_transposed ? 1 : s.depth,
                   s.left_transposed ? s.rows : 1, 0x3F800000, 23, order);
  Packed pb = pack(1, b, s.batch, s.cols, s.depth, s.right_transposed ? s.depth : 1,
                   s.right_transposed ? 1 : s.cols, 0x3F800000, 23, order);
  auto w = works(s, pg, pb);
  std::vector<float> out((u64)w.size() * s.rows * s.cols, -7.0f);
  std::vector<u64> offsets;
  for (u32 i = 0; i < w.size(); ++i) offsets.push_back((u64)(i % s.batch) * s.rows * s.cols);
  u64 rs = s.out_transposed ? 1 : s.cols, cs = s.out_transposed ? s.rows : 1;
  shim_launch({pb.panels, pg.panels, (u32)w.size()}, 256, order, [&] {
    pam_contract_grad(pg.planes.data(), pg.plane_stride, pg.facts.data(), pb.planes.data(),
                      pb.facts.data(), pg.panel_stride, pg.chunks, w.data(), own.data(),
                      offsets.data(), rs, cs, out.data(), rs, cs, s.rows, s.cols, s.depth,
                      (u32)offset, 23);
  });
  out = finish(s, pg.chunks, out, order);
  u64 wrong = 0;
  for (u32 z = 0; z < s.batch; ++z)
    for (u32 i = 0; i < s.rows; ++i)
      for (u32 j = 0; j < s.cols; ++j) {
        u64 here = z * s.rows * s.cols + at(s.out_transposed, i, j, s.rows, s.cols);
        float want = spec::contract(s.depth, [&](u32 k) {
          return spec::mul_grad(
              own[here], b[z * s.depth * s.cols + at(s.right_transposed, k, j, s.depth, s.cols)],
              g[z * s.rows * s.depth + at(s.left_transposed, i, k, s.rows, s.depth)], offset);
        });
        wrong += !spec::same(spec::bits(want), spec::bits(out[here]));
      }
  check(wrong == 0, name("grad", s, kind) + ": " + std::to_string(wrong) + " wrong");
}

int main(int count, char **words) {
  bool brief = count > 1 && std::string(words[1]) == "brief";
  if (!brief) primitives();
  const Shape shapes[] = {
      {1, 130, 131, 35, false, false, false, false}, {2, 20, 140, 300, true, true, false, true},
      {1, 4, 4, 1, false, false, true, false},       {1, 136, 64, 264, false, true, true, false},
      {3, 65, 129, 17, true, false, false, false},   {1, 12, 16, 777, true, false, true, true}};
  int n = 0;
  for (const Shape &s : shapes)
    for (int kind = 0; kind < KINDS; ++kind, ++n) {
      if (brief && (n % 3 || s.batch != 1)) continue;
      ShimOrder order = n & 1 ? SHIM_DOWN : SHIM_UP;
      contraction(s, (Kind)kind, 0, 23, order);
      gradient(s, (Kind)kind, 0, order);
      if (brief) continue;
      contraction(s, (Kind)kind, 0x00080000, n % 23, order);
      gradient(s, (Kind)kind, n & 2 ? 0x00080000 : -0x00030000, order);
    }
  if (!brief)
    for (int form = 0; form < 6; ++form)
      check(shim_forms[form] > 0, "form " + std::to_string(form) + " was run");
  return finish_tests();
}
