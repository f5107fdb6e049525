// Which Tandem this is: the version of the project in CMakeLists.txt. A constant; any thread.
#pragma once

namespace tandem::core {

/// "major.minor.patch".
const char* version();

}  // namespace tandem::core
