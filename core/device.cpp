#include "tandem/core/device.h"

#include "tandem/core/error.h"

namespace tandem {

std::string to_string(Device d) {
  switch (d.type) {
    case DeviceType::cpu:
      return "cpu";
    case DeviceType::cuda:
      return "cuda:" + std::to_string(d.index);
  }
  return "?";
}

Device parse_device(const std::string& text, Location where) {
  if (text == "cpu") return cpu;
  if (text == "cuda") return {DeviceType::cuda, 0};
  if (text.rfind("cuda:", 0) == 0 && text.size() > 5 && text.size() <= 8) {
    int index = 0;
    bool digits = true;
    for (const char c : text.substr(5)) {
      digits = digits && c >= '0' && c <= '9';
      index = index * 10 + (c - '0');
    }
    if (digits && index < 256) return {DeviceType::cuda, static_cast<uint8_t>(index)};
  }
  fail("device: \"" + text + "\" is not known; use \"cpu\", \"cuda\" or \"cuda:1\"", where);
}

}  // namespace tandem
