// The checker: what every pass must leave true. Types are inferred again from the operands, as when the graph
// was made.
#include "tandem/jit/graph_check.h"

#include <algorithm>
#include <memory>

#include "tandem/core/error.h"
#include "tandem/ops/user_ops.h"

namespace tandem::jit {

namespace {

Defect expected(std::string what, int result = -1) { return {std::move(what), result}; }

std::string count_text(size_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

/// Structural words: one per attribute, a list being its length and its values.
Defect words_defect(const ops::OpDef& op, const std::vector<int64_t>& words) {
  size_t at = 0;
  for (int k = 0; k < op.n_attrs; ++k) {
    if (op.attrs[k].run_time()) continue;
    const std::string what = std::string("attribute ") + op.attrs[k].name + " of " + op.name;
    if (at >= words.size()) return expected(what);
    const int64_t word = words[at++];
    if (op.attrs[k].type == ops::AttrType::dtype && (word < 0 || word >= kDTypeCount))
      return expected("a dtype as " + what);
    if (op.attrs[k].type != ops::AttrType::list) continue;
    if (word < 0 || static_cast<size_t>(word) > words.size() - at)
      return expected("as many values as " + what + " says");
    if (word > kMaxRank) return expected("at most " + std::to_string(kMaxRank) + " values in " + what);
    at += static_cast<size_t>(word);
  }
  if (at != words.size()) return expected(count_text(at, "attribute word") + " of " + op.name);
  return {};
}

Defect op_defect(const Graph& g, const Node& n) {
  if (!ops::is_op(n.op)) return expected("an op of the table");
  const ops::OpDef& op = ops::def(n.op);
  const auto numbers = static_cast<size_t>(op.n_numbers());
  const size_t n_in = n.in.size() < numbers ? 0 : n.in.size() - numbers;
  if (n.in.size() < numbers || (op.n_in >= 0 && n_in != static_cast<size_t>(op.n_in)) ||
      (op.n_in < 0 && n_in == 0))
    return expected(count_text(static_cast<size_t>(std::max(op.n_in, 1)) + numbers, "operand") + " of " +
                    op.name);
  if (n.out.size() != static_cast<size_t>(op.n_out))
    return expected(count_text(static_cast<size_t>(op.n_out), "result") + " of " + op.name);
  for (size_t i = n_in; i < n.in.size(); ++i)
    if (n.in[i] < 0 || !g.type(n.in[i]).number)
      return expected("a number as operand " + std::to_string(i) + " of " + op.name);
  if (Defect d = words_defect(op, n.words); !d.expected.empty()) return d;

  std::vector<TensorType> types(n_in);
  const auto present = std::make_unique<bool[]>(n_in + 1);
  for (size_t i = 0; i < n_in; ++i) {
    present[i] = n.in[i] >= 0;
    if (present[i]) types[i] = g.type(n.in[i]);
  }
  std::vector<TensorType> results;
  try {
    ops::infer({op, types, {present.get(), n_in}, n.words, {}}, results);
  } catch (const Error& e) {
    return expected(std::string("a call that its op takes (") + e.what() + ")");
  }
  for (size_t j = 0; j < n.out.size(); ++j)
    if (j >= results.size() || !(results[j] == g.type(n.out[j])))
      return expected((j < results.size() ? to_string(results[j]) : std::string("nothing")) + " as result " +
                          std::to_string(j) + " of " + op.name,
                      static_cast<int>(j));
  return {};
}

class Checker {
 public:
  Checker(const Graph& g, const char* after) : g_(g), after_(after) {}

  void run() {
    require(g_.number_types.size() == static_cast<size_t>(g_.numbers), "a type of each run-time number");
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const Node& n = g_.nodes[i];
      for (const int32_t v : n.in) {
        if (v == -1 && n.leaf == Leaf::op) continue;
        require(known(v), "operands of node " + std::to_string(i) + " that are defined above it");
      }
      for (size_t j = 0; j < n.out.size(); ++j) {
        require(n.out[j] == next_ && known_id(n.out[j]),
                "results in the order of definition at node " + std::to_string(i));
        const ValueInfo& info = g_.values[static_cast<size_t>(next_++)];
        require(info.node == static_cast<int32_t>(i) && info.result == static_cast<int32_t>(j),
                "%" + std::to_string(n.out[j]) + " to name its node");
      }
      const Defect d = node_defect(g_, n);
      require(d.expected.empty(), d.expected + " at node " + std::to_string(i));
      if (n.leaf == Leaf::input) input(n);
      if (n.leaf == Leaf::number) number(n);
    }
    require(static_cast<size_t>(next_) == g_.values.size(), "a node for every value");
    require(inputs_ == static_cast<int32_t>(g_.inputs.size()), "a node for every input");
    require(numbers_ == g_.numbers, "a node for every run-time number");
    for (const int32_t v : g_.outputs) require(known(v) && !g_.type(v).number, "tensors as outputs");
    writes();
    forms();
  }

 private:
  void require(bool ok, const std::string& what) {
    if (!ok)
      internal_error(std::string("graph after ") + after_ + ": expected " + what + "\n" + to_string(g_));
  }
  bool known_id(int32_t v) const { return v >= 0 && v < static_cast<int32_t>(g_.values.size()); }
  bool known(int32_t v) const { return v >= 0 && v < next_; }

  /// Inputs and numbers stand in the order in which callers count them.
  void input(const Node& n) {
    require(n.index == inputs_++, "inputs in their order");
    require(n.index < static_cast<int32_t>(g_.inputs.size()), "an entry for every input");
    const Input& in = g_.inputs[static_cast<size_t>(n.index)];
    require(in.value == n.out[0], "an input that names its value");
    require(in.strides.rank() == g_.type(n.out[0]).sizes.rank(), "as many strides as sizes of an input");
  }
  void number(const Node& n) {
    require(n.index == numbers_++ && n.index < g_.numbers, "run-time numbers in their order");
    require(g_.number_types[static_cast<size_t>(n.index)] == g_.type(n.out[0]).dtype,
            "the type of a run-time number twice");
  }

  void writes() {
    std::vector<char> written(g_.inputs.size(), 0);
    for (const Write& w : g_.writes) {
      require(w.input >= 0 && w.input < static_cast<int32_t>(g_.inputs.size()), "writes to inputs");
      require(known(w.value), "writes of values");
      require(!written[static_cast<size_t>(w.input)]++, "one write to an input");
      require(g_.type(g_.inputs[static_cast<size_t>(w.input)].value) == g_.type(w.value),
              "a write of the input's type");
    }
  }

  /// What lies in a form of its own goes to nobody but the calls that know it; blocks of channels split a
  /// weight's first axis.
  void forms() {
    const auto form = [&](int32_t v) {
      const Node* n = &g_.node_of(v);
      while (n->leaf == Leaf::op && n->op == OpId::reshape) n = &g_.node_of(n->in[0]);
      return n->leaf == Leaf::input ? g_.inputs[static_cast<size_t>(n->index)].form : Form::strides;
    };
    for (const Node& n : g_.nodes)
      for (size_t i = 0; i < n.in.size(); ++i) {
        const Form f = n.in[i] < 0 ? Form::strides : form(n.in[i]);
        const auto fits = [&](ops::OpKind kind) {
          return i == 1 && n.leaf == Leaf::op && ops::def(n.op).kind == kind;
        };
        const bool splits = f == Form::weight && n.leaf == Leaf::op && n.op == OpId::reshape;
        require(f == Form::strides || splits ||
                    fits(f == Form::panels ? ops::OpKind::contraction : ops::OpKind::convolution),
                "a matrix or weight in a form of its own for its calls alone");
      }
    for (const int32_t v : g_.outputs) require(form(v) == Form::strides, "outputs in plain form");
    for (const Write& w : g_.writes) require(form(w.value) == Form::strides, "writes in plain form");
  }

  const Graph& g_;
  const char* after_;
  int32_t next_ = 0, inputs_ = 0, numbers_ = 0;
};

}  // namespace

bool is_number_arithmetic(int64_t op, size_t operands) {
  using ops::ScalarOp;
  if (op < 0 || op >= static_cast<int64_t>(ScalarOp::count_)) return false;
  switch (static_cast<ScalarOp>(op)) {
    case ScalarOp::add:
    case ScalarOp::sub:
    case ScalarOp::mul:
    case ScalarOp::div:
    case ScalarOp::max:
    case ScalarOp::min:
      return operands == 2;
    case ScalarOp::neg:
    case ScalarOp::sqrt:
      return operands == 1;
    default:
      return false;
  }
}

Defect node_defect(const Graph& g, const Node& n) {
  if (n.leaf == Leaf::op) return op_defect(g, n);
  if (n.out.size() != 1) return expected("one result of a leaf");
  const TensorType& type = g.type(n.out[0]);
  const size_t operands = n.leaf == Leaf::count ? 1 : n.leaf == Leaf::number_op ? n.in.size() : 0;
  if (n.in.size() != operands) return expected(count_text(operands, "operand") + " of a leaf");
  switch (n.leaf) {
    case Leaf::op:
      break;
    case Leaf::input:
      if (type.number) return expected("a tensor as input", 0);
      try {
        checked_numel(type.sizes);
      } catch (const Error& e) {
        return expected(std::string("sizes that can be counted (") + e.what() + ")", 0);
      }
      return {};
    case Leaf::number:
      if (!type.number ||
          (type.dtype != DType::float64 && type.dtype != DType::int64 && type.dtype != DType::bool_))
        return expected("float64, int64 or bool as type of a run-time number", 0);
      return {};
    case Leaf::constant:
      break;
    case Leaf::count:
      if (g.type(n.in[0]).number) return expected("a tensor to count");
      for (size_t i = 0; i < n.words.size(); ++i)
        if (n.words[i] < (i == 0 ? 0 : n.words[i - 1] + 1) || n.words[i] >= g.type(n.in[0]).sizes.rank())
          return expected("ascending axes of " + to_string(g.type(n.in[0])));
      break;
    case Leaf::number_op:
      if (n.words.size() != 1 || !is_number_arithmetic(n.words[0], n.in.size()))
        return expected("arithmetic on its operands");
      for (const int32_t v : n.in)
        if (!g.type(v).number) return expected("numbers as operands");
      break;
  }
  if (!type.number || type.dtype != DType::float64) return expected("number:float64 as type of a number", 0);
  return {};
}

void check(const Graph& g, const char* after_pass) { Checker(g, after_pass).run(); }

}  // namespace tandem::jit
