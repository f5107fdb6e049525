#include "tandem/jit/graph.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "tandem/core/error.h"
#include "tandem/jit/expand.h"

namespace tandem::jit {

namespace {
int32_t add_node(Graph& g, Node node, std::span<const TensorType> results) {
  const auto id = static_cast<int32_t>(g.nodes.size());
  for (size_t i = 0; i < results.size(); ++i) {
    node.out.push_back(static_cast<int32_t>(g.values.size()));
    g.values.push_back({results[i], id, static_cast<int32_t>(i)});
  }
  g.nodes.push_back(std::move(node));
  return g.nodes.back().out.empty() ? -1 : g.nodes.back().out[0];
}

TensorType number_type(DType dtype) {
  TensorType t;
  t.dtype = dtype;
  t.number = true;
  return t;
}

int32_t add_leaf(Graph& g, Leaf leaf, const TensorType& type, int32_t index = 0, int64_t bits = 0) {
  Node node;
  node.leaf = leaf;
  node.index = index;
  node.bits = bits;
  return add_node(g, std::move(node), {&type, 1});
}
}  // namespace

int32_t Graph::add_input(const TensorType& type, const Dims& strides, std::string name, int64_t alignment) {
  TensorType anywhere = type;
  anywhere.device = {};
  const int32_t v = add_leaf(*this, Leaf::input, anywhere, static_cast<int32_t>(inputs.size()));
  inputs.push_back({v, strides, alignment, std::move(name), Form::strides});
  return v;
}

int32_t Graph::add_number(DType type) {
  number_types.push_back(type);
  return add_leaf(*this, Leaf::number, number_type(type), numbers++);
}

int32_t Graph::add_constant(double value) {
  return add_leaf(*this, Leaf::constant, number_type(DType::float64), 0, std::bit_cast<int64_t>(value));
}

ops::Value GraphEmitter::number(double value) { return {g_.add_constant(value)}; }

ops::Value GraphEmitter::count(ops::Value v, const Dims& axes) {
  Node node;
  node.leaf = Leaf::count;
  node.in = {v.id};
  node.words.assign(axes.begin(), axes.end());
  node.where = location;
  const TensorType type = number_type(DType::float64);
  return {add_node(g_, std::move(node), {&type, 1})};
}

ops::Value GraphEmitter::number_op(ops::ScalarOp op, ops::Value a, ops::Value b) {
  Node node;
  node.leaf = Leaf::number_op;
  node.in = {a.id};
  if (b) node.in.push_back(b.id);
  node.words = {static_cast<int64_t>(op)};
  node.where = location;
  const TensorType type = number_type(DType::float64);
  return {add_node(g_, std::move(node), {&type, 1})};
}

void GraphEmitter::emit(OpId op, std::span<const ops::Value> in, ops::Words words, ops::Value* out) {
  const ops::OpDef& d = ops::def(op);
  // A user's formula is known by its parts: graphs, and the files made of them, do without the program's own
  // ops.
  const bool whole = d.library >= 0;  // it is expanded when the device is known
  if (d.kind == ops::OpKind::composite && ((expand_ && !whole) || ops::is_user(op)))
    return ops::emit_body(*this, d, in, words, out);
  const auto n_in = static_cast<int>(in.size()) - d.n_numbers();
  TANDEM_INTERNAL(n_in >= 0, std::string("too few operands of ") + d.name);

  Node node;
  node.op = op;
  node.words.assign(words.begin(), words.end());
  node.where = location;
  node.origin = origin;
  std::vector<TensorType> types(static_cast<size_t>(n_in));
  const auto known = std::make_unique<bool[]>(types.size());
  for (int i = 0; i < static_cast<int>(in.size()); ++i) {
    const ops::Value v = in[static_cast<size_t>(i)];
    node.in.push_back(v.id);
    if (i >= n_in) continue;
    known[i] = static_cast<bool>(v);
    if (v) types[static_cast<size_t>(i)] = g_.type(v.id);
  }
  ops::InferCall call{d, types, {known.get(), types.size()}, words, location};
  std::vector<TensorType> results;
  ops::infer(call, results);

  if (d.kind == ops::OpKind::pointwise && d.types != ops::TypeRule::cast) {
    const DType common = d.types == ops::TypeRule::logical ? DType::bool_ : ops::compute_type(call);
    for (int i = 0; i < n_in; ++i) {
      const TensorType& t = types[static_cast<size_t>(i)];
      const DType wanted = d.types == ops::TypeRule::select && i == 0 ? DType::bool_ : common;
      if (!known[i] || t.number || t.dtype == wanted) continue;
      node.in[static_cast<size_t>(i)] = add_cast(g_, node.in[static_cast<size_t>(i)], wanted, location);
      g_.nodes.back().origin = origin;
    }
  }
  const int32_t first = add_node(g_, std::move(node), results);
  for (size_t i = 0; i < results.size(); ++i) out[i] = {first + static_cast<int32_t>(i)};
}

int32_t add_cast(Graph& g, int32_t value, DType type, Location where) {
  Node node;
  node.op = OpId::cast;
  node.in = {value};
  node.words = {static_cast<int64_t>(type)};
  node.where = where;
  TensorType result = g.type(value);
  result.dtype = type;
  result.number = false;
  return add_node(g, std::move(node), {&result, 1});
}

int32_t copy_node(Graph& to, const Graph& from, const Node& node, const std::vector<int32_t>& renamed) {
  Node copy = node;
  copy.out.clear();
  for (int32_t& v : copy.in)
    if (v >= 0) v = renamed[static_cast<size_t>(v)];
  std::vector<TensorType> results;
  for (const int32_t v : node.out) results.push_back(from.type(v));
  return add_node(to, std::move(copy), results);
}

bool by_library(const Node& n) {
  if (n.leaf != Leaf::op) return false;
  const ops::OpDef& d = ops::def(n.op);
  return d.library >= 0 && n.words[static_cast<size_t>(d.structural_index(d.library))] != 0;
}

namespace {

bool is_composite(const Node& n) {
  return n.leaf == Leaf::op && ops::def(n.op).kind == ops::OpKind::composite;
}

/// Each composite that `expands` says so of is replaced by its body, whose own composites are replaced if
/// `to_the_ground`.
template <class Expands>
Graph expanded(const Graph& g, const Expands& expands, bool to_the_ground) {
  Graph result;
  result.inputs = g.inputs;
  result.numbers = g.numbers;
  result.number_types = g.number_types;
  GraphEmitter emitter(result, to_the_ground);
  std::vector<int32_t> renamed(g.values.size(), -1);
  for (const Node& n : g.nodes) {
    if (!expands(n)) {
      const int32_t first = copy_node(result, g, n, renamed);
      for (size_t i = 0; i < n.out.size(); ++i)
        renamed[static_cast<size_t>(n.out[i])] = first + static_cast<int32_t>(i);
      continue;
    }
    std::vector<ops::Value> in;
    for (const int32_t v : n.in) in.push_back({v < 0 ? -1 : renamed[static_cast<size_t>(v)]});
    ops::Value out[ops::kMaxOutputs];
    emitter.location = n.where;
    emitter.origin = n.origin;
    ops::emit_body(emitter, ops::def(n.op), in, n.words, out);
    for (size_t i = 0; i < n.out.size(); ++i) {
      TANDEM_INTERNAL(
          out[i] && result.type(out[i].id).sizes == g.type(n.out[i]).sizes &&
              result.type(out[i].id).dtype == g.type(n.out[i]).dtype,
          std::string("the body of ") + ops::def(n.op).name + " gave another type than its inference");
      renamed[static_cast<size_t>(n.out[i])] = out[i].id;
    }
  }
  for (Input& i : result.inputs) i.value = renamed[static_cast<size_t>(i.value)];
  for (const int32_t v : g.outputs) result.outputs.push_back(renamed[static_cast<size_t>(v)]);
  for (const Write& w : g.writes) result.writes.push_back({w.input, renamed[static_cast<size_t>(w.value)]});
  return result;
}

}  // namespace

Graph expand_composites(const Graph& g) {
  const auto expands = [](const Node& n) { return is_composite(n) && !by_library(n); };
  if (std::none_of(g.nodes.begin(), g.nodes.end(), expands)) return g;
  return expand_composites(expanded(g, expands, true));  // a body may hold what a library did not take
}

Graph expand_composites(Graph g, const std::function<bool(const Graph&, const Node&)>& keep) {
  const auto expands = [&](const Node& n) { return is_composite(n) && !keep(g, n); };
  while (std::any_of(g.nodes.begin(), g.nodes.end(), expands)) g = expanded(g, expands, false);
  return g;
}

}  // namespace tandem::jit
