// The checker finds each broken invariant, and says so with the graph's text.
#include <functional>

#include "tandem/core/error.h"
#include "tandem/jit/graph.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

const char* const kGood = R"(graph {
  %0 = input float32(3, 4) strides (4, 1) "x"
  %1 = input float32(3, 4) strides (1, 3)
  %2 = number float64
  %3 = number int64
  %4 = constant 0x1p+1
  %5 = count(%0, axes=[0, 1])
  %6 = number_op div(%4, %5)
  %7 = add(%0, %1) : float32(3, 4)
  %8 = sum(%7, keepdim=0, axes=[1]) : float32(3,)
  %9 = mul(%8, %6) : float32(3,)
  %10 = rms_norm(%7, _, %2, rank=1) : float32(3, 4)
  return %9
  write %0 <- %10
}
)";

std::string message(const Graph& g) {
  try {
    check(g, "a test");
  } catch (const InternalError& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a good graph passes the checker", "[graph]") {
  check(parse_graph(kGood), "parsing");
  check(Graph(), "nothing");
}

TEST_CASE("the checker finds each broken invariant", "[graph]") {
  struct Break {
    const char* expected;
    std::function<void(Graph&)> how;
  };
  const Break breaks[] = {
      {"operands of node 7 that are defined above it", [](Graph& g) { g.nodes[7].in[0] = 8; }},
      {"operands of node 7 that are defined above it", [](Graph& g) { g.nodes[7].in[0] = 7; }},
      {"operands of node 7 that are defined above it", [](Graph& g) { g.nodes[7].in[0] = 1000; }},
      {"operands of node 7 that are defined above it", [](Graph& g) { g.nodes[7].in[0] = -2; }},
      {"operands of node 5 that are defined above it", [](Graph& g) { g.nodes[5].in[0] = -1; }},
      {"operands of node 7 that are defined above it", [](Graph& g) { std::swap(g.nodes[7], g.nodes[8]); }},
      {"results in the order of definition at node 8", [](Graph& g) { g.nodes[8].out[0] = 9; }},
      {"results in the order of definition at node 8", [](Graph& g) { g.nodes[8].out[0] = 7; }},
      {"results in the order of definition at node 10", [](Graph& g) { g.values.pop_back(); }},
      {"%8 to name its node", [](Graph& g) { g.values[8].node = 7; }},
      {"%8 to name its node", [](Graph& g) { g.values[8].result = 1; }},
      {"a node for every value", [](Graph& g) { g.values.push_back(g.values[0]); }},
      {"operand 1 is missing", [](Graph& g) { g.nodes[7].in[1] = -1; }},
      {"2 operands of add", [](Graph& g) { g.nodes[7].in.pop_back(); }},
      {"2 operands of add", [](Graph& g) { g.nodes[7].in.push_back(0); }},
      {"3 operands of rms_norm", [](Graph& g) { g.nodes[10].in.clear(); }},
      {"1 result of sum", [](Graph& g) { g.nodes[8].out.clear(), g.values.erase(g.values.begin() + 8); }},
      {"a number as operand 2 of rms_norm", [](Graph& g) { g.nodes[10].in[2] = 0; }},
      {"a number as operand 2 of rms_norm", [](Graph& g) { g.nodes[10].in[2] = -1; }},
      {"attribute keepdim of sum", [](Graph& g) { g.nodes[8].words.clear(); }},
      {"as many values as attribute axes of sum says", [](Graph& g) { g.nodes[8].words.pop_back(); }},
      {"as many values as attribute axes of sum says", [](Graph& g) { g.nodes[8].words[1] = -1; }},
      {"3 attribute words of sum", [](Graph& g) { g.nodes[8].words.push_back(0); }},
      {"a call that its op takes (sum: ", [](Graph& g) { g.nodes[8].words[2] = 2; }},
      {"an op of the table", [](Graph& g) { g.nodes[8].op = OpId::count_; }},
      {"float32(3, 4) as result 0 of add",
       [](Graph& g) {
         g.values[7].type.sizes = {4, 3};
       }},
      {"float32(3, 4) as result 0 of add", [](Graph& g) { g.values[7].type.dtype = DType::float64; }},
      {"float32(3, 4) as result 0 of add", [](Graph& g) { g.values[7].type.number = true; }},
      {"inputs in their order", [](Graph& g) { g.nodes[1].index = 0; }},
      {"inputs in their order", [](Graph& g) { std::swap(g.nodes[0].index, g.nodes[1].index); }},
      {"an entry for every input", [](Graph& g) { g.inputs.pop_back(); }},
      {"a node for every input", [](Graph& g) { g.inputs.push_back(g.inputs[0]); }},
      {"an input that names its value", [](Graph& g) { g.inputs[1].value = 0; }},
      {"as many strides as sizes of an input", [](Graph& g) { g.inputs[1].strides = {1}; }},
      {"a tensor as input", [](Graph& g) { g.values[0].type.number = true; }},
      {"sizes that can be counted",
       [](Graph& g) {
         g.values[0].type.sizes = {-3, 4};
       }},
      {"one result of a leaf",
       [](Graph& g) { g.nodes[4].out.clear(), g.values.erase(g.values.begin() + 4); }},
      {"0 operands of a leaf", [](Graph& g) { g.nodes[4].in = {0}; }},
      {"1 operand of a leaf", [](Graph& g) { g.nodes[5].in.clear(); }},
      {"a type of each run-time number", [](Graph& g) { g.number_types.pop_back(); }},
      {"run-time numbers in their order", [](Graph& g) { g.nodes[3].index = 0; }},
      {"the type of a run-time number twice", [](Graph& g) { g.number_types[1] = DType::float64; }},
      {"a node for every run-time number",
       [](Graph& g) { g.numbers = 3, g.number_types.push_back(DType::int64); }},
      {"float64, int64 or bool as type of a run-time number",
       [](Graph& g) { g.values[2].type.dtype = DType::float32; }},
      {"float64, int64 or bool as type of a run-time number",
       [](Graph& g) { g.values[2].type.number = false; }},
      {"number:float64 as type of a number", [](Graph& g) { g.values[4].type.dtype = DType::int64; }},
      {"number:float64 as type of a number", [](Graph& g) { g.values[6].type.number = false; }},
      {"a tensor to count", [](Graph& g) { g.nodes[5].in[0] = 4; }},
      {"ascending axes of float32(3, 4)",
       [](Graph& g) {
         g.nodes[5].words = {0, 2};
       }},
      {"ascending axes of float32(3, 4)",
       [](Graph& g) {
         g.nodes[5].words = {1, 1};
       }},
      {"arithmetic on its operands",
       [](Graph& g) { g.nodes[6].words[0] = static_cast<int64_t>(ops::ScalarOp::exp); }},
      {"arithmetic on its operands", [](Graph& g) { g.nodes[6].words[0] = 1000; }},
      {"arithmetic on its operands", [](Graph& g) { g.nodes[6].words.clear(); }},
      {"arithmetic on its operands", [](Graph& g) { g.nodes[6].in.pop_back(); }},
      {"numbers as operands", [](Graph& g) { g.nodes[6].in[1] = 0; }},
      {"tensors as outputs", [](Graph& g) { g.outputs[0] = 6; }},
      {"tensors as outputs", [](Graph& g) { g.outputs[0] = 11; }},
      {"tensors as outputs", [](Graph& g) { g.outputs[0] = -1; }},
      {"writes to inputs", [](Graph& g) { g.writes[0].input = 2; }},
      {"writes to inputs", [](Graph& g) { g.writes[0].input = -1; }},
      {"writes of values", [](Graph& g) { g.writes[0].value = 11; }},
      {"one write to an input", [](Graph& g) { g.writes.push_back(g.writes[0]); }},
      {"a write of the input's type", [](Graph& g) { g.writes[0].value = 9; }},
  };
  for (const Break& b : breaks) {
    Graph g = parse_graph(kGood);
    b.how(g);
    CAPTURE(b.expected);
    const std::string found = message(g);
    CHECK_THAT(found, Contains(std::string("graph after a test: expected ")));
    CHECK_THAT(found, Contains(b.expected));
    CHECK_THAT(found, Contains("graph {\n"));  // the text that reproduces it, whatever is broken
  }
}
