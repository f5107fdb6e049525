// Operands and results that the caches do not hold. Stores of such a result go past them: a processor that
// does not know that a line will be written as a whole reads it first, a third of a copy's traffic. Rows of
// such an operand are fetched ahead by walks that compute (print_c_walks.cpp). Values; any thread.
#pragma once

#include <cstdint>

namespace tandem::jit {

struct LoweredKernel;
struct Prepared;

/// Bytes of a result from which on the host's stores go past the caches: on AMD's processors half of the
/// last-level cache, and no less than the second-level caches of all threads; 0, for never, on others, where
/// nothing is gained as far as measured (benchmarks/NOTES.md).
int64_t host_non_temporal_nbytes();

/// Marks a kernel's loads of at least `nbytes` (Load::large), and its stores (Store::non_temporal), but for
/// those of inputs that it reads, too; none if that is 0.
void mark_large(LoweredKernel& l, const Prepared& p, int64_t nbytes);
/// What runs block by block has its operands in the cache, and leaves its results there for what is next.
void clear_large(LoweredKernel& l);

}  // namespace tandem::jit
