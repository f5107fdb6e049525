// The table's samples as ONNX models: the format's checker takes each, and ONNX Runtime, where it is, gives
// what the float64 reference gives.
#include <set>

#include "tandem/io/onnx_ops.h"
#include "tests/io/onnx_judge.h"
#include "tests/io/onnx_write.h"
#include "tests/op_calls.h"

namespace td = tandem;
using namespace tandem;
using namespace tandem::test;

namespace {

double allowed(DType t) { return t == DType::bfloat16 ? 3e-2 : t == DType::float16 ? 4e-3 : 1e-4; }

/// Ops that no model can hold, and those that it cannot if they give integers.
const std::set<std::string> kRefused = {"bernoulli_mask", "dropout", "rand", "randn",
                                        "scaled_dot_product_attention_dropout"};
const std::set<std::string> kRefusedIntegers = {
    "bitwise_left_shift", "bitwise_right_shift", "bitwise_and",       "bitwise_or",
    "bitwise_xor",        "convolution",         "convolution_input", "convolution_weight",
};

OnnxProgram program_of(const ops::OpDef& op, const ops::Sample& s, DType t, const Lists& values) {
  OnnxProgram model;
  ReferenceEmitter reference;
  const SampleCall call = make_call(reference, op, s, t, values);
  jit::GraphEmitter e(model.graph, false);
  e.location = kUserLine;
  std::vector<ops::Value> in;
  for (const ops::Value v : call.in) {
    if (!v) {
      in.push_back({});
      continue;
    }
    const ops::TensorType& type = reference.type(v);
    if (type.number) {
      in.push_back({model.graph.add_number(type.dtype)});
      const double value = reference.values(v)[0];
      model.numbers.push_back({type.dtype, is_floating(type.dtype) ? std::bit_cast<int64_t>(value)
                                                                   : static_cast<int64_t>(value)});
    } else {
      in.push_back({model.graph.add_input(type, contiguous_strides(type.sizes))});
      model.inputs.push_back(tensor_of(type, reference.values(v)));
    }
  }
  ops::Value results[ops::kMaxOutputs];
  e.emit(op.id, in, call.words, results);
  for (int j = 0; j < op.n_out; ++j) model.graph.outputs.push_back(results[j].id);
  return model;
}

}  // namespace

TEST_CASE("Every op of the table is an ONNX model, or refused by name") {
  if (!have_onnx()) return;
  OnnxJudge judge;
  std::set<std::string> refused, refused_integers;
  int exported = 0;
  for_each_op([&](const ops::OpDef& op) {
    int k = 0;
    for (const ops::Sample& s : ops::samples(op)) {
      ++k;
      if (s.must_throw) continue;
      for (const DType t : kSampleTypes) {
        if (t != DType::float32 && !has_floating(s)) continue;
        if (!is_floating(t) && k > 2) continue;
        const Lists values = rounded(s, t, operand_values(s, 11));
        const auto wanted = expected_results(op, s, t, values);
        if (!wanted) continue;
        const std::string name = std::string(op.name) + "-" + std::to_string(k) + "-" + td::name(t);
        const OnnxProgram model = program_of(op, s, t, values);
        try {
          write_onnx(model, judge.path(name), kUserLine);
        } catch (const Error& e) {
          INFO(name << ": " << e.what());
          const bool integers = is_integral(wanted->types[0].dtype);
          CHECK((integers ? kRefusedIntegers : kRefused).count(op.name) == 1);
          const std::string text = e.what();
          CHECK(text.find("onnx: ") == 0);
          CHECK(text.find("user.cpp:31") != std::string::npos);
          (integers ? refused_integers : refused).insert(op.name);
          continue;
        }
        std::vector<Tensor> results;
        if (is_floating(t)) {
          for (size_t j = 0; j < wanted->types.size(); ++j)
            results.push_back(tensor_of(wanted->types[j], wanted->values[j]));
        } else {
          results = call_sample(op, s, operand_tensors(s, t, values));  // the reference does not wrap
        }
        const bool run = t != DType::bfloat16;  // numpy has none
        judge.ask(name, model.inputs, results, allowed(t) * (is_half(t) ? wanted->magnitude : 1), run);
        ++exported;
      }
    }
  });
  CHECK(refused == kRefused);
  CHECK(refused_integers == kRefusedIntegers);
  CHECK(exported > 1000);
  judge.run();
  if (judge.ran() > 0) CHECK(judge.ran() > 700);
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}
