// Copies whose stores go past the caches (non_temporal.h of the JIT says when that pays). Any thread.
#pragma once

#include <cstdint>

namespace tandem::core {

/// memcpy; whole lines of `to` are written past the caches, where the processor can. Other threads see them
/// behind order_non_temporal().
void copy_non_temporal(void* to, const void* from, int64_t bytes);
void order_non_temporal();

}  // namespace tandem::core
