#include "tandem/core/modes.h"

namespace tandem {

namespace core {
constinit thread_local Modes modes_;
}  // namespace core

Device default_device() { return core::modes_.default_device; }
void set_default_device(Device d) { core::modes_.default_device = d; }

}  // namespace tandem
