// Random graphs: one kernel per node, fused by the evaluator, fused and compiled must agree bit for bit,
// whatever passes are left out, and each node with the float64 reference. The same run finds ten bugs that
// are planted on purpose.
#include <cstdio>
#include <map>

#include "tandem/jit/make_plan.h"
#include "tandem/jit/planted_bugs.h"
#include "tandem/jit/precompile.h"
#include "tests/catch.h"
#include "tests/jit/graph_judge.h"
#include "tests/jit/random_graphs.h"

using namespace tandem;
using namespace tandem::jit;
using namespace tandem::test;

namespace {

constexpr uint64_t kFirstSeed = 1;
constexpr int kGraphs = 500;
constexpr int kCompiledEvery = 6;  // the host compiler takes about a second for a dozen kernels

// --- Coverage ---

constexpr const char* kKindNames[] = {"pointwise", "reduction",   "view",        "piecewise",
                                      "gather",    "scatter",     "scan",        "random",
                                      "fill",      "contraction", "convolution", "composite"};
constexpr const char* kGroupNames[] = {"pointwise", "row", "column", "product", "native", "horizontal"};
constexpr int kKinds = 12, kGroupKinds = 6, kHorizontal = 5;
using Coverage = std::array<std::array<int, kGroupKinds>, kKinds>;

void cover(const Graph& graph, Coverage& c) {
  Graph ready = optimize(graph);
  const auto [p, grouping, plan] = make_plan(ready, true, cpu);
  const auto note = [&](ops::OpKind kind, int group_kind) {
    ++c[static_cast<size_t>(kind)][static_cast<size_t>(group_kind)];
  };
  for (const Group& g : grouping.groups)
    for (const int32_t i : g.nodes) {
      const Node& n = p.g.nodes[static_cast<size_t>(i)];
      const int kind = static_cast<int>(g.kind);
      note(ops::def(n.op).kind, kind);
      if (drawn_op(n).kind == ops::OpKind::composite) note(ops::OpKind::composite, kind);
      for (const int32_t v : n.in)
        if (v >= 0 && p.value_class(v) == ValueClass::memory && p.root(v) != v) note(ops::OpKind::view, kind);
    }
  for (const Entry& e : plan.entries) {
    if (e.kind != EntryKind::kernel || e.count < 2) continue;
    if (e.where.known() && ops::def(static_cast<OpId>(e.where.line - 1)).kind == ops::OpKind::composite)
      note(ops::OpKind::composite, kHorizontal);
    for (size_t at = 0; at < e.name.size();) {
      const size_t end = std::min(e.name.find('+', at), e.name.size());
      if (const ops::OpDef* d = ops::find_op(e.name.substr(at, end - at).c_str())) note(d->kind, kHorizontal);
      at = end + 1;
    }
  }
}

/// What can meet: products and natives are groups of their own, gathers may fail and are not joined, what
/// asks for its position is never in a column kernel.
bool possible(ops::OpKind kind, int group_kind) {
  using ops::OpKind;
  const auto g = static_cast<GroupKind>(group_kind);
  switch (kind) {
    case OpKind::pointwise:
    case OpKind::composite:
      return group_kind == kHorizontal || (g != GroupKind::product && g != GroupKind::native);
    case OpKind::view:
      return group_kind != kHorizontal && g != GroupKind::native;
    case OpKind::reduction:
      return group_kind == kHorizontal || g == GroupKind::row || g == GroupKind::column;
    case OpKind::gather:
      return group_kind != kHorizontal && g != GroupKind::product && g != GroupKind::native;
    case OpKind::random:
    case OpKind::fill:
      return group_kind == kHorizontal || g == GroupKind::pointwise || g == GroupKind::row;
    case OpKind::contraction:
      return group_kind != kHorizontal && g == GroupKind::product;
    case OpKind::piecewise:
    case OpKind::scatter:
    case OpKind::scan:
    case OpKind::convolution:
    case OpKind::kernel:
      return group_kind != kHorizontal && g == GroupKind::native;
  }
  return false;
}

class Plant {
 public:
  explicit Plant(PlantedBug bug) { planted_bug = bug; }
  ~Plant() { planted_bug = PlantedBug::none; }
};

}  // namespace

TEST_CASE("random graphs give the same bits fused, compiled and node by node", "[random]") {
  std::printf("random graphs: seeds %llu to %llu, every %dth compiled\n",
              static_cast<unsigned long long>(kFirstSeed),
              static_cast<unsigned long long>(kFirstSeed + kGraphs - 1), kCompiledEvery);
  std::vector<RandomGraph> graphs;
  std::vector<Graph> to_compile;
  Coverage coverage{};
  std::map<std::string, int> drawn;
  Tally tally;
  for (int i = 0; i < kGraphs; ++i) {
    graphs.push_back(random_graph(kFirstSeed + static_cast<uint64_t>(i)));
    for (const Node& n : graphs.back().graph.nodes) {
      tally.nodes += n.leaf == Leaf::op;
      if (n.leaf == Leaf::op) ++drawn[ops::def(n.op).name];
    }
    cover(graphs.back().graph, coverage);
  }
  for (int i = 0; i < kGraphs; i += kCompiledEvery)
    to_compile.push_back(graphs[static_cast<size_t>(i)].graph);
  std::printf("random graphs: %d kernels compiled\n", jit::precompile(to_compile, cpu));
  for (int i = 0; i < kGraphs; ++i) {
    const RandomGraph& r = graphs[static_cast<size_t>(i)];
    const std::string found = judge(r.graph, r.arguments, i % kCompiledEvery == 0, r.seed, tally);
    if (!found.empty()) {
      UNSCOPED_INFO("seed " << r.seed << "\n" << to_string(r.graph));
      CHECK(found == "");
    }
  }
  std::printf(
      "random graphs: %d ops drawn, %d nodes against float64 (%d left out for integers beyond 2^52), %d "
      "kernels ran compiled, %d interpreted\n",
      tally.nodes, tally.checked, tally.skipped, tally.compiled, tally.interpreted);
  CHECK(tally.compiled > 50);
  CHECK(tally.skipped * 20 < tally.checked);

  std::printf("%-12s", "");
  for (const char* name : kGroupNames) std::printf("%11s", name);
  for (int k = 0; k < kKinds; ++k) {
    std::printf("\n%-12s", kKindNames[k]);
    for (int g = 0; g < kGroupKinds; ++g) {
      const bool wanted = possible(static_cast<ops::OpKind>(k), g);
      const int n = coverage[static_cast<size_t>(k)][static_cast<size_t>(g)];
      std::printf("%11s", wanted || n ? std::to_string(n).c_str() : "-");
      CAPTURE(kKindNames[k], kGroupNames[g]);
      if (wanted) CHECK(n > 0);
    }
  }
  std::printf("\n");
  for (int id = 0; id < ops::kOpCount; ++id) {
    const char* name = ops::def(static_cast<OpId>(id)).name;
    CAPTURE(name);
    CHECK(drawn[name] > 0);
  }
}

TEST_CASE("random graphs find ten planted bugs", "[random]") {
  struct Planted {
    PlantedBug bug;
    const char* name;
  };
  const Planted bugs[] = {
      {PlantedBug::attributes_ignored, "attributes_ignored"},
      {PlantedBug::writes_dropped, "writes_dropped"},
      {PlantedBug::times_zero, "times_zero"},
      {PlantedBug::reduction_order, "reduction_order"},
      {PlantedBug::broadcast_axis, "broadcast_axis"},
#ifndef __SANITIZE_ADDRESS__  // which ends the process where a copy's two memories overlap
      {PlantedBug::arena_overlap, "arena_overlap"},
#endif
      {PlantedBug::write_before_read, "write_before_read"},
      {PlantedBug::permutation_ignored, "permutation_ignored"},
      {PlantedBug::numbers_swapped, "numbers_swapped"},
      {PlantedBug::rounding_skipped, "rounding_skipped"},
  };
#ifndef __SANITIZE_ADDRESS__
  static_assert(std::size(bugs) + 1 == static_cast<size_t>(PlantedBug::count_));
#endif
  for (const Planted& b : bugs) {
    std::string found;
    uint64_t seed = kFirstSeed;
    for (; seed < kFirstSeed + kGraphs; ++seed) {
      const RandomGraph r = random_graph(seed);
      Tally tally;
      const Plant plant(b.bug);
      found = judge(r.graph, r.arguments, false, r.seed, tally);
      if (!found.empty()) break;
    }
    std::printf("planted bug %s: seed %llu, %s\n", b.name, static_cast<unsigned long long>(seed),
                found.substr(0, found.find('\n')).c_str());
    CAPTURE(b.name);
    REQUIRE(found != "");
  }
}

TEST_CASE("three thousand more random graphs", "[random][full]") {
  Tally tally;
  for (uint64_t seed = 1000001; seed < 1003001; ++seed) {
    const RandomGraph r = random_graph(seed);
    const std::string found = judge(r.graph, r.arguments, false, r.seed, tally);
    if (found.empty()) continue;
    UNSCOPED_INFO("seed " << seed << "\n" << to_string(r.graph));
    CHECK(found == "");
  }
}
