// The device on which the contract is tested: TANDEM_TEST_DEVICE=cuda, or the CPU.
#include <cstdlib>

#include "tandem/core/modes.h"

namespace {
const bool chosen = [] {
  if (const char* text = std::getenv("TANDEM_TEST_DEVICE"))
    tandem::set_default_device(tandem::parse_device(text));
  return true;
}();
}  // namespace
