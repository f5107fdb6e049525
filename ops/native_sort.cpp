// Sorting along an axis. Each element becomes an unsigned key whose order is the one asked for, with its
// position behind it, so that no two are equal and any sort is a stable one: short lines by comparing, long
// ones by digits of 8 bits, from the lowest. A few of many come from one walk that keeps what could be among
// them. A line is sorted by one thread.
#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <utility>

#include "tandem/core/thread_pool.h"
#include "tandem/ops/axis_split.h"
#include "tandem/ops/native_elements.h"
#include "tandem/ops/rules.h"
#include "tandem/ops/scratch.h"

namespace tandem::ops {

namespace {

/// -0 counts as 0, NaN is above all numbers; `infinity` is that of the type.
template <class Bits>
Bits float_key(Bits bits, Bits infinity) {
  constexpr Bits kSign = Bits{1} << (std::numeric_limits<Bits>::digits - 1);
  const Bits size = bits & static_cast<Bits>(~kSign);
  const Bits key = static_cast<Bits>(bits != size ? kSign - size : kSign + size);
  return size > infinity ? static_cast<Bits>(~Bits{0}) : key;
}
uint8_t sort_key(bool v) { return v; }
uint8_t sort_key(uint8_t v) { return v; }
uint32_t sort_key(int32_t v) { return static_cast<uint32_t>(v) ^ 0x80000000u; }
uint64_t sort_key(int64_t v) { return static_cast<uint64_t>(v) ^ 0x8000000000000000u; }
uint16_t sort_key(Half v) { return float_key<uint16_t>(v.bits, 0x7c00); }
uint16_t sort_key(BFloat v) { return float_key<uint16_t>(v.bits, 0x7f80); }
uint32_t sort_key(float v) { return float_key<uint32_t>(std::bit_cast<uint32_t>(v), 0x7f800000); }
uint64_t sort_key(double v) { return float_key<uint64_t>(std::bit_cast<uint64_t>(v), 0x7ff0000000000000); }

/// Keys of up to 32 bits, and positions below 2^32.
struct NarrowItem {
  uint64_t both;
  NarrowItem(uint64_t key, int64_t place) : both(key << 32 | static_cast<uint64_t>(place)) {}
  uint64_t key() const { return both >> 32; }
  int64_t place() const { return static_cast<int64_t>(both & 0xffffffff); }
  friend bool operator<(NarrowItem a, NarrowItem b) { return a.both < b.both; }
};
struct WideItem {
  uint64_t first;
  int64_t second;
  WideItem(uint64_t key, int64_t place) : first(key), second(place) {}
  uint64_t key() const { return first; }
  int64_t place() const { return second; }
  friend bool operator<(const WideItem& a, const WideItem& b) {
    return a.first != b.first ? a.first < b.first : a.second < b.second;
  }
};

/// Sorts items that lie in the order of their positions, by keys of so many bits; returns where they then
/// are, in `items` or in `other`.
template <class Item>
Item* sort_by_digits(Item* items, Item* other, int64_t n, int key_bits) {
  constexpr size_t kDigits = 256;
  const size_t passes = (static_cast<size_t>(key_bits) + 7) / 8;
  const auto digit = [](const Item& item, size_t pass) { return item.key() >> 8 * pass & 0xff; };
  std::array<std::array<int64_t, kDigits>, sizeof(uint64_t)> counts{};
  for (int64_t i = 0; i < n; ++i)
    for (size_t p = 0; p < passes; ++p) ++counts[p][digit(items[i], p)];
  for (size_t p = 0; p < passes; ++p) {
    std::array<int64_t, kDigits>& places = counts[p];
    if (places[digit(items[0], p)] == n) continue;  // all have this digit
    int64_t sum = 0;
    for (int64_t& place : places) sum += std::exchange(place, sum);
    for (int64_t i = 0; i < n; ++i) other[places[digit(items[i], p)]++] = items[i];
    std::swap(items, other);
  }
  return items;
}

/// Elements of a line as keys in the order asked for.
template <class T>
struct Line {
  using Key = decltype(sort_key(T{}));
  const T* x;
  int64_t size, step;
  Key flip;
  Key operator[](int64_t k) const { return static_cast<Key>(sort_key(x[k * step]) ^ flip); }
};

constexpr int64_t kBlock = 32;

/// The `count` least of a line in order; `items` have room for 2 * (count + kBlock).
template <class Item, class T>
void sort_few(const Line<T>& line, int64_t count, Item* items) {
  int64_t n = 0, k = 0;
  for (; k < count; ++k) items[n++] = Item(line[k], k);
  const auto drop = [&] {
    std::nth_element(items, items + (count - 1), items + n);
    n = count;
    return static_cast<typename Line<T>::Key>(items[n - 1].key());
  };
  auto limit = drop();  // what comes later must be below it
  const auto look_at = [&](int64_t at) {
    if (const auto key = line[at]; key < limit) items[n++] = Item(key, at);
  };
  for (; k + kBlock <= line.size; k += kBlock) {
    bool any = false;
    for (int64_t j = 0; j < kBlock; ++j) any |= line[k + j] < limit;
    if (!any) continue;
    for (int64_t j = 0; j < kBlock; ++j) look_at(k + j);
    if (n >= 2 * count + kBlock) limit = drop();
  }
  for (; k < line.size; ++k) look_at(k);
  std::sort(items, items + n);
}

/// The first `count` of a line in order: where they then are. Keys lie in [least, largest].
template <class Item, class T>
Item* sort_line(const Line<T>& line, int64_t count, uint64_t least, uint64_t largest, Item* items,
                Item* other) {
  constexpr int64_t kShort = 128;  // up to here comparing is faster
  for (int64_t k = 0; k < line.size; ++k) items[k] = Item(line[k] - least, k);
  if (line.size > kShort) return sort_by_digits(items, other, line.size, std::bit_width(largest - least));
  if (count < line.size / 2)
    std::partial_sort(items, items + count, items + line.size);
  else
    std::sort(items, items + line.size);
  return items;
}

template <class T>
void argsort_lines(const NativeCall& c, const AxisSplit& s, int64_t count, int64_t begin, int64_t end) {
  using Key = typename Line<T>::Key;
  constexpr int64_t kFew = 8;  // of so many, one is asked for
  constexpr uint64_t kNarrow = std::numeric_limits<uint32_t>::max();
  const Key flip = c.words[1] != 0 ? static_cast<Key>(~Key{0}) : Key{0};
  const bool is_narrow = s.size <= static_cast<int64_t>(kNarrow), is_few = count < s.size / kFew;
  const int64_t width = sizeof(Key) > 4 || !is_narrow ? sizeof(WideItem) : sizeof(NarrowItem);
  const Scratch items(width * (is_few ? 2 * (count + kBlock) : s.size)), other(is_few ? 0 : width * s.size);
  for (int64_t n = begin; n < end; ++n) {
    const int64_t o = n / s.inner, i = n % s.inner;
    const Line<T> line{static_cast<const T*>(c.in[0]) + o * s.size * s.inner + i, s.size, s.inner, flip};
    uint64_t least = 0, largest = std::numeric_limits<Key>::max();
    if (sizeof(Key) > 4 && !is_few) {  // most integers are near each other
      Key low = line[0], high = low;
      for (int64_t k = 1; k < s.size; ++k) low = std::min(low, line[k]), high = std::max(high, line[k]);
      least = low, largest = high;
    }
    const auto sort = [&](auto* first, auto* second) {
      if (is_few)
        sort_few(line, count, first);
      else
        first = sort_line(line, count, least, largest, first, second);
      int64_t* const order = static_cast<int64_t*>(c.out[0]) + o * count * s.inner + i;
      for (int64_t k = 0; k < count; ++k) order[k * s.inner] = first[k].place();
    };
    if (is_narrow && largest - least <= kNarrow)
      sort(items.as<NarrowItem>(), other.as<NarrowItem>());
    else
      sort(items.as<WideItem>(), other.as<WideItem>());
  }
}

}  // namespace

void native::argsort(const NativeCall& c) {
  const AxisSplit s = split_axis(c.in_types[0].sizes, c.words[0]);
  const int64_t count = split_axis(c.out_types[0].sizes, c.words[0]).size;
  if (s.outer * count * s.inner == 0) return;
  with_type(c.in_types[0].dtype, [&](auto tag) {
    core::parallel(
        s.outer * s.inner, std::max<int64_t>(1, kGrain / (4 * s.size)),
        [&](int64_t begin, int64_t end) { argsort_lines<decltype(tag)>(c, s, count, begin, end); });
  });
}

}  // namespace tandem::ops
