#include "tandem/eager/pointwise.h"

#include <algorithm>
#include <atomic>
#include <limits>

#include "tandem/eager/call.h"
#include "tandem/ops/user_ops.h"

namespace tandem {

namespace eager {

/// The formula that one call on symbols becomes; lives as long as that call.
class FormulaBuilder {
 public:
  FormulaBuilder(int n, Location where) : outer_(current), where_(where) {
    static std::atomic<uint64_t> recordings{0};
    recording_ = ++recordings;
    formula_.n_in = n;
    formula_.nodes.resize(static_cast<size_t>(n));
    current = this;
  }
  ~FormulaBuilder() { current = outer_; }
  FormulaBuilder(const FormulaBuilder&) = delete;
  FormulaBuilder& operator=(const FormulaBuilder&) = delete;
  static FormulaBuilder& of_this_thread() {
    if (!current) fail_stray({});
    return *current;
  }

  Symbol operand(int i) { return {recording_, i}; }

  Symbol step(const char* name, std::initializer_list<SymbolOrNumber> in,
              std::initializer_list<int64_t> words) {
    const ops::OpDef* op = ops::find_op(name);
    TANDEM_INTERNAL(op && (op->kind == ops::OpKind::pointwise || op->id == ops::OpId::gelu),
                    std::string("no pointwise op ") + name);
    ops::FormulaNode n;
    n.kind = ops::FormulaNode::Kind::step;
    n.op = op->id;
    n.words = words;
    for (const SymbolOrNumber& v : in) n.in.push_back(node(v));
    return {recording_, add(std::move(n))};
  }

  /// What the result needs, in the order of its operands: the compiler chooses the order of calls that are
  /// arguments of one, and gradients are added in the order of steps.
  ops::Formula finish(const Symbol& result) {
    const int32_t last = node(result);
    ops::Formula ordered;
    ordered.n_in = formula_.n_in;
    ordered.nodes.resize(static_cast<size_t>(formula_.n_in));
    std::vector<int32_t> renamed(formula_.nodes.size(), -1);
    for (int32_t i = 0; i < formula_.n_in; ++i) renamed[static_cast<size_t>(i)] = i;
    std::vector<int32_t> open = {last};
    while (!open.empty()) {
      const auto at = static_cast<size_t>(open.back());
      ops::FormulaNode& n = formula_.nodes[at];
      const auto next = std::find_if(n.in.begin(), n.in.end(),
                                     [&](int32_t i) { return renamed[static_cast<size_t>(i)] < 0; });
      if (renamed[at] < 0 && next != n.in.end()) {
        open.push_back(*next);
        continue;
      }
      open.pop_back();
      if (renamed[at] >= 0) continue;
      for (int32_t& i : n.in) i = renamed[static_cast<size_t>(i)];
      renamed[at] = static_cast<int32_t>(ordered.nodes.size());
      ordered.nodes.push_back(std::move(n));
    }
    ordered.result = renamed[static_cast<size_t>(last)];
    return ordered;
  }

 private:
  int32_t node(const SymbolOrNumber& v) {
    if (v.recording != 0) {
      if (v.recording != recording_) fail_stray(where_);
      return v.id;
    }
    constexpr int64_t kExact = int64_t{1} << 53;
    if (v.integer && (v.bits > kExact || v.bits < -kExact))
      fail("pointwise: integers beyond 2^53 cannot stand in a formula; pass " + std::to_string(v.bits) +
               " as an argument",
           where_);
    ops::FormulaNode n;
    n.kind = v.integer ? ops::FormulaNode::Kind::integer : ops::FormulaNode::Kind::floating;
    n.bits = v.bits;
    return add(std::move(n));
  }
  int32_t add(ops::FormulaNode n) {
    formula_.nodes.push_back(std::move(n));
    return static_cast<int32_t>(formula_.nodes.size()) - 1;
  }

  [[noreturn]] static void fail_stray(Location where) {
    fail("pointwise: a symbol was used outside of the call that it was made for", where);
  }

  static constinit thread_local FormulaBuilder* current;
  FormulaBuilder* const outer_;
  uint64_t recording_ = 0;
  ops::Formula formula_;
  Location where_;
};
constinit thread_local FormulaBuilder* FormulaBuilder::current = nullptr;

Symbol symbol_call(const char* name, std::initializer_list<SymbolOrNumber> in,
                   std::initializer_list<int64_t> words) {
  return FormulaBuilder::of_this_thread().step(name, in, words);
}

uint16_t record_pointwise(const std::string& name, int n, Symbol (*function)(const Symbol*), Location where) {
  FormulaBuilder builder(n, where);
  const Symbol s[] = {builder.operand(0), builder.operand(1), builder.operand(2), builder.operand(3)};
  ops::Formula formula = builder.finish(function(s));
  std::string known_as = name;
  if (name.empty()) known_as = "pointwise" + (where.known() ? " (" + to_string(where) + ")" : "");
  return static_cast<uint16_t>(ops::register_formula(std::move(known_as), std::move(formula)));
}

Tensor call_pointwise(uint16_t op, std::span<const Operand* const> operands) {
  Location where;
  bool tensor = false;
  for (const Operand* o : operands) {
    if (!where.known()) where = o->where;
    tensor = tensor || o->impl;
  }
  const auto id = static_cast<ops::OpId>(op);
  if (!tensor) fail(std::string(ops::def(id).name) + ": at least one operand must be a tensor", where);
  CallBuilder call(id, where);
  for (const Operand* o : operands) call.in(*o);
  return call.run();
}

}  // namespace eager

Symbol clamp(const Symbol& a, std::optional<double> low, std::optional<double> high) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return eager::symbol_call("clamp", {a, low.value_or(-kInfinity), high.value_or(kInfinity)});
}

}  // namespace tandem
