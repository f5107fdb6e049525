#include "tandem/ops/windows.h"

#include <algorithm>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Words of an axis in the list.
int words_per_axis(const OpDef& op, bool adaptive) {
  return adaptive ? 1 : op.id == OpId::max_pool_positions ? 4 : 3;
}

/// Spatial axes that the list speaks of; 0 if its length is wrong.
int spatial_rank(const OpDef& op, const Dims& list, bool adaptive) {
  const int each = words_per_axis(op, adaptive) + (op.id == OpId::avg_pool_backward);
  const int rank = list.size() / each;
  return list.size() % each != 0 || rank > kMaxSpatial ? 0 : rank;
}

constexpr int64_t kLargest = INT32_MAX;  // of a window's attributes, so that no sum of them overflows

/// How many windows there are; the last begins inside of the operand or of the padding before it.
int64_t count(const WindowAxis& a, bool ceil) {
  const int64_t room = a.in + 2 * a.padding - (a.dilation * (a.kernel - 1) + 1);
  if (room < 0 && !(ceil && room + a.stride - 1 >= 0)) return 0;
  const int64_t n = (ceil ? room + a.stride - 1 : room) / a.stride + 1;
  return ceil && (n - 1) * a.stride >= a.in + a.padding ? n - 1 : n;
}

/// Checks the attributes and the sizes.
Windows checked_windows(const InferCall& call) {
  const TensorType& x = operand(call, 0);
  const bool adaptive = call.integer(1) != 0;
  const bool backward = call.op.id == OpId::avg_pool_backward;
  const Dims list = call.list(call.op.n_attrs - 1);
  const int rank = spatial_rank(call.op, list, adaptive);
  if (rank == 0)
    fail_call(call, "the windows of one or two axes are needed, found the list " + to_string(list));
  if (x.sizes.rank() != rank + 1 && x.sizes.rank() != rank + 2)
    fail_call(call, "x must have " + std::to_string(rank) + " axes behind (N, C) or (C), found " +
                        operand_text(call));
  const int each = words_per_axis(call.op, adaptive);
  for (int i = 0; i < rank; ++i) {
    if (adaptive) {
      if (list[i] < 1) fail_call(call, "at least one window an axis is needed, found " + to_string(list));
      continue;
    }
    const int64_t kernel = list[i * each], stride = list[i * each + 1], padding = list[i * each + 2],
                  dilation = each > 3 ? list[i * each + 3] : 1;
    const int64_t least = std::min({kernel, stride, dilation}), most = std::max({kernel, stride, dilation});
    if (least < 1 || most > kLargest)
      fail_call(call, "kernel size, stride and dilation must be positive and below 2^31, found " +
                          std::to_string(kernel) + ", " + std::to_string(stride) + " and " +
                          std::to_string(dilation));
    if (padding < 0 || padding > ((kernel - 1) * dilation + 1) / 2)
      fail_call(call, "padding must be at most half of the window, found " + std::to_string(padding) +
                          " for a kernel of " + std::to_string(kernel));
  }
  Dims in = x.sizes;  // of the operand of the pooling itself
  for (int i = 0; i < rank; ++i) {
    int64_t& size = in[in.rank() - rank + i];
    if (backward) size = list[rank * each + i];
    if (size < 0) fail_call(call, "negative size in " + to_string(list));
  }
  const Windows w = windows_of(call.op, in, call.words);
  for (int i = kMaxSpatial - rank; i < kMaxSpatial; ++i) {
    const WindowAxis& a = w.axis[i];
    const int64_t found = x.sizes[x.sizes.rank() - kMaxSpatial + i];
    if (a.in == 0 || a.out < 1)
      fail_call(call, "no window fits " + (backward ? to_string(in) : to_string(x)) + "; kernel " +
                          std::to_string(a.kernel) + ", padding " + std::to_string(a.padding));
    if (backward && found != a.out)
      fail_call(call, std::to_string(a.out) + " windows fit an axis of " + std::to_string(a.in) + ", found " +
                          operand_text(call));
    for (int64_t o = 0; a.dilation > 1 && o < a.out; ++o)
      if (a.positions(o).first >= a.positions(o).end)
        fail_call(call, "a window of " + to_string(x) + " holds nothing but padding; kernel " +
                            std::to_string(a.kernel) + ", dilation " + std::to_string(a.dilation));
  }
  return w;
}

/// The sizes with those of each spatial axis replaced.
template <class Size>
TensorType resized(const InferCall& call, const Windows& w, DType type, Size size) {
  Dims sizes = operand(call, 0).sizes;
  for (int i = 0; i < w.rank; ++i) sizes[sizes.rank() - w.rank + i] = size(w.axis[kMaxSpatial - w.rank + i]);
  checked_numel(sizes);
  return result_like(call, 0, type, sizes);
}

void need_divisor(const InferCall& call) {
  need_floating(call, 0);
  if (call.integer(3) < 0)
    fail_call(call, "the divisor must not be negative, found " + std::to_string(call.integer(3)));
}

/// The other direction: a call with the list that is given.
Value transposed(Gradient& r, OpId op, const Dims& list) {
  std::vector<int64_t> words = {r.integer(0), r.integer(1), r.integer(2), r.integer(3), list.size()};
  words.insert(words.end(), list.begin(), list.end());
  return r.e.call(op, {r.grad()}, words);
}

}  // namespace

Windows windows_of(const OpDef& op, const Dims& x, Words words) {
  const bool ceil = words[0] != 0, adaptive = words[1] != 0, backward = op.id == OpId::avg_pool_backward;
  const auto before = static_cast<size_t>(op.n_attrs);  // of the list's values
  const Dims list(words.data() + before, words[before - 1]);
  const int each = words_per_axis(op, adaptive);
  Windows w;
  w.rank = list.size() / (each + backward);
  for (int i = 0; i < w.rank; ++i) {
    WindowAxis& a = w.axis[kMaxSpatial - w.rank + i];
    a.adaptive = adaptive;
    a.in = backward ? list[w.rank * each + i] : x[x.rank() - w.rank + i];
    if (adaptive) {
      a.out = list[i];
    } else {
      a.kernel = list[i * each], a.stride = list[i * each + 1], a.padding = list[i * each + 2];
      if (each > 3) a.dilation = list[i * each + 3];
      a.out = count(a, ceil);
    }
  }
  return w;
}

void check::max_pool_positions(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const Windows w = checked_windows(call);
  out.push_back(resized(call, w, DType::int64, [](const WindowAxis& a) { return a.out; }));
}

void check::avg_pool(const InferCall& call, std::vector<TensorType>& out) {
  need_divisor(call);
  const Windows w = checked_windows(call);
  out.push_back(resized(call, w, operand(call, 0).dtype, [](const WindowAxis& a) { return a.out; }));
}

void check::avg_pool_backward(const InferCall& call, std::vector<TensorType>& out) {
  need_divisor(call);
  const Windows w = checked_windows(call);
  out.push_back(resized(call, w, operand(call, 0).dtype, [](const WindowAxis& a) { return a.in; }));
}

void gradient::avg_pool(Gradient& r) {
  const Dims& x = r.in_type(0).sizes;
  Dims list = r.list(4);
  const int rank = spatial_rank(r.op, list, r.integer(1) != 0);
  for (int i = x.rank() - rank; i < x.rank(); ++i) list.push_back(x[i]);
  r.set(0, transposed(r, OpId::avg_pool_backward, list));
}

void gradient::avg_pool_backward(Gradient& r) {
  Dims list = r.list(4);
  list.resize(list.rank() - spatial_rank(r.op, list, r.integer(1) != 0));
  r.set(0, transposed(r, OpId::avg_pool, list));
}

}  // namespace tandem::ops
