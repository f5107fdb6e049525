// What the native kernels of pooling share: windows of a whole axis, made once a call, and planes shared by
// the threads. Values only, any thread.
#pragma once

#include <algorithm>
#include <vector>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/native_elements.h"
#include "tandem/ops/windows.h"

namespace tandem::ops {

/// get(i) of each place of an axis.
template <class Get>
std::vector<WindowAxis::Range> window_ranges(int64_t n, Get get) {
  std::vector<WindowAxis::Range> all(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) all[static_cast<size_t>(i)] = get(i);
  return all;
}
/// The positions of each window.
inline std::vector<WindowAxis::Range> all_positions(const WindowAxis& a) {
  return window_ranges(a.out, [&](int64_t o) { return a.positions(o); });
}

/// Calls plane(p) for each plane; `work`: of one of them, in elements.
template <class F>
void for_planes(int64_t planes, int64_t work, F plane) {
  core::parallel(planes, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t p = begin; p < end; ++p) plane(p);
                 });
}

inline int64_t planes_of(const TensorType& t, int64_t plane) {
  return plane == 0 ? 0 : numel(t.sizes) / plane;
}

}  // namespace tandem::ops
