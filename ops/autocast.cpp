#include "tandem/ops/autocast.h"

#include <array>

namespace tandem::ops {

namespace {

constexpr size_t index(OpId op) { return static_cast<size_t>(op); }

constexpr struct {
  AutocastRule rule;
  OpId op;
} kRows[] = {
#define TANDEM_AUTOCAST(rule, op) {AutocastRule::rule, OpId::op},
#include "tandem/ops/autocast.def"
#undef TANDEM_AUTOCAST
};

constexpr std::array<AutocastRule, kOpCount> kRules = [] {
  std::array<AutocastRule, kOpCount> rules{};
  for (const auto& row : kRows) rules[index(row.op)] = row.rule;
  return rules;
}();

constexpr size_t touched() {
  size_t n = 0;
  for (const AutocastRule r : kRules) n += r != AutocastRule::none;
  return n;
}
static_assert(touched() == std::size(kRows), "an op has two rows in autocast.def");

// Families none of whose members may be forgotten.
#define TANDEM_ENTRY(name, ...) \
  static_assert(kRules[index(OpId::name)] == AutocastRule::lower, "a product without a row");
#include "tandem/ops/contraction.def"
#undef TANDEM_ENTRY
#define TANDEM_ENTRY(name, ...) \
  static_assert(kRules[index(OpId::name)] == AutocastRule::float32, "a loss without a row");
#include "tandem/ops/loss.def"
#undef TANDEM_ENTRY

}  // namespace

AutocastRule autocast_rule(OpId op) { return is_user(op) ? AutocastRule::none : kRules[index(op)]; }

}  // namespace tandem::ops
