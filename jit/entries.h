// Whose entry a unit is in, while entries are put together of several. Values; built on one thread.
#pragma once

#include "tandem/jit/placement.h"

namespace tandem::jit {

class EntriesOfUnits {
 public:
  /// `members`: where a unit keeps those that are in its entry. `most_seen`: units that a search looks at.
  EntriesOfUnits(std::vector<Unit>& units, std::vector<int32_t> Unit::*members, size_t most_seen)
      : units_(units), members_(members), most_seen_(most_seen), head_(units.size(), -1) {}

  /// The unit that makes its entry.
  int32_t of(int32_t u) const { return is_member(u) ? head_[static_cast<size_t>(u)] : u; }
  /// Whether another unit does.
  bool is_member(int32_t u) const { return head_[static_cast<size_t>(u)] >= 0; }
  /// Puts a unit without members, which may be a new one, into the entry of `head`, whose list the caller
  /// keeps.
  void put(int32_t u, int32_t head);

  /// Whether entry `a` waits for entry `b`, another one, by a way; also if there are too many to know.
  bool waits(int32_t a, int32_t b) const { return waits_but(a, a, b); }
  /// Whether `u` waits for something besides `head` that waits for `head`; likewise.
  bool waits_besides(int32_t u, int32_t head) const { return waits_but(u, head, head); }

  /// At the end: units wait for entries.
  void finish();

 private:
  /// f(entry) for what the entry of `u` waits for.
  template <class F>
  void for_before(int32_t u, F f) const;
  /// Whether what the entry of `u` waits for, but `left_out`, is `wanted` or waits for it.
  bool waits_but(int32_t u, int32_t left_out, int32_t wanted) const;

  std::vector<Unit>& units_;
  std::vector<int32_t> Unit::*members_;
  size_t most_seen_;
  std::vector<int32_t> head_;  // per unit; -1: itself
};

}  // namespace tandem::jit
