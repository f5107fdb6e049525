#include "tandem/core/version.h"

namespace tandem::core {

const char* version() { return TANDEM_VERSION; }  // set by CMake for this file

}  // namespace tandem::core
