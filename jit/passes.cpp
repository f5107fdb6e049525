// The passes over graphs. All are exact: no result changes by a bit (a NaN stays a NaN). They run after
// composites are expanded, so that what two composites share (a log-softmax forward, recomputed by its
// gradient) is computed once.
#include <bit>
#include <chrono>
#include <cstdio>
#include <map>
#include <optional>

#include "tandem/core/env.h"
#include "tandem/core/error.h"
#include "tandem/core/log.h"
#include "tandem/jit/expand.h"
#include "tandem/jit/fold.h"
#include "tandem/jit/graph.h"
#include "tandem/jit/planted_bugs.h"
#include "tandem/jit/rewrite.h"

namespace tandem::jit {

#ifdef TANDEM_TEST_SWITCHES
PlantedBug planted_bug = PlantedBug::none;
#endif

namespace {

Graph fold(const Graph& g) {
  Rewrite r(g);
  for (const Node& n : g.nodes) {
    int32_t first = -1;
    if (n.out.size() == 1) {
      Node node = n;
      for (int32_t& v : node.in) v = r[v];
      first = folded(r.to, node, g.type(n.out[0]));
    }
    r.name(n, first >= 0 ? first : r.copy(n));
  }
  return r.finish();
}

/// The value of a constant or of what is counted.
std::optional<double> known_number(const Graph& g, const Node& n) {
  if (n.leaf == Leaf::constant) return std::bit_cast<double>(n.bits);
  if (n.leaf != Leaf::count) return std::nullopt;
  int64_t count = 1;
  for (const int64_t axis : n.words) count *= g.type(n.in[0]).sizes[static_cast<int>(axis)];
  return static_cast<double>(count);
}

/// Nodes with equal op, operands and attributes become one. Every op is a function of these: random ones too.
/// What a composite counts is a constant to the rule of its gradient: as operands, equal ones are the same.
Graph common_subexpressions(const Graph& g) {
  std::map<std::tuple<int, int, int64_t, std::vector<int32_t>, std::vector<int64_t>>, int32_t> known;
  std::map<int64_t, int32_t> numbers;  // by bits
  std::vector<int32_t> same(
      g.values.size());  // per value: the first of its number, or itself in the new graph
  Rewrite r(g);
  for (const Node& n : g.nodes) {
    std::vector<int32_t> in = n.in;
    for (int32_t& v : in) v = v < 0 ? v : same[static_cast<size_t>(v)];
    // Run-time numbers and inputs are told apart by their position.
    const bool positional = n.leaf == Leaf::input || n.leaf == Leaf::number;
    std::vector<int64_t> words = n.words;
    if (planted(PlantedBug::attributes_ignored)) {
      words.clear();  // only where the types agree, or the graph would not hold together
      for (const int32_t v : n.out)
        for (const char c : to_string(g.type(v))) words.push_back(c);
    }
    const auto [it, fresh] =
        known.try_emplace({static_cast<int>(n.leaf), static_cast<int>(n.op), positional ? n.index : n.bits,
                           std::move(in), std::move(words)},
                          -1);
    if (fresh) it->second = r.copy(n);
    r.name(n, it->second);
    for (const int32_t v : n.out) same[static_cast<size_t>(v)] = r[v];
    if (const auto number = known_number(g, n))
      same[static_cast<size_t>(n.out[0])] =
          numbers.try_emplace(std::bit_cast<int64_t>(*number), it->second).first->second;
  }
  return r.finish();
}

}  // namespace

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
  Rewrite r(g);
  for (size_t i = 0; i < g.nodes.size(); ++i)
    if (keep[i]) r.name(g.nodes[i], r.copy(g.nodes[i]));
  Graph result = r.finish();
  if (planted(PlantedBug::writes_dropped)) result.writes.clear();
  return result;
}

const std::vector<Pass>& passes() {
  static const std::vector<Pass> list = {
      {"expand", expand_composites},    {"fold", fold},
      {"join_pads", join_pads},         {"common_subexpressions", common_subexpressions},
      {"dead_code", dead_code},         {"relu_behind_pooling", relu_behind_pooling},
      {"rematerialise", rematerialise},
  };
  return list;
}

Graph optimize(const Graph& graph, const std::vector<std::string>& disabled) {
  Graph g = graph;
  const bool dump = core::dumps("passes");
  std::string before = dump ? to_string(g) : std::string();
  if (dump) core::dump("passes", "before passes:\n" + before);
  for (const Pass& pass : passes()) {
    bool off = false;
    for (const std::string& d : disabled) off |= d == pass.name;
    if (off) continue;
    const auto start = std::chrono::steady_clock::now();
    g = pass.run(g);
#if !defined(NDEBUG) || defined(TANDEM_TEST_SWITCHES)
    check(g, pass.name);
#endif
    if (core::log_enabled(core::LogArea::jit, core::LogLevel::debug)) {
      const double ms =
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
      core::log(core::LogArea::jit, core::LogLevel::debug,
                std::string("pass ") + pass.name + ": " + std::to_string(ms) + " ms, " +
                    std::to_string(g.nodes.size()) + " nodes");
    }
    if (!dump) continue;
    const std::string after = to_string(g);
    core::dump("passes",
               std::string("after ") + pass.name + (after == before ? ": (unchanged)" : ":\n" + after));
    before = after;
  }
  return g;
}

}  // namespace tandem::jit
