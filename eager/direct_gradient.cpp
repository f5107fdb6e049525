// Rules are not listed here: each is run once over an empty graph, for operands of one shape, and looked at.
// It is a short one if every result is the gradient that flows or one op with a short way over what the graph
// was given.
#include <algorithm>
#include <array>
#include <atomic>

#include "tandem/core/profile.h"
#include "tandem/eager/direct.h"
#include "tandem/eager/direct_rows.h"
#include "tandem/eager/tape.h"
#include "tandem/jit/graph.h"

namespace tandem::eager {

namespace {

/// What a rule reads: saved operands, the saved result, the gradient.
enum Source : int8_t { kFirst, kSecond, kResult, kGrad, kSources };

struct Step {
  const DirectRow* row = nullptr;  // null: the gradient itself
  Source a = kGrad, b = kGrad;
};

struct GradientRow {
  uint8_t known = 0;      // bit m: for the operands of mask m
  Step steps[4][2];       // per mask and operand
  uint8_t reads[4] = {};  // per mask, of the sources
};

/// The step that makes value `v`, if it is one.
bool step_of(const jit::Graph& g, int32_t v, const int32_t* sources, Step& step) {
  const auto source = [&](int32_t value, Source& out) {
    const int32_t* const found = std::find(sources, sources + kSources, value);
    out = static_cast<Source>(found - sources);
    return out != kSources;
  };
  if (v == sources[kGrad]) return true;
  const jit::Node& n = g.node_of(v);
  if (n.leaf != jit::Leaf::op || ops::is_user(n.op) || n.out.size() != 1 || !n.words.empty()) return false;
  const DirectRow& row = direct_rows()[static_cast<size_t>(n.op)];
  step.row = &row;
  switch (row.way) {
    case Way::unary:
    case Way::constant:
      return n.in.size() == 1 && source(n.in[0], step.a);
    case Way::binary:
      return n.in.size() == 2 && source(n.in[0], step.a) && source(n.in[1], step.b);
    case Way::none:
    case Way::reduction:
    case Way::reshape:
    case Way::permute:
    case Way::slice:
    case Way::select:
      break;
  }
  return false;
}

void add_mask(GradientRow& row, const ops::OpDef& op, uint32_t mask) {
  const ops::TensorType type{DType::float32, cpu, false, {4}};
  const std::vector<ops::TensorType> types(static_cast<size_t>(op.n_in), type);
  const ops::Saves saves = ops::saves(op, mask);
  jit::Graph graph;
  jit::GraphEmitter emitter(graph, true);
  int32_t sources[kSources] = {-1, -1, -1, -1};
  const auto given = [&](Source s) {
    const ops::Value v{graph.add_input(type, {1})};
    sources[s] = v.id;
    return v;
  };
  ops::Value operands[2], results[2];
  bool needed[2] = {};
  for (int i = 0; i < op.n_in; ++i) {
    needed[i] = ((mask >> i) & 1) != 0;
    if ((saves.in >> i) & 1) operands[i] = given(static_cast<Source>(i));
  }
  const ops::Value output = (saves.out & 1) ? given(kResult) : ops::Value{}, grad = given(kGrad);
  const auto n = static_cast<size_t>(op.n_in);
  ops::Gradient g{.e = emitter,
                  .op = op,
                  .operands = {operands, n},
                  .operand_types = types,
                  .outputs = {&output, 1},
                  .grads = {&grad, 1},
                  .words = {},
                  .needed = {needed, n},
                  .results = results};
  ops::emit_gradient(g);
  for (size_t i = 0; i < n; ++i)
    if (needed[i] && (!results[i] || !step_of(graph, results[i].id, sources, row.steps[mask][i]))) return;
  for (int s = 0; s < kSources; ++s)
    if (sources[s] >= 0) row.reads[mask] |= static_cast<uint8_t>(1 << s);
  row.known |= static_cast<uint8_t>(1 << mask);
}

const GradientRow* make_row(ops::OpId id) {
  auto* const row = new GradientRow;
  const ops::OpDef& op = ops::def(id);
  // Those with a short way themselves: their operands and results are of one type and shape.
  const Way way = direct_rows()[static_cast<size_t>(id)].way;
  if (op.differentiable && (way == Way::unary || way == Way::binary || way == Way::constant))
    for (uint32_t mask = 1; mask < 1u << op.n_in; ++mask) add_mask(*row, op, mask);
  return row;
}

/// Made at the first gradient of each op; lives to the process's end.
const GradientRow& gradient_row(ops::OpId id) {
  static constinit std::array<std::atomic<const GradientRow*>, ops::kOpCount> rows{};
  std::atomic<const GradientRow*>& place = rows[static_cast<size_t>(id)];
  const GradientRow* row = place.load(std::memory_order_acquire);
  if (row) [[likely]]
    return *row;
  const GradientRow* const made = make_row(id);
  if (place.compare_exchange_strong(row, made)) return *made;
  delete made;
  return *row;
}

bool same_type(const ops::TensorType& type, const TensorImpl* g) {
  return type.dtype == DType::float32 && type.sizes == g->sizes;
}

}  // namespace

bool direct_gradient(const Node& n, std::span<const Ref<TensorImpl>> grads, std::vector<Ref<TensorImpl>>& out,
                     std::vector<GradientMemory>& memory) {
  if (n.numbers != 0 || n.in.size() > 2 || n.op >= ops::OpId::count_) return false;
  const GradientRow& row = gradient_row(n.op);
  if (row.known == 0 || core::host_copies.load(std::memory_order_relaxed) != 0) return false;
  const TensorImpl* g = grads[0].get();
  if (!directly<false>(g)) return false;
  uint32_t mask = 0;
  const TensorImpl* sources[kSources] = {nullptr, nullptr, n.out[0].saved.value.get(), g};
  for (size_t i = 0; i < n.in.size(); ++i) {
    const Node::In& in = n.in[i];
    if (in.edge) mask |= 1u << i;
    if (!same_type(in.type, g)) return false;
    sources[i] = in.saved.value.get();
  }
  if (((row.known >> mask) & 1) == 0) return false;
  for (int s = 0; s < kSources; ++s)
    if (((row.reads[mask] >> s) & 1) != 0 && !(directly<false>(sources[s]) && sources[s]->sizes == g->sizes))
      return false;
  for (size_t i = 0; i < n.in.size(); ++i) {
    if (((mask >> i) & 1) == 0) continue;
    const Step& step = row.steps[mask][i];
    if (!step.row) {
      out[i] = grads[0];
      continue;
    }
    out[i] = core::make_tensor(g->sizes, DType::float32);
    memory[i] = GradientMemory::own;
    const void* const a = sources[step.a]->data;
    if (step.row->way == Way::unary)
      step.row->unary(out[i]->data, a, g->numel);
    else if (step.row->way == Way::constant)
      step.row->second(out[i]->data, a, &step.row->constant, g->numel);
    else
      step.row->binary(out[i]->data, a, sources[step.b]->data, g->numel);
  }
  return true;
}

}  // namespace tandem::eager
