// Stores that go past the caches. A processor that does not know that a line will be written as a whole reads
// it first: a third of a copy's traffic, for a result of which the caches hold nothing any more when it is
// read. Values; any thread.
#pragma once

#include <cstdint>

namespace tandem::jit {

struct LoweredKernel;

/// Bytes of a result from which on this processor's stores go past the caches: a quarter of the last-level
/// cache on AMD's; 0, for never, on others, which notice whole lines themselves.
int64_t non_temporal_bytes();

/// Marks a kernel's stores of at least `least` bytes (Store::non_temporal); none if it is 0.
void mark_non_temporal(LoweredKernel& l, int64_t least);
/// What runs block by block leaves its results in the cache for what is next.
void clear_non_temporal(LoweredKernel& l);

}  // namespace tandem::jit
