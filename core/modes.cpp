#include "tandem/core/modes.h"

#include <string>

#include "tandem/core/error.h"

namespace tandem {

namespace core {
constinit thread_local Modes modes_;
}  // namespace core

Modes Autocast::with(DType type, bool enabled, Location where) {
  if (type != DType::bfloat16 && type != DType::float16)
    fail(std::string("autocast: the type must be bfloat16 or float16, found ") + name(type), where);
  Modes m = modes();
  m.autocast = enabled ? static_cast<uint8_t>(1 + static_cast<int>(type)) : 0;
  return m;
}

Device default_device() { return core::modes_.default_device; }
void set_default_device(Device d) { core::modes_.default_device = d; }

}  // namespace tandem
