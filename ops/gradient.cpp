// Gradients of whole calls. A composite without a rule of its own is emitted again through a logging emitter,
// whose log is walked backwards: each value that depends on a wanted operand collects the sum of its users'
// contributions.
#include <algorithm>
#include <memory>
#include <unordered_map>
#include <utility>

#include "tandem/core/error.h"
#include "tandem/ops/reverse.h"

namespace tandem::ops {

namespace {

/// Broadcasting and promotion undone: the gradient of a pointwise operand in its own sizes and type.
void fit_operands(Gradient& g) {
  for (size_t i = 0; i < g.needed.size(); ++i) {
    if (!g.results[i]) continue;
    const Value summed = g.e.sum_to(g.results[i], g.operand_types[i].sizes);
    g.results[i] = g.e.cast(summed, g.operand_types[i].dtype);
  }
}

void reverse_body(Gradient& g) {
  LogEmitter log(g.e);
  Value results[kMaxOutputs];
  emit_body(log, g.op, g.operands, g.words, results);
  std::vector<Value> wanted(g.needed.size());
  for (size_t i = 0; i < wanted.size(); ++i)
    if (g.needed[i]) wanted[i] = g.operands[i];
  reverse(g.e, log.calls(), {results, static_cast<size_t>(g.op.n_out)}, g.grads, wanted, g.results);
}

}  // namespace

void LogEmitter::emit(OpId op, std::span<const Value> in, Words words, Value* out) {
  inner_.location = location;
  inner_.emit(op, in, words, out);
  calls_.push_back({op, {in.begin(), in.end()}, {words.begin(), words.end()}, {out, out + def(op).n_out}});
}

void reverse(Emitter& e, std::span<const LoggedCall> calls, std::span<const Value> roots,
             std::span<const Value> root_grads, std::span<const Value> wanted, Value* grads) {
  std::unordered_map<int32_t, Value>
      flowing;  // by value: its gradient so far; present, if undefined, for all that need one
  for (const Value v : wanted)
    if (v) flowing.emplace(v.id, Value{});
  const auto takes_gradient = [&](Value v) {
    return v && !e.type(v).number && is_floating(e.type(v).dtype) && flowing.contains(v.id);
  };
  for (const LoggedCall& c : calls) {
    bool depends = false;
    for (const Value v : c.in) depends = depends || takes_gradient(v);
    if (!depends || !def(c.op).differentiable) continue;
    for (const Value v : c.out)
      if (v && is_floating(e.type(v).dtype)) flowing.emplace(v.id, Value{});
  }
  const auto add = [&](Value to, Value gradient) {
    Value& sum = flowing.at(to.id);
    sum = sum ? e.add(sum, gradient) : gradient;
  };
  for (size_t i = 0; i < roots.size(); ++i)
    if (takes_gradient(roots[i]) && root_grads[i]) add(roots[i], root_grads[i]);

  for (size_t k = calls.size(); k-- > 0;) {
    const LoggedCall& c = calls[k];
    const OpDef& op = def(c.op);
    if (!op.differentiable) continue;
    std::vector<Value> out_grads;
    bool any = false;
    for (const Value v : c.out) {
      const auto it = v ? flowing.find(v.id) : flowing.end();
      out_grads.push_back(it == flowing.end() ? Value{} : it->second);
      any = any || out_grads.back();
    }
    if (!any) continue;
    const size_t n = c.in.size() - static_cast<size_t>(op.n_numbers());
    std::vector<TensorType> types(n);
    const auto needed = std::make_unique<bool[]>(n);
    std::vector<Value> results(n);
    for (size_t i = 0; i < n; ++i) {
      if (c.in[i]) types[i] = e.type(c.in[i]);
      needed[i] = takes_gradient(c.in[i]);
    }
    Gradient g{e, op, c.in, types, c.out, out_grads, c.words, {needed.get(), n}, results.data()};
    emit_gradient(g);
    for (size_t i = 0; i < n; ++i)
      if (needed[i] && results[i]) add(c.in[i], results[i]);
  }
  for (size_t i = 0; i < wanted.size(); ++i)
    grads[i] = wanted[i] ? std::exchange(flowing.at(wanted[i].id), Value{}) : Value{};
}

void emit_gradient(Gradient& g) {
  bool any = false;
  for (const Value v : g.grads) any = any || v;
  if (!any || !g.op.differentiable) return;
  if (!g.op.gradient) {
    TANDEM_INTERNAL(g.op.kind == OpKind::composite, std::string("no gradient of ") + g.op.name);
    return reverse_body(g);
  }
  g.op.gradient(g);
  if (g.op.kind == OpKind::pointwise) fit_operands(g);
}

void emit_body(Emitter& e, const OpDef& op, std::span<const Value> operands, Words words, Value* results) {
  TANDEM_INTERNAL(op.body, std::string(op.name) + " has no body");
  Body b{e, op, operands, words, results};
  op.body(b);
  // A result is never the operand itself: the gradients of both would be counted as one value's.
  for (Value& v : std::span(results, static_cast<size_t>(op.n_out)))
    if (std::find(operands.begin(), operands.end(), v) != operands.end()) v = e.call(OpId::clone, {v});
}

}  // namespace tandem::ops
