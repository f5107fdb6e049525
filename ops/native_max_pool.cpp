// Native kernels of max pooling: planes shared by the threads. In float32 windows that are whole along their
// row are made several a step (pool_rows.h); those at the edges, large ones, and of other types, one by one.
// bfloat16 is widened a plane at a time and rounded back, which changes no value.
// The gradient adds the windows' shares in row-major order of the windows, halves in float32, each rounded
// once.
#include <bit>
#include <type_traits>

#include "tandem/core/bfloat.h"
#include "tandem/ops/native_pool.h"
#include "tandem/ops/pool_rows.h"
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
    for (const Range& y : rows) {
      first.push_back(y.first * right().in);
      height.push_back((y.end - y.first + down().dilation - 1) / down().dilation);
    }
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

  /// Whether windows cover the plane without meeting.
  bool tiles() const { return quarters() && 2 * down().out == down().in && 2 * right().out == right().in; }

  Windows w;
  std::vector<Range> rows, columns;
  std::vector<int64_t> first, height;  // of the rows of windows: element in the plane, rows of the plane
  int64_t inner = 0, inner_end = 0;    // windows along a row that are whole
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

void widen(const BFloat* from, std::vector<float>& to) {
  for (float& v : to) v = core::widened_bfloat((from++)->bits);
}
void narrow(const std::vector<float>& from, BFloat* to) {
  for (const float v : from) (to++)->bits = core::rounded_to_bfloat(v);
}

template <class T, class At>
void forward_plane(const Maxima& m, const T* from, T* to, At* places) {
  const int64_t in = m.right().in, out = m.right().out, n = m.inner_end - m.inner;
  int64_t begin = 0, end = 0;  // windows of each row that are made together
  if constexpr (std::is_same_v<T, float>) {
    if (m.w.small() && n > 0) {
      begin = m.inner, end = m.inner_end;
      std::vector<uint8_t> space;  // of places in the windows, where positions are wanted
      uint8_t* at;
      if constexpr (sizeof(At) == 1) {
        at = places;
      } else {
        space.resize(static_cast<size_t>(m.w.out_plane()));
        at = space.data();
      }
      pool_rows::best_rows().forward({from + m.columns[static_cast<size_t>(begin)].first, m.first.data(),
                                      m.height.data(), static_cast<int64_t>(m.rows.size()),
                                      m.down().dilation * in, n, m.right().stride, m.right().kernel,
                                      m.right().dilation, to + begin, at + begin, out});
      if constexpr (sizeof(At) != 1)
        for (size_t i = 0; i < m.rows.size(); ++i)
          for (int64_t o = begin; o < end; ++o) {
            const size_t k = i * static_cast<size_t>(out) + static_cast<size_t>(o);
            places[k] = m.position(space[k], m.rows[i], m.columns[static_cast<size_t>(o)]);
          }
    }
  }
  for (const Range& y : m.rows) {
    for (int64_t o = begin > 0 ? 0 : end; o < out; o = o + 1 == begin ? end : o + 1) {
      const auto c = static_cast<size_t>(o);
      const int64_t at = largest(m, from, y, m.columns[c]);
      to[c] = from[at];
      places[c] = m.place(At{}, at, y, m.columns[c]);
    }
    to += out, places += out;
  }
}

template <class At>
void forward_plane(const Maxima& m, const BFloat* from, BFloat* to, At* places) {
  std::vector<float> wide(static_cast<size_t>(m.w.in_plane())), best(static_cast<size_t>(m.w.out_plane()));
  widen(from, wide);
  forward_plane(m, wide.data(), best.data(), places);
  narrow(best, to);
}

template <class T, class At>
void backward_plane(const Maxima& m, const T* from, const At* places, T* to) {
  const int64_t in = m.right().in, out = m.right().out, plane = m.w.in_plane();
  if constexpr (std::is_same_v<T, float> && sizeof(At) == 1) {
    if (m.quarters()) {
      pool_rows::best_rows().quarters({from, places, m.down().out, out, to, in});
      for (float* row = to; 2 * out < in && row < to + 2 * m.down().out * in; row += in)
        std::fill(row + 2 * out, row + in, 0.0f);
      std::fill(to + 2 * m.down().out * in, to + plane, 0.0f);
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

template <class At>
void backward_plane(const Maxima& m, const BFloat* from, const At* places, BFloat* to) {
  std::vector<float> wide(static_cast<size_t>(m.w.out_plane())), sums(static_cast<size_t>(m.w.in_plane()));
  widen(from, wide);
  backward_plane(m, wide.data(), places, sums.data());
  narrow(sums, to);
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

/// The channels that lie side by side; 0: channels do not lie in blocks.
int64_t block_of(const Windows& w, const Dims& x) { return x.rank() == w.rank + 3 ? x[w.rank + 2] : 0; }

/// A pooling's windows for planes of `block` channels.
struct BlockWindows {
  BlockWindows(const Maxima& m, int64_t block)
      : down(m.rows, m.down()),
        right(m.columns, m.right()),
        plane{down.axis(), right.axis(), m.width(), m.right().in, block} {}

  struct Bounds {
    Bounds(const std::vector<Range>& ranges, const WindowAxis& a) : dilation(a.dilation) {
      for (const Range& r : ranges) begin.push_back(r.first), end.push_back(r.end);
    }
    pool_rows::Axis axis() const {
      return {begin.data(), end.data(), static_cast<int64_t>(begin.size()), dilation};
    }
    std::vector<int64_t> begin, end;
    int64_t dilation;
  };
  Bounds down, right;
  pool_rows::BlockPlane plane;
};

}  // namespace

void native::max_pool(const NativeCall& c) {
  const Maxima m(windows_of(def(OpId::max_pool), c.in_sizes(), c.words));
  const int64_t in = m.w.in_plane(), out = m.w.out_plane();
  if (const int64_t block = block_of(m.w, c.in_sizes())) {
    const BlockWindows windows(m, block);
    for_planes(planes_of(c.in_types[0], in * block), in * block, [&](int64_t p) {
      pool_rows::best_rows().forward_block(windows.plane, c.input<float>() + p * in * block,
                                           c.output<float>() + p * out * block,
                                           c.output<uint8_t>(1) + p * out * block);
    });
    return;
  }
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
  if (const int64_t block = block_of(m.w, c.in_sizes())) {
    const BlockWindows windows(m, block);
    for_planes(planes_of(c.in_types[0], out * block), in * block, [&](int64_t p) {
      float* const to = c.output<float>() + p * in * block;
      if (!m.tiles()) std::fill(to, to + in * block, 0.0f);
      pool_rows::best_rows().backward_block(windows.plane, c.input<float>() + p * out * block,
                                            c.input<uint8_t>(1) + p * out * block, to, m.tiles());
    });
    return;
  }
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
