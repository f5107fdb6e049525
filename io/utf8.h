// Texts for other tools' formats, which want UTF-8. Free function, any thread.
#pragma once

#include <optional>
#include <string>

namespace tandem::io {

/// The text as a string of JSON, in quotes; none if it is not valid UTF-8.
std::optional<std::string> json_string(const std::string& text);

}  // namespace tandem::io
