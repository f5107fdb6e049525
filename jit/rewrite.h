// What passes share: a new graph in the making, and passes that others run. Values; built on one thread.
#pragma once

#include <algorithm>

#include "tandem/jit/expand.h"
#include "tandem/jit/graph.h"

namespace tandem::jit {

inline bool is_op(const Node& n, OpId op) { return n.leaf == Leaf::op && n.op == op; }
inline bool is_view(const Graph& g, int32_t v) {
  const Node& n = g.node_of(v);
  return n.leaf == Leaf::op && ops::def(n.op).kind == ops::OpKind::view;
}

/// What a value counts for in costs: its elements, 2^50 at most, so that sums can be counted. Inputs that
/// repeat elements have more, and values that are refused later.
inline int64_t elements_in_costs(const TensorType& t) { return std::min(numel(t.sizes), int64_t{1} << 50); }
inline int64_t bytes_in_costs(const TensorType& t) { return elements_in_costs(t) * itemsize(t.dtype); }

/// A new graph in the making: its inputs and numbers are those of the old one, node by node it takes over the
/// rest.
class Rewrite {
 public:
  explicit Rewrite(const Graph& from) : from_(from), renamed_(from.values.size(), -1) {
    to.inputs = from.inputs;
    to.numbers = from.numbers;
    to.number_types = from.number_types;
  }

  int32_t copy(const Node& n) { return copy_node(to, from_, n, renamed_); }
  /// With these operands, values of the new graph; equal ones of `n` have equal ones here.
  int32_t copy(const Node& n, const std::vector<int32_t>& in) {
    std::vector<int32_t> old;
    for (const int32_t v : n.in) old.push_back((*this)[v]);
    rename(n.in, in);
    const int32_t first = copy(n);
    rename(n.in, old);
    return first;
  }
  int32_t operator[](int32_t v) const { return v < 0 ? v : renamed_[static_cast<size_t>(v)]; }
  /// The results of `n` are the values from `first` on.
  void name(const Node& n, int32_t first) {
    for (size_t j = 0; j < n.out.size(); ++j)
      renamed_[static_cast<size_t>(n.out[j])] = first + static_cast<int32_t>(j);
  }
  void name(int32_t v, int32_t value) { renamed_[static_cast<size_t>(v)] = value; }
  Graph finish() {
    for (Input& i : to.inputs) i.value = (*this)[i.value];
    for (const int32_t v : from_.outputs) to.outputs.push_back((*this)[v]);
    for (const Write& w : from_.writes) to.writes.push_back({w.input, (*this)[w.value]});
    return std::move(to);
  }

  Graph to;

 private:
  void rename(const std::vector<int32_t>& values, const std::vector<int32_t>& names) {
    for (size_t i = 0; i < values.size(); ++i)
      if (values[i] >= 0) renamed_[static_cast<size_t>(values[i])] = names[i];
  }

  const Graph& from_;
  std::vector<int32_t> renamed_;
};

/// Nodes that no output and no write needs are left out; inputs and numbers stay, since callers count them.
Graph dead_code(const Graph& g);

/// A relu before a max pooling, and its mask behind the pooling's gradient, run on the pooled elements.
Graph relu_behind_pooling(const Graph& g);

/// Sums of tensors padded with zeros around different parts become concatenations.
Graph join_pads(const Graph& g);

/// Values that live from before a product to long after it are computed again where they are used late, if
/// that frees memory and moves no more bytes.
Graph rematerialise(const Graph& g);

}  // namespace tandem::jit
