#include "tandem/core/allocator.h"

#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/free_lists.h"
#include "tandem/core/memory.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::core;

namespace {
struct PoisonGuard {
  explicit PoisonGuard(bool on) : before(set_poison(on)) {}
  ~PoisonGuard() { set_poison(before); }
  bool before;
};
}  // namespace

TEST_CASE("size classes cover every size with little waste", "[allocator]") {
  for (int c = 1; c < kClassCount; ++c) CHECK(class_bytes(c) > class_bytes(c - 1));
  for (int64_t n = 1; n < 100'000; n += 7) {
    const int c = size_class(static_cast<uint64_t>(n - 1) / kBlockUnit);
    REQUIRE(class_bytes(c) >= n);
    REQUIRE((c == 0 || class_bytes(c - 1) < n));
    REQUIRE((n < 512 || class_bytes(c) - n <= n / 4 + kBlockUnit));
  }
  for (int c = 0; c < kClassCount; ++c)
    CHECK(size_class(static_cast<uint64_t>(class_bytes(c) / kBlockUnit - 1)) == c);
}

TEST_CASE("blocks are aligned, distinct and writable", "[allocator]") {
  std::vector<std::pair<char*, int64_t>> blocks;
  for (const int64_t n : {0, 1, 63, 64, 65, 511, 513, 4096, 65536, 65537, 1 << 20, (1 << 20) + 1, 5 << 20}) {
    for (int copy = 0; copy < 3; ++copy) {
      char* p = static_cast<char*>(allocate(n));
      REQUIRE(reinterpret_cast<uintptr_t>(p) % 64 == 0);
      std::memset(p, static_cast<int>(blocks.size() + 1), static_cast<size_t>(n));
      blocks.emplace_back(p, n);
    }
  }
  int wrong = 0;
  for (size_t i = 0; i < blocks.size(); ++i)
    for (int64_t k = 0; k < blocks[i].second; ++k)
      if (blocks[i].first[k] != static_cast<char>(i + 1)) ++wrong;
  CHECK(wrong == 0);
  for (const auto& [p, n] : blocks) deallocate(p, n);
  deallocate(nullptr, 64);
}

TEST_CASE("a warm allocation does not reach the system", "[allocator]") {
  if (kBypassCaches) return;
  const int64_t kSizes[] = {16, 80, 4096, 100'000, 3 << 20, 40 << 20};
  const auto round = [&] {
    std::vector<void*> blocks;
    for (const int64_t n : kSizes) blocks.push_back(allocate(n));
    for (size_t i = 0; i < blocks.size(); ++i) deallocate(blocks[i], kSizes[i]);
  };
  round();
  const int64_t before = allocator_stats().system_calls;
  for (int i = 0; i < 100; ++i) round();
  CHECK(allocator_stats().system_calls == before);
  CHECK(allocator_stats().cached_bytes >= 43 << 20);
  empty_cache();
  CHECK(allocator_stats().cached_bytes == 0);
  round();
  CHECK(allocator_stats().system_calls == before + 6);
}

TEST_CASE("lists are bounded", "[allocator]") {
  if (kBypassCaches) return;
  empty_cache();
  std::vector<void*> small(20'000);
  for (void*& p : small) p = allocate(64);
  for (void* p : small) deallocate(p, 64);
  CHECK(allocator_stats().cached_bytes <= 4096 * 64);
  CHECK(allocator_stats().cached_bytes >= 1000 * 64);
  empty_cache();
  std::vector<void*> large(24);
  for (void*& p : large) p = allocate(int64_t{63} << 20);
  for (void* p : large) deallocate(p, int64_t{63} << 20);
  CHECK(allocator_stats().cached_bytes <= int64_t{1} << 30);
  CHECK(allocator_stats().cached_bytes >= int64_t{60} << 20);
  // Another size gets in all the same.
  void* other = allocate(int64_t{50} << 20);
  deallocate(other, int64_t{50} << 20);
  const int64_t before = allocator_stats().system_calls;
  deallocate(allocate(int64_t{50} << 20), int64_t{50} << 20);
  CHECK(allocator_stats().system_calls == before);
  empty_cache();
}

TEST_CASE("live and peak count large blocks of all threads", "[allocator]") {
  const int64_t before = allocator_stats().live_bytes;
  void* block = nullptr;
  std::thread([&] { block = allocate(10 << 20); }).join();
  CHECK(allocator_stats().live_bytes == before + (10 << 20));
  CHECK(allocator_stats().peak_bytes >= before + (10 << 20));
  deallocate(block, 10 << 20);
  CHECK(allocator_stats().live_bytes == before);
  CHECK(allocator_stats().peak_bytes >= before + (10 << 20));
}

TEST_CASE("the peak can begin again", "[allocator]") {
  const tandem::DeviceMemory before = tandem::device_memory(tandem::cpu);
  void* kept = allocate(3 << 20);
  deallocate(allocate(64 << 20), 64 << 20);
  CHECK(tandem::device_memory(tandem::cpu).peak_bytes >= before.live_bytes + (67 << 20));
  tandem::reset_peak_memory(tandem::cpu);
  const tandem::DeviceMemory now = tandem::device_memory(tandem::cpu);
  CHECK(now.live_bytes == before.live_bytes + (3 << 20));
  CHECK(now.peak_bytes == now.live_bytes);
  deallocate(allocate(8 << 20), 8 << 20);
  CHECK(tandem::device_memory(tandem::cpu).peak_bytes == now.live_bytes + (8 << 20));
  deallocate(kept, 3 << 20);
}

// In a process of its own, since nothing switches it off again.
TEST_CASE("small blocks are counted to the byte where that is asked for", "[allocator]") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    void* before = allocate(100);
    deallocate(before, 100);  // waits in a list
    count_small_blocks();
    const int64_t live = allocator_stats().live_bytes;
    reset_peak_bytes();
    void* a = allocate(100);
    void* b = allocate(256 << 10);
    deallocate(allocate(64), 64);
    bool right = allocator_stats().live_bytes == live + 100 + (256 << 10);
    right = right && allocator_stats().peak_bytes == live + 164 + (256 << 10);
    deallocate(a, 100);
    deallocate(b, 256 << 10);
    right = right && allocator_stats().live_bytes == live;
#ifndef __SANITIZE_THREAD__  // which has no threads after a fork
    std::thread([&] {
      const int64_t calls = allocator_stats().system_calls;
      for (int i = 0; i < 3; ++i) deallocate(allocate(5000), 5000);
      right = right && allocator_stats().system_calls == calls + 3 && allocator_stats().live_bytes == live;
    }).join();
#endif
    _exit(right ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a block may be freed on another thread", "[allocator]") {
  for (int round = 0; round < 20; ++round) {
    std::vector<char*> blocks(200);
    std::thread([&] {
      for (char*& p : blocks) p = static_cast<char*>(allocate(256)), std::memset(p, 7, 256);
    }).join();
    for (char* p : blocks) {
      REQUIRE(p[255] == 7);
      deallocate(p, 256);
    }
  }
}

TEST_CASE("a thread that ends returns its blocks", "[allocator]") {
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = in_use();
  for (int i = 0; i < 40; ++i) {
    std::thread([] {
      deallocate(allocate(1 << 20), 1 << 20);
      for (int k = 0; k < 3; ++k) deallocate(allocate(5000), 5000);
    }).join();
  }
  CHECK(in_use() < before + (8 << 20));
}

namespace {
// Its destructor runs after the lists of its thread are closed: thread-locals die in reverse order of
// construction.
struct LateUser {
  std::vector<void*> blocks;
  ~LateUser() {
    for (void* p : blocks) deallocate(p, 128);
    deallocate(allocate(128), 128);
  }
};
}  // namespace

TEST_CASE("thread-locals that die after the lists may still allocate and free", "[allocator]") {
  std::thread([] {
    thread_local LateUser late;
    late.blocks.reserve(4);
    for (int i = 0; i < 4; ++i) late.blocks.push_back(allocate(128));
  }).join();
}

TEST_CASE("fresh memory is poisoned on every allocation", "[allocator]") {
  PoisonGuard guard(true);
  for (const int64_t n : {1, 80, 5000, 100'000, 2 << 20}) {
    for (int round = 0; round < 2; ++round) {
      unsigned char* p = static_cast<unsigned char*>(allocate(n));
      int64_t other = 0;
      for (int64_t i = 0; i < n; ++i) other += p[i] != 0xFF;
      CHECK(other == 0);
      std::memset(p, 0, static_cast<size_t>(n));
      deallocate(p, n);
    }
  }
  CHECK(set_poison(false));
  CHECK_FALSE(set_poison(true));
}

TEST_CASE("impossible sizes are errors", "[allocator]") {
  CHECK_THROWS_WITH(allocate(-1), "allocate: negative size -1");
  CHECK_THROWS_WITH(allocate(int64_t{1} << 60), Contains("allocate: no memory for"));
  CHECK_THROWS_AS(allocate(std::numeric_limits<int64_t>::max()), Error);
  CHECK_THROWS_AS(allocate(std::numeric_limits<int64_t>::min()), Error);
}
