#include "tandem/ops/windows.h"

#include <algorithm>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Words of an axis in the list.
int words_per_axis(const OpDef& op, bool adaptive) { return adaptive ? 1 : pools_maxima(op.id) ? 4 : 3; }

/// What the lists of a call say.
struct Lists {
  Dims windows, sizes;  // sizes: of the operand of the pooling, in the op of its gradient
  int rank = 0;         // spatial axes; 0 if a length is wrong
};
Lists lists_of(const OpDef& op, Words words) {
  size_t at = 0;
  while (op.attrs[at].type != AttrType::list) ++at;
  Lists l{Dims(words.data() + at + 1, words[at]), {}, 0};
  int each = words_per_axis(op, words[1] != 0);
  if (op.id == OpId::max_pool_backward) {
    at += static_cast<size_t>(words[at]) + 1;
    l.sizes = Dims(words.data() + at + 1, words[at]);
  }
  const bool joined = op.id == OpId::avg_pool_backward;
  each += joined;
  l.rank = l.windows.size() / each;
  if (l.windows.size() % each != 0 || l.rank > kMaxSpatial) l.rank = 0;
  if (joined) {
    l.sizes = Dims(l.windows.end() - l.rank, l.rank);
    l.windows.resize(l.windows.size() - l.rank);
  }
  if (pools_backward(op.id) && l.sizes.size() != l.rank) l.rank = 0;
  return l;
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
  const bool backward = pools_backward(call.op.id);
  const Lists lists = lists_of(call.op, call.words);
  const Dims& list = lists.windows;
  const int rank = lists.rank;
  if (rank == 0)
    fail_call(call, "the windows of one or two axes are needed, found the list " + to_string(list) +
                        (backward ? " and sizes " + to_string(lists.sizes) : ""));
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
    if (backward) size = lists.sizes[i];
    if (size < 0) fail_call(call, "negative size in " + to_string(in));
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
    // Only windows that begin in the padding before can miss a plane, one narrower than their steps: those
    // whose first position from 0 on is behind it. From one that meets it on, others are skipped.
    for (int64_t o = 0; a.in < a.dilation && o < a.out && o * a.stride < a.padding;) {
      const WindowAxis::Range r = a.positions(o);
      if (r.first >= r.end)
        fail_call(call, "a window of " + to_string(x) + " holds nothing but padding; kernel " +
                            std::to_string(a.kernel) + ", dilation " + std::to_string(a.dilation));
      o += (a.in - r.first + a.stride - 1) / a.stride;
    }
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

/// Sizes of x's spatial axes.
Dims spatial_sizes(const Gradient& r, const Dims& x) {
  const int rank = lists_of(r.op, r.words).rank;
  return Dims(x.end() - rank, rank);
}

void append(std::vector<int64_t>& words, const Dims& list) {
  words.push_back(list.size());
  words.insert(words.end(), list.begin(), list.end());
}

/// The other direction of a mean, of x with the spatial `sizes` or from them.
Value transposed(Gradient& r, OpId op, const Dims& sizes) {
  std::vector<int64_t> words = {r.integer(0), r.integer(1), r.integer(2), r.integer(3)};
  Dims list = lists_of(r.op, r.words).windows;
  for (const int64_t size : sizes) list.push_back(size);
  append(words, list);
  return r.e.call(op, {r.grad()}, words);
}
/// The same of maxima at `places`.
Value transposed(Gradient& r, OpId op, Value places, const Dims& sizes) {
  std::vector<int64_t> words = {r.integer(0), r.integer(1)};
  append(words, lists_of(r.op, r.words).windows);
  if (op == OpId::max_pool_backward) append(words, sizes);
  return r.e.call(op, {r.grad(), places}, words);
}

/// That operand 1 says where in its window each element of `sizes` is.
void need_places(const InferCall& call, const Windows& w, const Dims& sizes) {
  const TensorType& at = operand(call, 1);
  if (at.sizes != sizes)
    fail_call(call, "places of shape " + to_string(sizes) + " are needed, found " + to_string(at));
  if (at.dtype != DType::int64 && !(at.dtype == DType::uint8 && w.small()))
    fail_call(call,
              "places must be int64, or uint8 for windows of up to 256 elements, found " + to_string(at));
}

}  // namespace

Windows windows_of(const OpDef& op, const Dims& x, Words words) {
  const bool ceil = words[0] != 0, adaptive = words[1] != 0, backward = pools_backward(op.id);
  const Lists lists = lists_of(op, words);
  const Dims& list = lists.windows;
  const int each = words_per_axis(op, adaptive);
  Windows w;
  w.rank = lists.rank;
  for (int i = 0; i < w.rank; ++i) {
    WindowAxis& a = w.axis[kMaxSpatial - w.rank + i];
    a.adaptive = adaptive;
    a.in = backward ? lists.sizes[i] : x[x.rank() - w.rank + i];
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

bool pools_maxima(OpId op) {
  return op == OpId::max_pool || op == OpId::max_pool_backward || op == OpId::max_pool_pick;
}

bool pools_backward(OpId op) { return op == OpId::max_pool_backward || op == OpId::avg_pool_backward; }

void check::max_pool(const InferCall& call, std::vector<TensorType>& out) {
  need_tensor(call, 0);
  const Windows w = checked_windows(call);
  const auto windows = [](const WindowAxis& a) { return a.out; };
  out.push_back(resized(call, w, operand(call, 0).dtype, windows));
  out.push_back(resized(call, w, call.integer(2) == 0 && w.small() ? DType::uint8 : DType::int64, windows));
}

void check::max_pool_backward(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  const Windows w = checked_windows(call);
  need_places(call, w, operand(call, 0).sizes);
  out.push_back(resized(call, w, operand(call, 0).dtype, [](const WindowAxis& a) { return a.in; }));
}

void check::max_pool_pick(const InferCall& call, std::vector<TensorType>& out) {
  need_floating(call, 0);
  const Windows w = checked_windows(call);
  out.push_back(resized(call, w, operand(call, 0).dtype, [](const WindowAxis& a) { return a.out; }));
  need_places(call, w, out.back().sizes);
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

void gradient::max_pool(Gradient& r) {
  if (!r.grad()) return;
  r.set(0, transposed(r, OpId::max_pool_backward, r.out(1), spatial_sizes(r, r.in_type(0).sizes)));
}

void gradient::max_pool_backward(Gradient& r) {
  r.set(0, transposed(r, OpId::max_pool_pick, r.in(1), Dims{}));
}

void gradient::max_pool_pick(Gradient& r) {
  r.set(0, transposed(r, OpId::max_pool_backward, r.in(1), spatial_sizes(r, r.in_type(0).sizes)));
}

void gradient::avg_pool(Gradient& r) {
  r.set(0, transposed(r, OpId::avg_pool_backward, spatial_sizes(r, r.in_type(0).sizes)));
}

void gradient::avg_pool_backward(Gradient& r) { r.set(0, transposed(r, OpId::avg_pool, Dims{})); }

}  // namespace tandem::ops
