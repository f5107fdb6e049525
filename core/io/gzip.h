// Files that may be compressed with gzip, as data sets are. Free function, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/core/location.h"

namespace tandem::core {

/// The bytes of a file, unpacked if it begins as gzip does (several members in a row count as one file). An
/// Error if the file or what it unpacks to has more than `max_bytes`, or if it is damaged, cut or followed by
/// other bytes.
std::string read_maybe_gzip(const std::string& path, int64_t max_bytes = int64_t{8} << 30,
                            Location where = {});

}  // namespace tandem::core
