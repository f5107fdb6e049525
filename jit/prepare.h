// A graph made ready for grouping: composites and dead nodes gone, every view resolved to strided access to a
// *root* (an input or a value that some kernel computes), copies put in where memory must be contiguous or an
// output has none of its own. A value; immutable after `prepare`.
#pragma once

#include <vector>

#include "tandem/jit/contraction.h"
#include "tandem/jit/graph.h"

namespace tandem::jit {

enum class ValueClass : uint8_t {
  memory,   // a root, or a view of one
  number,   // a number: becomes scalar nodes of the kernels that use it
  uniform,  // a tensor whose elements are all one expression of numbers: likewise
};

/// Where a root must end up: an output, or (written) the memory of an input.
struct Destination {
  bool output = true;
  int32_t index = 0;
};

/// Where in the memory of another value a root lies.
struct Part {
  int32_t whole = -1;  // -1: in memory of its own, contiguous
  ops::Layout layout;  // with the root's sizes, relative to the memory of `whole`
};

struct Prepared {
  Graph g;
  std::vector<ValueClass> classes;   // per value
  std::vector<int32_t> roots;        // per value; itself for a root
  std::vector<ops::Layout> layouts;  // per value of class memory: relative to its root's memory
  std::vector<std::vector<Destination>> destinations;  // per value; roots only
  std::vector<std::vector<int32_t>> users;  // per root: nodes that read it or a view of it, ascending
  std::vector<char>
      constant;  // per node: small and known before the first run, so that the plan computes it once
  std::vector<Part> parts;  // per value; roots only
  std::vector<int32_t>
      of_source;               // per value of the graph that was prepared: the one here, -1 for a dead one
  std::vector<char> absorbed;  // per node: its operands' makers do its work; it has a group, but no entry

  const ops::Layout& layout(int32_t v) const { return layouts[static_cast<size_t>(v)]; }
  int32_t root(int32_t v) const { return roots[static_cast<size_t>(v)]; }
  int32_t values_node(int32_t v) const { return g.values[static_cast<size_t>(v)].node; }
  ValueClass value_class(int32_t v) const { return classes[static_cast<size_t>(v)]; }
  /// In what the value's elements lie.
  Form form(int32_t v) const {
    const int32_t input = input_of(root(v));
    return input < 0 ? Form::strides : g.inputs[static_cast<size_t>(input)].form;
  }
  /// Index among Graph::inputs of a root that is one; -1 for a computed one.
  int32_t input_of(int32_t v) const {
    const Node& n = g.node_of(v);
    return n.leaf == Leaf::input ? n.index : -1;
  }
};

/// `g` holds primitives only, and calls of a library (by_library). These, and convolutions of the library of
/// a CUDA device, read operands as they lie where they can, unless `packed`.
Prepared prepare(const Graph& g, Device device = cpu, bool packed = false);
/// The last step of `prepare`: parts and absorbed nodes. `products`: these may write parts, too.
void absorb_copies(Prepared& p, Device device, bool products);

/// plan_contraction for a node that is one; its result lies as `to` says, if given.
int contraction_of(const Prepared& p, const Node& n, Contraction& result, const ops::Layout* to = nullptr);

/// For a view of a computed root: which axis of the root each of its axes walks (-1: none, it repeats). False
/// unless each element of the root with more than one position is met and axes correspond one to one.
using AxisMap = int8_t[kMaxRank];
bool axes_of_root(const Dims& root_sizes, const ops::Layout& view, AxisMap map);

}  // namespace tandem::jit
