// What an op's kernels are follows from the table: from the calls that it gives as samples.
#include "tandem/eager/warmup.h"

#include <vector>

#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/precompile.h"
#include "tandem/ops/samples.h"

namespace tandem::cuda {

namespace {

DType number_type(NumberKind kind) {
  return kind == NumberKind::floating  ? DType::float64
         : kind == NumberKind::integer ? DType::int64
                                       : DType::bool_;
}

/// One call of the op as a graph.
jit::Graph graph_of(const ops::OpDef& op, const ops::Sample& s) {
  jit::Graph g;
  jit::GraphEmitter emitter(g, true);
  std::vector<ops::Value> in;
  for (const ops::SampleOperand& o : s.operands) {
    if (o.kind == ops::SampleOperand::Kind::absent)
      in.emplace_back();
    else if (o.kind == ops::SampleOperand::Kind::number)
      in.push_back({g.add_number(number_type(o.number))});
    else
      in.push_back({g.add_input(ops::sample_type(o, DType::float32), contiguous_strides(o.sizes))});
  }
  const ops::SplitWords split = ops::split_words(op, s.words, s.n_numbers);
  for (int k = 0; k < op.n_attrs; ++k)
    if (op.attrs[k].run_time())
      in.push_back(
          {g.add_number(op.attrs[k].type == ops::AttrType::floating ? DType::float64 : DType::int64)});
  ops::Value out[ops::kMaxOutputs];
  emitter.emit(op.id, in, split.structural, out);
  for (int j = 0; j < op.n_out; ++j) g.outputs.push_back(out[j].id);
  return g;
}

}  // namespace

int warmup(Device device, Location where) {
  Runtime::of(device, "warmup", where);
  std::vector<jit::Graph> graphs;
  for (int i = 0; i < ops::kOpCount; ++i) {
    const ops::OpDef& op = ops::def(static_cast<ops::OpId>(i));
    if (op.kind == ops::OpKind::view) continue;
    for (ops::Sample& s : ops::samples(op)) {
      if (s.must_throw) continue;
      graphs.push_back(graph_of(op, s));
      if (op.kind != ops::OpKind::pointwise) continue;
      for (ops::SampleOperand& o : s.operands)  // without broadcasting, too
        if (o.is_tensor()) o.sizes = s.operands[0].is_tensor() ? s.operands[0].sizes : o.sizes;
      graphs.push_back(graph_of(op, s));
    }
  }
  return jit::precompile(graphs, device);
}

}  // namespace tandem::cuda
