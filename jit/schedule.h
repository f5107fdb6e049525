// The order of a plan's entries and its arena: the last step of planning before entries are written down.
// Values; built on one thread.
#pragma once

#include <algorithm>

#include "tandem/jit/placement.h"

namespace tandem::jit {

struct Schedule {
  std::vector<int32_t> order;      // units
  std::vector<ArenaBlock> blocks;  // placed (Home::block)
  int64_t arena_bytes = 0;
};

/// Units in an order close to the program's, values of the arena in blocks by their lifetimes. Takes joined
/// units apart again where what they keep waiting makes the peak. `lend`: a value whose memory could go on in
/// an output lies there from the start, and a large arena uses the memory of outputs until they are made.
Schedule schedule(const Prepared& p, const Grouping& grouping, Placement& placed, bool lend);

/// The units that run in the entry of `u`.
inline std::vector<int32_t> members(const Unit& u) {
  std::vector<int32_t> all = u.alike;
  all.insert(all.end(), u.tails.begin(), u.tails.end());
  all.insert(all.end(), u.columns.begin(), u.columns.end());
  all.insert(all.end(), u.chain.begin(), u.chain.end());
  return all;
}

}  // namespace tandem::jit
