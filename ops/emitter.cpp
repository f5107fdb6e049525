// Helpers of Emitter: calls by name with their words in place.
#include "tandem/ops/emitter.h"

#include <algorithm>
#include <cmath>

#include "tandem/core/error.h"

namespace tandem::ops {

namespace {

std::vector<int64_t> with_list(std::initializer_list<int64_t> first, const Dims& values) {
  std::vector<int64_t> words(first);
  words.push_back(values.size());
  words.insert(words.end(), values.begin(), values.end());
  return words;
}

}  // namespace

Value Emitter::call(OpId op, std::initializer_list<Value> in, std::initializer_list<int64_t> words) {
  Value out[kMaxOutputs];
  emit(op, {in.begin(), in.size()}, {words.begin(), words.size()}, out);
  return out[0];
}

Value Emitter::call(OpId op, std::initializer_list<Value> in, const std::vector<int64_t>& words) {
  Value out[kMaxOutputs];
  emit(op, {in.begin(), in.size()}, words, out);
  return out[0];
}

Value Emitter::cast(Value a, DType to) {
  if (type(a).dtype == to) return a;
  return call(OpId::cast, {a}, {static_cast<int64_t>(to)});
}

Value Emitter::sum(Value a, const Dims& axes, bool keepdim) {
  return call(OpId::sum, {a}, with_list({keepdim}, axes));
}
Value Emitter::mean(Value a, const Dims& axes, bool keepdim) {
  return call(OpId::mean, {a}, with_list({keepdim}, axes));
}
Value Emitter::amax(Value a, const Dims& axes, bool keepdim) {
  return call(OpId::amax, {a}, with_list({keepdim}, axes));
}

Value Emitter::reshape(Value a, const Dims& sizes) {
  if (type(a).sizes == sizes) return a;
  return call(OpId::reshape, {a}, with_list({}, sizes));
}

Value Emitter::expand(Value a, const Dims& sizes) {
  if (type(a).sizes == sizes) return a;
  return call(OpId::expand, {a}, with_list({}, sizes));
}

Value Emitter::permute(Value a, const Dims& axes) { return call(OpId::permute, {a}, with_list({}, axes)); }

Value Emitter::transpose(Value a, int axis0, int axis1) {
  const int rank = type(a).sizes.rank();
  Dims axes;
  for (int i = 0; i < rank; ++i) axes.push_back(i);
  std::swap(axes[normalize_axis(axis0, rank, "transpose", location)],
            axes[normalize_axis(axis1, rank, "transpose", location)]);
  return permute(a, axes);
}

Value Emitter::unsqueeze(Value a, int64_t axis) { return call(OpId::unsqueeze, {a}, {axis}); }

Value Emitter::slice(Value a, int64_t axis, int64_t start, int64_t end, int64_t step) {
  return call(OpId::slice, {a}, {axis, start, end, step});
}

Value Emitter::pad(Value a, int64_t axis, int64_t before, int64_t after) {
  if (before == 0 && after == 0) return a;
  return call(OpId::pad, {a}, {axis, before, after});
}

Value Emitter::matmul(Value a, Value b, bool tf32) { return call(OpId::matmul, {a, b}, {int64_t{tf32}}); }

Value Emitter::full(const Dims& sizes, DType dtype, double value) {
  return call(OpId::full, {number(value)}, with_list({static_cast<int64_t>(dtype)}, sizes));
}

Value Emitter::full_like(Value a, double value) { return call(OpId::full_like, {a, number(value)}); }

Value Emitter::sum_to(Value a, const Dims& sizes) {
  const Dims from = type(a).sizes;
  if (from == sizes) return a;
  const int fresh = from.rank() - sizes.rank();
  TANDEM_INTERNAL(fresh >= 0, "sum_to: " + to_string(from) + " has fewer axes than " + to_string(sizes));
  Dims axes;
  bool kept_ones = false;
  for (int i = 0; i < from.rank(); ++i) {
    if (i < fresh) {
      axes.push_back(i);
    } else if (from[i] != sizes[i - fresh]) {
      axes.push_back(i);
      kept_ones = true;
    }
  }
  if (axes.empty()) return reshape(a, sizes);
  return reshape(sum(a, axes, kept_ones), sizes);
}

double number_arithmetic(ScalarOp op, double a, double b) {
  switch (op) {
    case ScalarOp::add:
      return a + b;
    case ScalarOp::sub:
      return a - b;
    case ScalarOp::mul:
      return a * b;
    case ScalarOp::div:
      return a / b;
    case ScalarOp::neg:
      return -a;
    case ScalarOp::sqrt:
      return std::sqrt(a);
    case ScalarOp::max:
      return std::max(a, b);
    case ScalarOp::min:
      return std::min(a, b);
    default:
      internal_error(std::string("no arithmetic on numbers: ") + name(op));
  }
}

}  // namespace tandem::ops
