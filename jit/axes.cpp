// How nodes and values lie in a group's space.
#include <algorithm>
#include <bit>

#include "tandem/core/error.h"
#include "tandem/jit/grouping.h"
#include "tandem/jit/planted_bugs.h"
#include "tandem/jit/tails.h"

namespace tandem::jit {

using ops::OpKind;

namespace {
constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }
}  // namespace

const Dims& walked_sizes(const Graph& g, const Node& n) {
  const bool reduction = ops::def(n.op).kind == OpKind::reduction;
  return g.type(reduction ? n.in[0] : n.out[0]).sizes;
}

int gather_axis(const Graph& g, const Node& n) {
  const ops::OpDef& d = ops::def(n.op);
  return normalize_axis(n.words[at(d.structural_index(0))], g.type(n.in[0]).sizes.rank(), d.name, n.where);
}

int walked_axis(const Graph& g, const Node& n, int k, int d) {
  switch (ops::def(n.op).kind) {
    case OpKind::reduction:
      return d;
    case OpKind::gather:
      // A rank-1 index runs along the axis of the result; otherwise the operands' axes are the result's.
      if (k == 1 && n.op == OpId::index_select) return gather_axis(g, n);
      return d;
    default: {
      const Dims &to = g.type(n.out[0]).sizes, &from = g.type(n.in[at(k)]).sizes;
      if (planted(PlantedBug::broadcast_axis) && std::equal(from.begin(), from.end(), to.begin())) return d;
      return d + to.rank() - from.rank();
    }
  }
}

Dims reduced_axes(const Graph& g, const Node& n) {
  const ops::OpDef& d = ops::def(n.op);
  for (int a = 0; a < d.n_attrs; ++a) {
    if (d.attrs[a].type != ops::AttrType::list) continue;
    const size_t i = at(d.structural_index(a));
    return ops::normalize_axes(Dims(n.words.data() + i + 1, n.words[i]), g.type(n.in[0]).sizes.rank(), d.name,
                               n.where);
  }
  internal_error(std::string("a reduction without axes: ") + d.name);
}

bool axes_of_value(const Prepared& p, const Grouping& grouping, int32_t v, Axes& axes) {
  const int32_t root = p.root(v);
  const Node& n = p.g.node_of(root);
  const Axes& walked = grouping.axes[at(p.g.values[at(root)].node)];
  const Dims& sizes = p.g.type(root).sizes;
  Axes own = walked;
  if (ops::def(n.op).kind == OpKind::reduction) {
    const Dims& in = p.g.type(n.in[0]).sizes;
    const Dims gone = reduced_axes(p.g, n);
    const bool keeps = sizes.rank() == in.rank();
    int o = 0;
    for (int d = 0; d < in.rank(); ++d) {
      const bool reduced = std::find(gone.begin(), gone.end(), d) != gone.end();
      if (!reduced)
        own[at(o++)] = walked[at(d)];
      else if (keeps)
        own[at(o++)] = -1;
    }
  }
  AxisMap map;
  axes.fill(-1);
  if (!axes_of_root(sizes, p.layout(v), map)) return false;
  for (int d = 0; d < p.layout(v).sizes.rank(); ++d)
    if (map[d] >= 0) axes[at(d)] = own[at(map[d])];
  return true;
}

bool trailing(uint32_t reduced, int rank) {
  const uint32_t kept = ~reduced & ((1u << rank) - 1);
  return (kept & (kept + 1)) == 0;
}

int32_t maker_of(const Prepared& p, const Grouping& grouping, int32_t v) {
  if (v < 0 || p.value_class(v) != ValueClass::memory) return -1;
  return grouping.group_of[at(p.values_node(p.root(v)))];
}

bool related_axes(const Prepared& p, const Grouping& r, int a, int b, Axes& sigma) {
  const auto note = [&](int from_b, int to_a) {
    if (from_b < 0 || to_a < 0) return from_b < 0 && to_a < 0;
    int8_t& s = sigma[at(from_b)];
    if (s >= 0 && s != to_a) return false;
    s = static_cast<int8_t>(to_a);
    return true;
  };
  for (const bool in_a : {true, false}) {
    for (const int32_t i : r.groups[at(in_a ? a : b)].nodes) {
      const Node& n = p.g.nodes[at(i)];
      for (size_t k = 0; k < n.in.size(); ++k) {
        if (maker_of(p, r, n.in[k]) != (in_a ? b : a)) continue;
        if (ops::def(n.op).kind == OpKind::gather && k == 0) return false;
        Axes in;
        if (!axes_of_value(p, r, n.in[k], in)) return false;
        const int rank = p.g.type(n.in[k]).sizes.rank();
        for (int d = 0; d < rank; ++d) {
          if (in[at(d)] < 0) continue;
          const int walked = r.axes[at(i)][at(walked_axis(p.g, n, static_cast<int>(k), d))];
          if (!(in_a ? note(in[at(d)], walked) : note(walked, in[at(d)]))) return false;
        }
      }
    }
  }
  return true;
}

bool same_walk(const Prepared& p, const Grouping& grouping, int32_t first, int32_t second, Axes& sigma) {
  const Node& n = p.g.nodes[at(first)];
  const Node& m = p.g.nodes[at(second)];
  for (size_t i = 0; i < n.in.size(); ++i)
    for (size_t k = 0; k < m.in.size(); ++k) {
      const int32_t v = n.in[i], w = m.in[k];
      if (v < 0 || w < 0 || p.value_class(v) != ValueClass::memory || p.value_class(w) != ValueClass::memory)
        continue;
      const ops::Layout &lv = p.layout(v), &lw = p.layout(w);
      if (p.root(v) != p.root(w) || !(lv.sizes == lw.sizes) || !(lv.strides == lw.strides) ||
          lv.offset != lw.offset)
        continue;
      if (numel(lv.sizes) != numel(walked_sizes(p.g, n)) || numel(lw.sizes) != numel(walked_sizes(p.g, m)))
        continue;
      if ((i == 0 && ops::def(n.op).kind == OpKind::gather) ||
          (k == 0 && ops::def(m.op).kind == OpKind::gather))
        continue;
      sigma.fill(-1);
      for (int d = 0; d < lv.sizes.rank(); ++d) {
        const int a = grouping.axes[at(first)][at(walked_axis(p.g, n, static_cast<int>(i), d))];
        const int b = grouping.axes[at(second)][at(walked_axis(p.g, m, static_cast<int>(k), d))];
        if (a >= 0 && b >= 0) sigma[at(b)] = static_cast<int8_t>(a);
      }
      return true;
    }
  return false;
}

bool takes_product_on(const Prepared& p, const Group& g, const std::vector<int32_t>& reads) {
  if (g.kind != GroupKind::pointwise) return false;
  const auto by_product = [&](int32_t root) {
    const Node& n = p.g.node_of(root);
    if (n.leaf != Leaf::op || ops::def(n.op).kind != OpKind::contraction ||
        numel(p.g.type(root).sizes) != numel(g.space))
      return false;
    Contraction c;
    contraction_of(p, n, c);
    return rows_of(c) > 0;
  };
  const auto to_product = [&](int32_t i) {
    const auto& users = p.users[at(p.g.nodes[at(i)].out[0])];
    return std::any_of(users.begin(), users.end(),
                       [&](int32_t u) { return ops::def(p.g.nodes[at(u)].op).kind == OpKind::contraction; });
  };
  return std::any_of(reads.begin(), reads.end(), by_product) &&
         std::any_of(g.nodes.begin(), g.nodes.end(), to_product);
}

bool complete_axes(const Group& g, const Dims& sizes, Axes& axes, bool& full) {
  const uint32_t all = (1u << g.space.rank()) - 1;
  uint32_t used = 0;
  for (int d = 0; d < sizes.rank(); ++d) {
    if (axes[at(d)] < 0) continue;
    if (used >> axes[at(d)] & 1) return false;
    used |= 1u << axes[at(d)];
  }
  for (const bool whole : {true, false}) {
    if (!whole && g.reduced == 0) return false;
    uint32_t rest = (whole ? all : all & ~g.reduced) & ~used;
    if (!whole && (used & g.reduced)) return false;
    Axes result = axes;
    bool good = true;
    for (int d = 0; d < sizes.rank() && good; ++d) {
      if (sizes[d] == 1 || axes[at(d)] >= 0) continue;
      const int a = std::countr_zero(rest);
      good = rest != 0 && g.space[a] == sizes[d];
      if (!good) break;
      result[at(d)] = static_cast<int8_t>(a);
      rest &= rest - 1;
    }
    if (!good || rest != 0) continue;
    axes = result;
    full = whole;
    return true;
  }
  return false;
}

}  // namespace tandem::jit
