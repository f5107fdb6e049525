// Stores that go past the caches. A processor that does not know that a line will be written as a whole reads
// it first: a third of a copy's traffic, for a result of which the caches hold little when it is read.
// Values; any thread.
#pragma once

#include <cstdint>

namespace tandem::jit {

struct LoweredKernel;
struct Prepared;

/// Bytes of a result from which on the host's stores go past the caches: on AMD's processors half of the
/// last-level cache, and no less than the second-level caches of all threads; 0, for never, on others, where
/// nothing is gained as far as measured (benchmarks/NOTES.md).
int64_t host_non_temporal_nbytes();

/// Marks a kernel's stores of at least `nbytes` (Store::non_temporal), but for inputs that it reads, too;
/// none if that is 0.
void mark_non_temporal(LoweredKernel& l, const Prepared& p, int64_t nbytes);
/// What runs block by block leaves its results in the cache for what is next.
void clear_non_temporal(LoweredKernel& l);

}  // namespace tandem::jit
