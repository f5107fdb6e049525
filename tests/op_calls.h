// The table's samples as calls through the dispatcher: operands as tensors in several layouts, results and
// gradients as plain values. Tensors live as long as their handles; one thread.
#pragma once

#include <cstdio>
#include <optional>

#include "tandem/eager/autograd.h"
#include "tandem/eager/dispatch.h"
#include "tandem/eager/functions.h"
#include "tests/op_samples.h"

namespace tandem::test {

/// How an operand lies in memory.
enum class OperandLayout : uint8_t {
  contiguous,
  transposed,  // the axes in reversed order; of rank 0 and 1: as stepped
  stepped,     // every second element, from an offset on
  expanded,    // one axis has stride 0, so values along it are equal
};
inline const char* name(OperandLayout l) {
  constexpr const char* kNames[] = {"contiguous", "transposed", "stepped", "expanded"};
  return kNames[static_cast<size_t>(l)];
}

inline const Location kUserLine{"user.cpp", 31};

/// Calls `visit(k, element)` for each element in logical order, with its place from the first one.
template <class Visit>
void for_each_element(const Tensor& t, Visit&& visit) {
  const core::TensorImpl& impl = *t.impl();
  for (int64_t k = 0; k < impl.numel; ++k) {
    int64_t rest = k, at = 0;
    for (int d = impl.sizes.rank() - 1; d >= 0; --d) {
      at += rest % impl.sizes[d] * impl.strides[d];
      rest /= impl.sizes[d];
    }
    visit(static_cast<size_t>(k), at);
  }
}
inline void write_values(const Tensor& t, const std::vector<double>& values) {
  char* data = static_cast<char*>(t.impl()->data);
  for_each_element(t, [&](size_t k, int64_t at) { write_element(data, t.dtype(), at, values[k]); });
}
/// The elements in row-major order, read from memory without the library.
inline std::vector<double> read_values(const Tensor& t) {
  std::vector<double> values(static_cast<size_t>(t.impl()->numel));
  const char* data = static_cast<const char*>(t.impl()->data);
  for_each_element(t, [&](size_t k, int64_t at) { values[k] = read_element(data, t.dtype(), at); });
  return values;
}

inline int expandable_axis(const Dims& sizes) {
  for (int d = 0; d < sizes.rank(); ++d)
    if (sizes[d] > 1) return d;
  return -1;
}

inline Tensor tensor_of(const ops::TensorType& type, const std::vector<double>& values,
                        OperandLayout layout = OperandLayout::contiguous) {
  const NoGrad no_grad;
  const Dims& sizes = type.sizes;
  const int rank = sizes.rank();
  Tensor t;
  if (layout == OperandLayout::transposed && rank > 1) {
    Dims reversed, axes;
    for (int d = rank - 1; d >= 0; --d) reversed.push_back(sizes[d]), axes.push_back(d);
    t = empty(reversed, {.dtype = type.dtype}).permute(axes);
  } else if (layout == OperandLayout::expanded && expandable_axis(sizes) >= 0) {
    Dims one = sizes;
    one[expandable_axis(sizes)] = 1;
    t = empty(one, {.dtype = type.dtype}).expand(sizes);
  } else if (layout == OperandLayout::contiguous || layout == OperandLayout::expanded) {
    t = empty(sizes, {.dtype = type.dtype});
  } else if (rank == 0) {
    t = empty({3}, {.dtype = type.dtype}).select(0, 1);
  } else {
    Dims wide = sizes;
    wide[rank - 1] = 2 * sizes.back() + 1;
    t = empty(wide, {.dtype = type.dtype}).slice(-1, 1, wide.back(), 2);
  }
  write_values(t, values);
  return t;
}

/// Values of the sample's operands that can lie in `layout`.
inline Lists values_for(const ops::Sample& s, OperandLayout layout, Lists values) {
  if (layout != OperandLayout::expanded) return values;
  for (size_t i = 0; i < values.size(); ++i) {
    const Dims& sizes = s.operands[i].sizes;
    const int axis = s.operands[i].is_tensor() ? expandable_axis(sizes) : -1;
    if (axis < 0) continue;
    int64_t inner = 1;
    for (int d = axis + 1; d < sizes.rank(); ++d) inner *= sizes[d];
    for (size_t k = 0; k < values[i].size(); ++k) {
      const auto at = static_cast<int64_t>(k), span = inner * sizes[axis];
      values[i][k] = values[i][static_cast<size_t>(at / span * span + at % inner)];
    }
  }
  return values;
}

/// The sample's operands; undefined for numbers and absent ones.
inline std::vector<Tensor> operand_tensors(const ops::Sample& s, DType floating, const Lists& values,
                                           OperandLayout layout = OperandLayout::contiguous) {
  std::vector<Tensor> in;
  for (size_t i = 0; i < s.operands.size(); ++i)
    in.push_back(s.operands[i].is_tensor()
                     ? tensor_of(ops::sample_type(s.operands[i], floating), values[i], layout)
                     : Tensor());
  return in;
}

/// Calls the op through the dispatcher, as the public functions do.
inline std::vector<Tensor> call_sample(const ops::OpDef& op, const ops::Sample& s, std::vector<Tensor> in,
                                       bool in_place = false) {
  eager::Call call{.op = op.id, .in_place = in_place, .where = kUserLine};
  // Tensor::reshape: a view where the strides allow it, else a view of a copy.
  if (op.id == ops::OpId::reshape && !in_place && !s.must_throw && in[0].defined() &&
      !eager::viewable(*in[0].impl(), Dims(s.words.data() + 1, s.words[0])))
    in[0] = in[0].clone();
  std::vector<core::TensorImpl*> operands;
  for (size_t i = 0; i < in.size(); ++i) {
    operands.push_back(in[i].impl());
    if (s.operands[i].kind == ops::SampleOperand::Kind::number) call.numbers |= 1u << i;
  }
  call.n_in = static_cast<uint32_t>(operands.size());
  call.in = operands.data();
  call.n_words = static_cast<uint32_t>(s.words.size());
  call.words = s.words.data();
  core::Ref<core::TensorImpl> results[ops::kMaxOutputs];
  eager::call_into(call, in_place ? nullptr : results);
  std::vector<Tensor> out;
  for (int j = 0; j < op.n_out && !in_place; ++j) out.emplace_back(std::move(results[j]));
  return out;
}

/// Types and values by the reference; nothing if the op refuses the types.
struct Expected {
  std::vector<ops::TensorType> types;
  Lists values;
  double magnitude = 1;  // of operands and results
};
inline std::optional<Expected> expected_results(const ops::OpDef& op, const ops::Sample& s, DType floating,
                                                const Lists& values) {
  ReferenceEmitter e;
  ops::Value out[ops::kMaxOutputs];
  const SampleCall call = make_call(e, op, s, floating, values);
  try {
    e.emit(op.id, call.in, call.words, out);
  } catch (const Error&) {
    return {};
  }
  Expected x;
  for (const ops::Value v : call.in)
    if (v) x.magnitude = magnitude_of(e.values(v), x.magnitude);
  for (int j = 0; j < op.n_out; ++j) {
    x.types.push_back(e.type(out[j]));
    x.values.push_back(e.values(out[j]));
    x.magnitude = magnitude_of(x.values.back(), x.magnitude);
  }
  return x;
}

/// The operand that result j replaces in the op's in-place form; -1 if it has none or the sample gives no
/// tensor there.
inline int written_operand(const ops::OpDef& op, const ops::Sample& s, int j) {
  if (op.kind == ops::OpKind::view || op.writes[j] < 0 || op.writes[j] >= static_cast<int>(s.operands.size()))
    return -1;
  return s.operands[static_cast<size_t>(op.writes[j])].is_tensor() ? op.writes[j] : -1;
}
enum class InPlace : uint8_t { none, fits, refused };
/// Whether the sample can be called in place: results need the sizes of what they replace, and no floating
/// one fits into integers.
inline InPlace in_place_form(const ops::OpDef& op, const ops::Sample& s, const Expected& x, DType floating) {
  if (written_operand(op, s, 0) < 0) return InPlace::none;
  for (int j = 0; j < op.n_out; ++j) {
    const int w = written_operand(op, s, j);
    if (w < 0) continue;
    const ops::TensorType target = ops::sample_type(s.operands[static_cast<size_t>(w)], floating);
    const ops::TensorType& result = x.types[static_cast<size_t>(j)];
    if (!(result.sizes == target.sizes) || (is_floating(result.dtype) && !is_floating(target.dtype)))
      return InPlace::refused;
  }
  return InPlace::fits;
}

/// Positions of the operands that gradients are taken of.
inline std::vector<size_t> floating_operands(const ops::Sample& s) {
  std::vector<size_t> positions;
  for (size_t i = 0; i < s.operands.size(); ++i)
    if (takes_gradient(s.operands[i])) positions.push_back(i);
  return positions;
}

/// Empty if all elements agree; else which does not.
inline std::string difference(const std::vector<double>& actual, const std::vector<double>& wanted,
                              DType type, const Tolerance& tolerance) {
  if (actual.size() != wanted.size())
    return std::to_string(actual.size()) + " elements instead of " + std::to_string(wanted.size());
  for (size_t k = 0; k < actual.size(); ++k)
    if (!close(actual[k], wanted[k], type, tolerance)) {
      char text[128];
      std::snprintf(text, sizeof text, "element %zu is %.17g, wanted %.17g", k, actual[k], wanted[k]);
      return text;
    }
  return {};
}

}  // namespace tandem::test
