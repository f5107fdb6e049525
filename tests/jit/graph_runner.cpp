#include "tests/jit/graph_runner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "tandem/core/error.h"
#include "tandem/jit/kernel_table.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/recompute.h"
#include "tests/jit/program.h"
#include "tests/ops/reference_emitter.h"

namespace tandem::test {

using jit::Graph;
using jit::Leaf;
using jit::Node;
using ops::OpKind;
using ops::ScalarOp;
using ops::TensorType;

namespace {

constexpr size_t kGuard = 128;
constexpr char kGuardByte = 0x6B;

size_t at(int64_t i) { return static_cast<size_t>(i); }
size_t nbytes(const TensorType& t) { return at(numel(t.sizes) * itemsize(t.dtype)); }
/// The type that arithmetic on `t` is done in.
DType wide(DType t) { return is_half(t) ? DType::float32 : t; }

/// Reference results of one node for operand values that may be changed first.
class NodeReference {
 public:
  NodeReference(const Graph& g, const Node& n, const std::vector<std::vector<double>>& values)
      : g_(g), n_(n), values_(values) {}

  /// `change(operand, element, value)` gives the value to use.
  template <class Change>
  std::vector<double> run(Change change) const {
    ReferenceEmitter e;
    std::vector<ops::Value> in;
    for (size_t k = 0; k < n_.in.size(); ++k) {
      if (n_.in[k] < 0) {
        in.push_back({});
        continue;
      }
      const TensorType& t = g_.type(n_.in[k]);
      std::vector<double> v = values_[at(n_.in[k])];
      if (is_floating(t.dtype))
        for (size_t i = 0; i < v.size(); ++i) v[i] = change(k, i, v[i]);
      in.push_back(e.add(t, std::move(v)));
    }
    ops::Value out[ops::kMaxOutputs];
    e.emit(n_.op, in, n_.words, out);
    return e.values(out[0]);
  }
  std::vector<double> run() const {
    return run([](size_t, size_t, double v) { return v; });
  }

 private:
  const Graph& g_;
  const Node& n_;
  const std::vector<std::vector<double>>& values_;
};

/// Terms that an element of the result adds up or multiplies; 0 for ops that do neither.
double terms(const Graph& g, const Node& n) {
  const ops::OpDef& d = ops::def(n.op);
  const TensorType& x = n.in.empty() ? g.type(n.out[0]) : g.type(n.in[0]);
  const auto in = static_cast<double>(std::max<int64_t>(1, numel(x.sizes)));
  switch (d.kind) {
    case OpKind::reduction:
      if (d.reduce != ops::ReduceOp::sum && d.reduce != ops::ReduceOp::prod) return 0;
      return in / static_cast<double>(std::max<int64_t>(1, numel(g.type(n.out[0]).sizes)));
    case OpKind::scan:
      return x.sizes.empty() ? 1 : static_cast<double>(*std::max_element(x.sizes.begin(), x.sizes.end()));
    case OpKind::scatter:
      return static_cast<double>(numel(g.type(n.in[2]).sizes)) + 1;
    case OpKind::convolution: {  // per element of the result: those that stand beside it in the operands
      const auto w = static_cast<double>(numel(g.type(n.in[1]).sizes));
      return 1 + std::max(in, 1.0) * std::max(w, 1.0) /
                     static_cast<double>(std::max<int64_t>(1, numel(g.type(n.out[0]).sizes)));
    }
    case OpKind::contraction:
      return x.sizes.empty() ? 1 : static_cast<double>(x.sizes.back()) + 1;
    default:
      return 0;
  }
}

/// Whether the result jumps where its operands change a little: not a copy or choice of operands, but
/// computed.
bool may_jump(const ops::OpDef& d) {
  if (d.kind != OpKind::pointwise) return false;
  switch (d.types) {
    case ops::TypeRule::compare:
    case ops::TypeRule::logical:
    case ops::TypeRule::select:
    case ops::TypeRule::cast:
      return false;
    case ops::TypeRule::same:
    case ops::TypeRule::arithmetic:
    case ops::TypeRule::floating:
    case ops::TypeRule::bits:
    case ops::TypeRule::integers:
      return true;
  }
  return false;
}

std::string judge_node(const Graph& g, const Node& n, const std::vector<std::vector<double>>& values) {
  const ops::OpDef& d = ops::def(n.op);
  const NodeReference reference(g, n, values);
  const std::vector<double> wanted = reference.run();
  const std::vector<double>& actual = values[at(n.out[0])];
  const TensorType& type = g.type(n.out[0]);
  // Random draws are made in float32; the scatters store, and so round, after every sum.
  const DType computed = d.kind == OpKind::random    ? DType::float32
                         : d.kind == OpKind::scatter ? type.dtype
                                                     : wide(type.dtype);
  const double eps = epsilon(computed), count = terms(g, n);
  Tolerance base{4 * eps, 0};
  std::vector<double> magnitudes;
  if (count > 0) {
    magnitudes = reference.run([](size_t, size_t, double v) { return std::fabs(v); });
    base.relative = 0;
  }
  if (d.kind == OpKind::random) base.absolute = 8 * eps;
  // exp leaves the range a little before what is made of it: x / (1 + exp(-x)) is 0 below -88.
  if (d.kind == OpKind::pointwise && d.types == ops::TypeRule::floating)
    base.absolute = computed == DType::float64 ? 0x1p-1000 : 0x1p-118;

  // A product may leave the range of its type on the way, which depends on the order.
  std::vector<double> most, least;
  if (d.kind == OpKind::reduction && d.reduce == ops::ReduceOp::prod) {
    most = reference.run([](size_t, size_t, double v) { return std::max(1.0, std::fabs(v)); });
    least =
        reference.run([](size_t, size_t, double v) { return v == 0 ? 1.0 : std::min(1.0, std::fabs(v)); });
  }

  std::vector<double> low, high;  // of results for operands moved a little
  for (size_t i = 0; i < wanted.size(); ++i) {
    Tolerance t = base;
    if (count > 0) t.absolute += eps * (4 + 4 * std::sqrt(count)) * std::fabs(magnitudes[i]);
    if (close(actual[i], wanted[i], type.dtype, t)) continue;
    if (!most.empty() && (most[i] > largest(computed) || least[i] < 0x1p-126)) continue;
    if (may_jump(d) && is_floating(type.dtype) && low.empty()) {
      low.assign(wanted.size(), std::numeric_limits<double>::infinity());
      high.assign(wanted.size(), -std::numeric_limits<double>::infinity());
      for (size_t signs = 0; signs < size_t{1} << n.in.size(); ++signs) {
        const auto moved = reference.run(
            [&](size_t k, size_t, double v) { return v * (1 + (signs >> k & 1 ? 2 : -2) * eps); });
        for (size_t j = 0; j < moved.size(); ++j) {
          low[j] = std::min(low[j], moved[j]);
          high[j] = std::max(high[j], moved[j]);
        }
      }
    }
    if (!low.empty() &&
        (close(actual[i], low[i], type.dtype, t) || close(actual[i], high[i], type.dtype, t) ||
         (actual[i] > low[i] && actual[i] < high[i])))
      continue;
    char text[128];
    std::snprintf(text, sizeof text, "element %zu is %.17g, the reference says %.17g", i, actual[i],
                  wanted[i]);
    return std::string(text) + " in %" + std::to_string(n.out[0]) + " = " + d.name;
  }
  return {};
}

}  // namespace

GuardedBytes::GuardedBytes(size_t size, unsigned char fill)
    : bytes_(size + 2 * kGuard + 64, kGuardByte), size_(size) {
  const auto address = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
  offset_ = kGuard + (64 - address % 64) % 64;
  std::memset(data(), fill, size_);
}

bool GuardedBytes::guards_hold() const {
  const auto is_guard = [](char c) { return c == kGuardByte; };
  const auto begin = bytes_.begin(), end = bytes_.end();
  const auto data_at = begin + static_cast<std::ptrdiff_t>(offset_);
  return std::all_of(begin, data_at, is_guard) &&
         std::all_of(data_at + static_cast<std::ptrdiff_t>(size_), end, is_guard);
}

bool GraphRun::guards_hold() const {
  const auto holds = [](const GuardedBytes& b) { return b.guards_hold(); };
  return std::all_of(outputs.begin(), outputs.end(), holds) &&
         std::all_of(inputs.begin(), inputs.end(), holds);
}

GraphRun run_graph(const jit::Executable& x, const Graph& g, const GraphArguments& arguments) {
  GraphRun r;
  r.inputs.reserve(arguments.inputs.size());
  std::vector<void*> in, out;
  for (const GuardedBytes& b : arguments.inputs) r.inputs.push_back(b);
  for (const int32_t v : g.outputs) r.outputs.emplace_back(nbytes(g.type(v)));
  for (GuardedBytes& b : r.inputs) in.push_back(b.data());
  for (GuardedBytes& b : r.outputs) out.push_back(b.data());
  r.failed = x.run(in.data(), arguments.numbers.data(), out.data());
  return r;
}

std::vector<double> elements(const GuardedBytes& bytes, const TensorType& t, const Dims& strides) {
  std::vector<double> values;
  const int64_t n = numel(t.sizes);
  values.reserve(at(n));
  for (int64_t i = 0; i < n; ++i) {
    int64_t rest = i, from = 0;
    for (int d = t.sizes.rank() - 1; d >= 0; --d) {
      from += rest % t.sizes[d] * strides[d];
      rest /= t.sizes[d];
    }
    values.push_back(read_element(bytes.data(), t.dtype, from));
  }
  return values;
}

std::string difference(const Graph& g, const GraphRun& a, const GraphRun& b) {
  if ((a.failed != 0) != (b.failed != 0)) return "one run failed, the other did not";
  const auto compare = [](const GuardedBytes& x, const GuardedBytes& y, DType t,
                          const std::string& what) -> std::string {
    if (std::memcmp(x.data(), y.data(), x.size()) == 0) return {};
    const auto n = static_cast<int64_t>(x.size()) / itemsize(t);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t size = itemsize(t);
      if (std::memcmp(x.data() + i * size, y.data() + i * size, at(size)) == 0) continue;
      const double v = read_element(x.data(), t, i), w = read_element(y.data(), t, i);
      if (std::isnan(v) && std::isnan(w)) continue;
      char text[96];
      std::snprintf(text, sizeof text, " differs at element %lld: %.9g and %.9g", static_cast<long long>(i),
                    v, w);
      return what + text;
    }
    return {};
  };
  for (size_t i = 0; i < g.outputs.size(); ++i)
    if (std::string s =
            compare(a.outputs[i], b.outputs[i], g.type(g.outputs[i]).dtype, "output " + std::to_string(i));
        !s.empty())
      return s;
  for (size_t i = 0; i < g.inputs.size(); ++i)
    if (std::string s =
            compare(a.inputs[i], b.inputs[i], g.type(g.inputs[i].value).dtype, "input " + std::to_string(i));
        !s.empty())
      return s;
  return {};
}

Judgement judge_nodes(const Graph& primitives, const GraphArguments& arguments, GraphRun* run_out) {
  Graph g = primitives;
  g.outputs.clear();
  std::vector<int32_t> output_of(g.values.size(), -1);
  for (const Node& n : g.nodes)
    for (const int32_t v : n.out)
      if (n.leaf == Leaf::op && !g.type(v).number) {
        output_of[at(v)] = static_cast<int32_t>(g.outputs.size());
        g.outputs.push_back(v);
      }
  const auto x = jit::Executable::make(g, {.compile = false, .optimize = false, .disabled_passes = {}});
  GraphRun run = run_graph(*x, g, arguments);
  Judgement judgement;
  if (!run.guards_hold()) judgement.mismatch = "memory around inputs or outputs was overwritten";
  if (run.failed) judgement.mismatch = "an index was out of range in " + x->entry_name(run.failed - 1);

  std::vector<std::vector<double>> values(g.values.size());
  ReferenceEmitter numbers;
  const auto number = [&](int32_t v) {
    TensorType t;
    t.number = true;
    t.dtype = DType::float64;
    return numbers.add(t, {values[at(v)][0]});
  };
  for (const Node& n : g.nodes) {
    if (!judgement.mismatch.empty()) break;
    auto& result = values[at(n.out[0])];
    switch (n.leaf) {
      case Leaf::input:
        result = elements(arguments.inputs[at(n.index)], g.type(n.out[0]), g.inputs[at(n.index)].strides);
        continue;
      case Leaf::number: {
        const int64_t word = arguments.numbers[at(n.index)];
        result = {g.type(n.out[0]).dtype == DType::float64 ? std::bit_cast<double>(word)
                                                           : static_cast<double>(word)};
        continue;
      }
      case Leaf::constant:
        result = {std::bit_cast<double>(n.bits)};
        continue;
      case Leaf::count: {
        double c = 1;
        for (const int64_t a : n.words) c *= static_cast<double>(g.type(n.in[0]).sizes[static_cast<int>(a)]);
        result = {c};
        continue;
      }
      case Leaf::number_op: {
        const ops::Value a = number(n.in[0]), b = n.in.size() > 1 ? number(n.in[1]) : ops::Value{};
        result = numbers.values(numbers.number_op(static_cast<ScalarOp>(n.words[0]), a, b));
        continue;
      }
      case Leaf::op:
        break;
    }
    if (g.type(n.out[0]).number) {
      result = NodeReference(g, n, values).run();
      continue;
    }
    for (const int32_t v : n.out)
      values[at(v)] =
          elements(run.outputs[at(output_of[at(v)])], g.type(v), contiguous_strides(g.type(v).sizes));
    bool exact = true;
    for (const int32_t v : n.in)
      if (v >= 0 && !is_floating(g.type(v).dtype))
        for (const double e : values[at(v)]) exact = exact && std::fabs(e) < kExact;
    ++(exact ? judgement.checked : judgement.skipped);
    if (exact) judgement.mismatch = judge_node(g, n, values);
  }
  // What was written must be what was computed.
  for (const jit::Write& w : g.writes) {
    if (!judgement.mismatch.empty()) break;
    const TensorType& t = g.type(w.value);
    const auto now = elements(run.inputs[at(w.input)], t, g.inputs[at(w.input)].strides);
    for (size_t i = 0; i < now.size(); ++i)
      if (now[i] != values[at(w.value)][i] && !(std::isnan(now[i]) && std::isnan(values[at(w.value)][i])))
        judgement.mismatch = "input " + std::to_string(w.input) + " was not given its new value";
  }
  // What was not written stays.
  for (size_t i = 0; i < g.inputs.size() && judgement.mismatch.empty(); ++i) {
    const bool written =
        std::any_of(g.writes.begin(), g.writes.end(), [&](const jit::Write& w) { return at(w.input) == i; });
    if (!written && std::memcmp(run.inputs[i].data(), arguments.inputs[i].data(), run.inputs[i].size()) != 0)
      judgement.mismatch = "input " + std::to_string(i) + " changed";
  }
  if (run_out) {
    run_out->failed = run.failed;
    run_out->inputs = std::move(run.inputs);
    run_out->outputs = std::move(run.outputs);
  }
  return judgement;
}

}  // namespace tandem::test
