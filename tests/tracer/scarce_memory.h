// Memory that runs out: while it lives, the process gets no more than a few bytes of address space, and
// malloc has no piece of twice as many left. Not beside sanitizers, which need memory themselves. Test code
// only.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/catch.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TANDEM_TEST_SCARCE_MEMORY 1
#endif

namespace tandem::test {

class ScarceMemory {
 public:
  explicit ScarceMemory(uint64_t more) {
    taken_.reserve(1024);
    getrlimit(RLIMIT_AS, &before_);
    const rlimit small{address_space() + more, before_.rlim_max};
    setrlimit(RLIMIT_AS, &small);
    while (taken_.size() < taken_.capacity()) {
      void* const piece = std::malloc(2 * more);
      if (!piece) break;
      taken_.push_back(piece);
    }
  }
  ~ScarceMemory() {
    setrlimit(RLIMIT_AS, &before_);
    for (void* piece : taken_) std::free(piece);
  }
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

 private:
  static uint64_t address_space() {
    std::FILE* f = std::fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    REQUIRE(f);
    const int read = std::fscanf(f, "%lu", &pages);
    std::fclose(f);
    REQUIRE(read == 1);
    return uint64_t{pages} * 4096;
  }

  rlimit before_{};
  std::vector<void*> taken_;
};

}  // namespace tandem::test
