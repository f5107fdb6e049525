// Where in the user's program an op was called: file and line, captured by default arguments.
// A plain value without ownership: `file` points to a string literal. Any thread.
#pragma once

namespace tandem {

/// A source position. As a defaulted parameter (`Location where = Location::here()`) it names the caller's
/// line.
struct Location {
  const char* file = "";
  int line = 0;

  static constexpr Location here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  constexpr bool known() const { return line > 0; }
};

}  // namespace tandem
