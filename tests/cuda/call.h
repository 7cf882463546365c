// Calls kernels by a list of words, as a driver does. `PAM_CALL(kernel, fibers)` defines
// call_<kernel>; kernels whose threads meet at barriers or shuffles need fibers.
#pragma once
#include <utility>

#include "shim.h"

template <typename T> struct FromWord {
  static T of(unsigned long long w) { return (T)w; }
};
template <typename... P, size_t... I>
void call_words(void (*kernel)(P...), const unsigned long long *words, std::index_sequence<I...>) {
  kernel(FromWord<P>::of(words[I])...);
}
template <typename... P> void call_words(void (*kernel)(P...), const unsigned long long *words) {
  call_words(kernel, words, std::index_sequence_for<P...>());
}

#define PAM_CALL(KERNEL, FIBERS)                                                                   \
  extern "C" void call_##KERNEL(const unsigned long long *words, const unsigned *grid,             \
                                unsigned threads, unsigned down) {                                 \
    auto order = down ? SHIM_DOWN : SHIM_UP;                                                       \
    (FIBERS ? shim_launch : shim_run)({grid[0], grid[1], grid[2]}, threads, order,                 \
                                      [&] { call_words(KERNEL, words); });                         \
  }
