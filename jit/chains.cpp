// A small kernel goes to the first chain of those that it waits for, if it waits for nothing else that waits
// for that chain, and for nothing large that comes behind a large reader of that chain: this would have to
// wait, and what it reads would take memory so long.
#include "tandem/jit/chains.h"

#include <algorithm>
#include <limits>

#include "tandem/jit/entries.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit {

namespace {

constexpr size_t at(int64_t i) { return static_cast<size_t>(i); }
constexpr int64_t kMostElements = 4096;  // of a kernel: 16 a thread
constexpr int64_t kMostBytes = 1 << 16;  // of a value that a chain keeps waiting
constexpr size_t kMostSeen = 1024;       // units, when looking for what waits for what
constexpr size_t kMostKernels = 64;      // of a chain

class ChainMaker {
 public:
  ChainMaker(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping)
      : p_(p), g_(grouping), units_(units), entries_(units, &Unit::chain, kMostSeen) {}

  void run() {
    small_.reserve(units_.size());
    for (const Unit& u : units_) small_.push_back(is_small(u));
    large_reader_.assign(units_.size(), std::numeric_limits<int32_t>::max());
    large_awaited_.assign(units_.size(), -1);
    for (size_t u = 0; u < units_.size(); ++u)
      for (const int32_t b : units_[u].before) {
        if (!small_[u]) large_reader_[at(b)] = std::min(large_reader_[at(b)], units_[u].position);
        large_awaited_[u] = std::max(large_awaited_[u], last_large(b));
      }
    bool any = false;
    for (size_t u = 0; u < units_.size(); ++u) any = find_head(static_cast<int32_t>(u)) || any;
    if (any) entries_.finish();
  }

 private:
  bool may_fail(const Unit& u) const { return u.group >= 0 && g_.groups[at(u.group)].may_fail; }

  bool is_small(const Unit& u) const {
    const LoweredKernel& l = u.lowered;
    if (u.alike.size() != 1 || !u.columns.empty() || l.range == 0 || l.range * l.work > kMostElements)
      return false;
    if (u.group >= 0 && !g_.groups[at(u.group)].is_kernel()) return false;
    return std::all_of(l.slots.begin(), l.slots.end(), [&](const Slot& s) {
      const TensorType& t = p_.g.type(s.value);
      return p_.input_of(s.value) >= 0 || numel(t.sizes) <= kMostBytes / itemsize(t.dtype);
    });
  }

  bool find_head(int32_t u) {
    if (!small_[at(u)] || !units_[at(u)].chain.empty()) return false;
    for (const int32_t b : units_[at(u)].before) {
      const int32_t head = entries_.of(b);
      if (!small_[at(head)] || large_besides(u, head) > large_reader_[at(head)]) continue;
      if (!has_room(head, u) || entries_.waits_besides(u, head)) continue;
      units_[at(head)].chain.push_back(u);
      large_reader_[at(head)] = std::min(large_reader_[at(head)], large_reader_[at(u)]);
      large_awaited_[at(head)] = std::max(large_awaited_[at(head)], large_awaited_[at(u)]);
      entries_.put(u, head);
      return true;
    }
    return false;
  }

  /// The last position of a large unit that is `u` or that it waits for.
  int32_t last_large(int32_t u) const {
    return small_[at(u)] ? large_awaited_[at(u)] : units_[at(u)].position;
  }
  /// The same of what `u` waits for but `head`'s entry.
  int32_t large_besides(int32_t u, int32_t head) const {
    int32_t last = -1;
    for (const int32_t b : units_[at(u)].before)
      if (entries_.of(b) != head) last = std::max(last, last_large(entries_.of(b)));
    return last;
  }

  /// An entry tells of one op that may fail.
  bool has_room(int32_t head, int32_t u) const {
    if (units_[at(head)].chain.size() + 2 > kMostKernels) return false;
    std::vector<int32_t> all = {head};
    all.insert(all.end(), units_[at(head)].chain.begin(), units_[at(head)].chain.end());
    all.push_back(u);
    std::vector<ChainKernel> kernels;
    int failing = 0;
    for (const int32_t m : all) {
      const LoweredKernel& l = units_[at(m)].lowered;
      kernels.push_back({&l.kernel, l.dims.data(), l.range});
      failing += may_fail(units_[at(m)]);
    }
    return failing <= 1 && cuda_takes_chain(kernels);
  }

  const Prepared& p_;
  const Grouping& g_;
  std::vector<Unit>& units_;
  std::vector<char> small_;  // per unit
  // Per unit, positions: of the first large one that waits for its entry, of the last that it waits for.
  std::vector<int32_t> large_reader_, large_awaited_;
  EntriesOfUnits entries_;
};

}  // namespace

void attach_chains(const Prepared& p, std::vector<Unit>& units, const Grouping& grouping) {
  ChainMaker(p, units, grouping).run();
}

}  // namespace tandem::jit
