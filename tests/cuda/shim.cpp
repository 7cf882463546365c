// The fiber scheduler behind shim.h.
#include "shim.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;
unsigned long shim_forms[16];

// A context is a stack. Switching in a few instructions where we can, since kernels switch all the
// time and ucontext makes system calls; the address sanitizer needs ucontext.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
struct Context {
  void *stack_pointer;
};
extern "C" void shim_switch(void **from, void *to);
asm(R"(
.text
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
static void change(Context &from, Context &to) {
  shim_switch(&from.stack_pointer, to.stack_pointer);
}
static void begin(Context &context, char *stack, size_t bytes, void (*function)()) {
  // The saved registers, the address to return to, and one word that aligns the stack as a call does.
  auto top = (std::uintptr_t)(stack + bytes) & ~(std::uintptr_t)15;
  void **words = (void **)top - 8;
  for (int i = 0; i < 8; ++i) words[i] = nullptr;
  words[6] = (void *)function;
  context.stack_pointer = words;
}
#else
#include <ucontext.h>
typedef ucontext_t Context;
static void change(Context &from, Context &to) { swapcontext(&from, &to); }
static void begin(Context &context, char *stack, size_t bytes, void (*function)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, function, 0);
}
#endif

namespace {
enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Copy {
  void *to;
  const void *from;
  unsigned bytes;
};
struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack;
  State state;
  unsigned value;
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};
constexpr size_t STACK = 256 * 1024;
std::vector<std::unique_ptr<Fiber>> fibers;
Context scheduler;
unsigned current;
bool eager;
const std::function<void()> *body;

void fail(const char *why) {
  std::fprintf(stderr, "shim: %s in block (%u, %u, %u)\n", why, blockIdx.x, blockIdx.y, blockIdx.z);
  std::exit(3);
}

void trampoline() {
  (*body)();
  Fiber &me = *fibers[current];
  if (!me.open.empty() || !me.groups.empty())
    for (auto &g : me.groups)
      if (!g.empty()) fail("a thread ended with asynchronous copies under way");
  me.state = DONE;
  change(me.context, scheduler);
}

void yield(State state) {
  Fiber &me = *fibers[current];
  me.state = state;
  change(me.context, scheduler);
}

void resume(unsigned i) {
  current = i;
  threadIdx = {i, 0, 0};
  fibers[i]->state = READY;
  change(scheduler, fibers[i]->context);
}

void run_block(unsigned threads, ShimOrder order) {
  while (fibers.size() < threads) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers.back()->stack.reset(new char[STACK]);
  }
  for (unsigned i = 0; i < threads; ++i) {
    Fiber &f = *fibers[i];
    begin(f.context, f.stack.get(), STACK, trampoline);
    f.state = READY;
    f.open.clear();
    f.groups.clear();
  }
  for (;;) {
    // Each warp runs as far as it can before the next one starts.
    bool ran = false;
    unsigned warps = (threads + 31) / 32;
    for (unsigned n = 0; n < warps; ++n) {
      unsigned first = (order == SHIM_UP ? n : warps - 1 - n) * 32;
      unsigned end = first + 32 < threads ? first + 32 : threads;
      for (bool again = true; again;) {
        again = false;
        for (unsigned m = first; m < end; ++m) {
          unsigned i = order == SHIM_UP ? m : first + end - 1 - m;
          if (fibers[i]->state == READY) resume(i), ran = true;
        }
        bool all = true;
        for (unsigned i = first; i < end; ++i) all &= fibers[i]->state == AT_WARP;
        if (all)
          for (unsigned i = first; i < end; ++i) fibers[i]->state = READY, again = true;
      }
    }
    unsigned done = 0, block = 0;
    for (unsigned i = 0; i < threads; ++i)
      done += fibers[i]->state == DONE, block += fibers[i]->state == AT_BLOCK;
    if (done == threads) return;
    if (block == threads) {
      for (unsigned i = 0; i < threads; ++i) fibers[i]->state = READY;
    } else if (!ran) {
      fail("a barrier was not reached by every thread");
    }
  }
}

unsigned exchange(unsigned value, const std::function<unsigned(unsigned, unsigned)> &fold) {
  fibers[current]->value = value;
  yield(AT_WARP);
  unsigned first = current & ~31u, sum = fibers[first]->value;
  for (unsigned i = first + 1; i < first + 32 && i < blockDim.x; ++i)
    sum = fold(sum, fibers[i]->value);
  yield(AT_WARP);
  return sum;
}
}  // namespace

void shim_launch(dim3 grid, unsigned threads, ShimOrder order,
                 const std::function<void()> &kernel) {
  body = &kernel;
  eager = order == SHIM_DOWN;
  gridDim = grid;
  blockDim = {threads, 1, 1};
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block(threads, order);
      }
}

void shim_run(dim3 grid, unsigned threads, ShimOrder order, const std::function<void()> &kernel) {
  gridDim = grid;
  blockDim = {threads, 1, 1};
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        for (unsigned n = 0; n < threads; ++n) {
          threadIdx = {order == SHIM_UP ? n : threads - 1 - n, 0, 0};
          kernel();
        }
      }
}

void __syncthreads() { yield(AT_BLOCK); }

int __syncthreads_or(int predicate) {
  fibers[current]->value = predicate != 0;
  yield(AT_BLOCK);
  int any = 0;
  for (unsigned i = 0; i < blockDim.x; ++i) any |= (int)fibers[i]->value;
  yield(AT_BLOCK);
  return any;
}

unsigned __reduce_max_sync(unsigned, unsigned value) {
  return exchange(value, [](unsigned a, unsigned b) { return a > b ? a : b; });
}
unsigned __reduce_min_sync(unsigned, unsigned value) {
  return exchange(value, [](unsigned a, unsigned b) { return a < b ? a : b; });
}
unsigned __reduce_or_sync(unsigned, unsigned value) {
  return exchange(value, [](unsigned a, unsigned b) { return a | b; });
}

unsigned shim_shuffle(unsigned value, unsigned lane) {
  fibers[current]->value = value;
  yield(AT_WARP);
  unsigned result = fibers[(current & ~31u) + lane]->value;
  yield(AT_WARP);
  return result;
}

void shim_copy_async(void *to, const void *from, unsigned bytes) {
  if (eager)
    std::memcpy(to, from, bytes);
  else
    fibers[current]->open.push_back({to, from, bytes});
}
void shim_copy_commit() {
  Fiber &me = *fibers[current];
  me.groups.push_back(std::move(me.open));
  me.open.clear();
}
void shim_copy_wait(unsigned newest) {
  Fiber &me = *fibers[current];
  while (me.groups.size() > newest) {
    for (const Copy &c : me.groups.front()) std::memcpy(c.to, c.from, c.bytes);
    me.groups.erase(me.groups.begin());
  }
}
