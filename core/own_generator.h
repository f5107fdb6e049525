// A generator that stands in for the default one on this thread alone, while the scope lives; other threads
// go on with the process's. Scopes of one thread nest.
#pragma once

#include "tandem/core/generator.h"

namespace tandem::core {

class OwnGenerator {
 public:
  OwnGenerator(uint64_t seed, uint64_t offset);
  ~OwnGenerator();
  OwnGenerator(const OwnGenerator&) = delete;
  OwnGenerator& operator=(const OwnGenerator&) = delete;

 private:
  Generator generator_;
  Generator* before_;
};

}  // namespace tandem::core
