// Native kernels of the mean's pooling: planes shared by the threads, each element made by one of them, sums
// in row-major order of the window (or of the windows that hold a position). Halves are added in float32.
#include "tandem/ops/native_pool.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

using Range = WindowAxis::Range;

/// What a mean divides by, of the windows of both axes.
double divisor_of(const NativeCall& c, const Range& y, const Range& x) {
  if (c.words[3] != 0) return static_cast<double>(c.words[3]);
  const int64_t n = c.words[2] ? y.size * x.size : (y.end - y.first) * (x.end - x.first);
  return static_cast<double>(n);
}

}  // namespace

void native::avg_pool(const NativeCall& c) {
  const Windows w = windows_of(def(OpId::avg_pool), c.in_types[0].sizes, c.words);
  const WindowAxis &down = w.axis[0], &right = w.axis[1];
  const std::vector<Range> rows = all_positions(down);
  const std::vector<Range> columns = all_positions(right);
  with_type(c.in_types[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for_planes(planes_of(c.in_types[0], w.in_plane()), w.in_plane(), [&](int64_t p) {
      const T* from = static_cast<const T*>(c.in[0]) + p * w.in_plane();
      T* to = static_cast<T*>(c.out[0]) + p * w.out_plane();
      for (const Range& y : rows)
        for (const Range& x : columns) {
          Sum sum = 0;
          for (int64_t i = y.first; i < y.end; ++i)
            for (int64_t j = x.first; j < x.end; ++j) sum += static_cast<Sum>(load(from[i * right.in + j]));
          store(*to++,
                y.first < y.end && x.first < x.end ? sum / static_cast<Sum>(divisor_of(c, y, x)) : Sum{});
        }
    });
  });
}

void native::avg_pool_backward(const NativeCall& c) {
  const Windows w = windows_of(def(OpId::avg_pool_backward), c.in_types[0].sizes, c.words);
  const WindowAxis &down = w.axis[0], &right = w.axis[1];
  const std::vector<Range> rows = all_positions(down);
  const std::vector<Range> columns = all_positions(right);
  const std::vector<Range> above = window_ranges(down.in, [&](int64_t i) { return down.windows(i); });
  const std::vector<Range> left = window_ranges(right.in, [&](int64_t i) { return right.windows(i); });
  with_type(c.in_types[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    using Sum = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for_planes(planes_of(c.in_types[0], w.out_plane()), w.in_plane(), [&](int64_t p) {
      const T* from = static_cast<const T*>(c.in[0]) + p * w.out_plane();
      T* to = static_cast<T*>(c.out[0]) + p * w.in_plane();
      std::vector<Sum> shares(static_cast<size_t>(w.out_plane()));
      for (size_t i = 0; i < rows.size(); ++i)
        for (size_t j = 0; j < columns.size(); ++j) {
          const size_t o = i * columns.size() + j;
          shares[o] = static_cast<Sum>(load(from[o])) / static_cast<Sum>(divisor_of(c, rows[i], columns[j]));
        }
      for (const Range& y : above)
        for (const Range& x : left) {
          Sum sum = 0;
          for (int64_t i = y.first; i < y.end; ++i)
            for (int64_t j = x.first; j < x.end; ++j) sum += shares[static_cast<size_t>(i * right.out + j)];
          store(*to++, sum);
        }
    });
  });
}

}  // namespace tandem::ops
