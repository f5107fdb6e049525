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

/// What the words say, before windows are counted.
Windows axes_of(const OpDef& op, const Dims& x, Words words) {
  const bool adaptive = words[1] != 0, backward = pools_backward(op.id);
  const Lists lists = lists_of(op, words);
  const Dims& list = lists.windows;
  const int each = words_per_axis(op, adaptive);
  Windows w;
  w.rank = lists.rank;
  for (int i = 0; i < w.rank; ++i)
    w.axis[kMaxSpatial - w.rank + i] = window_axis(
        list.data() + i * each, each, backward ? lists.sizes[i] : x[std::min(2, x.rank() - w.rank) + i]);
  return w;
}

/// Whether channels may lie in blocks of 8 or 16: (N, C / block, ..., block).
bool takes_blocks(const InferCall& call) {
  const TensorType& x = operand(call, 0);
  const int64_t block = x.sizes.empty() ? 0 : x.sizes[x.sizes.rank() - 1];
  if (x.dtype != DType::float32 || (block != 8 && block != 16)) return false;
  return call.op.id == OpId::max_pool
             ? call.integer(2) == 0
             : call.op.id == OpId::max_pool_backward && operand(call, 1).dtype == DType::uint8;
}

/// Checks the attributes and the sizes.
Windows checked_windows(const InferCall& call) {
  const TensorType& x = operand(call, 0);
  const bool backward = pools_backward(call.op.id);
  const Lists lists = lists_of(call.op, call.words);
  const Dims& list = lists.windows;
  const int rank = lists.rank;
  if (rank == 0)
    fail_call(call, "the windows of one or two axes are needed, found the list " + to_string(list) +
                        (backward ? " and sizes " + to_string(lists.sizes) : ""));
  const int blocked = takes_blocks(call) && x.sizes.rank() == rank + 3 ? 1 : 0;
  if (x.sizes.rank() != rank + 1 && x.sizes.rank() != rank + 2 && blocked == 0)
    fail_call(call, "x must have " + std::to_string(rank) + " axes behind (N, C) or (C), found " +
                        operand_text(call));
  Dims in = x.sizes;  // of the operand of the pooling itself
  for (int i = 0; i < rank; ++i) {
    int64_t& size = in[in.rank() - blocked - rank + i];
    if (backward) size = lists.sizes[i];
    if (size < 0) fail_call(call, "negative size in " + to_string(in));
  }
  Windows w = axes_of(call.op, in, call.words);
  for (int i = kMaxSpatial - rank; i < kMaxSpatial; ++i) {
    WindowAxis& a = w.axis[i];
    const int64_t found = x.sizes[x.sizes.rank() - blocked - kMaxSpatial + i];
    if (const std::string why = count_windows(a, call.integer(0) != 0); !why.empty())
      fail_call(call, why + "; x is " + (backward ? to_string(in) : to_string(x)));
    if (backward && found != a.out)
      fail_call(call, std::to_string(a.out) + " windows fit an axis of " + std::to_string(a.in) + ", found " +
                          operand_text(call));
  }
  return w;
}

/// The sizes with those of each spatial axis replaced.
template <class Size>
TensorType resized(const InferCall& call, const Windows& w, DType type, Size size) {
  Dims sizes = operand(call, 0).sizes;
  const int first = std::min(2, sizes.rank() - w.rank);
  for (int i = 0; i < w.rank; ++i) sizes[first + i] = size(w.axis[kMaxSpatial - w.rank + i]);
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

WindowAxis window_axis(const int64_t* words, int n, int64_t in) {
  WindowAxis a;
  a.in = in;
  a.adaptive = n == 1;
  if (a.adaptive)
    a.out = words[0];
  else
    a.kernel = words[0], a.stride = words[1], a.padding = words[2];
  if (n > 3) a.dilation = words[3];
  return a;
}

std::string count_windows(WindowAxis& a, bool ceil) {
  const auto text = [](int64_t n) { return std::to_string(n); };
  if (a.adaptive) {
    if (a.out < 1) return "at least one window an axis is needed, found " + text(a.out);
  } else {
    if (std::min({a.kernel, a.stride, a.dilation}) < 1 ||
        std::max({a.kernel, a.stride, a.dilation}) > kLargest)
      return "kernel size, stride and dilation must be positive and below 2^31, found " + text(a.kernel) +
             ", " + text(a.stride) + " and " + text(a.dilation);
    if (a.padding < 0 || a.padding > ((a.kernel - 1) * a.dilation + 1) / 2)
      return "padding must be at most half of the window, found " + text(a.padding) + " for a kernel of " +
             text(a.kernel);
    a.out = count(a, ceil);
  }
  if (a.in == 0 || a.out < 1)
    return "no window fits an axis of " + text(a.in) + "; kernel " + text(a.kernel) + ", padding " +
           text(a.padding);
  // Only windows that begin in the padding before can miss a plane, one narrower than their steps: those
  // whose first position from 0 on is behind it. From one that meets it on, others are skipped.
  for (int64_t o = 0; a.in < a.dilation && o < a.out && o * a.stride < a.padding;) {
    const WindowAxis::Range r = a.positions(o);
    if (r.first >= r.end)
      return "a window of an axis of " + text(a.in) + " holds nothing but padding; kernel " + text(a.kernel) +
             ", dilation " + text(a.dilation);
    o += (a.in - r.first + a.stride - 1) / a.stride;
  }
  return {};
}

Windows windows_of(const OpDef& op, const Dims& x, Words words) {
  Windows w = axes_of(op, x, words);
  for (int i = kMaxSpatial - w.rank; i < kMaxSpatial; ++i)
    if (!w.axis[i].adaptive) w.axis[i].out = count(w.axis[i], words[0] != 0);
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
