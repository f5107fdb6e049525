// The text form of graphs: what is printed parses back, and whatever does not parse is an Error that names
// its line and what was expected.
#include <bit>
#include <random>

#include "tandem/core/error.h"
#include "tandem/jit/graph.h"
#include "tests/catch.h"
#include "tests/jit/op_graphs.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

const char* const kWhole = R"(graph {
  %0 = input float32(64, 784) strides (784, 1) "arg0"
  %1 = input bfloat16(10,) strides (1,) align 2
  %2 = input int64() strides ()
  %3 = number float64
  %4 = number int64
  %5 = constant 0x1p-1
  %6 = count(%0, axes=[0, 1])
  %7 = number_op div(%5, %6)
  %8 = number_op sqrt(%7)
  %9 = sum(%0, keepdim=1, axes=[-1]) : float32(64, 1)
  %10 = mul(%9, %8) : float32(64, 1)
  %11 = rms_norm(%0, _, %5, rank=1) : float32(64, 784)
  %12 = rand(%4, %4, dtype=float32, sizes=[2, 3]) : float32(2, 3)
  %13, %14 = sgd_momentum_update(%0, %0, %0, _, %3, %3, %3, %3, first=1) : float32(64, 784), float32(64, 784)
  return %10, %11, %12, %10
  write %0 <- %14
}
)";

TensorType tensor(DType dtype, const Dims& sizes) { return {dtype, cpu, false, sizes}; }

/// Round trip by text, and by what the text cannot hide.
void same_graph(const Graph& a, const Graph& b) {
  CHECK(to_string(a) == to_string(b));
  REQUIRE(a.nodes.size() == b.nodes.size());
  for (size_t i = 0; i < a.nodes.size(); ++i) {
    const Node &x = a.nodes[i], &y = b.nodes[i];
    CAPTURE(i);
    CHECK(x.leaf == y.leaf);
    CHECK(x.op == y.op);
    CHECK(x.index == y.index);
    CHECK(x.bits == y.bits);
    CHECK(x.in == y.in);
    CHECK(x.out == y.out);
    CHECK(x.words == y.words);
  }
  REQUIRE(a.values.size() == b.values.size());
  for (size_t i = 0; i < a.values.size(); ++i) CHECK(a.values[i].type == b.values[i].type);
  REQUIRE(a.inputs.size() == b.inputs.size());
  for (size_t i = 0; i < a.inputs.size(); ++i) {
    CHECK(a.inputs[i].value == b.inputs[i].value);
    CHECK(a.inputs[i].strides == b.inputs[i].strides);
    CHECK(a.inputs[i].alignment == b.inputs[i].alignment);
    CHECK(a.inputs[i].name == b.inputs[i].name);
  }
  CHECK(a.numbers == b.numbers);
  CHECK(a.number_types == b.number_types);
  CHECK(a.outputs == b.outputs);
  REQUIRE(a.writes.size() == b.writes.size());
  for (size_t i = 0; i < a.writes.size(); ++i)
    CHECK((a.writes[i].input == b.writes[i].input && a.writes[i].value == b.writes[i].value));
}

std::string error_of(const std::string& text) {
  try {
    parse_graph(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a graph with every kind of line is its own text", "[graph]") {
  const Graph g = parse_graph(kWhole);
  CHECK(to_string(g) == kWhole);
  check(g, "parsing");
  CHECK(g.inputs[0].name == "arg0");
  CHECK(g.inputs[1].alignment == 2);
  CHECK(g.number_types == std::vector<DType>{DType::float64, DType::int64});
  same_graph(g, parse_graph(to_string(g)));
  std::string spelled = kWhole;
  spelled.replace(spelled.find("first=1"), 7, "nesterov=0, first=1");
  same_graph(g, parse_graph(spelled));
}

TEST_CASE("values may have names, comments and any spacing", "[graph]") {
  const Graph g = parse_graph(
      "graph{%x=input float32(2,)strides(1,)# the only input\n"
      "%y_1 = neg ( %x ) : float32 ( 2 )  # model.cpp:3\n\n return %y_1 }  # the end\n");
  CHECK(to_string(g) ==
        "graph {\n  %0 = input float32(2,) strides (1,)\n  %1 = neg(%0) : float32(2,)\n  return %1\n}\n");
}

TEST_CASE("lines of the user's program are printed", "[graph]") {
  Graph g;
  const int32_t x = g.add_input(tensor(DType::float32, {2}), {1}, "x");
  GraphEmitter e(g, false);
  e.location = {"train.cpp", 12};
  g.outputs.push_back(e.neg({x}).id);
  CHECK_THAT(to_string(g), Contains("%1 = neg(%0) : float32(2,)  # train.cpp:12\n"));
  CHECK(parse_graph(to_string(g)).nodes.size() == 2);
}

TEST_CASE("an empty graph, empty tensors and graphs without outputs have a text", "[graph]") {
  same_graph(Graph(), parse_graph(to_string(Graph())));
  Graph g;
  g.add_input(tensor(DType::uint8, {0, 5}), {5, 1});
  same_graph(g, parse_graph(to_string(g)));
}

TEST_CASE("constants keep their bits", "[graph]") {
  std::vector<int64_t> bits = {0,
                               std::bit_cast<int64_t>(-0.0),
                               std::bit_cast<int64_t>(0.1),
                               1,
                               0x000fffffffffffff,
                               0x7fefffffffffffff,
                               0x7ff0000000000000,
                               static_cast<int64_t>(0xfff0000000000000),
                               0x7ff8000000000000,
                               static_cast<int64_t>(0xfff8000000000000),
                               0x7ff0000000000001,
                               static_cast<int64_t>(0xffffffffffffffff)};
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; ++i) bits.push_back(static_cast<int64_t>(random()));
  for (const int64_t b : bits) {
    CAPTURE(b);
    Graph g;
    g.add_constant(std::bit_cast<double>(b));
    g.nodes[0].bits = b;
    CHECK(parse_graph(to_string(g)).nodes[0].bits == b);
  }
  for (const auto& [text, value] : std::vector<std::pair<std::string, double>>{
           {"1", 1}, {"-2.5", -2.5}, {"1e-3", 1e-3}, {"0x1.8p+1", 3}, {"-0x1p4", -16}, {"-0", -0.0}})
    CHECK(parse_graph("graph { %0 = constant " + text + " }").nodes[0].bits == std::bit_cast<int64_t>(value));
}

TEST_CASE("names of inputs keep every character", "[graph]") {
  for (const std::string name : {"hidden.weight", "a \"quoted\" name", "back\\slash", "two\nlines", "\\n",
                                 "\"", "x # y", "\xc3\xa9"}) {
    Graph g;
    g.add_input(tensor(DType::float32, {}), {}, name);
    CHECK(parse_graph(to_string(g)).inputs[0].name == name);
  }
}

TEST_CASE("every op of the table has a text that parses back", "[graph]") {
  for (int id = 0; id < ops::kOpCount; ++id) {
    const ops::OpDef& op = ops::def(static_cast<OpId>(id));
    for (const ops::Sample& s : ops::samples(op)) {
      if (s.must_throw) continue;
      const Graph g = samples::graph_of(op, s);
      CAPTURE(op.name, s.text, to_string(g));
      check(g, "building");
      same_graph(g, parse_graph(to_string(g)));
    }
  }
}

TEST_CASE("a text that does not parse is an error that names line and expectation", "[graph]") {
  struct Bad {
    const char* text;  // after "graph {\n  %0 = input float32(3, 4) strides (4, 1)\n  %1 = number float64\n":
                       // lines 1 to 3
    int line;
    const char* expected;
    const char* found;
  };
  const Bad cases[] = {
      {"", 4, "a definition, 'return', 'write' or '}'", "the end"},
      {"}\n}", 5, "the end", "}"},
      {"return %7\n}", 4, "a value defined above", "%7"},
      {"return _\n}", 4, "a value defined above", "_"},
      {"return %1\n}", 4, "a tensor", "%1"},
      {"return\n}", 5, "a value defined above", "}"},
      {"give %0\n}", 4, "a definition, 'return', 'write' or '}'", "give %0"},
      {"%0 = neg(%0) : float32(3, 4)\n}", 4, "a name that is not yet defined", "%0 = neg"},
      {"%2, %2 = neg(%0) : float32(3, 4)\n}", 4, "a name that is not yet defined", "%2 ="},
      {"%2 = neg(%2) : float32(3, 4)\n}", 4, "a value defined above", "%2)"},
      {"%2 neg(%0)\n}", 4, "'='", "neg(%0)"},
      {"% = neg(%0)\n}", 4, "a name", "= neg"},
      {"%2 = frobnicate(%0) : float32(3, 4)\n}", 4, "an op, 'input'", "frobnicate"},
      {"%2 = \n}", 5, "an op, 'input'", "}"},
      {"%2 = neg %0 : float32(3, 4)\n}", 4, "'('", "%0 :"},
      {"%2 = neg(%0 : float32(3, 4)\n}", 4, "',' or ')'", ": float32"},
      {"%2 = neg(%0) float32(3, 4)\n}", 4, "':'", "float32"},
      {"%2 = neg(%0)\n}", 5, "':'", "}"},
      {"%2 = neg(%0) : float31(3, 4)\n}", 4, "a dtype", "float31"},
      {"%2 = neg(%0) : float32(3, x)\n}", 4, "an integer of 64 bits", "x)"},
      {"%2 = neg(%0) : float32(3, 99999999999999999999)\n}", 4, "an integer of 64 bits", "99999999"},
      {"%2 = neg(%0) : float32(3, 5)\n}", 4, "float32(3, 4) as result 0 of neg", "float32(3, 5)"},
      {"%2 = neg(%0) : bfloat16(3, 4)\n}", 4, "float32(3, 4) as result 0 of neg", "bfloat16(3, 4)"},
      {"%2 = neg(%0) : float32(1, 1, 1, 1, 1, 1, 1, 1, 1)\n}", 4, "at most 8 sizes", "(1, 1"},
      {"%2 = neg(%0) : float32(3, 4), float32(3, 4)\n}", 4, "2 values on the left", "neg(%0)"},
      {"%2, %3 = neg(%0) : float32(3, 4)\n}", 4, "1 value on the left", "neg(%0)"},
      {"%2 = neg(%0, %0) : float32(3, 4)\n}", 4, "1 operand of neg", "neg(%0, %0)"},
      {"%2 = add(%0) : float32(3, 4)\n}", 4, "2 operands of add", "add(%0)"},
      {"%2 = add(%0, _) : float32(3, 4)\n}", 4, "operand 1 is missing", "add(%0, _)"},
      {"%2 = matmul(%0, %0) : float32(3, 4)\n}", 4, "a call that its op takes (matmul: ", "matmul"},
      {"%2 = sum(%0, keepdim=0) : float32()\n}", 4, "attribute axes of sum", ") :"},
      {"%2 = sum(%0, keepdim=0, keepdim=0, axes=[]) : float32()\n}", 4, "attribute keepdim once",
       "keepdim=0, axes"},
      {"%2 = sum(%0, depth=0) : float32()\n}", 4, "an operand or attribute of sum", "depth"},
      {"%2 = sum(%0, keepdim=x, axes=[]) : float32()\n}", 4, "an integer of 64 bits", "x"},
      {"%2 = sum(%0, keepdim=0, axes=[1) : float32(3,)\n}", 4, "']'", ")"},
      {"%2 = sum(%0, keepdim=0, axes=[1, 1]) : float32(3,)\n}", 4, "listed twice", "sum"},
      {"%2 = sum(%0, keepdim=0, axes=[0, 0, 0, 0, 0, 0, 0, 0, 0]) : float32()\n}", 4,
       "at most 8 values in attribute axes", "sum"},
      {"%2 = cast(%0, dtype=float31) : float32(3, 4)\n}", 4, "a dtype", "float31"},
      {"%2 = clamp(%0, %1, low=1) : float32(3, 4)\n}", 4, "an operand or attribute of clamp", "low"},
      {"%2 = clamp(%0, %1, %0) : float32(3, 4)\n}", 4, "a number as operand 2 of clamp", "clamp"},
      {"%2 = clamp(%0, %1) : float32(3, 4)\n}", 4, "3 operands of clamp", "clamp"},
      {"%2 = sum(%1, keepdim=0, axes=[]) : float32()\n}", 4, "must be a tensor", "sum"},
      {"%2 = input number:float64 strides ()\n}", 4, "a tensor as input", "number:float64"},
      {"%2 = input float32(-1) strides (1)\n}", 4, "negative size", "float32(-1)"},
      {"%2 = input float32(4611686018427387904, 4) strides (1, 1)\n}", 4, "sizes that can be counted",
       "float32(46116"},
      {"%2 = input float32(2) strides (1, 1)\n}", 4, "as many strides as sizes", "(1, 1)"},
      {"%2 = input float32(2)\n}", 5, "'strides'", "}"},
      {"%2 = input float32(2) strides (1) align 0\n}", 4, "a positive alignment", "0"},
      {"%2 = input float32(2) strides (1) \"name\n}", 5, "'\"'", "the end"},
      {"%2 = number float32\n}", 4, "float64, int64 or bool", "float32"},
      {"%2 = constant one\n}", 4, "a number", "one"},
      {"%2 = constant 1e999\n}", 4, "a number", "1e999"},
      {"%2 = constant nan(0x1)\n}", 4, "the bits of a NaN", "nan(0x1)"},
      {"%2 = constant --1\n}", 4, "a number", "--1"},
      {"%2 = count(%0, axes=[2])\n}", 4, "ascending axes of float32(3, 4)", "count"},
      {"%2 = count(%0, axes=[1, 0])\n}", 4, "ascending axes", "count"},
      {"%2 = count(%1, axes=[])\n}", 4, "a tensor to count", "count"},
      {"%2 = count(_, axes=[])\n}", 4, "a value defined above", "_"},
      {"%2 = count(%0)\n}", 4, "','", ")"},
      {"%2 = number_op exp(%1)\n}", 4, "arithmetic of numbers", "exp"},
      {"%2 = number_op add(%1)\n}", 4, "arithmetic on its operands", "number_op"},
      {"%2 = number_op neg(%0)\n}", 4, "numbers as operands", "number_op"},
      {"write %1 <- %0\n}", 4, "an input", "%1"},
      {"write %0 < %0\n}", 4, "'-'", "%0"},
      {"write %0 <- %1\n}", 4, "a value of type float32(3, 4)", "%1"},
      {"write %0 <- %0\n  write %0 <- %0\n}", 5, "an input that is not yet written", "%0"},
  };
  for (const Bad& b : cases) {
    const std::string text =
        std::string("graph {\n  %0 = input float32(3, 4) strides (4, 1)\n  %1 = number float64\n") + b.text;
    CAPTURE(text);
    const std::string error = error_of(text);
    CHECK_THAT(error, Contains("graph text, line " + std::to_string(b.line) + ": expected "));
    CHECK_THAT(error, Contains(b.expected));
    CHECK_THAT(error, Contains(std::string("found '") + b.found));
  }
  CHECK_THAT(error_of(""), Contains("line 1: expected 'graph', found 'the end'"));
  CHECK_THAT(error_of("grape {"), Contains("line 1: expected 'graph', found 'grape {'"));
  CHECK_THAT(error_of("graph }"), Contains("line 1: expected '{', found '}'"));
}

TEST_CASE("every truncation of a graph's text is refused", "[graph]") {
  const std::string text = kWhole;
  for (size_t n = 0; n + 2 < text.size(); ++n) {
    CAPTURE(text.substr(0, n));
    CHECK_THAT(error_of(text.substr(0, n)), Contains("graph text, line "));
  }
}

TEST_CASE("hostile text ends in an Error or in a graph that holds together", "[graph]") {
  const std::string text = kWhole;
  const std::string pieces[] = {
      "%",
      "_",
      "(",
      ")",
      "[",
      "]",
      ",",
      "=",
      "%0",
      "%3",
      "-1",
      "9223372036854775807",
      "#",
      "\"",
      "graph",
      "{",
      "}",
      "axes",
      "<-",
      "input",
      "0x",
      "nan",
      "\\",
      std::string(1, '\0'),
      "\n",
      " : ",
      "sum",
      "matmul",
      "expand",
      "(,)",
      "1e",
      "float32(2, 3)",
      "-9223372036854775808",
      "slice(%0, axis=0, start=-9223372036854775808, end=9223372036854775807, step=9223372036854775807) : ",
      "\xff"};
  std::mt19937 random(11);
  int parsed = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::string hostile = text;
    for (unsigned edits = 1 + random() % 3; edits > 0 && !hostile.empty(); --edits) {
      const size_t at = random() % hostile.size(), n = std::min<size_t>(random() % 12, hostile.size() - at);
      switch (random() % 4) {
        case 0:
          hostile.erase(at, n);
          break;
        case 1:
          hostile.insert(at, pieces[random() % std::size(pieces)]);
          break;
        case 2:
          hostile.replace(at, n, pieces[random() % std::size(pieces)]);
          break;
        default:
          hostile[at] = static_cast<char>(random() % 256);
          break;
      }
    }
    CAPTURE(trial, hostile);
    try {
      const Graph g = parse_graph(hostile);
      check(g, "parsing");
      const std::string again = to_string(g);
      if (to_string(parse_graph(again)) != again) FAIL("the text of a parsed graph is not its own");
      ++parsed;
    } catch (const Error& e) {
      if (std::string(e.what()).find("graph text, line ") != 0) FAIL(e.what());
    }
  }
  CHECK(parsed > 100);
}

TEST_CASE("a long text takes neither the stack nor quadratic time", "[graph]") {
  std::string text = "graph {\n  %0 = input float32(3,) strides (1,)\n";
  for (int i = 1; i <= 50000; ++i)
    text += "  %" + std::to_string(i) + " = neg(%" + std::to_string(i - 1) + ") : float32(3,)\n";
  const Graph g = parse_graph(text + "}\n");
  CHECK(g.nodes.size() == 50001);
  CHECK_THAT(error_of("graph { %0 = constant " + std::string(100000, '(') + " }"),
             Contains("expected a number"));
}
