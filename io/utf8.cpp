#include "tandem/io/utf8.h"

#include <nlohmann/json.hpp>

namespace tandem::io {

std::optional<std::string> json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    return std::nullopt;
  }
}

}  // namespace tandem::io
