// The printer of one kernel: the frame of the function and the loops of each kind. One printer, one thread.
//
// Names in the printed text: p, o: where loads and stores stand; s: strides; d: sizes; c: counters of the
// kept dimensions; q: offsets of the reduced position; v: values; w: the vector of a scalar; r: a scalar to
// divide by; x: checked offsets of indexed loads, n and m their extents and strides; e: counters of the
// reduced dimensions; h: offsets of lanes; a: accumulators; t: totals; k: row buffers; g: random draws; f:
// whether a store goes past the caches; y, z: results across rows: all, and of this block.
#pragma once

#include <string>

#include "tandem/jit/print_c_text.h"

namespace tandem::jit {

class CPrinter {
 public:
  CPrinter(const Kernel& k, const CPlan& plan) : k_(k), plan_(plan), t_(k, plan) {}
  std::string print(const std::string& symbol);

 private:
  // The frame: print_c.cpp.
  void start();
  std::string non_temporal_text(size_t slot) const;
  void counters(int dims, std::string from);
  void advance(int dims);
  void pointers(int dims, const std::string& lane);
  void open_segments(int64_t limit = 0);
  void close_segments();
  void pointwise();

  // Walks over reduced dimensions: print_c_walks.cpp.
  std::string identity(const Reduction& r, bool vector = true) const;
  std::string accumulator(const Reduction& r, bool vector = true) const;
  void accumulate(int32_t r, const std::string& acc, const std::string& position, bool masked);
  void row();
  void row_walk(const CPass& pass);
  void row_body(const CPass& pass);
  void row_offsets(const CPass& pass);
  /// Elements of a row.
  std::string row_size() const { return k_.reduced_rank > 1 ? "size" : "d" + std::to_string(k_.kept_rank); }
  void begin_block();
  Reduction reduction(const Across& c) const;
  int cost(const CPass& pass) const;
  void fetch_ahead(const CPass& pass, const std::string& position);
  void fetch_next_row(const CPass& pass, const std::string& position);
  bool stores_past_caches() const;
  void column();
  void column_values(const std::vector<int32_t>& values, const std::string& size);
  void column_walk(const CPass& pass);
  void column_body(const CPass& pass);
  void reduced_counters();

  int rank() const { return k_.kept_rank + k_.reduced_rank; }
  size_t slots() const { return k_.loads.size() + k_.stores.size(); }
  bool is_load(size_t slot) const { return slot < k_.loads.size(); }
  const Load& load(size_t slot) const { return k_.loads[slot]; }
  const Store& store(size_t slot) const { return k_.stores[slot - k_.loads.size()]; }
  bool slot_used(size_t slot) const { return !is_load(slot) || plan_.load_used[slot]; }
  Inner slot_inner(size_t slot) const { return is_load(slot) ? load(slot).inner : store(slot).inner; }
  /// Whether the reduced dimensions do not move it.
  bool slot_row_level(size_t slot) const;
  /// "const td_f32*"
  std::string slot_pointer_type(size_t slot) const;
  /// "p2"
  std::string slot_pointer(size_t slot) const;

  const Kernel& k_;
  const CPlan& plan_;
  CText t_;
  bool limited_ = false;  // segments end before their row does
};

/// Advances the counters of dimensions [first, last): "if (++c1 == d1) { c1 = 0; ++c0; }".
std::string c_step(const std::string& counter, int first, int last);

}  // namespace tandem::jit
