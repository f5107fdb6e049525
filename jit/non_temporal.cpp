#include "tandem/jit/non_temporal.h"

#include "tandem/jit/lower.h"
#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace tandem::jit {

namespace {

int64_t measured_bytes() {
#ifdef __x86_64__
  if (!__builtin_cpu_is("amd")) return 0;
  // CPUID 8000001D, AMD64 Architecture Programmer's Manual, volume 3, E.4.15: the caches, one a subleaf.
  int64_t last = 0;
  for (unsigned i = 0; i < 8; ++i) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(0x8000001d, i, &a, &b, &c, &d) == 0 || (a & 31) == 0) break;
    if ((a >> 5 & 7) < 3) continue;
    const int64_t ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1;
    last = ways * partitions * line * (int64_t{c} + 1);
  }
  return last / 4;
#else
  return 0;
#endif
}

}  // namespace

int64_t non_temporal_bytes() {
  static const int64_t bytes = measured_bytes();
  return bytes;
}

void mark_non_temporal(LoweredKernel& l, int64_t least) {
  if (least <= 0) return;
  int64_t elements = 1;
  for (const int64_t d : l.dims) elements *= d;
  for (Store& s : l.kernel.stores)
    s.non_temporal = s.inner == Inner::contiguous &&
                     !(s.row_level && l.kernel.kind != KernelKind::pointwise) &&
                     elements * itemsize(s.dtype) >= least;
}

void clear_non_temporal(LoweredKernel& l) {
  for (Store& s : l.kernel.stores) s.non_temporal = false;
}

}  // namespace tandem::jit
