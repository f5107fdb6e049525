// Samples of the op table as graphs of one call, in float32. Values only, one thread.
#pragma once

#include "tandem/jit/graph.h"
#include "tests/op_samples.h"

namespace tandem::jit::samples {

inline Graph graph_of(const ops::OpDef& op, const ops::Sample& s) {
  constexpr DType kType = DType::float32;
  test::ReferenceEmitter types;
  const test::SampleCall call =
      make_call(types, op, s, kType, test::rounded(s, kType, test::operand_values(s, 11)));
  Graph g;
  GraphEmitter e(g, false);
  std::vector<ops::Value> in;
  for (const ops::Value v : call.in) {
    if (!v) {
      in.push_back({});
      continue;
    }
    const ops::TensorType& t = types.type(v);
    in.push_back({t.number ? g.add_number(t.dtype) : g.add_input(t, contiguous_strides(t.sizes))});
  }
  ops::Value results[ops::kMaxOutputs];
  e.emit(op.id, in, call.words, results);
  for (int j = 0; j < op.n_out; ++j) g.outputs.push_back(results[j].id);
  return g;
}

}  // namespace tandem::jit::samples
