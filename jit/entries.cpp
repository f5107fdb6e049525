#include "tandem/jit/entries.h"

#include <algorithm>
#include <utility>

namespace tandem::jit {

namespace {
constexpr size_t at(int64_t i) { return static_cast<size_t>(i); }
}  // namespace

void EntriesOfUnits::put(int32_t u, int32_t head) {
  units_[at(u)].alike.clear();
  head_.resize(units_.size(), -1);
  head_[at(u)] = head;
}

template <class F>
void EntriesOfUnits::for_before(int32_t u, F f) const {
  for (const int32_t b : units_[at(u)].before) f(of(b));
  for (const int32_t m : units_[at(u)].*members_)
    for (const int32_t b : units_[at(m)].before) f(of(b));
}

bool EntriesOfUnits::waits_but(int32_t u, int32_t left_out, int32_t wanted) const {
  std::vector<int32_t> todo;
  for_before(u, [&](int32_t b) {
    if (b != left_out) todo.push_back(b);
  });
  return reaches(
      std::move(todo), wanted, units_.size(), [&](int32_t x, auto f) { for_before(x, f); }, most_seen_);
}

void EntriesOfUnits::finish() {
  for (size_t i = 0; i < units_.size(); ++i) {
    const auto u = static_cast<int32_t>(i);
    if (is_member(u)) continue;
    std::vector<int32_t> before;
    for_before(u, [&](int32_t b) {
      if (b != u) before.push_back(b);
    });
    std::sort(before.begin(), before.end());
    before.erase(std::unique(before.begin(), before.end()), before.end());
    units_[i].before = std::move(before);
  }
  for (Unit& u : units_)
    for (int32_t& b : u.own_before) b = of(b);
}

}  // namespace tandem::jit
