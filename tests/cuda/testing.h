// What the CPU tests share: counting, data of every kind, rounding up.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "kernels.h"
#include "spec.h"

using spec::u32;
using u64 = unsigned long long;

inline int passed, failed;
inline void check(bool ok, const std::string &name) {
  ok ? ++passed : ++failed;
  if (!ok) std::printf("FAILED %s\n", name.c_str());
}

inline const u32 PARTNERS[64] = {
    0x00000000, 0x80000000, 0x00000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000, 0x00800001,
    0x00FFFFFF, 0x01000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0xBF800000, 0xBF800001, 0x3FFFFFFF,
    0x40000000, 0xC0000000, 0x3F000000, 0x3EFFFFFF, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F000000, 0x7EFFFFFF,
    0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0x41800000, 0x417FFFFF,
    0x3FB8AA3B, 0x3F317218, 0x5F000000, 0x20000000, 0x1FFFFFFF, 0x60000000, 0xDF123456, 0xA0654321,
    0x3DCCCCCD, 0xBDCCCCCD, 0x40490FDB, 0xC0490FDB, 0x4B000000, 0x4B7FFFFF, 0xCB000001, 0x42FC0000,
    0xC2FC0000, 0xC2FC0001, 0x43000000, 0x42FFFFFF, 0x33800000, 0x33800001, 0xB3800000, 0x34000000,
    0x3F400000, 0x3FC00000, 0xBFC00000, 0x3FA00000, 0x12345678, 0x6DCBA987, 0x9ABCDEF0, 0x55555555};

enum Kind { NORMAL, ZERO_LEFT, ZERO_RIGHT, ZERO_BOTH, UNDER, OVER, SPECIALS, ANY, KINDS };
inline const char *KIND[] = {"normal", "zeros left", "zeros right", "zeros both",
                             "underflow", "overflow", "specials", "any bits"};

inline std::mt19937 rng(7);
inline u32 draw(Kind kind, bool left) {
  u32 r = rng();
  u32 normal = (r & 0x80000000) | (118 + (r >> 23) % 12) << 23 | (r & 0x7FFFFF);
  bool rare = rng() % 5 == 0;
  switch (kind) {
    case NORMAL: return normal;
    case ZERO_LEFT: return left && rare ? r & 0x80000000 : normal;
    case ZERO_RIGHT: return !left && rare ? r & 0x807FFFFF : normal;
    case ZERO_BOTH: return rare ? r & 0x80000000 : normal;
    case UNDER: return rare ? (r & 0x80FFFFFF) | (r % 90) << 23 : normal;
    case OVER: return (r & 0x80FFFFFF) | (rng() % 254) << 23;
    case SPECIALS: return rng() % 40 == 0 ? PARTNERS[24 + r % 6] : normal;
    default: return r;
  }
}

inline u32 up(u32 x, u32 to) { return (x + to - 1) / to * to; }

inline int finish_tests() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
