// Folded are arithmetic of constant numbers; ops that give back an operand (x * 1, x / 1, a copy, a cast,
// view, padding or join that changes nothing); a chain of views in row-major order that ends with the sizes
// it began with; permutations and expansions of their like; casts through a type that holds every value of
// the one before. Not folded, because a bit could change: x + 0 and x * 0 (signed zeros, NaN), x - x, a cast
// down and up, sums of repeated elements.
#include "tandem/jit/fold.h"

#include <bit>

#include "tandem/jit/planted_bugs.h"
#include "tandem/jit/rewrite.h"

namespace tandem::jit {

namespace {

using ops::OpKind;

/// Whether all elements of `v` are the constant `wanted`: a number, or views of a tensor filled with it.
bool is_constant(const Graph& g, int32_t v, double wanted) {
  const Node* n = &g.node_of(v);
  while (n->leaf == Leaf::op && ops::def(n->op).kind == OpKind::view) n = &g.node_of(n->in[0]);
  if (is_op(*n, OpId::full)) n = &g.node_of(n->in[0]);
  return n->leaf == Leaf::constant && std::bit_cast<double>(n->bits) == wanted;
}

/// Whether every value of `from` is one of `to`.
bool holds(DType to, DType from) {
  if (from == to || from == DType::bool_) return to != DType::bool_;
  switch (to) {
    case DType::bool_:
    case DType::uint8:
      return false;
    case DType::int32:
    case DType::float16:
    case DType::bfloat16:
      return from == DType::uint8;
    case DType::int64:
      return from == DType::uint8 || from == DType::int32;
    case DType::float32:
      return from == DType::uint8 || from == DType::float16 || from == DType::bfloat16;
    case DType::float64:
      return from != DType::int64;
  }
  return false;
}

/// The earliest value from which views in row-major order lead to `v`, if it has type `type`; -1 if there is
/// none.
int32_t same_elements(const Graph& g, int32_t v, const TensorType& type) {
  int32_t found = -1;
  for (;;) {
    if (g.type(v) == type) found = v;
    const Node& n = g.node_of(v);
    if (!is_op(n, OpId::reshape) && !is_op(n, OpId::squeeze) && !is_op(n, OpId::unsqueeze)) return found;
    v = n.in[0];
  }
}

int32_t append(Graph& g, OpId op, int32_t operand, std::vector<int64_t> words, const Node& n) {
  GraphEmitter e(g, false);
  e.location = n.where;
  e.origin = n.origin;
  return e.call(op, {{operand}}, words).id;
}

int32_t folded_number(Graph& g, const Node& n) {
  double v[2] = {0, 0};
  for (size_t i = 0; i < n.in.size(); ++i) {
    if (g.node_of(n.in[i]).leaf != Leaf::constant) return -1;
    v[i] = std::bit_cast<double>(g.node_of(n.in[i]).bits);
  }
  return g.add_constant(ops::number_arithmetic(static_cast<ops::ScalarOp>(n.words[0]), v[0], v[1]));
}

int32_t folded_permute(Graph& g, const Node& n) {
  const int rank = g.type(n.in[0]).sizes.rank();
  const auto axes_of = [rank](const Node& m) {
    Dims axes;
    for (int i = 0; i < rank; ++i)
      axes.push_back(normalize_axis(m.words[static_cast<size_t>(i) + 1], rank, "permute"));
    return axes;
  };
  const auto in_order = [](const Dims& axes) {
    for (int i = 0; i < axes.rank(); ++i)
      if (axes[i] != i) return false;
    return true;
  };
  const Dims axes = axes_of(n);
  if (in_order(axes)) return n.in[0];
  const Node& inner = g.node_of(n.in[0]);
  if (!is_op(inner, OpId::permute)) return -1;
  const Dims before = axes_of(inner);
  Dims both;
  for (const int64_t a : axes) both.push_back(before[static_cast<int>(a)]);
  if (in_order(both)) return inner.in[0];
  std::vector<int64_t> words(both.begin(), both.end());
  words.insert(words.begin(), rank);
  return append(g, OpId::permute, inner.in[0], std::move(words), n);
}

int32_t folded_cast(Graph& g, const Node& n, const TensorType& type) {
  if (g.type(n.in[0]) == type) return n.in[0];
  const Node& inner = g.node_of(n.in[0]);
  if (!is_op(inner, OpId::cast) || !holds(g.type(n.in[0]).dtype, g.type(inner.in[0]).dtype)) return -1;
  if (g.type(inner.in[0]) == type) return inner.in[0];
  // Integers wrap where floating values saturate.
  const DType first = g.type(inner.in[0]).dtype, last = type.dtype;
  if (is_integral(first) && is_floating(g.type(n.in[0]).dtype) && is_integral(last) && !holds(last, first))
    return -1;
  return append(g, OpId::cast, inner.in[0], n.words, n);
}

}  // namespace

int32_t folded(Graph& g, const Node& n, const TensorType& type) {
  if (n.leaf == Leaf::number_op) return folded_number(g, n);
  if (n.leaf != Leaf::op || n.in.empty() || n.in[0] < 0) return -1;
  const auto same = [&](size_t k) { return g.type(n.in[k]) == type; };
  switch (n.op) {
    case OpId::mul:
      if (planted(PlantedBug::times_zero) && is_constant(g, n.in[1], 0) && is_floating(type.dtype) &&
          !type.number)
        return GraphEmitter(g, false).full(type.sizes, type.dtype, 0).id;
      if (same(0) && is_constant(g, n.in[1], 1)) return n.in[0];
      return same(1) && is_constant(g, n.in[0], 1) ? n.in[1] : -1;
    case OpId::div:
      return same(0) && is_constant(g, n.in[1], 1) ? n.in[0] : -1;
    case OpId::clone:
    case OpId::pad:
    case OpId::slice:
      return same(0) ? n.in[0] : -1;  // a slice of equal size is all of it
    case OpId::cat: {
      int32_t whole = -1;  // the only operand that has elements
      for (size_t k = 0; k < n.in.size(); ++k) {
        if (numel(g.type(n.in[k]).sizes) == 0) continue;
        if (whole >= 0 || !same(k)) return -1;
        whole = n.in[k];
      }
      return whole;
    }
    case OpId::cast:
      return folded_cast(g, n, type);
    case OpId::expand: {
      if (same(0)) return n.in[0];
      const Node& inner = g.node_of(n.in[0]);
      if (!is_op(inner, OpId::expand)) return -1;
      std::vector<int64_t> words(type.sizes.begin(), type.sizes.end());
      words.insert(words.begin(), type.sizes.rank());
      return append(g, OpId::expand, inner.in[0], std::move(words), n);
    }
    case OpId::reshape:
    case OpId::squeeze:
    case OpId::unsqueeze:
      return same_elements(g, n.in[0], type);
    case OpId::permute:
      return folded_permute(g, n);
    default:
      return -1;
  }
}

}  // namespace tandem::jit
