#include "tandem/jit/non_temporal.h"

#include <algorithm>

#include "tandem/core/thread_pool.h"
#include "tandem/jit/lower.h"
#ifdef __x86_64__
#include <cpuid.h>
#endif

namespace tandem::jit {

namespace {

/// Bytes of the second-level cache and of the last one, which cores share; 0 where they are not told.
struct Caches {
  int64_t second = 0, last = 0;
};

Caches caches_of_amd() {
  Caches found;
#ifdef __x86_64__
  if (!__builtin_cpu_is("amd")) return found;
  // CPUID 8000001D, AMD64 Architecture Programmer's Manual, volume 3, E.4.15: the caches, one a subleaf.
  for (unsigned i = 0; i < 8; ++i) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(0x8000001d, i, &a, &b, &c, &d) == 0 || (a & 31) == 0) break;
    const int64_t ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1;
    const unsigned level = a >> 5 & 7;
    if (level == 2) found.second = ways * partitions * line * (int64_t{c} + 1);
    if (level >= 3) found.last = ways * partitions * line * (int64_t{c} + 1);
  }
#endif
  return found;
}

/// Whether the store of slot `s` goes to an input that the kernel reads.
bool over_its_input(const LoweredKernel& l, const Prepared& p, const Slot& s) {
  if (s.destination < 0) return false;
  const Destination& to = p.destinations[static_cast<size_t>(s.value)][static_cast<size_t>(s.destination)];
  return !to.output && std::any_of(l.slots.begin(), l.slots.end(), [&](const Slot& other) {
    return !other.store && p.input_of(other.value) == to.index;
  });
}

}  // namespace

int64_t host_non_temporal_nbytes() {
  static const Caches caches = caches_of_amd();
  return caches.last == 0 ? 0 : std::max(caches.last / 2, num_threads() * caches.second);
}

void mark_large(LoweredKernel& l, const Prepared& p, int64_t nbytes) {
  if (nbytes <= 0) return;
  for (size_t i = 0; i < l.kernel.loads.size(); ++i) l.kernel.loads[i].large = l.load_bytes[i] >= nbytes;
  const int64_t elements = elements_of(l.dims.data(), static_cast<int>(l.dims.size()));
  for (size_t i = 0; i < l.kernel.stores.size(); ++i) {
    Store& s = l.kernel.stores[i];
    const bool of_elements = !s.row_level || l.kernel.kind == KernelKind::pointwise;
    s.non_temporal = of_elements && s.inner == Inner::contiguous && elements * itemsize(s.dtype) >= nbytes &&
                     !over_its_input(l, p, l.slots[l.kernel.loads.size() + i]);
  }
}

void clear_large(LoweredKernel& l) {
  for (Load& load : l.kernel.loads) load.large = false;
  for (Store& s : l.kernel.stores) s.non_temporal = false;
}

}  // namespace tandem::jit
