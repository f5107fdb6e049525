#include "tests/sim_gpu/driver/memory.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

namespace sim_gpu {

namespace {

constexpr size_t kAlign = 256;
#ifdef SIM_GPU_ADDRESS
constexpr size_t kGuard = 0;
#else
constexpr size_t kGuard = 256;
#endif
constexpr unsigned char kGuardByte = 0xA5;
/// Tables of addresses in device memory are followed up to this size.
constexpr size_t kTableBytes = 64 * 1024;

std::map<uintptr_t, Allocation>& live() {
  static auto* const all = new std::map<uintptr_t, Allocation>;
  return *all;
}

bool intact(const char* zone) {
  static const auto* const pattern = new std::string(kGuard, static_cast<char>(kGuardByte));
  return std::memcmp(zone, pattern->data(), kGuard) == 0;
}

std::string describe(const Allocation& a) {
  return (a.device < 0 ? "pinned memory" : "memory of device " + std::to_string(a.device)) + " of " +
         std::to_string(a.bytes) + " bytes";
}

std::string damage(const Allocation& a) {
  if (!intact(a.data - kGuard)) return "written before the begin of " + describe(a);
  if (!intact(a.data + a.bytes)) return "written past the end of " + describe(a);
  return {};
}

}  // namespace

char* allocate(size_t bytes, int device) {
  void* block = nullptr;
  if (posix_memalign(&block, kAlign, bytes + 2 * kGuard) != 0) return nullptr;
  Allocation a{static_cast<char*>(block) + kGuard, bytes, device, static_cast<char*>(block)};
  std::memset(a.block, kGuardByte, kGuard);
  std::memset(a.data, 0xFF, bytes);
  std::memset(a.data + bytes, kGuardByte, kGuard);
  live()[reinterpret_cast<uintptr_t>(a.data)] = a;
  add(device < 0 ? "host_allocations" : "live_allocations", 1);
  if (device >= 0) {
    add("allocations", 1);
    add("live_bytes", static_cast<long>(bytes));
  }
  return a.data;
}

bool release(void* data, bool pinned) {
  const auto found = live().find(reinterpret_cast<uintptr_t>(data));
  if (found == live().end() || (found->second.device < 0) != pinned) return false;
  const Allocation a = found->second;
  const std::string wrong = damage(a);
  live().erase(found);
  add(pinned ? "host_allocations" : "live_allocations", -1);
  if (!pinned) add("live_bytes", -static_cast<long>(a.bytes));
  std::free(a.block);
  if (!wrong.empty()) say("at its release: " + wrong);
  return wrong.empty();
}

const Allocation* find_allocation(uintptr_t address) {
  auto after = live().upper_bound(address);
  if (after == live().begin()) return nullptr;
  const Allocation& a = std::prev(after)->second;
  return address < reinterpret_cast<uintptr_t>(a.data) + a.bytes ? &a : nullptr;
}

bool holds(Pointer address, size_t bytes, const char* function) {
  const Allocation* a = find_allocation(address);
  if (a != nullptr && a->device >= 0 && address + bytes <= reinterpret_cast<uintptr_t>(a->data) + a->bytes)
    return true;
  say(std::string(function) + ": " + std::to_string(bytes) + " bytes that " +
      (a == nullptr    ? "lie in no allocation"
       : a->device < 0 ? "lie in pinned memory"
                       : "reach past the end of " + describe(*a)));
  return false;
}

std::string damaged_guard() {
  for (const auto& [address, a] : live()) {
    std::string wrong = damage(a);
    if (wrong.empty()) continue;
    // mended, so that the next launch is not blamed
    std::memset(a.data - kGuard, kGuardByte, kGuard);
    std::memset(a.data + a.bytes, kGuardByte, kGuard);
    return wrong;
  }
  return {};
}

size_t live_bytes(int device) {
  size_t sum = 0;
  for (const auto& [address, a] : live()) sum += a.device == device ? a.bytes : 0;
  return sum;
}

std::vector<const Allocation*> reachable(const std::vector<uint64_t>& words) {
  std::vector<const Allocation*> found;
  std::set<const Allocation*> seen;
  if (live().empty()) return found;
  const uintptr_t lowest = live().begin()->first,
                  highest = live().rbegin()->first + live().rbegin()->second.bytes;
  const auto follow = [&](uint64_t word) {
    if (word < lowest || word >= highest) return;
    const Allocation* a = find_allocation(word);
    if (a != nullptr && seen.insert(a).second) found.push_back(a);
  };
  for (const uint64_t word : words) follow(word);
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i]->bytes > kTableBytes) continue;
    for (size_t at = 0; at + 8 <= found[i]->bytes; at += 8) {
      uint64_t word;
      std::memcpy(&word, found[i]->data + at, sizeof word);
      follow(word);
    }
  }
  return found;
}

int sim_gpu_holds(const void* address, size_t bytes) {
  const Lock lock(mutex());
  return holds(reinterpret_cast<Pointer>(address), bytes, "sim_gpu_holds") ? 1 : 0;
}

}  // namespace sim_gpu
