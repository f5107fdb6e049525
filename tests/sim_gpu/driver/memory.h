// The memory of the simulated devices, and pinned memory: each allocation a block of its own of exactly its
// size, full of 0xFF (NaN), with guard zones on both sides or, under the address sanitizer, its red zones.
// Used under the driver's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/sim_gpu/driver/state.h"

namespace sim_gpu {

struct Allocation {
  char* data = nullptr;
  size_t bytes = 0;
  int device = -1;        // -1: pinned memory
  char* block = nullptr;  // what the system gave
};

/// Null if there is no more memory.
char* allocate(size_t bytes, int device);
/// False if `data` is no allocation of that kind, or a guard zone was written over (told).
bool release(void* data, bool pinned);
/// The allocation that holds `address`; null for none.
const Allocation* find_allocation(uintptr_t address);
/// True if [address, address + bytes) lies inside one allocation of a device; else told.
bool holds(Pointer address, size_t bytes, const char* function);
/// The first allocation with a guard zone that was written over; "" for none.
std::string damaged_guard();
size_t live_bytes(int device);

/// The allocations whose addresses stand in `words`, or in a small allocation found so.
std::vector<const Allocation*> reachable(const std::vector<uint64_t>& words);

}  // namespace sim_gpu
