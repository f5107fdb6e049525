#include "tandem/jit/kept.h"

#include <algorithm>
#include <bit>

#include "tandem/core/error.h"
#include "tandem/jit/contraction.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/make_plan.h"
#include "tandem/jit/rewrite.h"

namespace tandem::jit {

using ops::OpKind;

namespace {

constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

/// Rows of a product from which on copying its matrix into panels is a small part of it (3 to 6 % at 256).
constexpr int64_t kManyRows = 512;

bool is_computed_once(const Node& n) {
  if (n.leaf != Leaf::op) return n.leaf != Leaf::input && n.leaf != Leaf::number;
  switch (ops::def(n.op).kind) {
    case OpKind::pointwise:
    case OpKind::reduction:
    case OpKind::view:
    case OpKind::piecewise:
    case OpKind::fill:
    case OpKind::contraction:
      return true;
    default:  // may fail, draws, or is a program's own
      return false;
  }
}

class Parter {
 public:
  Parter(const Graph& g, const std::vector<char>& lasting, const std::vector<std::optional<int64_t>>& known,
         Device device)
      : g_(g),
        lasting_(lasting),
        known_(known),
        device_(device),
        fixed_(g.values.size(), 0),
        read_bytes_(g.values.size(), 0),
        in_rest_(g.nodes.size(), 0),
        second_(g.nodes.size(), -1),
        made_(g.values.size(), -1),
        rest_(g.values.size(), -1) {}

  std::optional<KeptPart> run() {
    for (const Node& n : g_.nodes) find_fixed(n);
    for (const int32_t v : g_.outputs) use(v);
    for (const Write& w : g_.writes) use(w.value);
    for (size_t i = g_.nodes.size(); i-- > 0;)
      if (in_rest_[i]) use_operands(i);
    if (wanted_.empty()) return {};
    make();
    finish_rest();
    return std::move(part_);
  }

 private:
  struct Wanted {
    int32_t value;
    const Node* reader;  // of a form of its own; null: as it is
    KeptValue kept;
    int32_t input = -1;  // in the rest
  };

  // Fixed is what depends on lasting inputs and known numbers alone, and is not much larger than these are.
  void find_fixed(const Node& n) {
    int64_t bytes = 0;
    bool fixed = n.leaf == Leaf::input    ? lasting_[at(n.index)] != 0
                 : n.leaf == Leaf::number ? known_[at(n.index)].has_value()
                                          : is_computed_once(n);
    for (const int32_t v : n.in) {
      if (v < 0) continue;
      fixed = fixed && fixed_[at(v)];
      bytes = std::max(bytes, read_bytes_[at(v)]);
    }
    for (const int32_t v : n.out) {
      const int64_t own = g_.type(v).number ? 0 : bytes_in_costs(g_.type(v));
      constexpr int64_t kSmall = 4096;
      fixed = fixed && (n.leaf == Leaf::input || is_view_of(n) || own <= 2 * bytes + kSmall);
      fixed_[at(v)] = fixed;
      read_bytes_[at(v)] = n.leaf == Leaf::input ? own : bytes;
    }
  }
  static bool is_view_of(const Node& n) { return n.leaf == Leaf::op && ops::def(n.op).kind == OpKind::view; }

  /// A node that only the first part has. Views and leaves are in either where they are needed.
  bool is_made_once(const Node& n) const {
    return n.leaf == Leaf::op && !is_view_of(n) &&
           std::all_of(n.out.begin(), n.out.end(), [&](int32_t v) { return fixed_[at(v)]; });
  }

  /// The rest reads the value: its node is in it, or the value is kept.
  void use(int32_t v) {
    if (!is_made_once(g_.node_of(v)))
      in_rest_[at(g_.values[at(v)].node)] = 1;
    else if (std::none_of(wanted_.begin(), wanted_.end(),
                          [&](const Wanted& w) { return w.value == v && !w.reader; }))
      wanted_.push_back({v, nullptr, {bytes_in_costs(g_.type(v)), Form::strides, {}, {}}});
  }
  void use_operands(size_t node) {
    const Node& n = g_.nodes[node];
    second_[node] = keep_panels(n);
    if (second_[node] < 0) second_[node] = keep_weight(n);
    for (size_t i = 0; i < n.in.size(); ++i)
      if (n.in[i] >= 0 && !(i == 1 && second_[node] >= 0)) use(n.in[i]);
  }
  bool is_host_op(const Node& n, OpKind kind) const {
    return device_.type == DeviceType::cpu && n.leaf == Leaf::op && ops::def(n.op).kind == kind;
  }

  int32_t want(Wanted wanted) {
    wanted_.push_back(std::move(wanted));
    return static_cast<int32_t>(wanted_.size()) - 1;
  }

  /// The weight of a convolution, if it is fixed and the library has a layout of its own for it; -1 if not.
  int32_t keep_weight(const Node& n) {
    if (!is_host_op(n, OpKind::convolution) || n.op != OpId::convolution || !fixed_[at(n.in[1])]) return -1;
    const TensorType in[] = {g_.type(n.in[0]), g_.type(n.in[1])};
    if (in[1].sizes.rank() != in[0].sizes.rank()) return -1;  // in blocks already
    const ops::ConvolutionShape shape =
        ops::convolution_shape(ops::def(n.op), in, g_.type(n.out[0]), n.words);
    const int64_t nbytes = shape.x_block == 0 && shape.y_block == 0 ? ops::own_weight_nbytes(shape) : 0;
    return nbytes > 0 ? want({n.in[1], &n, {nbytes, Form::weight, {}, shape}}) : -1;
  }

  /// The second operand of a product, if it is a fixed matrix and own tiles multiply few rows by it; -1 if
  /// not. Panels are the same for all such products of one kind.
  int32_t keep_panels(const Node& n) {
    if (!is_host_op(n, OpKind::contraction)) return -1;
    const int32_t v = n.in[1];
    const TensorType &x = g_.type(n.in[0]), &matrix = g_.type(v);
    if (!fixed_[at(v)] || matrix.number || matrix.sizes.rank() != 2 || matrix.dtype != x.dtype) return -1;
    const auto lies = [](const TensorType& t) { return ops::Layout{t.sizes, contiguous_strides(t.sizes)}; };
    Contraction product;
    if (plan_contraction(n.op, n.words, lies(x), lies(matrix), nullptr, matrix.dtype, product) >= 0)
      return -1;
    const ops::ProductCall& call = product.call;
    if (!ops::takes_panels(call) || call.m >= kManyRows) return -1;
    const auto it = std::find_if(wanted_.begin(), wanted_.end(), [&](const Wanted& w) {
      return w.value == v && w.kept.form == Form::panels && w.reader->op == n.op;
    });
    return it != wanted_.end() ? static_cast<int32_t>(it - wanted_.begin())
                               : want({v, &n, {ops::panels_nbytes(call), Form::panels, call, {}}});
  }

  void make() {
    Graph& to = part_.makes;
    for (const Node& n : g_.nodes) {
      if (!std::all_of(n.out.begin(), n.out.end(), [&](int32_t v) { return fixed_[at(v)]; })) continue;
      if (n.leaf == Leaf::input) {
        const Input& in = g_.inputs[at(n.index)];
        made_[at(n.out[0])] = to.add_input(g_.type(n.out[0]), in.strides, in.name, in.alignment);
        part_.inputs.push_back(n.index);
      } else if (n.leaf == Leaf::number) {
        made_[at(n.out[0])] = to.add_constant(std::bit_cast<double>(*known_[at(n.index)]));
      } else {
        copy(to, n, made_);
      }
    }
    for (const Wanted& w : wanted_) to.outputs.push_back(made_[at(w.value)]);
    to = without_unused_inputs(dead_code(to));
  }

  /// Inputs that no node reads are left out of `part_.inputs`, too.
  Graph without_unused_inputs(const Graph& from) {
    std::vector<char> used(from.values.size(), 0);
    for (const Node& n : from.nodes)
      for (const int32_t v : n.in)
        if (v >= 0) used[at(v)] = 1;
    for (const int32_t v : from.outputs) used[at(v)] = 1;
    Graph to;
    std::vector<int32_t> renamed(from.values.size(), -1), inputs;
    for (const Node& n : from.nodes) {
      if (n.leaf != Leaf::input) {
        copy(to, n, renamed, from);
      } else if (used[at(n.out[0])]) {
        const Input& in = from.inputs[at(n.index)];
        renamed[at(n.out[0])] = to.add_input(from.type(n.out[0]), in.strides, in.name, in.alignment);
        inputs.push_back(part_.inputs[at(n.index)]);
      }
    }
    for (const int32_t v : from.outputs) to.outputs.push_back(renamed[at(v)]);
    part_.inputs = std::move(inputs);
    return to;
  }

  void finish_rest() {
    Graph& to = part_.rest;
    to.inputs = g_.inputs;
    to.numbers = g_.numbers;
    to.number_types = g_.number_types;
    for (const Node& n : g_.nodes)
      if (n.leaf == Leaf::input) copy(to, n, rest_);
    for (Input& in : to.inputs) in.value = rest_[at(in.value)];
    for (Wanted& w : wanted_) {
      const TensorType& type = g_.type(w.value);
      w.input =
          to.add_input(type, contiguous_strides(type.sizes), "kept" + std::to_string(part_.values.size()));
      to.inputs.back().form = w.kept.form;
      if (!w.reader) rest_[at(w.value)] = w.input;
      part_.values.push_back(w.kept);
    }
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const Node& n = g_.nodes[i];
      if (n.leaf == Leaf::input || (!in_rest_[i] && n.leaf != Leaf::number)) continue;
      copy(to, n, rest_);
      if (second_[i] >= 0) to.nodes.back().in[1] = wanted_[at(second_[i])].input;
    }
    for (const int32_t v : g_.outputs) to.outputs.push_back(rest_[at(v)]);
    for (const Write& w : g_.writes) to.writes.push_back({w.input, rest_[at(w.value)]});
  }

  void copy(Graph& to, const Node& n, std::vector<int32_t>& renamed) { copy(to, n, renamed, g_); }
  static void copy(Graph& to, const Node& n, std::vector<int32_t>& renamed, const Graph& from) {
    const int32_t first = copy_node(to, from, n, renamed);
    for (size_t j = 0; j < n.out.size(); ++j) renamed[at(n.out[j])] = first + static_cast<int32_t>(j);
  }

  const Graph& g_;
  const std::vector<char>& lasting_;
  const std::vector<std::optional<int64_t>>& known_;
  const Device device_;
  std::vector<char> fixed_;          // per value
  std::vector<int64_t> read_bytes_;  // per fixed value: of the largest input that it is made of
  std::vector<char> in_rest_;        // per node
  std::vector<int32_t> second_;  // per node: which of `wanted_` its second operand is, in a form of its own
  std::vector<int32_t> made_, rest_;  // per value: in the parts
  std::vector<Wanted> wanted_;
  KeptPart part_;
};

}  // namespace

void KeptValue::lay(const void* made, void* to) const {
  if (form == Form::weight) return ops::lay_weight(convolution, made, to);
  TANDEM_INTERNAL(form == Form::panels, "what is kept as it is, is laid");
  ops::ProductCall call = matrix;
  call.b = made;
  ops::pack_panels(call, to);
}

int64_t KeptPart::nbytes() const {
  int64_t sum = 0;
  for (const KeptValue& v : values) sum += v.nbytes;
  return sum;
}

std::optional<KeptPart> part_kept(const Graph& g, const std::vector<char>& lasting,
                                  const std::vector<std::optional<int64_t>>& known, Device device) {
  if (std::find(lasting.begin(), lasting.end(), 1) == lasting.end()) return {};
  const Graph ready = optimize(for_device(g, device));
  std::optional<KeptPart> part = Parter(ready, lasting, known, device).run();
  if (part) {
    check(part->makes, "parting what is kept");
    check(part->rest, "parting what is kept");
  }
  return part;
}

}  // namespace tandem::jit
