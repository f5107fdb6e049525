// The program IR: flat vectors with integer ids, pure SSA. A Graph is a value: copying it copies vectors;
// passes are functions Graph -> Graph. No sharing, no locks: one owner at a time.
//
// A graph runs on one device, which its executable is told; the types in it say none.
//
// A node is an op applied to values, or one of four leaves: a tensor input, a run-time number, a constant
// number, or a number counted from sizes. Values are logical: sizes and dtype, no strides; an input says how
// it lies in memory. Text form, one line a node, parses back (a boolean attribute that is 0 is left out):
//   graph {
//     %0 = input float32(64, 784) strides (784, 1) "arg0"
//     %1 = number float64
//     %2 = constant 0x1p-1
//     %3 = count(%0, axes=[0, 1])
//     %4 = linear(%0, %5, _) : float32(64, 10)  # train.cpp:12
//     return %4
//     write %0 <- %8
//   }
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tandem/ops/emitter.h"

namespace tandem::jit {

using ops::OpId;
using ops::TensorType;

enum class Leaf : uint8_t {
  op,         // not a leaf: `op` says which
  input,      // a tensor from outside
  number,     // a run-time number: input number `index`
  constant,   // a number known for good: `bits` of a double, type number:float64
  count,      // a float64 number: elements of operand 0 along `words` (axes)
  number_op,  // float64 arithmetic on numbers: words[0] = ScalarOp
};

struct Node {
  Leaf leaf = Leaf::op;
  OpId op = OpId::count_;
  int32_t index = 0;           // inputs and numbers: position among them
  int64_t bits = 0;            // constants
  std::vector<int32_t> in;     // value ids; -1 for an absent optional operand; run-time attributes come last
  std::vector<int64_t> words;  // structural attributes
  std::vector<int32_t> out;    // value ids of the results
  Location where;
  int32_t origin = -1;  // for people: which call of the captured program it comes from; no pass looks at it
  bool again = false;   // a copy that its readers compute for themselves: it joins no earlier kernel
};

/// Whether a library of the executable's device does this call of a composite as a whole (OpDef::library).
bool by_library(const Node& n);

struct ValueInfo {
  TensorType type;
  int32_t node = -1;
  int32_t result = 0;  // which result of `node`
};

/// In what a tensor input's elements lie.
enum class Form : uint8_t {
  strides,
  panels,  // a matrix that products alone read, as the second: as ops::pack_panels leaves it
  weight,  // of one convolution, which alone reads it: as ops::lay_weight leaves it
};

/// How a tensor input lies in memory.
struct Input {
  int32_t value;
  Dims strides;            // elements
  int64_t alignment = 64;  // bytes that its address is known to be a multiple of
  std::string name;        // for people: "x", "hidden.weight", may be empty
  Form form = Form::strides;
};

/// At the end of the graph the memory of input `input` (index into inputs) takes `value` (same sizes and
/// dtype).
struct Write {
  int32_t input;
  int32_t value;
};

struct Graph {
  std::vector<Node> nodes;  // in program order: operands before users
  std::vector<ValueInfo> values;
  std::vector<Input> inputs;
  int32_t numbers = 0;              // run-time numbers
  std::vector<DType> number_types;  // float64 or int64 (or bool), per run-time number
  std::vector<int32_t> outputs;     // fresh, contiguous memory each (one value may stand twice)
  std::vector<Write> writes;

  int32_t add_input(const TensorType& type, const Dims& strides, std::string name = {},
                    int64_t alignment = 64);
  int32_t add_number(DType type);
  int32_t add_constant(double value);
  const TensorType& type(int32_t value) const { return values[static_cast<size_t>(value)].type; }
  const Node& node_of(int32_t value) const {
    return nodes[static_cast<size_t>(values[static_cast<size_t>(value)].node)];
  }
};

/// Text form and its parser. `parse_graph` throws Error naming the line and what was expected.
std::string to_string(const Graph& g);
Graph parse_graph(const std::string& text);
/// Infers every type again and checks ids, order, arities, outputs and writes; throws InternalError with the
/// text of the graph.
void check(const Graph& g, const char* after_pass);

/// Appends to a Graph: operands are promoted by explicit casts, composites are kept as one node unless
/// `expand`.
class GraphEmitter final : public ops::Emitter {
 public:
  explicit GraphEmitter(Graph& g, bool expand_composites) : g_(g), expand_(expand_composites) {}
  void emit(OpId op, std::span<const ops::Value> in, ops::Words words, ops::Value* out) override;
  TensorType type(ops::Value v) override { return g_.type(v.id); }
  ops::Value number(double value) override;
  ops::Value count(ops::Value v, const Dims& axes) override;
  ops::Value number_op(ops::ScalarOp op, ops::Value a, ops::Value b) override;

  int32_t origin = -1;  // of the nodes that emitted calls become

 private:
  Graph& g_;
  bool expand_;
};

/// A pass: one page, one idea, exact (no result may change by a bit).
struct Pass {
  const char* name;
  Graph (*run)(const Graph&);
};
/// The passes in order: expand composites, fold, common subexpressions, dead code, ...
const std::vector<Pass>& passes();
/// Runs all passes; checks after each in debug builds; dumps those that changed something under
/// TANDEM_DUMP=passes. `disabled`: names left out (tests).
Graph optimize(const Graph& g, const std::vector<std::string>& disabled = {});

}  // namespace tandem::jit
