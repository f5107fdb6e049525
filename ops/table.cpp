// The op table: every row of the .def files as one constant array, completed and checked at compile time.
#include <cstring>
#include <numbers>
#include <string_view>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/ops/rules.h"
#include "tandem/ops/user_ops.h"

namespace tandem::ops {

namespace {

using enum AttrType;

// What the columns of pointwise.def stand for.
#define TANDEM_ROW(name_, kind_, ...) \
  OpDef{.name = #name_, .id = OpId::name_, .kind = OpKind::kind_, __VA_ARGS__},
#define TANDEM_FORMULA(n, expression)                                                 \
  .formula = [](ScalarGraph&, const S* in, S* out) {                                  \
    [[maybe_unused]] const S a = in[0], b = in[n > 1 ? 1 : 0], c = in[n > 2 ? 2 : 0]; \
    out[0] = expression;                                                              \
  }
#define TANDEM_SYMBOLS(n)                                                                                  \
  [[maybe_unused]] Emitter& e = r.e;                                                                       \
  [[maybe_unused]] const Value a = r.in(0), b = r.in(n > 1 ? 1 : 0), c = r.in(n > 2 ? 2 : 0), y = r.out(), \
                               g = r.grad();
#define TANDEM_GRADIENT1(reads_a, da) \
  .gradient = [](Gradient& r) { TANDEM_SYMBOLS(1) if (r.needs(0)) r.set(0, da); }, .reads = {reads_a}
#define TANDEM_GRADIENT2(reads_a, da, reads_b, db)      \
  .gradient =                                           \
      [](Gradient& r) {                                 \
        TANDEM_SYMBOLS(2) if (r.needs(0)) r.set(0, da); \
        if (r.needs(1)) r.set(1, db);                   \
      },                                                \
  .reads = {reads_a, reads_b}
#define TANDEM_GRADIENT3(reads_a, da, reads_b, db, reads_c, dc) \
  .gradient =                                                   \
      [](Gradient& r) {                                         \
        TANDEM_SYMBOLS(3) if (r.needs(0)) r.set(0, da);         \
        if (r.needs(1)) r.set(1, db);                           \
        if (r.needs(2)) r.set(2, dc);                           \
      },                                                        \
  .reads = {reads_a, reads_b, reads_c}
#define TANDEM_NOT_DIFFERENTIABLE .differentiable = false
#define TANDEM_POINTWISE1(name, rule, expression, grad, samples_, doc_)                       \
  TANDEM_ROW(name, pointwise, .types = TypeRule::rule, TANDEM_FORMULA(1, (expression)), grad, \
             .samples = samples_, .doc = doc_)
#define TANDEM_POINTWISE2(name, rule, expression, grad, samples_, doc_)                                  \
  TANDEM_ROW(name, pointwise, .n_in = 2, .types = TypeRule::rule, TANDEM_FORMULA(2, (expression)), grad, \
             .samples = samples_, .doc = doc_)
#define TANDEM_POINTWISE3(name, rule, expression, grad, samples_, doc_)                                  \
  TANDEM_ROW(name, pointwise, .n_in = 3, .types = TypeRule::rule, TANDEM_FORMULA(3, (expression)), grad, \
             .samples = samples_, .doc = doc_)
// What the columns of parametric.def stand for: parameters are symbols in the formula and values in the
// gradient.
#define TANDEM_PARAMETRIC(name, rule, parameters, symbols, expression, values, reads_, da, samples_, doc_) \
  TANDEM_ROW(                                                                                              \
      name, pointwise, .attrs = {parameters}, .types = TypeRule::rule,                                     \
      .formula =                                                                                           \
          [](ScalarGraph&, const S* in, S* out) {                                                          \
            [[maybe_unused]] const S a = in[0], symbols;                                                   \
            out[0] = expression;                                                                           \
          },                                                                                               \
      .gradient =                                                                                          \
          [](Gradient& r) {                                                                                \
            TANDEM_SYMBOLS(1)                                                                              \
            [[maybe_unused]] const Value values;                                                           \
            if (r.needs(0)) r.set(0, da);                                                                  \
          },                                                                                               \
      .reads = {reads_}, .samples = samples_, .doc = doc_)
#define TANDEM_COMMA ,
#define TANDEM_PARAMETRIC1(name, rule, p, default_, expression, reads_, da, samples_, doc_)        \
  TANDEM_PARAMETRIC(name, rule, {#p TANDEM_COMMA floating}, p = cast(in[1] TANDEM_COMMA a.type()), \
                    (expression), p = r.number(0), reads_, da, samples_, doc_)
#define TANDEM_PARAMETRIC2(name, rule, p, default_p, q, default_q, expression, reads_, da, samples_, doc_) \
  TANDEM_PARAMETRIC(                                                                                       \
      name, rule, {#p TANDEM_COMMA floating} TANDEM_COMMA{#q TANDEM_COMMA floating},                       \
      p = cast(in[1] TANDEM_COMMA a.type()) TANDEM_COMMA q = cast(in[2] TANDEM_COMMA a.type()),            \
      (expression), p = r.number(0) TANDEM_COMMA q = r.number(1), reads_, da, samples_, doc_)
#define TANDEM_ENTRY TANDEM_ROW

constexpr OpDef kRows[] = {
// clang-format off
#include "tandem/ops/pointwise.def"
#include "tandem/ops/parametric.def"
#include "tandem/ops/special.def"
#include "tandem/ops/reduction.def"
#include "tandem/ops/view.def"
#include "tandem/ops/index.def"
#include "tandem/ops/indexing.def"
#include "tandem/ops/random.def"
#include "tandem/ops/contraction.def"
#include "tandem/ops/convolution.def"
#include "tandem/ops/composite.def"
#include "tandem/ops/attention.def"
#include "tandem/ops/fused.def"
#include "tandem/ops/recurrent.def"
#include "tandem/ops/loss.def"
#include "tandem/ops/norm.def"
#include "tandem/ops/pooling.def"
#include "tandem/ops/update.def"
    // clang-format on
};
static_assert(std::size(kRows) == static_cast<size_t>(kOpCount));

constexpr Saves read_bits(const char* reads) {
  Saves s;
  for (; *reads; ++reads) {
    if (*reads >= '1' && *reads < '0' + kMaxOutputs)
      s.out |= 1u << (*reads - '0');
    else
      (*reads == 'y' ? s.out : s.in) |= *reads == 'y' ? 1u : 1u << (*reads - 'a');
  }
  return s;
}

struct Table {
  OpDef rows[std::size(kRows)];
};

constexpr Table complete() {
  Table t;
  for (size_t i = 0; i < std::size(kRows); ++i) {
    OpDef& op = t.rows[i] = kRows[i];
    while (op.n_attrs < kMaxAttrs && op.attrs[op.n_attrs].name) ++op.n_attrs;
    for (const char* reads : op.reads) {
      if (!reads) continue;
      const Saves s = read_bits(reads);
      op.saves_in |= s.in;
      op.saves_out |= s.out;
    }
    if (op.kind == OpKind::composite && op.differentiable && !op.gradient)
      op.saves_in = ~0u >> (32 - op.n_in);
  }
  return t;
}
constexpr Table kTable = complete();

// A row that does not hold together must not compile.
template <class Holds>
constexpr bool every_row(Holds holds) {
  for (size_t i = 0; i < std::size(kRows); ++i)
    if (!holds(kTable.rows[i])) return false;
  return true;
}
static_assert(every_row([](const OpDef& op) { return op.samples && *op.samples && *op.doc; }),
              "an op without samples or doc");
static_assert(every_row([](const OpDef& op) { return &op - kTable.rows == static_cast<int>(op.id); }),
              "ops.def and the table disagree about the order");
static_assert(every_row([](const OpDef& op) {
                return op.differentiable ? op.gradient || op.kind == OpKind::composite : !op.gradient;
              }),
              "an op needs a gradient, or must say that it has none");
static_assert(every_row([](const OpDef& op) {
                if (!op.gradient) return true;
                int n = 0;
                while (n < 4 && op.reads[n]) ++n;
                return op.n_in < 0 ? n == 1 : n == op.n_in;
              }),
              "a gradient must say for each operand what it reads");
static_assert(every_row([](const OpDef& op) {
                switch (op.kind) {
                  case OpKind::pointwise:
                    return op.formula != nullptr;
                  case OpKind::reduction:
                    return op.n_attrs == 2;
                  case OpKind::view:
                    return op.view != nullptr;
                  case OpKind::composite:
                    return op.body && op.infer;
                  case OpKind::random:
                  case OpKind::fill:
                    return op.formula && op.infer;
                  case OpKind::piecewise:
                  case OpKind::scatter:
                  case OpKind::scan:
                  case OpKind::convolution:
                    return op.native && op.infer;
                  case OpKind::gather:
                  case OpKind::contraction:
                    return op.infer != nullptr;
                  case OpKind::kernel:
                    break;
                }
                return false;
              }),
              "an op lacks what its kind needs");
static_assert(every_row([](const OpDef& op) {
                return op.library < 0 || (op.kind == OpKind::composite && op.library < op.n_attrs &&
                                          op.attrs[op.library].type == boolean);
              }),
              "only a composite may be a library's call, and says so in an attribute");
static_assert(every_row([](const OpDef& op) {
                for (int k = 0; k + 1 < op.n_attrs; ++k)
                  if (op.attrs[k].type == list && op.attrs[k + 1].type != list) return false;
                return true;
              }),
              "lists must be the last attributes");

}  // namespace

const OpDef& def(OpId id) {
  if (static_cast<int>(id) < kOpCount) [[likely]]
    return kTable.rows[static_cast<size_t>(id)];
  const OpDef* own = user_op(id);
  TANDEM_INTERNAL(own, "no such op: " + std::to_string(static_cast<int>(id)));
  return *own;
}

const OpDef* find_op(const char* name) {
  static const std::unordered_map<std::string_view, const OpDef*> by_name = [] {
    std::unordered_map<std::string_view, const OpDef*> map;
    for (const OpDef& op : kTable.rows) map.emplace(op.name, &op);
    return map;
  }();
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : it->second;
}

Saves saves(const OpDef& op, uint32_t needed) {
  if (!op.reads[0]) return {op.saves_in, op.saves_out};
  Saves result;
  for (int i = 0; i < 4 && op.reads[i]; ++i) {
    if (!(needed >> i & 1)) continue;
    const Saves s = read_bits(op.reads[i]);
    result.in |= s.in;
    result.out |= s.out;
  }
  return result;
}

}  // namespace tandem::ops
