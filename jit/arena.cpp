// Blocks are placed in the order in which they begin: into the smallest gap that holds them, else at the end.
// A gap comes back when its block's last reader has run, and neighbouring gaps are joined.
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
}  // namespace

int64_t place_blocks(std::vector<ArenaBlock>& blocks) {
  if (blocks.empty()) return 0;
  Gaps gaps;
  using Death = std::pair<int32_t, int32_t>;  // last reader, block
  std::priority_queue<Death, std::vector<Death>, std::greater<>> alive;
  std::vector<char> taken(blocks.size(), 0);
  const auto room = [](const ArenaBlock& b) { return (b.bytes + kAlign - 1) / kAlign * kAlign; };
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

}  // namespace tandem::jit
