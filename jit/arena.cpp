// Blocks are placed in three ways, and the one that needs least memory is taken. In the order in which they
// begin: into the smallest gap that holds them, else at the end; a gap comes back when its block's last
// reader has run, and neighbouring gaps are joined. Or, if they are not too many, the largest first: each
// into the smallest gap between those already there that live at the same time. Or so, those that live
// longest first. Only these two use memory that outputs lend.
#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <queue>

#include "tandem/core/error.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/planted_bugs.h"

namespace tandem::jit {

namespace {
constexpr int64_t kAlign = 64;

class Gaps {
 public:
  int64_t take(int64_t bytes) {
    auto best = gaps_.end();
    for (auto it = gaps_.begin(); it != gaps_.end(); ++it)
      if (it->second >= bytes && (best == gaps_.end() || it->second < best->second)) best = it;
    if (best != gaps_.end()) {
      const int64_t offset = best->first;
      const int64_t rest = best->second - bytes;
      gaps_.erase(best);
      if (rest > 0) gaps_.emplace(offset + bytes, rest);
      return offset;
    }
    // A gap at the end grows.
    int64_t offset = end_;
    if (!gaps_.empty()) {
      const auto last = std::prev(gaps_.end());
      if (last->first + last->second == end_) {
        offset = last->first;
        gaps_.erase(last);
      }
    }
    end_ = offset + bytes;
    return offset;
  }

  void give(int64_t offset, int64_t bytes) {
    auto it = gaps_.emplace(offset, bytes).first;
    if (const auto next = std::next(it); next != gaps_.end() && it->first + it->second == next->first) {
      it->second += next->second;
      gaps_.erase(next);
    }
    if (it != gaps_.begin()) {
      const auto previous = std::prev(it);
      if (previous->first + previous->second == it->first) {
        previous->second += it->second;
        gaps_.erase(it);
      }
    }
  }

  int64_t end() const { return end_; }

 private:
  std::map<int64_t, int64_t> gaps_;  // offset: bytes
  int64_t end_ = 0;
};

int64_t room(const ArenaBlock& b) { return (b.bytes + kAlign - 1) / kAlign * kAlign; }

int64_t place_in_time(std::vector<ArenaBlock>& blocks) {
  Gaps gaps;
  using Death = std::pair<int32_t, int32_t>;  // last reader, block
  std::priority_queue<Death, std::vector<Death>, std::greater<>> alive;
  std::vector<char> taken(blocks.size(), 0);
  for (size_t i = 0; i < blocks.size(); ++i) {
    ArenaBlock& b = blocks[i];
    if (b.output >= 0) continue;
    while (!alive.empty() && alive.top().first < b.first + planted(PlantedBug::arena_overlap)) {
      const auto dead = static_cast<size_t>(alive.top().second);
      alive.pop();
      if (!taken[dead]) gaps.give(blocks[dead].offset, room(blocks[dead]));
    }
    if (b.takes_over >= 0) {
      b.offset = blocks[static_cast<size_t>(b.takes_over)].offset;
      taken[static_cast<size_t>(b.takes_over)] = 1;
    } else {
      b.offset = gaps.take(room(b));
    }
    alive.emplace(b.last, static_cast<int32_t>(i));
  }
  return gaps.end();
}

/// Blocks that go on in one another, as one.
struct Chain {
  int32_t first, last;
  int64_t bytes, offset;
};

/// Memory that chains are placed in: an output's until it is needed, or the arena.
struct Room {
  int64_t bytes;
  int32_t until, output;
  std::vector<size_t> placed;  // chains, ascending by offset
};

/// Whether the chain fits in; it is placed then, in the smallest gap.
bool place_in(Room& room, std::vector<Chain>& chains, size_t c) {
  Chain& mine = chains[c];
  if (mine.last >= room.until || mine.bytes > room.bytes) return false;
  const auto before = [](const Chain& a, const Chain& b) {
    return a.last < b.first + planted(PlantedBug::arena_overlap);
  };
  int64_t from = 0, best = INT64_MAX;
  for (const size_t o : room.placed) {
    const Chain& other = chains[o];
    if (before(other, mine) || before(mine, other)) continue;
    const int64_t gap = other.offset - from;
    if (gap >= mine.bytes && gap < best) best = gap, mine.offset = from;
    from = std::max(from, other.offset + other.bytes);
  }
  if (best == INT64_MAX) {
    if (room.bytes - from < mine.bytes) return false;
    mine.offset = from;
  }
  const auto less = [&](int64_t offset, size_t o) { return offset < chains[o].offset; };
  room.placed.insert(std::upper_bound(room.placed.begin(), room.placed.end(), mine.offset, less), c);
  return true;
}

/// The largest first, or those that live longest.
int64_t place_greatest_first(std::vector<ArenaBlock>& blocks, bool by_life,
                             const std::vector<LentMemory>& lent) {
  constexpr size_t kNone = SIZE_MAX;
  constexpr int64_t kLarge = 16 * 1024;  // smaller ones stay together
  std::vector<Chain> chains;
  std::vector<size_t> chain_of;
  for (const ArenaBlock& b : blocks) {
    if (b.output >= 0) {
      chain_of.push_back(kNone);
    } else if (b.takes_over >= 0) {
      chain_of.push_back(chain_of[static_cast<size_t>(b.takes_over)]);
      chains[chain_of.back()].last = std::max(chains[chain_of.back()].last, b.last);
    } else {
      chain_of.push_back(chains.size());
      chains.push_back({b.first, b.last, room(b), 0});
    }
  }
  // What is needed soonest is used first: the others may serve longer.
  std::vector<Room> rooms;
  for (const LentMemory& l : lent)
    if (l.bytes >= kLarge) rooms.push_back({l.bytes / kAlign * kAlign, l.until, l.output, {}});
  std::stable_sort(rooms.begin(), rooms.end(),
                   [](const Room& a, const Room& b) { return a.until < b.until; });
  Room arena{INT64_MAX, INT32_MAX, -1, {}};
  std::vector<size_t> order(chains.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto rank = [&](size_t i) {
    const int64_t life = chains[i].last - chains[i].first;
    return by_life ? std::pair{life, chains[i].bytes} : std::pair{chains[i].bytes, life};
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rank(a) > rank(b); });
  std::vector<int32_t> output(chains.size(), -1);
  int64_t end = 0;
  for (const size_t c : order) {
    const auto fits = [&](Room& r) { return place_in(r, chains, c); };
    const auto lender =
        chains[c].bytes < kLarge ? rooms.end() : std::find_if(rooms.begin(), rooms.end(), fits);
    if (lender != rooms.end()) {
      output[c] = lender->output;
    } else {
      TANDEM_INTERNAL(place_in(arena, chains, c), "the arena has no end");
      end = std::max(end, chains[c].offset + chains[c].bytes);
    }
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (chain_of[i] == kNone) continue;
    blocks[i].offset = chains[chain_of[i]].offset;
    blocks[i].output = output[chain_of[i]];
  }
  return end;
}

}  // namespace

int64_t place_blocks(std::vector<ArenaBlock>& blocks, const std::vector<LentMemory>& lent) {
  constexpr size_t kMost = 4096;  // by size and by life every two are compared
  const std::vector<ArenaBlock> given = blocks;
  int64_t least = place_in_time(blocks);
  if (blocks.size() > kMost) return least;
  for (const bool by_life : {false, true}) {
    std::vector<ArenaBlock> other = given;
    const int64_t bytes = place_greatest_first(other, by_life, lent);
    if (bytes >= least) continue;
    least = bytes;
    blocks = std::move(other);
  }
  return least;
}

}  // namespace tandem::jit
