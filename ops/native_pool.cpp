// Native kernels of pooling: planes shared by the threads, each element made by one of them, sums in
// row-major order of the window (or of the windows that hold a position). Halves are added in float32.
#include <algorithm>
#include <bit>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/native_elements.h"
#include "tandem/ops/rules.h"
#include "tandem/ops/windows.h"

namespace tandem::ops {

namespace {

using Range = WindowAxis::Range;

/// What each place of an axis needs, made once a call.
template <class Get>
std::vector<Range> ranges(int64_t n, Get get) {
  std::vector<Range> all(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) all[static_cast<size_t>(i)] = get(i);
  return all;
}

/// Calls plane(p) for each plane; `work`: of one of them, in elements.
template <class F>
void for_planes(int64_t planes, int64_t work, F plane) {
  core::parallel(planes, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t p = begin; p < end; ++p) plane(p);
                 });
}

int64_t planes_of(const TensorType& t, int64_t plane) { return plane == 0 ? 0 : numel(t.sizes) / plane; }

/// What a mean divides by, of the windows of both axes.
double divisor_of(const NativeCall& c, const Range& y, const Range& x) {
  if (c.words[3] != 0) return static_cast<double>(c.words[3]);
  const int64_t n = c.words[2] ? y.size * x.size : (y.end - y.first) * (x.end - x.first);
  return static_cast<double>(n);
}

// A value and its position (below 2^32) as one number, so that the largest is found without branches, which
// values would make unpredictable: above, the bits of the value in the order of values (-0 as 0), below, the
// position, smaller ones first. NaN is above all, of several the last.
constexpr int64_t kNan = INT32_MAX;
int64_t rank(float v, int64_t at) {
  const int32_t bits = std::bit_cast<int32_t>(v + 0.0f);
  const int32_t ordered = bits ^ ((bits >> 31) & INT32_MAX);
  const int64_t key = v != v ? kNan : ordered;
  const int64_t low = v != v ? at : UINT32_MAX - at;
  return key * (int64_t{1} << 32) | low;
}
int64_t place(int64_t ranked) {
  const int64_t low = ranked & UINT32_MAX;
  return ranked >> 32 == kNan ? low : UINT32_MAX - low;
}

}  // namespace

void native::max_pool_positions(const NativeCall& c) {
  const Windows w = windows_of(def(OpId::max_pool_positions), c.in_types[0].sizes, c.words);
  const WindowAxis &down = w.axis[0], &right = w.axis[1];
  const std::vector<Range> rows = ranges(down.out, [&](int64_t o) { return down.positions(o); });
  const std::vector<Range> columns = ranges(right.out, [&](int64_t o) { return right.positions(o); });
  const bool ranked = w.in_plane() <= UINT32_MAX;
  with_type(c.in_types[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    for_planes(planes_of(c.in_types[0], w.in_plane()), w.in_plane(), [&](int64_t p) {
      const T* from = static_cast<const T*>(c.in[0]) + p * w.in_plane();
      int64_t* to = static_cast<int64_t*>(c.out[0]) + p * w.out_plane();
      const auto each = [&](auto largest) {
        for (const Range& y : rows)
          for (const Range& x : columns) *to++ = largest(y, x);
      };
      if constexpr (std::is_same_v<decltype(load(tag)), float>) {
        if (ranked)
          return each([&](const Range& y, const Range& x) {
            int64_t best = INT64_MIN;
            for (int64_t i = y.first; i < y.end; i += down.dilation)
              for (int64_t j = x.first; j < x.end; j += right.dilation)
                best = std::max(best, rank(load(from[i * right.in + j]), i * right.in + j));
            return place(best);
          });
      }
      each([&](const Range& y, const Range& x) {
        int64_t at = y.first * right.in + x.first;
        auto best = load(from[at]);
        for (int64_t i = y.first; i < y.end; i += down.dilation)
          for (int64_t j = x.first; j < x.end; j += right.dilation) {
            const auto v = load(from[i * right.in + j]);
            if (v > best || v != v) best = v, at = i * right.in + j;
          }
        return at;
      });
    });
  });
}

void native::avg_pool(const NativeCall& c) {
  const Windows w = windows_of(def(OpId::avg_pool), c.in_types[0].sizes, c.words);
  const WindowAxis &down = w.axis[0], &right = w.axis[1];
  const std::vector<Range> rows = ranges(down.out, [&](int64_t o) { return down.positions(o); });
  const std::vector<Range> columns = ranges(right.out, [&](int64_t o) { return right.positions(o); });
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
  const std::vector<Range> rows = ranges(down.out, [&](int64_t o) { return down.positions(o); });
  const std::vector<Range> columns = ranges(right.out, [&](int64_t o) { return right.positions(o); });
  const std::vector<Range> above = ranges(down.in, [&](int64_t i) { return down.windows(i); });
  const std::vector<Range> left = ranges(right.in, [&](int64_t i) { return right.windows(i); });
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
