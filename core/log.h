// Logging in Tandem's own spdlog registry (never spdlog's default logger), to stderr, set by TANDEM_LOG. Any
// thread.
#pragma once

#include <string>

#include "tandem/core/location.h"

namespace tandem::core {

enum class LogArea { core, jit, trace, data };
enum class LogLevel { debug, info, warn, error };

/// True if a message of this level would be written: ask before building an expensive one.
bool log_enabled(LogArea area, LogLevel level);
void log(LogArea area, LogLevel level, const std::string& message);
/// Routes messages to `sink` instead of stderr; null restores stderr.
void set_log_sink(void (*sink)(LogArea, LogLevel, const std::string& message));
/// Applies a TANDEM_LOG specification, such as "jit:debug,trace:info" or "debug".
void set_log(const std::string& specification, Location where = Location::here());

}  // namespace tandem::core
