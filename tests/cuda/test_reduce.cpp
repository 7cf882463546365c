// Checks the reductions, run on the CPU, against the documented order.
#include <cmath>

#include "testing.h"

enum { SUM, MAX, MIN };

// One reduced line by the documentation.
static float expected(int reduction, const std::vector<float> &x) {
  if (reduction >= MAX) {
    float best = reduction == MAX ? -INFINITY : INFINITY;
    for (float v : x) {
      if (std::isnan(best)) continue;
      bool keep = reduction == MAX ? best > v : best < v;
      if (!keep) best = v;
    }
    return best;
  }
  float total = 0;
  for (size_t begin = 0; begin < x.size(); begin += 4096) {
    float lanes[16] = {};
    for (size_t r = begin; r < x.size() && r < begin + 4096; ++r)
      lanes[r % 16] += x[r];
    for (int half : {8, 4, 2, 1})
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    total = begin == 0 ? lanes[0] : total + lanes[0];
  }
  return total;
}

static void reduction(u32 outer, u32 reduced, u32 inner, int what, Kind kind, ShimOrder order) {
  std::vector<float> x((u64)outer * reduced * inner);
  for (float &v : x) v = spec::f(draw(kind, true));
  // Rows whose extreme is a zero of either sign.
  if (kind == ZERO_BOTH)
    for (float &v : x) v = what == MIN ? std::fabs(v) : v > 0 ? -v : v;
  u32 chunks = (reduced + 4095) / 4096;
  u64 left = (u64)outer * inner;
  std::vector<float> partial(left * chunks, -7.0f), out(left, -7.0f);
  float *to = chunks == 1 ? out.data() : partial.data();
  if (inner == 1) {
    // Of many rows and planes, a grid has two for each of its own.
    u32 high = outer < 3 ? outer : 2, deep = (outer + high - 1) / high;
    dim3 grid = {(outer + 15) / 16, 1, 1};
    if (chunks > 1) grid = {(chunks + 15) / 16, high, deep};
    shim_launch(grid, 256, order,
                [&] { pam_reduce_rows(x.data(), outer, reduced, what, chunks, to); });
  } else {
    shim_launch({(inner + 31) / 32, chunks, outer < 3 ? outer : 2}, 256, order,
                [&] { pam_reduce_columns(x.data(), outer, reduced, inner, what, to); });
  }
  if (chunks > 1)
    shim_launch({(u32)((left + 255) / 256), 1, 1}, 256, order,
                [&] { pam_reduce_chunks(partial.data(), out.data(), left, chunks, what); });
  u64 wrong = 0;
  for (u32 o = 0; o < outer; ++o)
    for (u32 i = 0; i < inner; ++i) {
      std::vector<float> line;
      for (u32 r = 0; r < reduced; ++r) line.push_back(x[((u64)o * reduced + r) * inner + i]);
      wrong += !spec::same(spec::bits(expected(what, line)), spec::bits(out[(u64)o * inner + i]));
    }
  check(wrong == 0, "reduce " + std::to_string(what) + " of " + std::to_string(outer) + "x" +
                        std::to_string(reduced) + "x" + std::to_string(inner) + ", " + KIND[kind] +
                        ": " + std::to_string(wrong) + " wrong");
}

int main() {
  const u32 shapes[][3] = {{5, 7, 1},    {40, 100, 1}, {3, 16, 1},   {2, 9000, 1}, {1, 70001, 1},
                           {2, 5, 33},   {1, 100, 70}, {3, 17, 2},   {1, 9001, 40},
                           {5, 4100, 1}, {5, 4100, 3}};
  int n = 0;
  for (auto &s : shapes)
    for (int what = SUM; what <= MIN; ++what)
      for (Kind kind : {NORMAL, ZERO_BOTH, SPECIALS, ANY})
        reduction(s[0], s[1], s[2], what, kind, ++n & 1 ? SHIM_UP : SHIM_DOWN);
  return finish_tests();
}
