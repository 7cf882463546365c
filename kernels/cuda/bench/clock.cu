// Benchmarks only: counts the multiprocessor's cycles over at least two milliseconds.
extern "C" __global__ void bench_clock(unsigned long long *out) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin)::"memory");
  long long cycles = clock64();
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
  } while (now - begin < 2000000);
  out[0] = (unsigned long long)(clock64() - cycles);
  out[1] = now - begin;
}
