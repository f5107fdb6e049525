// Where memory lives and ops run. Values only, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/core/location.h"

namespace tandem {

enum class DeviceType : uint8_t { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  uint8_t index = 0;
  friend constexpr bool operator==(Device, Device) = default;
};

inline constexpr Device cpu{};

/// "cpu", "cuda:0".
std::string to_string(Device d);
/// Parses "cpu", "cuda", "cuda:1"; anything else is an Error.
Device parse_device(const std::string& text, Location where = Location::here());

}  // namespace tandem
