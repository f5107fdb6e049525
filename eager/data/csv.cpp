#include <charconv>
#include <system_error>

#include "tandem/core/io/gzip.h"
#include "tandem/eager/data/readers.h"

namespace tandem::data {

namespace {

/// A field as an error message may show it: short, printable, in quotes.
std::string shown(std::string_view field) {
  constexpr size_t kMost = 24;
  std::string text = "\"";
  for (const char c : field.substr(0, kMost)) text += c >= ' ' && c <= '~' ? c : '?';
  return text + (field.size() > kMost ? "...\"" : "\"");
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

class Parser {
 public:
  Parser(std::string_view text, const CsvOptions& options, const std::string& name, Location where)
      : text_(text), options_(options), name_(name), where_(where) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);  // a byte order mark
    while (!text_.empty() && (text_.back() == '\n' || text_.back() == '\r')) text_.remove_suffix(1);
  }

  Csv parse() {
    Csv out;
    if (options_.header && !text_.empty()) {
      split(next_line(), [&](std::string_view field) {
        if (field.size() >= 2 && field.front() == '"' && field.back() == '"')
          field = field.substr(1, field.size() - 2);
        out.columns.emplace_back(field);
      });
      columns_ = column_;
    }
    out.values = options_.dtype == int64     ? rows<int64_t>()
                 : options_.dtype == float64 ? rows<double>()
                                             : rows<float>();
    return out;
  }

 private:
  [[noreturn]] void refuse(const std::string& message) const {
    fail("csv: \"" + name_ + "\", line " + std::to_string(line_) + ": " + message, where_);
  }

  std::string_view next_line() {
    ++line_;
    const size_t end = text_.find('\n');
    std::string_view line = text_.substr(0, end);
    text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  }

  /// Calls `take(field)` for each field; column_ counts them.
  template <class Take>
  void split(std::string_view line, Take take) {
    column_ = 0;
    for (bool more = true; more;) {
      const size_t end = line.find(options_.delimiter);
      more = end != std::string_view::npos;
      ++column_;
      take(trimmed(line.substr(0, end)));
      if (more) line.remove_prefix(end + 1);
    }
  }

  template <class T>
  T number(std::string_view field) const {
    const auto where = [&] { return "column " + std::to_string(column_) + ": "; };
    std::string_view digits = field;
    if (digits.size() > 1 && digits[0] == '+' && digits[1] != '-') digits.remove_prefix(1);
    T value{};
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error == std::errc::result_out_of_range)
      refuse(where() + shown(field) + " is out of the range of " + name(options_.dtype));
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse(where() + (field.empty() ? "an empty field" : shown(field)) + " is no number" +
             (line_ == 1 && !options_.header ? "; a header line is read with .header = true" : ""));
    return value;
  }

  template <class T>
  Tensor rows() {
    std::vector<T> values;
    int64_t count = 0;
    while (!text_.empty()) {
      const std::string_view line = next_line();
      if (trimmed(line).empty()) refuse("an empty line between rows");
      split(line, [&](std::string_view field) {
        if (columns_ > 0 && column_ > columns_) refuse("more than " + std::to_string(columns_) + " fields");
        values.push_back(number<T>(field));
      });
      if (columns_ > 0 && column_ < columns_)
        refuse(std::to_string(column_) + " fields, but " + std::to_string(columns_) + " are expected");
      columns_ = column_;
      ++count;
    }
    if (count == 0) fail("csv: \"" + name_ + "\" holds no rows", where_);
    return tensor(std::span<const T>(values), {count, columns_}, {.dtype = dtype_of<T>, .device = cpu},
                  where_);
  }

  std::string_view text_;
  const CsvOptions options_;
  const std::string& name_;
  const Location where_;
  int64_t line_ = 0, column_ = 0, columns_ = 0;
};

}  // namespace

Csv parse_csv(std::string_view text, const CsvOptions& options, const std::string& name, Location where) {
  const char d = options.delimiter;
  if (d == '\n' || d == '\r' || d == '"' || d == '.' || d == '-' || d == '+' || (d >= '0' && d <= '9'))
    fail("csv: the delimiter cannot be part of a number, a quote or the end of a line", where);
  if (options.dtype != float32 && options.dtype != float64 && options.dtype != int64)
    fail(std::string("csv: values are read as float32, float64 or int64, asked for ") +
             tandem::name(options.dtype),
         where);
  return Parser(text, options, name, where).parse();
}

Csv read_csv(const std::string& path, const CsvOptions& options, Location where) {
  return parse_csv(core::read_maybe_gzip(path, int64_t{8} << 30, where), options, path, where);
}

}  // namespace tandem::data
