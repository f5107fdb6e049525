// Where values live and what must run before what: the first half of planning, before anything is lowered.
// Groups become *units*, one future entry each. Values; built on one thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tandem/jit/plan.h"

namespace tandem::jit {

struct Unit {
  int32_t group = -1;  // -1: `copy`
  StoreTarget copy{-1, -1};
  int32_t position = 0;             // program order
  std::vector<int32_t> before;      // units that run earlier
  std::vector<int32_t> own_before;  // of one of several that are alike: before they became one
  LoweredKernel lowered;            // kernels
  std::string text;
  std::vector<int32_t>
      alike;  // units whose calls this one makes, itself first; empty if another one makes its calls
  std::vector<int32_t> tails;    // product: kernels that follow it row by row, in order (tails.h)
  std::vector<int32_t> columns;  // kernels that join what this one's leave of blocks of rows (across.h)
  bool behind_columns = false;   // it waits for such a kernel
  std::vector<int32_t> chain;  // small kernels that follow this one in its thread block, in order (chains.h)
};

struct Home {
  Base base = Base::none;
  int32_t index = 0;
  int32_t block = -1;  // arena
};

struct Placement {
  std::vector<Unit> units;  // of the groups, in their order, then copies, then what planning adds
  std::vector<Home> homes;  // per value
  std::vector<std::vector<StoreTarget>> stores;  // per group: what its kernel puts into memory
};

/// Values that are written to an input's memory go there at once where no later reader of the old value is
/// harmed and nothing that may end the run comes after; else a copy unit does it. Other values get a home
/// where something outside reads them.
Placement place(const Prepared& p, const Grouping& grouping);

/// The node of a group that may fail; the first one if none does.
int32_t notable_node(const Prepared& p, const Group& g);

/// Adds to `u.before`.
void add_before(std::vector<Unit>& units, Unit& u, int32_t other);

/// Whether one of `todo`, units of so many, is `wanted` or waits for it by a way; or nobody knows after
/// looking at `most`. `for_before(u, f)` calls f(b) for each b that `u` waits for.
template <class ForBefore>
bool reaches(std::vector<int32_t> todo, int32_t wanted, size_t units, ForBefore for_before,
             size_t most = SIZE_MAX) {
  std::vector<char> seen(units, 0);
  for (size_t n = 0; !todo.empty(); ++n) {
    const int32_t u = todo.back();
    todo.pop_back();
    if (u == wanted || n == most) return true;
    for_before(u, [&](int32_t b) {
      if (!std::exchange(seen[static_cast<size_t>(b)], 1)) todo.push_back(b);
    });
  }
  return false;
}

/// Whether unit `a` runs after `b`, or is `b`, by Unit::before.
bool runs_after(const std::vector<Unit>& units, int32_t a, int32_t b);

}  // namespace tandem::jit
