#include "tandem/io/metrics.h"

#include <charconv>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "tandem/core/error.h"
#include "tandem/core/io/file.h"
#include "tandem/io/wire.h"

namespace tandem {

namespace {

std::string json_number(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  char digits[32];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, value);
  TANDEM_INTERNAL(error == std::errc(), "a double has more digits than expected");
  return {digits, end};
}

/// The "step" of a line; none if it is not one of ours.
std::optional<int64_t> step_of(std::string_view line) {
  const nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
  if (!parsed.is_object()) return std::nullopt;
  const auto step = parsed.find("step");
  if (step == parsed.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<int64_t>();
}

/// The lines of `text` that stay.
std::string kept_lines(const std::string& text, const std::optional<int64_t>& last_step,
                       const std::string& path, Location where) {
  std::string kept;
  int64_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++number;
    const std::string_view line(text.data() + begin, end - begin);
    const std::optional<int64_t> step = step_of(line);
    if (!step)
      fail("MetricsFile: \"" + path + "\", line " + std::to_string(number) +
               ": a JSON object with a whole \"step\" is expected",
           where);
    if (!last_step || *step <= *last_step) kept.append(text, begin, end + 1 - begin);
  }
  return kept;
}

}  // namespace

MetricsFile::MetricsFile(const std::string& path, const MetricsOptions& options, Location where)
    : path_(path), clock_(options.clock) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) core::make_folders(folder.string(), where);
  if (std::filesystem::exists(path)) {
    const std::string text = core::read_file(path, core::kMaxFileBytes, where);
    const std::string kept = kept_lines(text, options.last_step, path, where);
    if (kept.size() != text.size()) core::write_file_atomic(path, kept, where);
  }
  file_ = std::make_unique<core::AppendFile>(path, core::AppendFile::Open::append, where);
}

MetricsFile::~MetricsFile() = default;

void MetricsFile::write(int64_t step, Numbers numbers, Location where) {
  const double now =
      clock_ ? clock_()
             : std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string line = "{\"step\": " + std::to_string(step) + ", \"time\": " + json_number(now);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto& [name, value] = numbers[i];
    bool taken = name.empty() || name == "step" || name == "time";
    for (size_t j = 0; j < i; ++j) taken |= numbers[j].first == name;
    if (taken) fail("MetricsFile: the name \"" + name + "\" is empty, reserved or given twice", where);
    if (!io::is_utf8(name)) fail("MetricsFile: a name is not valid UTF-8", where);
    line += ", " + nlohmann::json(name).dump() + ": " + json_number(value);
  }
  line += "}\n";
  const std::lock_guard lock(mutex_);
  file_->append(line, where);
}

}  // namespace tandem
