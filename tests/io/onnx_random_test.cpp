// Random graphs over the op table as ONNX models, and those that they found wrong: the checker infers the
// types that Tandem inferred, and ONNX Runtime, where it is, runs them. Results are compared where no
// rounding decides about them.
#include <algorithm>

#include "tandem/io/onnx_ops.h"
#include "tandem/jit/executable.h"
#include "tests/io/onnx_judge.h"
#include "tests/io/onnx_write.h"
#include "tests/jit/random_graphs.h"
#include "tests/op_calls.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr int kGraphs = 200;

Tensor tensor_from(const ops::TensorType& t, const GuardedBytes& bytes, const Dims& strides) {
  return tensor_of(t, elements(bytes, t, strides));
}

/// Whether some value has NaN, of which operators that choose may make what they like.
bool has_nan(jit::Graph g, const GraphArguments& arguments) {
  g.outputs.clear();
  g.writes.clear();
  for (size_t v = 0; v < g.values.size(); ++v)
    if (g.values[v].type.dtype >= DType::float16 && !g.values[v].type.number)
      g.outputs.push_back(static_cast<int32_t>(v));
  const GraphRun run = run_graph(*jit::Executable::make(g, {.compile = false}), g, arguments);
  for (size_t i = 0; i < g.outputs.size(); ++i) {
    const ops::TensorType& t = g.type(g.outputs[i]);
    for (const double x : elements(run.outputs[i], t, contiguous_strides(t.sizes)))
      if (std::isnan(x)) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("Random graphs are ONNX models of the same types that run") {
  if (!have_onnx()) return;
  OnnxJudge judge;
  int exported = 0;
  for (int seed = 1; seed <= kGraphs; ++seed) {
    const RandomGraph random = random_graph(static_cast<uint64_t>(seed));
    const jit::Graph& g = random.graph;
    OnnxProgram program{.graph = g};
    for (size_t i = 0; i < g.number_types.size(); ++i)
      program.numbers.push_back({g.number_types[i], random.arguments.numbers[i]});
    for (size_t i = 0; i < g.inputs.size(); ++i)
      program.inputs.push_back(
          tensor_from(g.type(g.inputs[i].value), random.arguments.inputs[i], g.inputs[i].strides));
    const std::string name = "random-" + std::to_string(seed);
    try {
      write_onnx(program, judge.path(name));
    } catch (const Error& e) {
      const std::string text = e.what();
      INFO(name << ": " << text);
      CHECK((text.find("random numbers") != std::string::npos || text.find("integers") != std::string::npos));
      continue;
    }
    const GraphRun run = run_graph(*jit::Executable::make(g, {.compile = false}), g, random.arguments);
    if (run.failed) continue;
    std::vector<Tensor> results;
    for (size_t i = 0; i < g.outputs.size(); ++i) {
      const ops::TensorType& t = g.type(g.outputs[i]);
      results.push_back(tensor_from(t, run.outputs[i], contiguous_strides(t.sizes)));
    }
    // ONNX Runtime drops casts between halves and float32, so that rounding decides about more than bits.
    bool comparable = !has_nan(g, random.arguments);
    for (const jit::Node& n : g.nodes)  // which overflow
      comparable = comparable && !(n.op == ops::OpId::prod && !is_floating(g.type(n.out[0]).dtype));
    for (const jit::Node& n : g.nodes)  // of which the largest may be one of several but for rounding
      if (n.op == ops::OpId::argmax || n.op == ops::OpId::argmin || n.op == ops::OpId::argsort)
        comparable = comparable && g.node_of(n.in[0]).leaf == jit::Leaf::input;
    for (const jit::ValueInfo& v : g.values) comparable = comparable && !is_half(v.type.dtype);
    judge.ask(name, program.inputs, results, 1e-4, comparable);
    ++exported;
  }
  CHECK(exported > kGraphs / 3);
  judge.run();
  if (judge.ran() > 0) CHECK(judge.ran() > kGraphs / 6);
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}

TEST_CASE("Graphs that were wrong once are right") {
  if (!have_onnx()) return;
  OnnxJudge judge;
  const auto ask = [&](const std::string& name, const std::string& body) {
    OnnxProgram program{.graph = jit::parse_graph("graph {\n" + body + "}\n")};
    const jit::Graph& g = program.graph;
    GraphArguments arguments;
    for (const jit::Input& in : g.inputs) {
      const ops::TensorType& t = g.type(in.value);
      const std::vector<double> values = noise(static_cast<size_t>(numel(t.sizes)), 5);
      arguments.inputs.emplace_back(values.size() * 4);
      for (size_t k = 0; k < values.size(); ++k)
        write_element(arguments.inputs.back().data(), t.dtype, static_cast<int64_t>(k), values[k]);
      program.inputs.push_back(tensor_from(t, arguments.inputs.back(), contiguous_strides(t.sizes)));
    }
    write_onnx(program, judge.path(name));
    const GraphRun run = run_graph(*jit::Executable::make(g, {.compile = false}), g, arguments);
    const ops::TensorType& t = g.type(g.outputs[0]);
    judge.ask(name, program.inputs, {tensor_from(t, run.outputs[0], contiguous_strides(t.sizes))});
  };
  ask("fill_of_bools", R"(
    %0 = constant 0x1p-1
    %1 = constant 0x0p+0
    %2 = arange(%0, %1, dtype=bool, size=3) : bool(3,)
    return %2
)");
  ask("nothing_left_of_the_windows", R"(
    %0 = input float32(5, 1, 1) strides (1, 1, 1)
    %1 = input float32(1, 1, 1) strides (1, 1, 1)
    %2 = input float32(1,) strides (1,)
    %3 = convolution_input(%0, %1, %2, groups=1, stride=[2], padding=[1], dilation=[2], output_padding=[2]) : float32(5, 1, 1)
    return %3
)");
  ask("output_padding_of_a_step", R"(
    %0 = input float32(1, 1, 7) strides (7, 7, 1)
    %1 = input float32(1, 1, 1) strides (1, 1, 1)
    %2 = convolution_input(%0, %1, _, groups=1, stride=[1], padding=[0], dilation=[2], output_padding=[1]) : float32(1, 1, 8)
    return %2
)");
  // The mark of another device's library ("whole") means nothing here.
  ask("attention_marked_elsewhere", R"(
    %0 = input float32(2, 3, 4) strides (12, 4, 1)
    %1 = input float32(2, 5, 4) strides (20, 4, 1)
    %2 = input float32(2, 5, 3) strides (15, 3, 1)
    %3 = constant 0x1p-1
    %4, %5 = attention_forward(%0, %1, %2, %3, causal=1, scaled=0, tf32=0, whole=1) : float32(2, 3, 3), float32(2, 3)
    return %4
)");
  judge.run();
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}
