// The checker: what every pass must leave true. Types are inferred again from the operands, as when the graph was made.
#include <memory>

#include "tandem/core/error.h"
#include "tandem/jit/graph.h"

namespace tandem::jit {

namespace {

class Checker {
 public:
  Checker(const Graph& g, const char* after) : g_(g), after_(after) {}

  void run() {
    std::vector<char> defined(g_.values.size(), 0);
    for (size_t i = 0; i < g_.nodes.size(); ++i) {
      const Node& n = g_.nodes[i];
      for (const int32_t v : n.in) {
        if (v == -1 && n.leaf == Leaf::op) continue;
        require(v >= 0 && v < static_cast<int32_t>(g_.values.size()), "an operand id out of range");
        require(defined[static_cast<size_t>(v)], "%" + std::to_string(v) + " is used before its definition");
      }
      for (size_t j = 0; j < n.out.size(); ++j) {
        const int32_t v = n.out[j];
        require(v >= 0 && v < static_cast<int32_t>(g_.values.size()), "a result id out of range");
        const ValueInfo& info = g_.values[static_cast<size_t>(v)];
        require(info.node == static_cast<int32_t>(i) && info.result == static_cast<int32_t>(j), "a value that names another node");
        require(!defined[static_cast<size_t>(v)], "a value with two definitions");
        defined[static_cast<size_t>(v)] = 1;
      }
      node(n);
    }
    for (const int32_t v : g_.outputs) require(v >= 0 && defined[static_cast<size_t>(v)] && !g_.type(v).number, "an output that is no tensor");
    for (const Write& w : g_.writes) {
      require(w.input >= 0 && w.input < static_cast<int32_t>(g_.inputs.size()), "a write to no input");
      require(w.value >= 0 && defined[static_cast<size_t>(w.value)], "a write of no value");
      const TensorType& to = g_.type(g_.inputs[static_cast<size_t>(w.input)].value);
      require(to.sizes == g_.type(w.value).sizes && to.dtype == g_.type(w.value).dtype, "a write of another type");
    }
  }

 private:
  void require(bool ok, const std::string& what) {
    if (!ok) internal_error(std::string("graph after ") + after_ + ": " + what + "\n" + to_string(g_));
  }

  void node(const Node& n) {
    switch (n.leaf) {
      case Leaf::input: require(n.index >= 0 && n.index < static_cast<int32_t>(g_.inputs.size()) && g_.inputs[static_cast<size_t>(n.index)].value == n.out[0], "an input out of place"); return;
      case Leaf::number: require(n.index >= 0 && n.index < g_.numbers, "a number out of place"); return;
      case Leaf::constant:
      case Leaf::count: require(g_.type(n.out[0]).number, "a number of tensor type"); return;
      case Leaf::number_op:
        for (const int32_t v : n.in) require(g_.type(v).number, "arithmetic of numbers on a tensor");
        return;
      case Leaf::op: break;
    }
    const ops::OpDef& op = ops::def(n.op);
    const size_t n_numbers = static_cast<size_t>(op.n_numbers());
    require(n.in.size() >= n_numbers, "operands missing");
    const size_t n_in = n.in.size() - n_numbers;
    require(op.n_in < 0 || n_in == static_cast<size_t>(op.n_in), std::string("a wrong operand count of ") + op.name);
    require(n.out.size() == static_cast<size_t>(op.n_out), std::string("a wrong result count of ") + op.name);
    std::vector<TensorType> types;
    const auto present = std::make_unique<bool[]>(n_in + 1);
    for (size_t i = 0; i < n_in; ++i) {
      present[i] = n.in[i] >= 0;
      types.push_back(present[i] ? g_.type(n.in[i]) : TensorType{});
    }
    std::vector<TensorType> results;
    try {
      ops::infer({op, types, {present.get(), n_in}, n.words, n.where}, results);
    } catch (const Error& e) {
      require(false, e.what());
    }
    for (size_t j = 0; j < results.size(); ++j)
      require(results[j] == g_.type(n.out[j]), std::string(op.name) + " has type " + to_string(g_.type(n.out[j])) + ", inferred " + to_string(results[j]));
  }

  const Graph& g_;
  const char* after_;
};

}  // namespace

void check(const Graph& g, const char* after_pass) { Checker(g, after_pass).run(); }

}  // namespace tandem::jit
