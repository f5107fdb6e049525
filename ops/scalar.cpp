#include "tandem/ops/scalar.h"

#include <bit>

#include <string>

#include "tandem/core/error.h"

namespace tandem::ops {

namespace {
enum class Result { same, flag, special };
struct Row {
  const char* name;
  int arity;
  Result result;
};
constexpr Row kRows[] = {
    {"load", 0, Result::special},  {"number", 0, Result::special},  {"constant", 0, Result::special},
    {"index", 0, Result::special}, {"reduced", 0, Result::special},
#define TANDEM_SCALAR(name, arity, result) {#name, arity, Result::result},
#include "tandem/ops/scalar.def"
#undef TANDEM_SCALAR
};
static_assert(std::size(kRows) == static_cast<size_t>(ScalarOp::count_));

S apply(ScalarOp op, S a, S b = {}, S c = {}) {
  switch (kRows[static_cast<int>(op)].result) {
    case Result::same:
      return a.graph->node(op, a.type(), a, b, c);
    case Result::flag:
      return a.graph->node(op, DType::bool_, a, b, c);
    case Result::special:
      break;
  }
  if (op == ScalarOp::select) return a.graph->node(op, b.type(), a, b, c);
  return a.graph->node(op, DType::float32, a, b, c);  // the random functions
}
}  // namespace

const char* name(ScalarOp op) { return kRows[static_cast<int>(op)].name; }
int arity(ScalarOp op) { return kRows[static_cast<int>(op)].arity; }

DType S::type() const { return (*graph)[id].type; }

size_t ScalarGraph::Hash::operator()(const ScalarNode& n) const {
  uint64_t h = static_cast<uint64_t>(n.op) * 31 + static_cast<uint64_t>(n.type);
  for (const int32_t i : n.in) h = (h ^ static_cast<uint32_t>(i)) * 0x9E3779B97F4A7C15u;
  return (h ^ static_cast<uint64_t>(n.bits)) * 0x9E3779B97F4A7C15u;
}

S ScalarGraph::node(ScalarOp op, DType type, S a, S b, S c, int64_t bits) {
  TANDEM_INTERNAL((a.id >= 0) + (b.id >= 0) + (c.id >= 0) == arity(op),
                  std::string("wrong operand count of ") + name(op));
  if (arity(op) >= 2 && op != ScalarOp::uniform && op != ScalarOp::uniform16 && op != ScalarOp::normal) {
    const S first = op == ScalarOp::select ? c : a;
    TANDEM_INTERNAL(first.type() == b.type(), std::string("operand types differ in ") + name(op) + ": " +
                                                  tandem::name(first.type()) + " and " +
                                                  tandem::name(b.type()));
  }
  const ScalarNode n{op, type, {a.id, b.id, c.id}, bits};
  const auto [it, fresh] = ids_.try_emplace(n, size());
  if (fresh) nodes_.push_back(n);
  return {this, it->second};
}

S ScalarGraph::constant(DType type, double value) {
  const int64_t bits = is_floating(type) ? std::bit_cast<int64_t>(value) : static_cast<int64_t>(value);
  return node(ScalarOp::constant, type, {}, {}, {}, bits);
}

S cast(S a, DType type) { return a.type() == type ? a : a.graph->node(ScalarOp::cast, type, a); }
S select(S condition, S a, S b) { return condition.graph->node(ScalarOp::select, a.type(), condition, a, b); }
S operator+(S a, S b) { return apply(ScalarOp::add, a, b); }
S operator-(S a, S b) { return apply(ScalarOp::sub, a, b); }
S operator*(S a, S b) { return apply(ScalarOp::mul, a, b); }
S operator/(S a, S b) { return apply(ScalarOp::div, a, b); }
S operator-(S a) { return apply(ScalarOp::neg, a); }
S operator+(S a, double b) { return a + a.graph->constant(a.type(), b); }
S operator+(double a, S b) { return b.graph->constant(b.type(), a) + b; }
S operator-(S a, double b) { return a - a.graph->constant(a.type(), b); }
S operator-(double a, S b) { return b.graph->constant(b.type(), a) - b; }
S operator*(S a, double b) { return a * a.graph->constant(a.type(), b); }
S operator*(double a, S b) { return b.graph->constant(b.type(), a) * b; }
S operator/(S a, double b) { return a / a.graph->constant(a.type(), b); }
S operator/(double a, S b) { return b.graph->constant(b.type(), a) / b; }

#define TANDEM_SCALAR(name, arity, result) TANDEM_SCALAR_##arity(name)
#define TANDEM_SCALAR_1(name) \
  S s_##name(S a) { return apply(ScalarOp::name, a); }
#define TANDEM_SCALAR_2(name) \
  S s_##name(S a, S b) { return apply(ScalarOp::name, a, b); }
#define TANDEM_SCALAR_3(name) \
  S s_##name(S a, S b, S c) { return apply(ScalarOp::name, a, b, c); }
#include "tandem/ops/scalar.def"
#undef TANDEM_SCALAR
#undef TANDEM_SCALAR_1
#undef TANDEM_SCALAR_2
#undef TANDEM_SCALAR_3

}  // namespace tandem::ops
