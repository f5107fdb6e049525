// Gradients of convolutions: each direction is linear in both operands, and its gradients are the other two.
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// groups, tf32, stride, padding and dilation of the op, and a further list.
std::vector<int64_t> words_with(const Gradient& r, const Dims* more) {
  std::vector<int64_t> words(r.words.begin(), r.words.begin() + 2);
  for (int k = 2; k < 5; ++k) {
    const Dims list = r.list(k);
    words.push_back(list.rank());
    words.insert(words.end(), list.begin(), list.end());
  }
  if (more) {
    words.push_back(more->rank());
    words.insert(words.end(), more->begin(), more->end());
  }
  return words;
}

Dims spatial(const Dims& sizes) { return Dims(sizes.data() + 2, sizes.rank() - 2); }

/// What of `in` positions the windows of `out` positions leave over.
Dims left_over(const Gradient& r, const Dims& in, const Dims& out, const Dims& kernel) {
  const Dims stride = r.list(2), padding = r.list(3), dilation = r.list(4);
  Dims left;
  for (int i = 0; i < in.rank(); ++i)
    left.push_back(in[i] - ((out[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + 1));
  return left;
}

/// y of x and w; there may be positions beyond the `sizes` that are wanted.
Value forward(Gradient& r, Value x, Value w, const Dims& sizes) {
  Value y = r.e.call(OpId::convolution, {x, w, Value{}}, words_with(r, nullptr));
  for (int i = 2; i < sizes.rank(); ++i)
    if (r.e.type(y).sizes[i] != sizes[i]) y = r.e.slice(y, i, 0, sizes[i]);
  return y;
}

Value weight(Gradient& r, Value x, Value y, const Dims& kernel) {
  return r.e.call(OpId::convolution_weight, {x, y}, words_with(r, &kernel));
}

Value input(Gradient& r, Value y, Value w, const Dims& sizes) {
  const Dims out = spatial(r.e.type(y).sizes), kernel = spatial(r.e.type(w).sizes);
  const Dims padding = left_over(r, spatial(sizes), out, kernel);
  return r.e.call(OpId::convolution_input, {y, w, Value{}}, words_with(r, &padding));
}

/// Over positions, which lie one after another, then over the batch; rounded once.
Value channel_sums(Gradient& r) {
  const Value g = widen(r.e, r.grad());
  Dims axes;
  for (int i = 2; i < r.e.type(g).sizes.rank(); ++i) axes.push_back(i);
  return r.e.cast(r.e.sum(r.e.sum(g, axes, false), 0, false), r.e.type(r.grad()).dtype);
}

}  // namespace

void gradient::convolution(Gradient& r) {
  if (r.needs(0)) r.set(0, input(r, r.grad(), r.in(1), r.in_type(0).sizes));
  if (r.needs(1)) r.set(1, weight(r, r.in(0), r.grad(), spatial(r.in_type(1).sizes)));
  if (r.needs(2)) r.set(2, channel_sums(r));
}

void gradient::convolution_input(Gradient& r) {
  if (r.needs(0)) r.set(0, forward(r, r.grad(), r.in(1), r.in_type(0).sizes));
  if (r.needs(1)) r.set(1, weight(r, r.grad(), r.in(0), spatial(r.in_type(1).sizes)));
  if (r.needs(2)) r.set(2, channel_sums(r));
}

void gradient::convolution_weight(Gradient& r) {
  if (r.needs(0)) r.set(0, input(r, r.in(1), r.grad(), r.in_type(0).sizes));
  if (r.needs(1)) r.set(1, forward(r, r.in(0), r.grad(), r.in_type(1).sizes));
}

}  // namespace tandem::ops
