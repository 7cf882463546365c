// Checks the convolution kernel, run on the CPU, against a direct convolution by the specification.
#include "testing.h"

struct Term {
  u32 channel, d, h, w;
};
struct Column {
  u64 image;
  u32 d, h, w, out;
  u64 spare;
};
struct ConvWork {
  u64 out, source;
  u32 left_panel, chunk_begin, chunk_end, cols;
  u64 spare[4];
};

struct Axis {
  int input, kernel, output, stride, dilation, input_dilation, before;
};

static int output_size(const Axis &a, int after) {
  int extent = (a.input - 1) * a.input_dilation + 1 + a.before + after;
  return (extent - (a.kernel - 1) * a.dilation - 1) / a.stride + 1;
}

// The element along an axis that kernel element k of window w meets, or -1.
static int meets(const Axis &a, int w, int k) {
  int p = w * a.stride + k * a.dilation - a.before;
  if (p < 0 || p % a.input_dilation != 0 || p / a.input_dilation >= a.input) return -1;
  return p / a.input_dilation;
}

static std::vector<u32> axis_map(const Axis &a, u32 element_stride) {
  int length = (a.output - 1) * a.stride + (a.kernel - 1) * a.dilation + 1;
  std::vector<u32> map(length);
  for (int v = 0; v < length; ++v) {
    int p = v - a.before;
    bool there = p >= 0 && p % a.input_dilation == 0 && p / a.input_dilation < a.input;
    map[v] = there ? p / a.input_dilation * element_stride : 0xFFFFFFFF;
  }
  return map;
}

static void convolution(int batch, int groups, int channels, int outputs, Axis h, Axis w, int after,
                        int together, bool split, Kind kind, ShimOrder order) {
  h.output = output_size(h, after), w.output = output_size(w, after);
  int pixels = h.input * w.input, positions = h.output * w.output, taps = h.kernel * w.kernel;
  u32 depth = channels * taps;
  std::vector<u32> x((u64)batch * groups * channels * pixels), weight((u64)groups * outputs * depth);
  for (u32 &v : weight) v = draw(kind, true);
  for (u32 &v : x) v = draw(kind, false);

  // Weights: one matrix per group.
  u32 panels = up(outputs, 128) / 128, chunks = up(depth, 256) / 256;
  u64 panel_stride = (u64)up(depth, 16) * 128, plane_stride = panel_stride * panels * groups;
  std::vector<u32> planes(plane_stride * 2, 0xDEADBEEF);
  std::vector<Facts> facts(groups * panels * chunks, Facts{0, 0, 0, 0}), image_facts(1, Facts{0, 0, 0, 0});
  std::vector<u64> offsets(groups);
  for (int g = 0; g < groups; ++g) offsets[g] = (u64)g * outputs * depth;
  shim_launch({up(depth, 32) / 32, panels, (u32)groups}, 256, order, [&] {
    pam_pack_left(weight.data(), offsets.data(), outputs, depth, depth, 1, planes.data(),
                  plane_stride, panel_stride, panels, facts.data(), chunks, 0x3F800000, 23);
  });
  shim_launch({3, 1, 1}, 256, order, [&] { pam_facts(x.data(), x.size(), image_facts.data()); });

  std::vector<Term> terms;
  for (int c = 0; c < channels; ++c)
    for (int i = 0; i < h.kernel; ++i)
      for (int j = 0; j < w.kernel; ++j)
        terms.push_back({(u32)(c * pixels), 0, (u32)(i * h.dilation), (u32)(j * w.dilation)});
  std::vector<Column> columns;
  for (int n = 0; n < together; ++n)
    for (int i = 0; i < h.output; ++i)
      for (int j = 0; j < w.output; ++j)
        columns.push_back({(u64)n * groups * channels * pixels, 0, (u32)(i * h.stride),
                           (u32)(j * w.stride),
                           (u32)(n * groups * outputs * positions + i * w.output + j), 0});
  std::vector<u32> map_d = {0}, map_h = axis_map(h, w.input), map_w = axis_map(w, 1);
  u64 elements = (u64)batch * groups * outputs * positions;
  std::vector<ConvWork> works;
  u32 parts = split ? chunks : 1;
  for (u32 part = 0; part < parts; ++part)
    for (int n = 0; n < batch; n += together)
      for (int g = 0; g < groups; ++g)
        works.push_back({part * elements + ((u64)n * groups + g) * outputs * positions,
                         ((u64)n * groups + g) * channels * pixels, g * panels, split ? part : 0,
                         split ? part + 1 : chunks,
                         (u32)((batch - n < together ? batch - n : together) * positions),
                         {0, 0, 0, 0}});
  bool padded = h.before || w.before || after || h.input_dilation > 1 || w.input_dilation > 1;
  std::vector<float> partial(elements * parts, -7.0f), out = partial;
  shim_launch({up(columns.size(), 128) / 128, panels, (u32)works.size()}, 256, order, [&] {
    pam_conv(planes.data(), plane_stride, facts.data(), x.data(), image_facts.data(), padded,
             panel_stride, chunks, works.data(), terms.data(), columns.data(), map_d.data(),
             map_h.data(), map_w.data(), partial.data(), positions, outputs, depth, 0x3F800000);
  });
  out = partial;
  if (split) {
    out.assign(elements, -7.0f);
    shim_launch({(u32)(up(elements, 256) / 256), 1, 1}, 256, order,
                [&] { pam_chunk_sum(partial.data(), out.data(), elements, parts); });
  }
  u64 wrong = 0, at = 0;
  for (int n = 0; n < batch; ++n)
    for (int g = 0; g < groups; ++g)
      for (int o = 0; o < outputs; ++o)
        for (int i = 0; i < h.output; ++i)
          for (int j = 0; j < w.output; ++j, ++at) {
            float want = spec::contract(depth, [&](u32 k) {
              int c = k / taps, y = meets(h, i, k % taps / w.kernel), z = meets(w, j, k % w.kernel);
              u32 element = y < 0 || z < 0 ? 0
                                           : x[(((u64)n * groups + g) * channels + c) * pixels +
                                               y * w.input + z];
              u32 factor = weight[((u64)g * outputs + o) * depth + k];
              // Padding is zeros, so that an infinite weight makes a NaN there.
              return spec::mul(factor, element);
            });
            wrong += !spec::same(spec::bits(want), spec::bits(out[at]));
          }
  char text[160];
  std::snprintf(text, sizeof text, "conv %d %dx%d->%d %dx%d k%dx%d split %d, %s: %llu of %llu wrong",
                batch, groups, channels, outputs, h.input, w.input, h.kernel, w.kernel, split,
                KIND[kind], (unsigned long long)wrong, (unsigned long long)elements);
  check(wrong == 0, text);
}

int main(int count, char **words) {
  bool brief = count > 1 && std::string(words[1]) == "brief";
  int n = 0;
  for (int kind = 0; kind < KINDS; ++kind) {
    if (brief && kind % 3) continue;
    Kind k = (Kind)kind;
    auto order = [&] { return ++n & 1 ? SHIM_UP : SHIM_DOWN; };
    // input, kernel, output, stride, dilation, input dilation, before
    convolution(2, 1, 3, 20, {9, 3, 0, 1, 1, 1, 1}, {11, 3, 0, 1, 1, 1, 1}, 1, 1, false, k, order());
    convolution(3, 2, 4, 5, {8, 2, 0, 2, 1, 1, 0}, {6, 3, 0, 2, 2, 1, 0}, 0, 2, false, k, order());
    convolution(3, 1, 40, 130, {4, 3, 0, 1, 1, 1, 1}, {4, 3, 0, 1, 1, 1, 1}, 1, 3, true, k, order());
    convolution(1, 6, 1, 1, {7, 3, 0, 1, 1, 1, 1}, {7, 3, 0, 1, 1, 1, 1}, 1, 1, false, k, order());
    // The shape of a gradient: a dilated input, as much padding as the kernel has.
    convolution(1, 1, 30, 7, {5, 3, 0, 1, 1, 2, 2}, {4, 3, 0, 1, 1, 2, 2}, 2, 1, false, k, order());
  }
  return finish_tests();
}
