// The passes over graphs. All are exact: no result changes by a bit. They run after composites are expanded, so that what
// two composites share (a log-softmax forward, recomputed by its gradient) is computed once.
#include <bit>
#include <chrono>
#include <cstdio>
#include <map>

#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/log.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/graph.h"

namespace tandem::jit {

namespace {

using ops::OpKind;

/// Copies a graph node by node; `replace` may name an earlier value of the new graph for a node's only result instead.
template <class Replace>
Graph rewrite(const Graph& g, Replace&& replace) {
  Graph out;
  std::vector<int32_t> renamed(g.values.size(), -1);
  for (const Node& n : g.nodes) {
    Node copy = n;
    for (int32_t& v : copy.in)
      if (v >= 0) v = renamed[static_cast<size_t>(v)];
    int32_t first = n.out.size() == 1 ? replace(out, copy, g.type(n.out[0])) : -1;
    if (first < 0) first = copy_node(out, g, n, renamed);
    for (size_t j = 0; j < n.out.size(); ++j) renamed[static_cast<size_t>(n.out[j])] = first + static_cast<int32_t>(j);
  }
  for (const int32_t v : g.outputs) out.outputs.push_back(renamed[static_cast<size_t>(v)]);
  for (const Write& w : g.writes) out.writes.push_back({w.input, renamed[static_cast<size_t>(w.value)]});
  return out;
}

bool is_one(const Graph& g, int32_t v) {
  const Node& n = g.node_of(v);
  return n.leaf == Leaf::constant && std::bit_cast<double>(n.bits) == 1;
}

/// Arithmetic of constant numbers, and ops that give back their operand: x * 1, x / 1, casts and views to the same type,
/// views of views of the same kind.
Graph fold(const Graph& g) {
  return rewrite(g, [](Graph& out, const Node& n, const TensorType& type) -> int32_t {
    if (n.leaf == Leaf::number_op) {
      double v[2] = {0, 0};
      for (size_t i = 0; i < n.in.size(); ++i) {
        if (out.node_of(n.in[i]).leaf != Leaf::constant) return -1;
        v[i] = std::bit_cast<double>(out.node_of(n.in[i]).bits);
      }
      return out.add_constant(ops::number_arithmetic(static_cast<ops::ScalarOp>(n.words[0]), v[0], v[1]));
    }
    if (n.leaf != Leaf::op || n.in.empty() || n.in[0] < 0) return -1;
    const bool same = out.type(n.in[0]) == type;
    switch (n.op) {
      case OpId::mul:
        if (same && is_one(out, n.in[1])) return n.in[0];
        if (out.type(n.in[1]) == type && is_one(out, n.in[0])) return n.in[1];
        return -1;
      case OpId::div: return same && is_one(out, n.in[1]) ? n.in[0] : -1;
      case OpId::cast:
      case OpId::expand:
      case OpId::reshape:
      case OpId::squeeze: return same ? n.in[0] : -1;
      case OpId::permute: {
        for (int64_t i = 0; i < n.words[0]; ++i)
          if (n.words[static_cast<size_t>(i) + 1] != i) return -1;
        return n.in[0];
      }
      default: return -1;
    }
  });
}

/// Nodes with equal op, operands and attributes become one. Every op is a function of these: random ones too.
Graph common_subexpressions(const Graph& g) {
  std::map<std::tuple<int, int, int64_t, std::vector<int32_t>, std::vector<int64_t>>, int32_t> known;
  Graph out;
  std::vector<int32_t> renamed(g.values.size(), -1);
  for (const Node& n : g.nodes) {
    std::vector<int32_t> in = n.in;
    for (int32_t& v : in)
      if (v >= 0) v = renamed[static_cast<size_t>(v)];
    // Run-time numbers and inputs are told apart by their position.
    const bool positional = n.leaf == Leaf::input || n.leaf == Leaf::number;
    const auto [it, fresh] = known.try_emplace(
        {static_cast<int>(n.leaf), static_cast<int>(n.op), positional ? n.index : n.bits, std::move(in), n.words}, -1);
    if (fresh) it->second = copy_node(out, g, n, renamed);
    for (size_t j = 0; j < n.out.size(); ++j) renamed[static_cast<size_t>(n.out[j])] = it->second + static_cast<int32_t>(j);
  }
  for (const int32_t v : g.outputs) out.outputs.push_back(renamed[static_cast<size_t>(v)]);
  for (const Write& w : g.writes) out.writes.push_back({w.input, renamed[static_cast<size_t>(w.value)]});
  return out;
}

/// Nodes that no output and no write needs are left out; inputs and numbers stay, since callers count them.
Graph dead_code(const Graph& g) {
  std::vector<char> needed(g.values.size(), 0);
  for (const int32_t v : g.outputs) needed[static_cast<size_t>(v)] = 1;
  for (const Write& w : g.writes) needed[static_cast<size_t>(w.value)] = 1;
  std::vector<char> keep(g.nodes.size(), 0);
  for (size_t i = g.nodes.size(); i-- > 0;) {
    const Node& n = g.nodes[i];
    keep[i] = n.leaf == Leaf::input || n.leaf == Leaf::number;
    for (const int32_t v : n.out) keep[i] |= needed[static_cast<size_t>(v)];
    for (const int32_t v : n.in)
      if (keep[i] && v >= 0) needed[static_cast<size_t>(v)] = 1;
  }
  Graph out;
  std::vector<int32_t> renamed(g.values.size(), -1);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (!keep[i]) continue;
    const int32_t first = copy_node(out, g, g.nodes[i], renamed);
    for (size_t j = 0; j < g.nodes[i].out.size(); ++j)
      renamed[static_cast<size_t>(g.nodes[i].out[j])] = first + static_cast<int32_t>(j);
  }
  for (const int32_t v : g.outputs) out.outputs.push_back(renamed[static_cast<size_t>(v)]);
  for (const Write& w : g.writes) out.writes.push_back({w.input, renamed[static_cast<size_t>(w.value)]});
  return out;
}

}  // namespace

const std::vector<Pass>& passes() {
  static const std::vector<Pass> list = {
      {"expand", expand_composites},
      {"fold", fold},
      {"common_subexpressions", common_subexpressions},
      {"dead_code", dead_code},
  };
  return list;
}

Graph optimize(const Graph& graph, const std::vector<std::string>& disabled) {
  Graph g = graph;
  const bool dump = core::dumps("passes");
  std::string before = dump ? to_string(g) : std::string();
  if (dump) std::fprintf(stderr, "before passes:\n%s", before.c_str());
  for (const Pass& pass : passes()) {
    bool off = false;
    for (const std::string& d : disabled) off |= d == pass.name;
    if (off) continue;
    const auto start = std::chrono::steady_clock::now();
    g = pass.run(g);
#ifndef NDEBUG
    check(g, pass.name);
#endif
    if (core::log_enabled(core::LogArea::jit, core::LogLevel::debug)) {
      const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      core::log(core::LogArea::jit, core::LogLevel::debug,
                std::string("pass ") + pass.name + ": " + std::to_string(ms) + " ms, " + std::to_string(g.nodes.size()) + " nodes");
    }
    if (!dump) continue;
    const std::string after = to_string(g);
    std::fprintf(stderr, "after %s:%s", pass.name, after == before ? " (unchanged)\n" : ("\n" + after).c_str());
    before = after;
  }
  return g;
}

}  // namespace tandem::jit
