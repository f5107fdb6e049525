// Members of ZIP archives, as NumPy's .npz files are: stored or deflated, without encryption. Free function,
// any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/core/location.h"

namespace tandem::core {

struct ZipMember {
  std::string name, bytes;
};

/// All members in the order of the archive's directory, their checksums compared. `name` is the archive's in
/// messages. Errors: what is no ZIP archive, is damaged or cut, asks for more than `max_bytes` in all, or
/// uses another method, encryption or ZIP64.
std::vector<ZipMember> read_zip(std::string_view archive, const std::string& name,
                                int64_t max_bytes = int64_t{8} << 30, Location where = {});

}  // namespace tandem::core
