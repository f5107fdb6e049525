// Blocks are placed in three ways, and the one that needs least memory is taken. In the order in which they
// begin: into the smallest gap that holds them, else at the end; a gap comes back when its block's last
// reader has run, and neighbouring gaps are joined. Or, if they are not too many, the largest first: each
// into the smallest gap between those already there that live at the same time.
#include <algorithm>
#include <functional>
#include <map>
#include <queue>

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

/// The largest first, or those that live longest. Blocks that take over one another's memory are one, from
/// the first's begin to the last's end.
int64_t place_greatest_first(std::vector<ArenaBlock>& blocks, bool by_life) {
  std::vector<int32_t> owner(blocks.size());
  std::vector<ArenaBlock> whole = blocks;
  for (size_t i = 0; i < blocks.size(); ++i) {
    owner[i] =
        blocks[i].takes_over < 0 ? static_cast<int32_t>(i) : owner[static_cast<size_t>(blocks[i].takes_over)];
    ArenaBlock& w = whole[static_cast<size_t>(owner[i])];
    w.last = std::max(w.last, blocks[i].last);
  }
  std::vector<int32_t> order;
  for (size_t i = 0; i < blocks.size(); ++i)
    if (owner[i] == static_cast<int32_t>(i)) order.push_back(owner[i]);
  const auto rank = [&](int32_t i) {
    const ArenaBlock& b = whole[static_cast<size_t>(i)];
    const int64_t life = b.last - b.first;
    return by_life ? std::pair{life, room(b)} : std::pair{room(b), life};
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return rank(a) > rank(b); });
  std::vector<int32_t> placed;  // by offset
  int64_t end = 0;
  for (const int32_t i : order) {
    ArenaBlock& b = whole[static_cast<size_t>(i)];
    const int64_t bytes = room(b);
    int64_t from = 0, best = -1, best_gap = 0;
    for (const int32_t k : placed) {
      const ArenaBlock& other = whole[static_cast<size_t>(k)];
      const int32_t early = planted(PlantedBug::arena_overlap);
      if (other.last < b.first + early || b.last < other.first + early) continue;
      const int64_t gap = other.offset - from;
      if (gap >= bytes && (best < 0 || gap < best_gap)) best = from, best_gap = gap;
      from = std::max(from, other.offset + room(other));
    }
    b.offset = best >= 0 ? best : from;
    end = std::max(end, b.offset + bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](int32_t x, int32_t y) {
                                     return whole[static_cast<size_t>(x)].offset <
                                            whole[static_cast<size_t>(y)].offset;
                                   }),
                  i);
  }
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i].offset = whole[static_cast<size_t>(owner[i])].offset;
  return end;
}

}  // namespace

int64_t place_blocks(std::vector<ArenaBlock>& blocks) {
  constexpr size_t kMost = 2000;  // the others are quadratic
  if (blocks.empty()) return 0;
  int64_t least = place_in_time(blocks);
  if (blocks.size() > kMost) return least;
  for (const bool by_life : {false, true}) {
    std::vector<ArenaBlock> other = blocks;
    const int64_t bytes = place_greatest_first(other, by_life);
    if (bytes >= least) continue;
    least = bytes;
    blocks = std::move(other);
  }
  return least;
}

}  // namespace tandem::jit
