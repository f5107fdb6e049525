// A sample of the table as a call on the reference emitter, for tests that loop over the table.
#pragma once

#include <bit>
#include <memory>
#include <string>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/ops/samples.h"
#include "tests/ops/reference_emitter.h"

namespace tandem::test {

struct SampleCall {
  std::vector<ops::Value> in;       // operands, then run-time attributes
  std::vector<int64_t> words;       // structural
  std::vector<ops::Value> tensors;  // floating tensor operands: what gradients are taken of
  size_t n_in = 0;
};

/// Whether a gradient makes sense for the operand.
inline bool takes_gradient(const ops::SampleOperand& o) {
  return o.kind == ops::SampleOperand::Kind::floating;
}

/// Puts operands and numbers into `e`. `values` may hold the operands' values (by position); else they come
/// from the seed.
inline SampleCall make_call(ReferenceEmitter& e, const ops::OpDef& op, const ops::Sample& s, DType floating,
                            const std::vector<std::vector<double>>& values) {
  SampleCall call;
  for (size_t i = 0; i < s.operands.size(); ++i) {
    const ops::SampleOperand& o = s.operands[i];
    if (o.kind == ops::SampleOperand::Kind::absent) {
      call.in.push_back({});
      continue;
    }
    const ops::TensorType type = ops::sample_type(o, floating);
    call.in.push_back(e.add(type, o.is_tensor() ? values[i] : std::vector<double>{o.value}));
    if (takes_gradient(o)) call.tensors.push_back(call.in.back());
  }
  call.n_in = call.in.size();
  const ops::SplitWords split = ops::split_words(op, s.words, s.n_numbers);
  call.words = split.structural;
  size_t next = static_cast<size_t>(s.n_numbers);
  for (int k = 0; k < op.n_attrs; ++k) {
    if (!op.attrs[k].run_time()) continue;
    const int64_t word = s.words[static_cast<size_t>(split.run_time[next++])];
    ops::TensorType type;
    type.number = true;
    const bool is_float = op.attrs[k].type == ops::AttrType::floating;
    type.dtype = is_float ? DType::float64 : DType::int64;
    call.in.push_back(e.add(type, {is_float ? std::bit_cast<double>(word) : static_cast<double>(word)}));
  }
  return call;
}

inline std::vector<std::vector<double>> operand_values(const ops::Sample& s, uint64_t seed) {
  std::vector<std::vector<double>> values;
  for (const ops::SampleOperand& o : s.operands)
    values.push_back(o.is_tensor() ? ops::sample_values(o, seed++) : std::vector<double>{});
  return values;
}

template <class F>
void for_each_op(F&& f) {
  for (int id = 0; id < ops::kOpCount; ++id) f(ops::def(static_cast<ops::OpId>(id)));
}

}  // namespace tandem::test
