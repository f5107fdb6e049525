// Native kernels: plain C++ over contiguous operands for ops that are no formula: joining, scatters, running
// sums. Work is split over positions of the result that no two threads share, so the order of
// additions never depends on threads. Halves are added in float32 and rounded at each store; running sums of
// floats are kept in double: a block of kScanBlock elements from 0, added to the sum of the blocks before it.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/axis_split.h"
#include "tandem/ops/native_elements.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

template <class T>
const T* input(const NativeCall& c, size_t i) {
  return static_cast<const T*>(c.in[i]);
}
template <class T>
T* output(const NativeCall& c) {
  return static_cast<T*>(c.out[0]);
}

void add_to(bool& to, bool v) { to = to || v; }
template <class T>
void add_to(T& to, T v) {
  if constexpr (std::is_integral_v<T>) {
    to = static_cast<T>(static_cast<uint64_t>(to) + static_cast<uint64_t>(v));  // wraps
  } else {
    store(to, load(to) + load(v));
  }
}

int64_t index_at(const NativeCall& c, int64_t i) {
  return c.in_types[1].dtype == DType::int64 ? input<int64_t>(c, 1)[i] : input<int32_t>(c, 1)[i];
}

/// False, and the error word set, if an index lies outside [0, size).
bool indices_fit(const NativeCall& c, int64_t count, int64_t size) {
  std::atomic<bool> fit{true};
  core::parallel(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = index_at(c, i);
      if (at < 0 || at >= size) fit.store(false, std::memory_order_relaxed);
    }
  });
  if (!fit) *c.error = 2;
  return fit;
}

/// The first operand, or zeros where it has no memory; nothing to do in its own memory.
void copy_first(const NativeCall& c) {
  if (c.in[0] == c.out[0]) return;
  const int64_t nbytes = numel(c.out_types[0].sizes) * itemsize(c.out_types[0].dtype);
  core::parallel(nbytes, 8 * kGrain, [&](int64_t begin, int64_t end) {
    char* const to = static_cast<char*>(c.out[0]) + begin;
    if (c.in[0] == nullptr)
      std::memset(to, 0, static_cast<size_t>(end - begin));
    else
      std::memcpy(to, static_cast<const char*>(c.in[0]) + begin, static_cast<size_t>(end - begin));
  });
}

/// Copies `outer` runs of `run` elements, converting; a run starts every `from_step` and `to_step` elements.
void copy_runs(const void* from, DType from_type, int64_t from_step, void* to, DType to_type, int64_t to_step,
               int64_t outer, int64_t run) {
  if (outer == 0 || run == 0) return;
  const int64_t grain = std::max<int64_t>(1, kGrain / run);
  if (from_type == to_type) {
    const int64_t width = itemsize(to_type);
    core::parallel(outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o)
        std::memcpy(static_cast<char*>(to) + o * to_step * width,
                    static_cast<const char*>(from) + o * from_step * width, static_cast<size_t>(run * width));
    });
    return;
  }
  with_type(from_type, [&](auto from_tag) {
    with_type(to_type, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      core::parallel(outer, grain, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o)
          for (int64_t i = 0; i < run; ++i)
            store(static_cast<To*>(to)[o * to_step + i],
                  load(static_cast<const From*>(from)[o * from_step + i]));
      });
    });
  });
}

char* at_element(void* base, int64_t element, DType type) {
  return static_cast<char*>(base) + element * itemsize(type);
}

}  // namespace

AxisSplit split_axis(const Dims& sizes, int64_t axis) {
  AxisSplit s;
  if (sizes.empty()) return s;
  const int at = normalize_axis(axis, sizes.rank(), "native");
  for (int i = 0; i < sizes.rank(); ++i) (i < at ? s.outer : i == at ? s.size : s.inner) *= sizes[i];
  return s;
}

void native::cat(const NativeCall& c) {
  const TensorType& result = c.out_types[0];
  const AxisSplit to = split_axis(result.sizes, c.words[0]);
  int64_t start = 0;
  for (size_t i = 0; i < c.in.size(); ++i) {
    const AxisSplit from = split_axis(c.in_types[i].sizes, c.words[0]);
    const int64_t run = from.size * from.inner;
    void* const place = at_element(c.out[0], start * to.inner, result.dtype);
    if (c.in[i] != place)  // else it is there
      copy_runs(c.in[i], c.in_types[i].dtype, c.steps.empty() ? run : c.steps[i], place, result.dtype,
                to.size * to.inner, to.outer, run);
    start += from.size;
  }
}

void native::pad(const NativeCall& c) {
  const TensorType& result = c.out_types[0];
  const AxisSplit from = split_axis(c.in_types[0].sizes, c.words[0]);
  const AxisSplit to = split_axis(result.sizes, c.words[0]);
  const int64_t nbytes = numel(result.sizes) * itemsize(result.dtype);
  if (nbytes > 0) std::memset(c.out[0], 0, static_cast<size_t>(nbytes));
  copy_runs(c.in[0], result.dtype, from.size * from.inner,
            at_element(c.out[0], c.words[1] * to.inner, result.dtype), result.dtype, to.size * to.inner,
            to.outer, from.size * from.inner);
}

namespace {

/// `combine(x, v)` for each element v of src and the element x of the result that index (n) along the axis
/// means.
template <class Combine>
void along_index(const NativeCall& c, Combine combine) {
  const AxisSplit to = split_axis(c.out_types[0].sizes, c.words[0]);
  const int64_t n = c.in_types[1].sizes[0];
  if (!indices_fit(c, n, to.size)) return;
  copy_first(c);
  if (to.outer == 0 || to.inner == 0 || n == 0) return;
  with_type(c.out_types[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    // Threads split the positions beside the axis, so that what meets at one element does so in the index's
    // order.
    core::parallel(to.outer * to.inner, std::max<int64_t>(1, kGrain / n), [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t o = begin / to.inner, first = begin % to.inner;
        const int64_t last = std::min(to.inner, first + end - begin);
        for (int64_t k = 0; k < n; ++k) {
          T* row = output<T>(c) + (o * to.size + index_at(c, k)) * to.inner;
          const T* added = input<T>(c, 2) + (o * n + k) * to.inner;
          for (int64_t i = first; i < last; ++i) combine(row[i], added[i]);
        }
        begin += last - first;
      }
    });
  });
}

/// The same where index has the sizes of src. Threads split the positions beside the axis, too.
template <class Combine>
void at_index(const NativeCall& c, Combine combine) {
  const Dims& sizes = c.out_types[0].sizes;
  const Dims& from = c.in_types[1].sizes;
  const int axis = normalize_axis(c.words[0], sizes.rank(), "scatter");
  if (!indices_fit(c, numel(from), sizes[axis])) return;
  copy_first(c);
  const AxisSplit s = split_axis(from, axis);
  if (numel(from) == 0) return;
  const Dims strides = contiguous_strides(sizes);
  // Where a position beside the axis, counted in the index's sizes, lies in the result.
  const auto place = [&](int64_t position) {
    int64_t to = 0;
    for (int d = from.rank() - 1; d >= 0; --d) {
      if (d == axis) continue;
      to += position % from[d] * strides[d];
      position /= from[d];
    }
    return to;
  };
  with_type(c.out_types[0].dtype, [&](auto tag) {
    using T = decltype(tag);
    core::parallel(s.outer * s.inner, std::max<int64_t>(1, kGrain / s.size), [&](int64_t begin, int64_t end) {
      std::vector<int64_t> places;
      while (begin < end) {
        const int64_t o = begin / s.inner, first = begin % s.inner;
        const int64_t last = std::min(s.inner, first + end - begin);
        places.clear();
        for (int64_t i = first; i < last; ++i) places.push_back(place(o * s.inner + i));
        for (int64_t k = 0; k < s.size; ++k) {
          const int64_t row = (o * s.size + k) * s.inner;
          for (int64_t i = first; i < last; ++i) {
            const int64_t to = places[static_cast<size_t>(i - first)] + index_at(c, row + i) * strides[axis];
            combine(output<T>(c)[to], input<T>(c, 2)[row + i]);
          }
        }
        begin += last - first;
      }
    });
  });
}

constexpr auto kAdd = [](auto& x, auto v) { add_to(x, v); };
constexpr auto kReplace = [](auto& x, auto v) { x = v; };

}  // namespace

void native::index_add(const NativeCall& c) { along_index(c, kAdd); }
void native::index_copy(const NativeCall& c) { along_index(c, kReplace); }
void native::scatter_add(const NativeCall& c) { at_index(c, kAdd); }
void native::scatter(const NativeCall& c) { at_index(c, kReplace); }

void native::cumsum(const NativeCall& c) {
  const AxisSplit s = split_axis(c.in_types[0].sizes, c.words[0]);
  const bool reverse = c.words[1] != 0;
  if (s.outer * s.size * s.inner == 0) return;
  with_type(c.in_types[0].dtype, [&](auto from_tag) {
    with_type(c.out_types[0].dtype, [&](auto to_tag) {
      using From = decltype(from_tag);
      using To = decltype(to_tag);
      using Sum = std::conditional_t<std::is_integral_v<From>, uint64_t, double>;
      core::parallel(s.outer * s.inner, std::max<int64_t>(1, kGrain / s.size),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t line = begin; line < end; ++line) {
                         const int64_t first = line / s.inner * s.size * s.inner + line % s.inner;
                         Sum before{}, sum{};
                         for (int64_t k = 0; k < s.size; ++k) {
                           if (k % kScanBlock == 0) before += sum, sum = Sum{};
                           const int64_t i = first + (reverse ? s.size - 1 - k : k) * s.inner;
                           sum += static_cast<Sum>(load(input<From>(c, 0)[i]));
                           store(output<To>(c)[i], before + sum);
                         }
                       }
                     });
    });
  });
}

}  // namespace tandem::ops
