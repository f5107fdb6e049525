// Settings of a kernel cache in a folder of a test's own, with the compiler of this machine.
#pragma once

#include "tandem/jit/kernel_cache.h"
#include "tests/catch.h"

namespace tandem::jit {

inline const HostCompiler& compiler() {
  static const auto found = HostCompiler::find("").release();
  REQUIRE(found != nullptr);
  return *found;
}

inline KernelCache::Settings settings(const std::string& folder) {
  KernelCache::Settings s;
  s.folder = folder;
  s.compiler = &compiler();
  s.options = {"-O0"};
  return s;
}

}  // namespace tandem::jit
