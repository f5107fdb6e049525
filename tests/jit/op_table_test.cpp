// Every op of the table with each of its samples, as a graph of one call: the evaluator against the float64
// reference, compiled code against the evaluator bit for bit. Loops over the table: a new op is tested when
// it has samples.
//
// Tolerance: results are rounded once to their type (half a unit in the last place), and before that may be
// off by what sample_tolerance says. Integers and bools are exact.
#include <cmath>
#include <cstdio>

#include "tandem/core/error.h"
#include "tandem/jit/precompile.h"
#include "tests/catch.h"
#include "tests/jit/graph_runner.h"
#include "tests/jit/program.h"
#include "tests/op_samples.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

struct Case {
  std::string what;
  jit::Graph graph;
  GraphArguments arguments;
  std::vector<std::vector<double>> wanted;  // per result
  double magnitude = 1;
};

/// False if the op does not take operands of this type.
bool make_case(const OpDef& op, const Sample& s, DType type, Case& c) {
  c.what = std::string(op.name) + " " + s.text + " of " + name(type);
  ReferenceEmitter reference;
  Value out[kMaxOutputs];
  const SampleCall call = make_call(reference, op, s, type, rounded(s, type, operand_values(s, 11)));
  try {
    reference.emit(op.id, call.in, call.words, out);
  } catch (const Error&) {
    return false;
  }
  jit::GraphEmitter e(c.graph, false);
  std::vector<Value> in;
  const auto note = [&](const std::vector<double>& values) {
    c.magnitude = magnitude_of(values, c.magnitude);
  };
  for (const Value v : call.in) {
    if (!v) {
      in.push_back({});
      continue;
    }
    const TensorType& t = reference.type(v);
    const std::vector<double>& values = reference.values(v);
    note(values);
    if (t.number) {
      in.push_back({c.graph.add_number(t.dtype)});
      c.arguments.numbers.push_back(t.dtype == DType::float64 ? std::bit_cast<int64_t>(values[0])
                                                              : static_cast<int64_t>(values[0]));
      continue;
    }
    in.push_back({c.graph.add_input(t, contiguous_strides(t.sizes))});
    GuardedBytes bytes(static_cast<size_t>(numel(t.sizes) * itemsize(t.dtype)));
    for (size_t i = 0; i < values.size(); ++i)
      write_element(bytes.data(), t.dtype, static_cast<int64_t>(i), values[i]);
    c.arguments.inputs.push_back(std::move(bytes));
  }
  Value results[kMaxOutputs];
  e.emit(op.id, in, call.words, results);
  for (int j = 0; j < op.n_out; ++j) {
    c.graph.outputs.push_back(results[j].id);
    c.wanted.push_back(reference.values(out[j]));
    note(c.wanted.back());
    CHECK(c.graph.type(results[j].id) == reference.type(out[j]));
  }
  jit::check(c.graph, "building");
  return true;
}

std::string mismatch(const Case& c, const OpDef& op, const GraphRun& run) {
  for (size_t j = 0; j < c.wanted.size(); ++j) {
    const TensorType& t = c.graph.type(c.graph.outputs[j]);
    const Tolerance tolerance = sample_tolerance(op, t.dtype, c.magnitude);
    const std::vector<double> actual = elements(run.outputs[j], t, contiguous_strides(t.sizes));
    for (size_t i = 0; i < actual.size(); ++i)
      if (!close(actual[i], c.wanted[j][i], t.dtype, tolerance)) {
        char text[128];
        std::snprintf(text, sizeof text, "result %zu, element %zu: %.17g, the reference says %.17g", j, i,
                      actual[i], c.wanted[j][i]);
        return text;
      }
  }
  return run.guards_hold() ? "" : "memory around inputs or outputs was overwritten";
}

/// `all`: every case is compiled, too; else every sample in float32 and the first one in all types, since the
/// host compiler takes about a second for a dozen kernels.
void run_table(bool all) {
  struct Result {
    Case c;
    GraphRun run;
    bool compile;
  };
  std::vector<std::unique_ptr<Result>> results;
  int float_types = 0, integer_types = 0;
  for_each_op([&](const OpDef& op) {
    int runs = 0;
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      for (const DType type : kSampleTypes) {
        if (type != kSampleTypes[0] && !has_floating(s)) break;
        auto r = std::make_unique<Result>();
        if (!make_case(op, s, type, r->c)) {
          CAPTURE(r->c.what);
          CHECK(!is_floating(type));
          continue;
        }
        INFO(r->c.what);
        ++(is_floating(type) ? float_types : integer_types);
        const auto fused =
            jit::Executable::make(r->c.graph, {.compile = false, .optimize = true, .disabled_passes = {}});
        const auto plain =
            jit::Executable::make(r->c.graph, {.compile = false, .optimize = false, .disabled_passes = {}});
        r->run = run_graph(*fused, r->c.graph, r->c.arguments);
        const GraphRun unfused = run_graph(*plain, r->c.graph, r->c.arguments);
        CHECK(r->run.failed == 0);
        CHECK(mismatch(r->c, op, r->run) == "");
        CHECK(difference(r->c.graph, unfused, r->run) == "");
        r->compile = all || type == DType::float32 || runs < static_cast<int>(std::size(kSampleTypes));
        ++runs;
        results.push_back(std::move(r));
      }
    }
    CAPTURE(op.name);
    CHECK(runs >= 2);
  });
  CHECK(integer_types > 100);

  std::vector<jit::Graph> graphs;
  for (const auto& r : results)
    if (r->compile) graphs.push_back(r->c.graph);
  const int kernels = jit::precompile(graphs, cpu);
  int compiled = 0, interpreted = 0;
  for (const auto& r : results) {
    if (!r->compile) continue;
    const auto code =
        jit::Executable::make(r->c.graph, {.compile = true, .optimize = true, .disabled_passes = {}});
    compiled += code->stats().compiled;
    interpreted += code->stats().interpreted;
    const GraphRun run = run_graph(*code, r->c.graph, r->c.arguments);
    INFO(r->c.what);
    CHECK(difference(r->c.graph, r->run, run) == "");
    CHECK(run.guards_hold());
  }
  std::printf(
      "op table: %d calls with floating operands, %d with integers; %d kernels compiled; %d kernel "
      "calls compiled, %d interpreted\n",
      float_types, integer_types, kernels, compiled, interpreted);
  CHECK(compiled > 20 * interpreted);
}

}  // namespace

TEST_CASE("every sample of every op agrees with float64, and compiled code with the evaluator", "[ops]") {
  run_table(false);
}

TEST_CASE("every sample of every op is compiled in every type", "[ops][full]") { run_table(true); }

TEST_CASE("every wrong sample is refused when the graph is built", "[ops]") {
  for_each_op([](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      if (!s.must_throw) continue;
      CAPTURE(op.name, s.text);
      ReferenceEmitter types;
      const SampleCall call = make_call(types, op, s, DType::float32, operand_values(s, 1));
      jit::Graph g;
      jit::GraphEmitter e(g, false);
      e.location = {"user.cpp", 31};
      std::vector<Value> in;
      for (const Value v : call.in) {
        if (!v)
          in.push_back({});
        else if (types.type(v).number)
          in.push_back({g.add_number(types.type(v).dtype)});
        else
          in.push_back({g.add_input(types.type(v), contiguous_strides(types.type(v).sizes))});
      }
      const std::string before = to_string(g);
      Value out[kMaxOutputs];
      std::string message;
      try {
        e.emit(op.id, in, call.words, out);
      } catch (const Error& error) {
        message = error.what();
      }
      CHECK(message.rfind(std::string(op.name) + ": ", 0) == 0);
      CHECK_THAT(message, Contains(" at user.cpp:31"));
      CHECK(to_string(g) == before);  // nothing half-written
    }
  });
}
