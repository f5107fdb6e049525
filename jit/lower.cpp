// Nodes become scalar expressions in program order: an operand made in the group is an expression, any other
// a load whose strides follow from where the node's axes lie in the space. Halves are computed in float32 and
// rounded after every node, so that fusing changes no bit. At the end neighbouring dimensions that every
// access walks as one are merged.
#include "tandem/jit/lower.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <unordered_map>
#include <utility>

#include "tandem/core/error.h"
#include "tandem/jit/planted_bugs.h"

namespace tandem::jit {

using ops::Layout;
using ops::OpKind;
using ops::S;
using ops::ScalarOp;
using ops::TypeRule;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
constexpr bool is_half(DType t) { return t == DType::float16 || t == DType::bfloat16; }
constexpr DType wide(DType t) { return is_half(t) ? DType::float32 : t; }

S convert(S s, DType type) {
  if (s.type() == type) return s;
  const ops::ScalarNode& n = (*s.graph)[s.id];
  if (n.op == ScalarOp::constant && !is_half(type)) {
    const double value = is_floating(n.type) ? std::bit_cast<double>(n.bits) : static_cast<double>(n.bits);
    if (type == DType::float32) return s.graph->constant(type, static_cast<float>(value));
    if (type == DType::float64) return s.graph->constant(type, value);
    if (type == DType::bool_) return s.graph->constant(type, value != 0);
    const double limit = type == DType::uint8 ? 255 : type == DType::int32 ? 2147483647 : 9e15;
    if (value >= 0 && value <= limit && std::trunc(value) == value) return s.graph->constant(type, value);
  }
  if (is_half(s.type())) return convert(ops::cast(s, DType::float32), type);
  if (is_half(type)) return ops::cast(convert(s, DType::float32), type);
  return ops::cast(s, type);
}

class Lowering {
 public:
  Lowering(const Prepared& p, const Grouping& grouping, const Group& group, int32_t index)
      : p_(p), grouping_(grouping), group_(group), index_(index) {
    for (int d = 0; d < group_.space.rank(); ++d)
      if (!(group_.reduced >> d & 1)) order_.push_back(d);
    kept_ = static_cast<int>(order_.size());
    for (int d = 0; d < group_.space.rank(); ++d)
      if (group_.reduced >> d & 1) order_.push_back(d);
    r_.kernel.kind = group_.kind == GroupKind::row      ? KernelKind::row
                     : group_.kind == GroupKind::column ? KernelKind::column
                                                        : KernelKind::pointwise;
  }

  LoweredKernel run(const std::vector<StoreTarget>& stores) {
    for (const int32_t i : group_.nodes) {
      const Node& n = p_.g.nodes[at(i)];
      scalars_.emplace(n.out[0], node(i, n));
      if (!r_.kernel.name.empty()) r_.kernel.name += '+';
      r_.kernel.name += ops::def(n.op).name;
    }
    for (const StoreTarget& t : stores) store(t, scalars_.at(t.value), store_strides(p_, grouping_, t));
    return finish();
  }

  /// Instead of `run`: a plain copy of a value to a destination.
  LoweredKernel copy(const StoreTarget& to, const SpaceStrides& from_strides,
                     const SpaceStrides& to_strides) {
    r_.kernel.name = "copy";
    store(to, load(to.value, 0, from_strides, kNoIndex, 0, 0), to_strides);
    return finish();
  }

 private:
  // --- Numbers and uniform tensors ---

  S number(int32_t v) {
    if (const auto it = scalars_.find(v); it != scalars_.end()) return it->second;
    const Node& n = p_.g.node_of(v);
    S s;
    switch (n.leaf) {
      case Leaf::constant:
        s = graph().constant(DType::float64, std::bit_cast<double>(n.bits));
        break;
      case Leaf::number:
      case Leaf::count: {
        const DType type = p_.g.type(v).dtype;
        s = graph().node(ScalarOp::number, type == DType::float64 ? type : DType::int64, {}, {}, {},
                         static_cast<int64_t>(r_.numbers.size()));
        r_.numbers.push_back(v);
        break;
      }
      case Leaf::number_op: {
        const auto op = static_cast<ScalarOp>(n.words[0]);
        S in[3];
        for (size_t i = 0; i < n.in.size(); ++i) in[i] = convert(number(n.in[i]), DType::float64);
        s = arithmetic(op, in);
        break;
      }
      case Leaf::op:
        s = formula(n);
        break;
      case Leaf::input:
        internal_error("a tensor used as a number");
    }
    scalars_.emplace(v, s);
    return s;
  }

  S arithmetic(ScalarOp op, const S* in) {
    switch (op) {
#define TANDEM_SCALAR(name, arity, result) \
  case ScalarOp::name:                     \
    return convert(TANDEM_SCALAR_##arity(name), DType::float64);
#define TANDEM_SCALAR_1(name) ops::s_##name(in[0])
#define TANDEM_SCALAR_2(name) ops::s_##name(in[0], in[1])
#define TANDEM_SCALAR_3(name) ops::s_##name(in[0], in[1], in[2])
#include "tandem/ops/scalar.def"
#undef TANDEM_SCALAR
#undef TANDEM_SCALAR_1
#undef TANDEM_SCALAR_2
#undef TANDEM_SCALAR_3
      case ScalarOp::load:
      case ScalarOp::number:
      case ScalarOp::constant:
      case ScalarOp::index:
      case ScalarOp::reduced:
      case ScalarOp::count_:
        break;
    }
    internal_error("no arithmetic on numbers: " + std::string(ops::name(op)));
  }

  // --- Operands ---

  /// Operand `k` of node `i` as an expression of its own type.
  S operand(int32_t i, const Node& n, int k) {
    const int32_t v = n.in[at(k)];
    if (p_.value_class(v) != ValueClass::memory) return inline_value(v);
    const int32_t root = p_.root(v);
    const int32_t maker = p_.values_node(root);
    if (i >= 0 && grouping_.group_of[at(maker)] == index_)
      return lookup_ && walks(maker, lookup_->axis) ? looked_up(maker) : made_here(root);
    SpaceStrides strides = read_strides(p_, grouping_, i, k);
    if (!lookup_ || strides[at(lookup_->axis)] == 0)
      return load(v, p_.layout(v).offset, strides, counts(p_, v) ? kCounts : kNoIndex, 0, 0);
    const int64_t step = std::exchange(strides[at(lookup_->axis)], 0);
    return load(v, p_.layout(v).offset, strides, lookup_->index, group_.space[lookup_->axis], step);
  }

  S made_here(int32_t root) {
    const S s = scalars_.at(root);
    const ops::ScalarNode& n = graph()[s.id];
    if (planted(PlantedBug::rounding_skipped) && n.op == ScalarOp::cast && is_half(n.type))
      return {s.graph, n.in[0]};
    return s;
  }

  bool walks(int32_t i, int axis) const {
    const Axes& axes = grouping_.axes[at(i)];
    return ops::def(p_.g.nodes[at(i)].op).kind != OpKind::reduction &&
           std::find(axes.begin(), axes.end(), axis) != axes.end();
  }

  /// A full-level node's value at the position that a gather asks for: its expression once more, over indexed
  /// loads.
  S looked_up(int32_t i) {
    const Node& n = p_.g.nodes[at(i)];
    if (const auto it = lookup_->values.find(i); it != lookup_->values.end()) return it->second;
    const S s = pointwise(i, n, ops::def(n.op));
    lookup_->values.emplace(i, s);
    return s;
  }

  S inline_value(int32_t v) {
    if (p_.value_class(v) == ValueClass::number) return number(v);
    int32_t u = v;
    while (p_.g.node_of(u).leaf == Leaf::op && ops::def(p_.g.node_of(u).op).kind == OpKind::view)
      u = p_.g.node_of(u).in[0];
    if (p_.value_class(u) == ValueClass::number) return number(u);
    if (const auto it = scalars_.find(u); it != scalars_.end()) return it->second;
    const S s = formula(p_.g.node_of(u));
    scalars_.emplace(u, s);
    return s;
  }

  S load(int32_t v, int64_t offset, const SpaceStrides& strides, int32_t index, int64_t extent,
         int64_t step) {
    const int32_t root = p_.root(v);
    const DType type = p_.g.type(v).dtype;
    for (size_t l = 0; l < r_.kernel.loads.size(); ++l)
      if (load_slots_[l].value == root && load_slots_[l].offset == offset && load_access_[l] == strides &&
          r_.kernel.loads[l].index == index && (index < 0 || steps_[l] == std::pair{extent, step}))
        return graph().node(ScalarOp::load, type, {}, {}, {}, static_cast<int64_t>(l));
    Load l{};
    l.dtype = type;
    l.index = index;
    r_.kernel.loads.push_back(l);
    load_access_.push_back(strides);
    load_slots_.push_back({root, -1, offset, false});
    steps_.emplace_back(extent, step);
    const int64_t before = r_.bytes;
    note_bytes(strides, type);
    r_.load_bytes.push_back(r_.bytes - before);
    return graph().node(ScalarOp::load, type, {}, {}, {}, static_cast<int64_t>(r_.kernel.loads.size()) - 1);
  }

  void note_bytes(const SpaceStrides& strides, DType type) {
    const Dims& space = group_.space;  // with an axis of 0 nothing moves, however long the others are
    if (std::find(space.begin(), space.end(), 0) != space.end()) return;
    int64_t n = itemsize(type);
    for (int d = 0; d < group_.space.rank(); ++d)
      if (strides[at(d)] != 0) n = checked_mul(n, space[d], "bytes of a value");
    r_.bytes = checked_add(r_.bytes, n, "bytes of a kernel");
  }

  void store(const StoreTarget& to, S value, const SpaceStrides& strides) {
    Store s{};
    s.dtype = value.type();
    s.value = value.id;
    r_.kernel.stores.push_back(s);
    store_access_.push_back(strides);
    store_slots_.push_back({to.value, to.destination, 0, true});
    const int64_t loaded = r_.bytes;
    note_bytes(strides, s.dtype);
    r_.bytes_stored += r_.bytes - loaded;
  }

  // --- Nodes ---

  S node(int32_t i, const Node& n) {
    const ops::OpDef& d = ops::def(n.op);
    switch (d.kind) {
      case OpKind::pointwise:
        return pointwise(i, n, d);
      case OpKind::reduction:
        return reduction(i, n, d);
      case OpKind::gather:
        return gather(i, n);
      case OpKind::random:
      case OpKind::fill:
        return formula(n);
      case OpKind::view:
      case OpKind::piecewise:
      case OpKind::scatter:
      case OpKind::scan:
      case OpKind::kernel:
      case OpKind::contraction:
      case OpKind::convolution:
      case OpKind::composite:
        break;
    }
    internal_error(std::string("not the work of a kernel: ") + d.name);
  }

  S pointwise(int32_t i, const Node& n, const ops::OpDef& d) {
    const DType result = p_.g.type(n.out[0]).dtype;
    if (d.types == TypeRule::cast) return convert(operand(i, n, 0), result);
    const auto n_in = n.in.size() - static_cast<size_t>(d.n_numbers());
    std::vector<TensorType> types(n_in);
    const auto present = std::make_unique<bool[]>(n_in);
    for (size_t k = 0; k < n_in; ++k)
      if ((present[k] = n.in[k] >= 0)) types[k] = p_.g.type(n.in[k]);
    const DType compute = d.types == TypeRule::logical
                              ? DType::bool_
                              : wide(ops::compute_type({d, types, {present.get(), n_in}, n.words, n.where}));
    std::vector<S> in;
    for (size_t k = 0; k < n.in.size(); ++k) {
      if (k >= n_in) {
        in.push_back(run_time_attribute(n, d, k - n_in));
        continue;
      }
      const DType wanted = d.types == TypeRule::select && k == 0 ? DType::bool_ : compute;
      in.push_back(convert(operand(i, n, static_cast<int>(k)), wanted));
    }
    S out[ops::kMaxOutputs];
    d.formula(graph(), in.data(), out);
    return convert(out[0], result);
  }

  /// A fill, a random op, or a pointwise op of numbers and uniform tensors.
  S formula(const Node& n) {
    const ops::OpDef& d = ops::def(n.op);
    if (d.kind == OpKind::pointwise) return pointwise(-1, n, d);
    std::vector<S> in = {graph().node(ScalarOp::index, DType::int64)};
    const size_t n_in = n.in.size() - static_cast<size_t>(d.n_numbers());
    for (size_t k = n_in; k < n.in.size(); ++k) in.push_back(run_time_attribute(n, d, k - n_in));
    S out[ops::kMaxOutputs];
    d.formula(graph(), in.data(), out);
    return convert(out[0], p_.g.type(n.out[0]).dtype);
  }

  /// The `i`-th run-time attribute as formulas expect it: float64, or int64 where it is dynamic.
  S run_time_attribute(const Node& n, const ops::OpDef& d, size_t i) {
    int attr = 0;
    for (size_t seen = 0;; ++attr)
      if (d.attrs[attr].run_time() && seen++ == i) break;
    const size_t n_in = n.in.size() - static_cast<size_t>(d.n_numbers());
    return convert(inline_value(n.in[n_in + i]),
                   d.attrs[attr].type == ops::AttrType::dynamic ? DType::int64 : DType::float64);
  }

  S reduction(int32_t i, const Node& n, const ops::OpDef& d) {
    const DType result = p_.g.type(n.out[0]).dtype;
    const S operand_value = operand(i, n, 0);
    const DType own = wide(operand_value.type());
    const DType carrier = is_floating(own) ? own : DType::int64;
    const S input = convert(operand_value, carrier);
    const bool finds_index = d.reduce == ReduceOp::argmax || d.reduce == ReduceOp::argmin;
    bool any = false;
    for (const int64_t a : reduced_axes(p_.g, n))
      any = any || grouping_.axes[at(i)][static_cast<size_t>(a)] >= 0;
    if (!any) return finds_index ? graph().constant(DType::int64, 0) : convert(input, result);
    const Reduction reduction{d.reduce, input.id, finds_index ? DType::int64 : carrier};
    auto& all = r_.kernel.reductions;
    const auto k = std::find(all.begin(), all.end(), reduction) - all.begin();
    if (k == static_cast<std::ptrdiff_t>(all.size())) all.push_back(reduction);
    return convert(graph().node(ScalarOp::reduced, reduction.type, {}, {}, {}, k), result);
  }

  S gather(int32_t i, const Node& n) {
    const S index = convert(operand(i, n, 1), DType::int64);
    const int axis = gather_axis(p_.g, n);
    const Layout& x = p_.layout(n.in[0]);
    if (const int32_t maker = p_.values_node(p_.root(n.in[0])); grouping_.group_of[at(maker)] == index_) {
      Lookup lookup{index.id, std::countr_zero(group_.reduced), {}};
      lookup_ = &lookup;
      const S s = looked_up(maker);
      lookup_ = nullptr;
      return s;
    }
    Layout others = x;
    others.sizes[axis] = 1;
    return load(n.in[0], x.offset, walk(grouping_.axes[at(i)], others), index.id, x.sizes[axis],
                x.strides[axis]);
  }

  // --- The kernel ---

  LoweredKernel finish() {
    Kernel& k = r_.kernel;
    std::vector<SpaceStrides> access = load_access_;
    access.insert(access.end(), store_access_.begin(), store_access_.end());
    if (k.kind == KernelKind::pointwise && kept_ > 1 &&
        has_numbers_of_rows(group_.space, order_.back(), load_access_, store_access_))
      k.kind = KernelKind::row, --kept_;

    // Dimensions of the kernel: runs of axes of the space, kept and reduced apart.
    struct Dimension {
      int axis;
      int64_t size;
    };
    std::vector<Dimension> dims;
    int kept = 0;
    for (int o = 0; o < static_cast<int>(order_.size()); ++o) {
      const int axis = order_[at(o)];
      const int64_t size = group_.space[axis];
      bool joins = o > 0 && o != kept_ && !dims.empty();
      for (size_t s = 0; s < access.size() && joins; ++s)
        joins = access[s][at(dims.back().axis)] == access[s][at(axis)] * size;
      if (joins) {
        dims.back().axis = axis;
        dims.back().size *= size;
      } else {
        dims.push_back({axis, size});
        if (o < kept_) ++kept;
      }
    }
    const bool single = kept == 0;  // one kept position: a dimension of size 1, so that all kernels have one
    if (single) {
      dims.insert(dims.begin(), {-1, 1});
      kept = 1;
    }
    k.kept_rank = kept;
    k.reduced_rank = static_cast<int>(dims.size()) - kept;
    r_.range = 1;
    for (size_t d = 0; d < dims.size(); ++d) {
      r_.dims.push_back(dims[d].size);
      (static_cast<int>(d) < kept ? r_.range : r_.work) *= dims[d].size;
    }

    const size_t inner = k.kind == KernelKind::row ? dims.size() - 1 : static_cast<size_t>(kept) - 1;
    const size_t loads = k.loads.size();
    k.buffers = static_cast<int>(access.size());
    for (size_t s = 0; s < access.size(); ++s) {
      bool row_level = k.kind != KernelKind::pointwise;
      for (size_t d = 0; d < dims.size(); ++d) {
        // The only position of a scalar space may be walked like any other.
        const int64_t stride =
            dims[d].axis >= 0 ? access[s][at(dims[d].axis)] : k.kind == KernelKind::pointwise;
        r_.strides.push_back(stride);
        if (static_cast<int>(d) >= kept && stride != 0) row_level = false;
      }
      const int64_t step = r_.strides[r_.strides.size() - dims.size() + inner];
      const Inner how = step == 0 ? Inner::constant : step == 1 ? Inner::contiguous : Inner::strided;
      if (s < loads) {
        Load& l = k.loads[s];
        l.buffer = static_cast<int32_t>(s);
        l.inner = how;
        l.row_level = row_level && (l.index < 0 || !walks_reduced(l.index));
        if (l.index >= 0) {
          r_.strides.push_back(steps_[s].first);
          r_.strides.push_back(steps_[s].second);
        }
        r_.slots.push_back(load_slots_[s]);
      } else {
        Store& store = k.stores[s - loads];
        store.buffer = static_cast<int32_t>(s);
        store.inner = how;
        store.row_level = row_level;
        r_.slots.push_back(store_slots_[s - loads]);
      }
    }
    k.numbers = static_cast<int>(r_.numbers.size());
    return std::move(r_);
  }

  /// Whether a scalar node depends on the reduced dimensions.
  bool walks_reduced(int32_t node) const {
    std::vector<char> walks(static_cast<size_t>(node) + 1, 0);
    for (int32_t i = 0; i <= node; ++i) {
      const ops::ScalarNode& n = r_.kernel.scalars[i];
      walks[at(i)] = n.op == ScalarOp::index ||
                     (n.op == ScalarOp::load && !r_.kernel.loads[static_cast<size_t>(n.bits)].row_level);
      for (const int32_t k : n.in)
        if (k >= 0 && walks[at(k)]) walks[at(i)] = 1;
    }
    return walks[at(node)] != 0;
  }

  /// While a gather from the group itself is lowered.
  struct Lookup {
    int32_t index;                          // scalar node
    int axis;                               // of the space
    std::unordered_map<int32_t, S> values;  // by node
  };

  ops::ScalarGraph& graph() { return r_.kernel.scalars; }

  const Prepared& p_;
  const Grouping& grouping_;
  const Group& group_;
  const int32_t index_;
  std::vector<int> order_;  // axes of the space in the order of the kernel
  int kept_ = 0;
  LoweredKernel r_;
  Lookup* lookup_ = nullptr;
  std::unordered_map<int32_t, S> scalars_;  // by value
  std::vector<SpaceStrides> load_access_, store_access_;
  std::vector<Slot> load_slots_, store_slots_;
  std::vector<std::pair<int64_t, int64_t>> steps_;  // extent and stride of indexed loads
};

}  // namespace

LoweredKernel lower(const Prepared& p, const Grouping& grouping, int32_t group,
                    const std::vector<StoreTarget>& stores) {
  return Lowering(p, grouping, grouping.groups[at(group)], group).run(stores);
}

LoweredKernel lower_constant(const Prepared& p, int32_t node) {
  Grouping grouping;
  grouping.group_of.assign(p.g.nodes.size(), -1);
  grouping.axes.resize(p.g.nodes.size());
  Group group;
  group.nodes = {node};
  Axes& axes = grouping.axes[at(node)];
  axes.fill(-1);
  const Dims& sizes = p.g.type(p.g.nodes[at(node)].out[0]).sizes;
  for (int d = 0; d < sizes.rank(); ++d) {
    if (sizes[d] == 1) continue;
    axes[at(d)] = static_cast<int8_t>(group.space.rank());
    group.space.push_back(sizes[d]);
  }
  return Lowering(p, grouping, group, 0).run({{p.g.nodes[at(node)].out[0], -1}});
}

LoweredKernel lower_copy(const Prepared& p, const StoreTarget& to) {
  const Layout from = target_layout(p, {to.value, -1}), target = target_layout(p, to);
  Group group;
  Axes axes;
  axes.fill(-1);
  for (int d = 0; d < from.sizes.rank(); ++d) {
    if (from.sizes[d] == 1) continue;
    axes[at(d)] = static_cast<int8_t>(group.space.rank());
    group.space.push_back(from.sizes[d]);
  }
  return Lowering(p, {}, group, -1).copy(to, walk(axes, from), walk(axes, target));
}

}  // namespace tandem::jit
