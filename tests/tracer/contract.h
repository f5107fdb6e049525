// Rows of the contract tests: a rule of docs/semantics.md, a program, and the mechanism that holds the rule.
// The rule must hold with the mechanism on; with it off the same program must go wrong (another value, a
// missing error), so that no row can pass for nothing.
#pragma once

#include <span>

#include "tests/catch.h"
#include "tests/tracer/programs.h"

namespace programs {

struct Contract {
  const char* rule;
  const char* text;
  td::tracer::Mechanism mechanism;
  bool (*holds)();
};

inline td::Tensor leaf(int64_t n, float first = 1) { return range(n, first).requires_grad_(); }

/// True if `f` throws and the message contains `part`.
inline bool throws(const std::function<void()>& f, const std::string& part) {
  try {
    f();
  } catch (const std::exception& e) {
    return std::string(e.what()).find(part) != std::string::npos;
  }
  return false;
}

inline bool holds_or_false(const Contract& c) {
  try {
    return c.holds();
  } catch (const std::exception&) {
    return false;
  }
}

/// All rows first, then all with their mechanisms off.
inline void check_contracts(std::span<const Contract> rows) {
  for (const Contract& c : rows) {
    INFO(c.rule << ": " << c.text);
    CHECK(c.holds());
  }
  for (const Contract& c : rows) {
    INFO(c.rule << ", with its mechanism off: " << c.text);
    const Off off(c.mechanism);
    CHECK_FALSE(holds_or_false(c));
  }
}

}  // namespace programs
