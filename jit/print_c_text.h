// The C printer's words: names of types and values, one line per scalar node. The loops around them are
// print_c.cpp's. One writer, one thread.
#pragma once

#include <string>

#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/print_text.h"

namespace tandem::jit {

/// Where a value is computed: how its loads address memory.
struct CPlace {
  std::string lane;    // position along the vectorised dimension; empty: there is none in scope
  std::string row;     // prefix of the offsets of the reduced position ("q": + q3 for load 3); empty: none
  std::string count;   // lanes in use
  std::string index;   // linear index of lane 0 in the iteration space
  bool array = false;  // values are declared as arrays over `u` beforehand
  bool ends = false;   // unless `whole`, the innermost dimension ends within the lanes: h3 are their offsets
};

class CText : public CodeText {
 public:
  CText(const Kernel& k, const CPlan& plan) : k_(k), plan_(plan) {}

  /// The definitions of one node: its value and, where vectors read a scalar, the vector of it.
  void node(int32_t id, const CPlace& place);
  /// Its right-hand side alone.
  std::string value(int32_t id, const CPlace& place) const;
  void store(int32_t store, const CPlace& place);

  /// How an expression names a node: as a vector where `vector`.
  std::string name(int32_t id, bool vector) const;
  void set_array(int32_t id) { arrays_.push_back(id); }
  /// The stride of access `slot` (loads, then stores) along dimension `dim` of the space.
  std::string stride(size_t slot, int dim) const;
  int inner_dim() const;
  /// A random function of the linear index itself: its lanes are consecutive, and words are drawn for several
  /// vectors.
  bool draws_in_order(const ops::ScalarNode& n) const;
  size_t store_slot(int32_t store) const { return k_.loads.size() + static_cast<size_t>(store); }

 private:
  /// Whether a vector is of one row.
  bool along_row() const { return k_.kind == KernelKind::row && !k_.side_by_side; }
  std::string load(int32_t id, const CPlace& place) const;
  std::string address(size_t slot, Inner inner, bool row_level, const CPlace& place) const;

  const Kernel& k_;
  const CPlan& plan_;
  std::vector<int32_t> arrays_;
};

}  // namespace tandem::jit
