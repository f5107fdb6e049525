#include "tandem/jit/prepare.h"

#include <bit>
#include <unordered_set>

#include "tandem/core/error.h"
#include "tandem/jit/attention_call.h"
#include "tandem/jit/contraction.h"
#include "tandem/jit/convolution_call.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/grouping.h"
#include "tandem/jit/in_place.h"
#include "tandem/jit/planted_bugs.h"

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;

bool axes_of_root(const Dims& root_sizes, const Layout& view, AxisMap map) {
  if (view.offset != 0) return false;
  const Dims strides = contiguous_strides(root_sizes);
  unsigned met = 0;
  for (int d = 0; d < view.sizes.rank(); ++d) {
    map[d] = -1;
    if (view.sizes[d] == 1 || view.strides[d] == 0) continue;
    for (int r = 0; r < root_sizes.rank(); ++r)
      if (root_sizes[r] == view.sizes[d] && strides[r] == view.strides[d] && !(met >> r & 1u))
        map[d] = static_cast<int8_t>(r);
    if (map[d] < 0) return false;
    met |= 1u << map[d];
  }
  for (int r = 0; r < root_sizes.rank(); ++r)
    if (root_sizes[r] != 1 && !(met >> r & 1u)) return false;
  return true;
}

namespace {

int planned(const Prepared& p, const Node& n, DType type, Contraction& result, const Layout* to) {
  const Layout* bias = n.in.size() > 2 && n.in[2] >= 0 ? &p.layout(n.in[2]) : nullptr;
  const int copied =
      plan_contraction(n.op, n.words, p.layout(n.in[0]), p.layout(n.in[1]), bias, type, result, to);
  if (p.form(n.in[1]) == Form::panels) {
    result.call.b_panels = true;
    result.call.b_row = result.call.b_col = 0;
  }
  return copied;
}

class Preparer {
 public:
  Preparer(const Graph& from, Device device, bool packed) : from_(from), device_(device), packed_(packed) {}

  Prepared run() {
    find_live();
    p_.g.inputs = from_.inputs;
    p_.g.numbers = from_.numbers;
    p_.g.number_types = from_.number_types;
    p_.g.nodes.reserve(from_.nodes.size());
    renamed_.assign(from_.values.size(), -1);
    for (size_t i = 0; i < from_.nodes.size(); ++i)
      if (live_[i]) add(from_.nodes[i]);
    for (Input& i : p_.g.inputs) i.value = renamed_[static_cast<size_t>(i.value)];
    p_.destinations.resize(p_.g.values.size());
    for (size_t i = 0; i < from_.outputs.size(); ++i) {
      const int32_t v = own_memory(renamed_[static_cast<size_t>(from_.outputs[i])], true);
      p_.g.outputs.push_back(v);
      send(v, {true, static_cast<int32_t>(i)});
    }
    for (const Write& w : from_.writes) {
      const int32_t input_value = p_.g.inputs[static_cast<size_t>(w.input)].value;
      const int32_t value = renamed_[static_cast<size_t>(w.value)];
      if (value == input_value) continue;
      const Layout& target = p_.layout(input_value);
      const int32_t v = own_memory(value, is_contiguous(target.sizes, target.strides));
      p_.g.writes.push_back({w.input, v});
      send(v, {false, w.input});
    }
    note_users();
    note_constants();
    p_.of_source = std::move(renamed_);
    return std::move(p_);
  }

 private:
  void find_live() {
    live_.assign(from_.nodes.size(), 0);
    uses_.assign(from_.values.size(), 0);
    const auto mark = [&](int32_t v) {
      if (v >= 0) live_[static_cast<size_t>(from_.values[static_cast<size_t>(v)].node)] = 1;
    };
    for (const int32_t v : from_.outputs) mark(v);
    for (const Write& w : from_.writes) mark(w.value);
    for (size_t i = from_.nodes.size(); i-- > 0;) {
      const Node& n = from_.nodes[i];
      if (n.leaf == Leaf::input) live_[i] = 1;
      if (!live_[i] || n.leaf == Leaf::count)
        continue;  // a count needs the sizes only, which are in the type
      for (const int32_t v : n.in) {
        mark(v);
        if (v >= 0) ++uses_[static_cast<size_t>(v)];
      }
    }
  }

  /// Appends the facts about values that the graph has gained.
  void note_values(ValueClass c, int32_t root, const Layout& layout) {
    while (p_.classes.size() < p_.g.values.size()) {
      const auto v = static_cast<int32_t>(p_.classes.size());
      p_.classes.push_back(c);
      p_.roots.push_back(root < 0 ? v : root);
      if (root >= 0 || c != ValueClass::memory) {
        p_.layouts.push_back(layout);
      } else {
        const Dims& sizes = p_.g.type(v).sizes;
        p_.layouts.push_back({sizes, contiguous_strides(sizes), 0});
      }
    }
  }

  /// A kernel that stores `v` anew: contiguous memory with the same elements.
  int32_t copy(int32_t v, Location where) {
    const int32_t c = add_cast(p_.g, v, p_.g.type(v).dtype, where);
    note_values(ValueClass::memory, -1, {});
    return c;
  }

  bool contiguous(int32_t v) const {
    return p_.value_class(v) == ValueClass::memory && is_contiguous(p_.layout(v).sizes, p_.layout(v).strides);
  }

  /// Whether a library's convolution takes its operands where they are.
  bool reads_as_they_lie(const Node& n, const TensorType& out) const {
    if (device_.type != DeviceType::cuda || packed_) return false;
    for (const int32_t v : n.in)
      if (v >= 0 && p_.value_class(v) != ValueClass::memory) return false;
    if (n.in.size() > 2 && n.in[2] >= 0 && !contiguous(n.in[2])) return false;
    return convolution_reads(p_.g, n, p_.layout(n.in[0]), p_.layout(n.in[1]), out.dtype, out.sizes, device_);
  }

  void add(const Node& source) {
    if (source.leaf == Leaf::count) return count(source);
    Node node = source;
    node.out.clear();
    for (int32_t& v : node.in)
      if (v >= 0) v = renamed_[static_cast<size_t>(v)];
    ValueClass c = ValueClass::memory;
    int32_t root = -1;
    Layout layout;
    if (node.leaf == Leaf::number || node.leaf == Leaf::constant || node.leaf == Leaf::number_op) {
      c = ValueClass::number;
    } else if (node.leaf == Leaf::op) {
      const ops::OpDef& d = ops::def(node.op);
      switch (d.kind) {
        case OpKind::view: {
          int32_t base = node.in[0];
          if (p_.value_class(base) != ValueClass::memory) {
            c = p_.value_class(base);
          } else {
            layout = view(node, base);
            if (!layout.possible) {
              base = node.in[0] = copy(base, node.where);
              layout = view(node, base);
            }
            root = p_.root(base);
          }
          break;
        }
        case OpKind::pointwise:
        case OpKind::fill:
          if (from_.type(source.out[0]).number)
            c = ValueClass::number;
          else if (uniform(node, d))
            c = ValueClass::uniform;
          break;
        case OpKind::piecewise:
        case OpKind::scatter:
        case OpKind::scan:
        case OpKind::kernel:
        case OpKind::convolution:
          if (d.kind == OpKind::convolution && reads_as_they_lie(node, from_.type(source.out[0]))) break;
          for (int32_t& v : node.in) {
            if (v < 0 || p_.g.type(v).number || contiguous(v) || joined_in_place(node, source, v)) continue;
            // A scatter begins with zeros by itself.
            if (d.kind == OpKind::scatter && &v == &node.in[0] && zeros(v)) continue;
            v = copy(v, node.where);
          }
          if (node.op == OpId::cat) join(node, source);
          break;
        case OpKind::gather:
          if (p_.value_class(node.in[0]) != ValueClass::memory) node.in[0] = copy(node.in[0], node.where);
          break;
        case OpKind::contraction: {
          for (int32_t& v : node.in)
            if (v >= 0 && p_.value_class(v) != ValueClass::memory) v = copy(v, node.where);
          Contraction c;
          const int awkward = planned(p_, node, from_.type(source.out[0]).dtype, c, nullptr);
          if (awkward >= 0)
            node.in[static_cast<size_t>(awkward)] = copy(node.in[static_cast<size_t>(awkward)], node.where);
          break;
        }
        case OpKind::reduction:
          reduce_unmerged(node, source);
          break;
        case OpKind::random:
          break;
        case OpKind::composite:
          TANDEM_INTERNAL(by_library(node), "a composite reached the planner");
          for (size_t i = 0; i < node.in.size(); ++i) {
            int32_t& v = node.in[i];
            if (v < 0 || p_.g.type(v).number) continue;
            const bool lies_well = p_.value_class(v) == ValueClass::memory && (!packed_ || contiguous(v)) &&
                                   library_reads(node, static_cast<int>(i), p_.layout(v));
            if (!lies_well) v = copy(v, node.where);
          }
          break;
      }
    } else if (node.leaf == Leaf::input) {
      layout = {from_.type(source.out[0]).sizes, from_.inputs[static_cast<size_t>(node.index)].strides, 0};
      root = static_cast<int32_t>(p_.g.values.size());
    }
    place(std::move(node), source, c, root, layout);
  }

  /// Whether a join finds this operand where it puts it.
  bool joined_in_place(const Node& node, const Node& source, const int32_t& operand) const {
    if (node.op != OpId::cat || p_.value_class(operand) != ValueClass::memory) return false;
    const TensorType& result = from_.type(source.out[0]);
    const int axis = normalize_axis(node.words[0], result.sizes.rank(), "cat", node.where);
    int64_t start = 0;
    for (const int32_t* v = node.in.data(); v != &operand; ++v) start += p_.g.type(*v).sizes[axis];
    return same_place(p_.layout(operand), p_.g.type(p_.root(operand)), result, axis, start);
  }

  /// What kernels have just made for a join, but others read, too, is copied: the copies are stored by the
  /// same kernels, where the join wants them, and nothing is left for it to do (absorb.cpp). Not where others
  /// can read the part.
  void join(Node& node, const Node& source) {
    constexpr int32_t kJust = 64;  // nodes
    const auto now = static_cast<int32_t>(p_.g.nodes.size());
    const bool just_made = std::all_of(node.in.begin(), node.in.end(), [&](int32_t v) {
      const int32_t maker = p_.values_node(p_.root(v));
      const Node& n = p_.g.nodes[static_cast<size_t>(maker)];
      return n.leaf == Leaf::op && ops::def(n.op).kind == OpKind::pointwise && maker > now - kJust;
    });
    const Dims& sizes = from_.type(source.out[0]).sizes;
    const int axis = normalize_axis(node.words[0], sizes.rank(), "cat", node.where);
    const bool in_one_piece =
        std::all_of(sizes.begin(), sizes.begin() + axis, [](int64_t n) { return n == 1; });
    for (size_t k = 0; k < node.in.size(); ++k) {
      int32_t& v = node.in[k];
      const bool again = !joined_.insert(p_.root(v)).second;
      if (just_made && (again || (!in_one_piece && uses_[static_cast<size_t>(source.in[k])] > 1)))
        v = copy(v, node.where);
    }
  }

  /// A reduction of a computed value whose axes a reshape merged (a batch norm's planes) reduces the value
  /// itself over all of the merged axes: the same elements in the same order, but one kernel can do both.
  void reduce_unmerged(Node& node, const Node& source) {
    const Node& view = p_.g.node_of(node.in[0]);
    if (view.leaf != Leaf::op || view.op != OpId::reshape) return;
    const int32_t base = view.in[0];
    const Dims &merged = p_.g.type(node.in[0]).sizes, &sizes = p_.g.type(base).sizes;
    if (from_.type(source.out[0]).sizes.rank() == merged.rank() || sizes.rank() <= merged.rank()) return;
    const Dims gone = reduced_axes(p_.g, node);
    Dims axes;
    uint32_t joined = 0;  // axes that follow the one before them in memory
    int next = 0;
    for (int d = 0; d < merged.rank(); ++d) {
      const int first = next;
      for (int64_t n = 1; n < merged[d] || next == first; ++next) {
        if (next == sizes.rank() || sizes[next] < 2) return;
        n *= sizes[next];
        if (n > merged[d]) return;
        if (next > first) joined |= 1u << next;
      }
      if (std::find(gone.begin(), gone.end(), d) == gone.end()) continue;
      for (int a = first; a < next; ++a) axes.push_back(a);
    }
    if (next != sizes.rank() || !walks_as_one(base, joined, 0)) return;
    const ops::OpDef& d = ops::def(node.op);
    for (int a = 0; a < d.n_attrs; ++a) {
      if (d.attrs[a].type != ops::AttrType::list) continue;
      const auto at = node.words.begin() + d.structural_index(a);
      const auto end = node.words.erase(at, at + 1 + *at);
      const auto count = node.words.insert(end, axes.rank());
      node.words.insert(count + 1, axes.begin(), axes.end());
    }
    node.in[0] = base;
  }

  /// Whether kernels that compute `v` walk these axes and the ones before them as one: row kernels are
  /// compiled for a single reduced axis.
  bool walks_as_one(int32_t v, uint32_t joined, int depth) const {
    const Node& n = p_.g.node_of(v);
    if (n.leaf != Leaf::op || ops::def(n.op).kind != OpKind::pointwise || p_.root(v) != v || depth > 8)
      return depth > 0;
    const Dims& sizes = p_.g.type(v).sizes;
    for (const int32_t x : n.in) {
      if (x < 0 || p_.value_class(x) != ValueClass::memory) continue;
      const Layout& l = p_.layout(x);
      const int missing = sizes.rank() - l.sizes.rank();
      const auto stride = [&](int axis) {
        return axis < missing || l.sizes[axis - missing] == 1 ? 0 : l.strides[axis - missing];
      };
      for (int axis = 1; axis < sizes.rank(); ++axis)
        if ((joined >> axis & 1) && stride(axis - 1) != stride(axis) * sizes[axis]) return false;
      if (l.sizes == sizes && !walks_as_one(x, joined, depth + 1)) return false;
    }
    return true;
  }

  void place(Node node, const Node& source, ValueClass c, int32_t root, const Layout& layout) {
    const auto id = static_cast<int32_t>(p_.g.nodes.size());
    for (size_t i = 0; i < source.out.size(); ++i) {
      const auto v = static_cast<int32_t>(p_.g.values.size());
      renamed_[static_cast<size_t>(source.out[i])] = v;
      node.out.push_back(v);
      p_.g.values.push_back({from_.type(source.out[i]), id, static_cast<int32_t>(i)});
    }
    p_.g.nodes.push_back(std::move(node));
    note_values(c, root, layout);
  }

  /// Sizes are known here; the number stays a run-time word of the kernels, so that their text does not
  /// depend on it.
  void count(const Node& source) {
    Node node = source;
    node.out.clear();
    node.in.clear();
    const Dims& sizes = from_.type(source.in[0]).sizes;
    double n = 1;
    for (const int64_t a : source.words) n *= static_cast<double>(sizes[static_cast<int>(a)]);
    node.bits = std::bit_cast<int64_t>(n);
    place(std::move(node), source, ValueClass::number, -1, {});
  }

  Layout view(const Node& node, int32_t base) {
    const TensorType& type = p_.g.type(base);
    const bool present = true;
    const ops::OpDef& d = ops::def(node.op);
    Layout l = d.view({d, {&type, 1}, {&present, 1}, node.words, node.where}, p_.layout(base));
    if (planted(PlantedBug::permutation_ignored) && node.op == OpId::permute && contiguous(base))
      l.strides = contiguous_strides(l.sizes);
    return l;
  }

  /// All elements equal: a formula of numbers and uniform tensors that does not look at the index.
  bool uniform(const Node& node, const ops::OpDef& d) const {
    for (const int32_t v : node.in)
      if (v >= 0 && p_.value_class(v) == ValueClass::memory) return false;
    if (d.kind == OpKind::pointwise) return true;
    ops::ScalarGraph scratch;
    std::vector<ops::S> in = {scratch.node(ops::ScalarOp::index, DType::int64)};
    int64_t k = 0;
    for (int a = 0; a < d.n_attrs; ++a) {
      if (!d.attrs[a].run_time()) continue;
      const DType type = d.attrs[a].type == ops::AttrType::dynamic ? DType::int64 : DType::float64;
      in.push_back(scratch.node(ops::ScalarOp::number, type, {}, {}, {}, k++));
    }
    ops::S out[ops::kMaxOutputs];
    d.formula(scratch, in.data(), out);
    std::vector<int32_t> open = {out[0].id};
    while (!open.empty()) {
      const ops::ScalarNode& n = scratch[open.back()];
      open.pop_back();
      if (n.op == ops::ScalarOp::index) return false;
      for (const int32_t i : n.in)
        if (i >= 0) open.push_back(i);
    }
    return true;
  }

  /// All elements are 0 whatever the run.
  bool zeros(int32_t v) const {
    while (p_.g.node_of(v).leaf == Leaf::op && ops::def(p_.g.node_of(v).op).kind == OpKind::view)
      v = p_.g.node_of(v).in[0];
    const Node& n = p_.g.node_of(v);
    if (n.leaf != Leaf::op || n.op != OpId::full) return false;
    const Node& value = p_.g.node_of(n.in.back());
    return value.leaf == Leaf::constant && value.bits == 0;
  }

  /// A root whose contiguous memory holds exactly the elements of `v`.
  int32_t own_memory(int32_t v, bool any_shape) {
    const Location where = p_.g.node_of(v).where;
    bool mine = p_.value_class(v) == ValueClass::memory && p_.input_of(p_.root(v)) < 0;
    if (mine) {
      const Layout& l = p_.layout(v);
      const Dims& sizes = p_.g.type(p_.root(v)).sizes;
      mine = l.offset == 0 && numel(sizes) == numel(l.sizes) && is_contiguous(l.sizes, l.strides) &&
             (any_shape || sizes == l.sizes);
    }
    if (mine) {
      v = p_.root(v);
      const Node& n = p_.g.node_of(v);
      const OpKind k = ops::def(n.op).kind;
      const bool kernel = k == OpKind::pointwise || k == OpKind::reduction || k == OpKind::random ||
                          k == OpKind::fill || k == OpKind::gather;
      if (kernel || p_.destinations[static_cast<size_t>(v)].empty())
        return v;  // only kernels store a value twice
    }
    v = copy(v, where);
    p_.destinations.resize(p_.g.values.size());
    return v;
  }

  void send(int32_t v, Destination d) { p_.destinations[static_cast<size_t>(v)].push_back(d); }

  void note_users() {
    p_.users.resize(p_.g.values.size());
    for (size_t i = 0; i < p_.g.nodes.size(); ++i) {
      const Node& n = p_.g.nodes[i];
      if (n.leaf != Leaf::op || ops::def(n.op).kind == OpKind::view) continue;
      for (const int32_t v : n.in) {
        if (v < 0 || p_.value_class(v) != ValueClass::memory) continue;
        auto& list = p_.users[static_cast<size_t>(p_.root(v))];
        if (list.empty() || list.back() != static_cast<int32_t>(i)) list.push_back(static_cast<int32_t>(i));
      }
    }
  }

  void note_constants() {
    constexpr int64_t kMaxElements = 1 << 14;
    p_.constant.assign(p_.g.nodes.size(), 0);
    for (size_t i = 0; i < p_.g.nodes.size(); ++i) {
      const Node& n = p_.g.nodes[i];
      if (n.leaf != Leaf::op || p_.value_class(n.out[0]) != ValueClass::memory) continue;
      const OpKind kind = ops::def(n.op).kind;
      if (kind != OpKind::fill && kind != OpKind::pointwise) continue;
      p_.constant[i] = p_.destinations[static_cast<size_t>(n.out[0])].empty() &&
                       numel(p_.g.type(n.out[0]).sizes) <= kMaxElements && known(n);
    }
  }

  /// Whether all that a node reads is known before the first run.
  bool known(const Node& n) const {
    for (const int32_t v : n.in) {
      if (v < 0) continue;
      const Node& from = p_.g.node_of(v);
      if (p_.value_class(v) == ValueClass::memory) {
        if (!p_.constant[static_cast<size_t>(p_.values_node(p_.root(v)))]) return false;
      } else if (from.leaf == Leaf::op ? !known(from) : from.leaf != Leaf::constant) {
        return false;
      }
    }
    return true;
  }

  const Graph& from_;
  const Device device_;
  const bool packed_;
  Prepared p_;
  std::vector<char> live_;
  std::vector<int32_t> uses_;  // per value of the given graph: operands that it is of live nodes
  std::vector<int32_t> renamed_;
  std::unordered_set<int32_t> joined_;  // roots that a join reads
};

}  // namespace

int contraction_of(const Prepared& p, const Node& n, Contraction& result, const Layout* to) {
  return planned(p, n, p.g.type(n.out[0]).dtype, result, to);
}

Prepared prepare(const Graph& g, Device device, bool packed) {
  Prepared p = Preparer(g, device, packed).run();
  absorb_copies(p, device, device.type == DeviceType::cpu || !packed);
  return p;
}

}  // namespace tandem::jit
