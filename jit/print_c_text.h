// The C printer's words: names of types and values, one line per scalar node. The loops around them are
// print_c.cpp's. One writer, one thread.
#pragma once

#include <string>

#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/type_names.h"

namespace tandem::jit {

/// Where a value is computed: how its loads address memory.
struct Place {
  std::string lane;    // position along the vectorised dimension; empty: there is none in scope
  std::string row;     // prefix of the offsets of the reduced position ("q": + q3 for load 3); empty: none
  std::string count;   // lanes in use
  std::string index;   // linear index of lane 0 in the iteration space
  bool array = false;  // values are declared as arrays over `u` beforehand
};

class CText {
 public:
  CText(const Kernel& k, const CPlan& plan) : k_(k), plan_(plan) {}

  std::string out;
  void line(const std::string& text);  // a brace at its end opens, one at its start closes a block
  void raw(const std::string& text) {
    out += std::string(static_cast<size_t>(depth_) * 2, ' ') + text + '\n';
  }
  static std::string constant(const ops::ScalarNode& n);

  /// The definitions of one node: its value and, where vectors read a scalar, the vector of it.
  void node(int32_t id, const Place& place);
  /// Its right-hand side alone.
  std::string value(int32_t id, const Place& place) const;
  void store(int32_t store, const Place& place);

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
  std::string load(int32_t id, const Place& place) const;
  std::string address(size_t slot, Inner inner, bool row_level, const Place& place) const;

  const Kernel& k_;
  const CPlan& plan_;
  std::vector<int32_t> arrays_;
  int depth_ = 0;
};

bool finds_index(ReduceOp op);

/// The kernel as comment lines, to stand before its code.
std::string kernel_comment(const Kernel& k);

}  // namespace tandem::jit
