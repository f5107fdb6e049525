// Native kernels of max pooling: planes shared by the threads. A row of windows is made tap by tap, so that a
// step of the loop does several windows at once; windows at the edges, and of other types than float32 and
// float64, one by one. The gradient adds the windows' shares in row-major order of the windows, halves in
// float32, each rounded once.
#include <bit>
#include <type_traits>

#include "tandem/ops/native_pool.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

using Range = WindowAxis::Range;

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
int64_t position_of(int64_t ranked) {
  const int64_t low = ranked & UINT32_MAX;
  return ranked >> 32 == kNan ? low : UINT32_MAX - low;
}

/// A pooling's windows, and how their places are written: uint8 in the window, int64 in the plane.
struct Maxima {
  explicit Maxima(const Windows& windows)
      : w(windows), rows(all_positions(w.axis[0])), columns(all_positions(w.axis[1])) {
    for (int64_t k = 0; k < 256; ++k) {
      row_of[k] = k / width() * down().dilation;
      column_of[k] = k % width() * right().dilation;
    }
    const WindowAxis& x = right();
    if (x.adaptive) return;
    const int64_t reach = (x.kernel - 1) * x.dilation;
    while (inner < x.out && inner * x.stride < x.padding) ++inner;
    for (inner_end = inner; inner_end < x.out && inner_end * x.stride - x.padding + reach < x.in;)
      ++inner_end;
  }

  const WindowAxis& down() const { return w.axis[0]; }
  const WindowAxis& right() const { return w.axis[1]; }
  int64_t width() const { return w.axis[1].widest(); }

  uint8_t place(uint8_t, int64_t at, const Range& y, const Range& x) const {
    const int64_t i = (at / right().in - y.first) / down().dilation;
    return static_cast<uint8_t>(i * width() + (at % right().in - x.first) / right().dilation);
  }
  int64_t place(int64_t, int64_t at, const Range&, const Range&) const { return at; }

  /// In the plane; -1 outside of the window.
  int64_t position(uint8_t place, const Range& y, const Range& x) const {
    const int64_t i = y.first + row_of[place], j = x.first + column_of[place];
    return i < y.end && j < x.end ? i * right().in + j : -1;
  }
  int64_t position(int64_t place, const Range& y, const Range& x) const {
    const int64_t i = place / right().in, j = place % right().in;
    const bool inside = place >= 0 && i >= y.first && i < y.end && j >= x.first && j < x.end &&
                        (i - y.first) % down().dilation == 0 && (j - x.first) % right().dilation == 0;
    return inside ? place : -1;
  }

  /// Two by two, side by side, nothing cut off.
  bool quarters() const {
    const auto halves = [](const WindowAxis& a) {
      return !a.adaptive && a.kernel == 2 && a.stride == 2 && a.padding == 0 && a.dilation == 1 &&
             2 * a.out <= a.in;
    };
    return halves(down()) && halves(right());
  }

  Windows w;
  std::vector<Range> rows, columns;
  int64_t inner = 0, inner_end = 0;  // windows along a row that are whole
  int64_t row_of[256], column_of[256];
};

/// The position of the largest element of a window.
template <class T>
int64_t largest(const Maxima& m, const T* from, const Range& y, const Range& x) {
  const int64_t in = m.right().in, down = m.down().dilation, right = m.right().dilation;
  if constexpr (std::is_same_v<decltype(load(T{})), float>) {
    if (m.w.in_plane() <= UINT32_MAX) {
      int64_t best = INT64_MIN;
      for (int64_t i = y.first; i < y.end; i += down)
        for (int64_t j = x.first; j < x.end; j += right)
          best = std::max(best, rank(load(from[i * in + j]), i * in + j));
      return position_of(best);
    }
  }
  int64_t at = y.first * in + x.first;
  auto best = load(from[at]);
  for (int64_t i = y.first; i < y.end; i += down)
    for (int64_t j = x.first; j < x.end; j += right) {
      const auto v = load(from[i * in + j]);
      if (v > best || v != v) best = v, at = i * in + j;
    }
  return at;
}

constexpr int64_t kBlock = 128;  // windows made together

/// One tap of n windows, `step` apart: the better of what is there and the element, whose place is k.
template <int64_t kStep, class T, class I>
void tap(const T* from, int64_t step, I k, int64_t n, T* best, I* at) {
  if constexpr (kStep != 0) step = kStep;
  for (int64_t j = 0; j < n; ++j) {
    const T v = from[j * step], b = best[j];
    const bool better = static_cast<int>(v > b) | static_cast<int>(v != v);
    best[j] = better ? v : b;
    at[j] = better ? k : at[j];
  }
}

/// n whole windows of a row; `from`: the first position of the first of them.
template <class T, class At>
void whole_windows(const Maxima& m, const T* from, const Range& y, int64_t position, int64_t n, T* to,
                   At* places) {
  using I = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const WindowAxis &down = m.down(), &right = m.right();
  T best[kBlock];
  I at[kBlock];
  for (int64_t j = 0; j < n; ++j) best[j] = from[j * right.stride], at[j] = 0;
  for (int64_t r = 0; y.first + r * down.dilation < y.end; ++r)
    for (int64_t s = 0; s < right.kernel; ++s) {
      if (r == 0 && s == 0) continue;
      const T* taps = from + r * down.dilation * right.in + s * right.dilation;
      const I k = static_cast<I>(r * right.kernel + s);
      if (right.stride == 1)
        tap<1>(taps, 1, k, n, best, at);
      else if (right.stride == 2)
        tap<2>(taps, 2, k, n, best, at);
      else
        tap<0>(taps, right.stride, k, n, best, at);
    }
  std::copy(best, best + n, to);
  for (int64_t j = 0; j < n; ++j) {
    if constexpr (sizeof(At) == 1) {
      places[j] = static_cast<At>(at[j]);
    } else {
      const int64_t r = at[j] / right.kernel, s = at[j] % right.kernel;
      places[j] = position + j * right.stride + r * down.dilation * right.in + s * right.dilation;
    }
  }
}

/// A row of windows of two by two: `top` and `bottom` are their rows.
template <class T>
void quarter_windows(const T* __restrict top, const T* __restrict bottom, int64_t n, T* __restrict to,
                     uint8_t* __restrict places) {
  using I = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  for (int64_t j = 0; j < n; ++j) {
    T best = top[2 * j];
    I at = 0;
    const T others[3] = {top[2 * j + 1], bottom[2 * j], bottom[2 * j + 1]};
    for (int k = 0; k < 3; ++k) {
      const T v = others[k];
      const bool better = static_cast<int>(v > best) | static_cast<int>(v != v);
      best = better ? v : best;
      at = better ? I{k + 1} : at;
    }
    to[j] = best;
    places[j] = static_cast<uint8_t>(at);
  }
}

template <class T, class At>
void forward_plane(const Maxima& m, const T* from, T* to, At* places) {
  const int64_t in = m.right().in;
  const auto one = [&](const Range& y, size_t o) {
    const int64_t at = largest(m, from, y, m.columns[o]);
    to[o] = from[at];
    places[o] = m.place(At{}, at, y, m.columns[o]);
  };
  constexpr bool kRows = std::is_floating_point_v<T>;
  const bool quarters = m.quarters();
  for (const Range& y : m.rows) {
    int64_t o = 0;
    if constexpr (kRows) {
      if (quarters && sizeof(At) == 1) {
        if constexpr (sizeof(At) == 1)
          quarter_windows(from + y.first * in, from + (y.first + 1) * in, m.right().out, to, places);
        o = m.right().out;
      } else if (m.w.in_plane() <= INT32_MAX) {
        for (; o < m.inner; ++o) one(y, static_cast<size_t>(o));
        for (int64_t n; o < m.inner_end; o += n) {
          n = std::min(kBlock, m.inner_end - o);
          const int64_t first = y.first * in + m.columns[static_cast<size_t>(o)].first;
          whole_windows(m, from + first, y, first, n, to + o, places + o);
        }
      }
    }
    for (; o < m.right().out; ++o) one(y, static_cast<size_t>(o));
    to += m.right().out, places += m.right().out;
  }
}

/// The gradient of a row of windows of two by two: all of what their rows hold. Masks, since a choice would
/// become branches.
template <class T>
void quarter_shares(const T* __restrict from, const uint8_t* __restrict places, int64_t n, T* __restrict top,
                    T* __restrict bottom) {
  using I = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const auto share = [](I g, I at, I k) { return std::bit_cast<T>(static_cast<I>(g & -I{at == k})); };
  for (int64_t j = 0; j < n; ++j) {
    const I g = std::bit_cast<I>(from[j] + T{});  // a sum that begins with 0: no -0
    const I at = places[j];
    top[2 * j] = share(g, at, 0);
    top[2 * j + 1] = share(g, at, 1);
    bottom[2 * j] = share(g, at, 2);
    bottom[2 * j + 1] = share(g, at, 3);
  }
}

template <class T, class At>
void backward_plane(const Maxima& m, const T* from, const At* places, T* to) {
  const int64_t in = m.right().in, out = m.right().out, plane = m.w.in_plane();
  if constexpr (std::is_floating_point_v<T> && sizeof(At) == 1) {
    if (m.quarters()) {
      for (int64_t i = 0; i < m.down().out; ++i) {
        T* row = to + 2 * i * in;
        quarter_shares(from + i * out, places + i * out, out, row, row + in);
        std::fill(row + 2 * out, row + in, T{});
        std::fill(row + in + 2 * out, row + 2 * in, T{});
      }
      std::fill(to + 2 * m.down().out * in, to + plane, T{});
      return;
    }
  }
  const auto add = [&](auto* sums) {
    std::fill(sums, sums + plane, 0);
    for (const Range& y : m.rows)
      for (const Range& x : m.columns) {
        const int64_t at = m.position(*places++, y, x);
        const auto g = load(*from++);
        if (at >= 0) sums[at] += g;
      }
  };
  if constexpr (std::is_floating_point_v<T>) {
    add(to);
  } else {
    std::vector<float> sums(static_cast<size_t>(plane));
    add(sums.data());
    for (const float v : sums) store(*to++, v);
  }
}

/// f(T{}, At{}) for the types of elements and places.
template <class F>
void with_places(DType elements, DType places, F f) {
  with_type(elements, [&](auto element) {
    if (places == DType::uint8)
      f(element, uint8_t{});
    else
      f(element, int64_t{});
  });
}

}  // namespace

void native::max_pool(const NativeCall& c) {
  const Maxima m(windows_of(def(OpId::max_pool), c.in_sizes(), c.words));
  const int64_t in = m.w.in_plane(), out = m.w.out_plane();
  with_places(c.in_types[0].dtype, c.out_types[1].dtype, [&](auto element, auto place) {
    using T = decltype(element);
    using At = decltype(place);
    for_planes(planes_of(c.in_types[0], in), in, [&](int64_t p) {
      forward_plane(m, static_cast<const T*>(c.in[0]) + p * in, static_cast<T*>(c.out[0]) + p * out,
                    static_cast<At*>(c.out[1]) + p * out);
    });
  });
}

void native::max_pool_backward(const NativeCall& c) {
  const Maxima m(windows_of(def(OpId::max_pool_backward), c.in_sizes(), c.words));
  const int64_t in = m.w.in_plane(), out = m.w.out_plane();
  with_places(c.in_types[0].dtype, c.in_types[1].dtype, [&](auto element, auto place) {
    using T = decltype(element);
    using At = decltype(place);
    if constexpr (!std::is_integral_v<T>)
      for_planes(planes_of(c.in_types[0], out), in, [&](int64_t p) {
        backward_plane(m, static_cast<const T*>(c.in[0]) + p * out, static_cast<const At*>(c.in[1]) + p * out,
                       static_cast<T*>(c.out[0]) + p * in);
      });
  });
}

void native::max_pool_pick(const NativeCall& c) {
  const Maxima m(windows_of(def(OpId::max_pool_pick), c.in_sizes(), c.words));
  const int64_t in = m.w.in_plane(), out = m.w.out_plane();
  with_places(c.in_types[0].dtype, c.in_types[1].dtype, [&](auto element, auto place) {
    using T = decltype(element);
    using At = decltype(place);
    for_planes(planes_of(c.in_types[0], in), out, [&](int64_t p) {
      const T* from = static_cast<const T*>(c.in[0]) + p * in;
      const At* places = static_cast<const At*>(c.in[1]) + p * out;
      T* to = static_cast<T*>(c.out[0]) + p * out;
      for (const Range& y : m.rows)
        for (const Range& x : m.columns) {
          const int64_t at = m.position(*places++, y, x);
          *to++ = at >= 0 ? from[at] : T{};
        }
    });
  });
}

}  // namespace tandem::ops
