// Scatters of many indices: the positions are sorted by key (the place in the result). Then a warp
// (index_add: of 32 positions beside the axis) or a thread makes what begins in its part of the sorted
// positions.
#include <algorithm>
#include <bit>
#include <string>

#include "tandem/jit/cuda_sort.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using ops::OpId;

namespace {

using Word = NativeWord;
using Launch = NativeText;

template <class I>
std::string num(I v) {
  return std::to_string(v);
}

int64_t bits_of(int64_t keys) {
  return std::max<int64_t>(1, std::bit_width(static_cast<uint64_t>(keys - 1)));
}

SortSource indices(const NativeCallPlan& c, bool along) {
  const DType type = c.in_types[1].dtype;
  const Dims &sizes = c.out_types[0].sizes, &from = c.in_types[1].sizes;
  const int axis = normalize_axis(c.words[0], sizes.rank(), c.op->name);
  SortSource s;
  s.name = c_suffix(type);
  s.fields = std::string("const ") + c_scalar(type) + "* index; td_i64 size; td_i64* error;";
  s.text =
      "    const td_i64 at = (td_i64)a.index[q];\n"
      "    const bool wrong = at < 0 || at >= a.size;\n"
      "    if (wrong) *a.error = 2;\n";
  s.words = {{NativeWord::kInput + 1, 0}, sizes[axis], {NativeWord::kError, 0}};
  std::string key = "(td_u32)at";
  if (!along) {
    s.name += "_" + num(from.rank()) + "_" + num(axis);
    s.text += "    td_i64 rest = q, to = 0;\n";
    const Dims strides = contiguous_strides(sizes);
    for (int d = from.rank() - 1; d >= 0; --d) {
      const std::string n = num(d);
      s.fields += " td_i64 d" + n + ", t" + n + ";";
      s.words.insert(s.words.end(), {from[d], strides[d]});
      s.text += "    to += " + (d == axis ? std::string("at") : "rest % a.d" + n) + " * a.t" + n +
                "; rest /= a.d" + n + ";\n";
    }
    key = "(td_u32)to";
  }
  s.text += "    const td_u32 key = wrong ? 0 : " + key + ", from = (td_u32)q;\n";
  return s;
}

/// A warp makes the rows that begin in its 32 of the sorted positions, to their ends; 8 elements of the
/// source are under way.
Launch add_rows(const NativeCallPlan& c, const RadixSort& sorted, int64_t n) {
  const DType type = c.out_types[0].dtype;
  const ops::AxisSplit to = ops::split_axis(c.out_types[0].sizes, c.words[0]);
  const std::string scalar = c_scalar(type);
  const bool adds = c.op->id == OpId::index_add;
  Launch l;
  l.symbol = std::string("tandem_") + c.op->name + "_sorted_" + c_suffix(type);
  l.source =
      native_head(l.symbol, scalar + "* to; const td_u32* keys; const td_u32* order; const " + scalar +
                                "* added; td_i64 size, inner, n, positions;") +
      "  const td_u32 all = 0xffffffffu;\n"
      "  const int lane = threadIdx.x % 32;\n"
      "  const td_i64 groups = (a.positions + 31) / 32, first = t / 32 / groups * 32;\n"
      "  const td_i64 position = t / 32 % groups * 32 + lane;\n"
      "  const bool inside = position < a.positions;\n"
      "  const td_i64 o = position / a.inner, i = position % a.inner;\n  " +
      scalar + " x = {};\n  " + scalar +
      "* place = nullptr;\n"
      "  for (td_i64 k = first; k < a.n; k += 32) {\n"
      "    const bool has = k + lane < a.n;\n"
      "    const td_u32 key = has ? a.keys[k + lane] : 0, from = has ? a.order[k + lane] : 0;\n"
      "    td_u32 before = __shfl_up_sync(all, key, 1);\n"
      "    if (lane == 0 && k > 0) before = a.keys[k - 1];\n"
      "    const td_u32 begins = __ballot_sync(all, has && (k + lane == 0 || key != before));\n"
      "    const int count = (int)td_least(32, a.n - k), begin = begins != 0 ? __ffs((int)begins) - 1 : "
      "count;\n"
      "    const int end = k == first ? count : begin;  // another warp has what begins behind its own\n"
      "    for (int j = k == first ? begin : 0; j < end; j += 8) {\n      " +
      scalar + " added[8], old[8];\n      " + scalar +
      "* places[8];\n"
      "      TD_UNROLLED\n"
      "      for (int u = 0; u < 8; ++u) {\n"
      "        const td_i64 f = __shfl_sync(all, from, j + u), row = __shfl_sync(all, key, j + u);\n"
      "        if (!inside || j + u >= end) continue;\n"
      "        added[u] = a.added[(o * a.n + f) * a.inner + i];\n"
      "        places[u] = a.to + (o * a.size + row) * a.inner + i;\n"
      "        if (begins >> (j + u) & 1) old[u] = *places[u];\n"
      "      }\n"
      "      TD_UNROLLED\n"
      "      for (int u = 0; u < 8; ++u) {\n"
      "        if (!inside || j + u >= end) continue;\n"
      "        if (begins >> (j + u) & 1) {\n"
      "          if (place != nullptr) *place = x;\n"
      "          place = places[u], x = old[u];\n"
      "        }\n        " +
      native_change(adds, type, "added[u]") +
      "\n      }\n"
      "    }\n"
      "    if (end < count || (k == first && begins == 0)) break;\n"
      "  }\n"
      "  if (place != nullptr) *place = x;\n}\n";
  const int64_t positions = to.outer * to.inner;
  l.count = (n + 31) / 32 * ((positions + 31) / 32) * 32;
  l.words = {{NativeWord::kOut, 0},
             sorted.keys(),
             sorted.order(),
             {NativeWord::kInput + 2, 0},
             to.size,
             to.inner,
             n,
             positions};
  return l;
}

/// A thread makes the element that begins at its sorted position.
Launch add_elements(const NativeCallPlan& c, const RadixSort& sorted, int64_t n) {
  const DType type = c.out_types[0].dtype;
  const std::string scalar = c_scalar(type);
  const bool adds = c.op->id == OpId::scatter_add;
  Launch l;
  l.symbol = std::string("tandem_") + c.op->name + "_sorted_" + c_suffix(type);
  l.source = native_head(l.symbol, scalar + "* to; const td_u32* keys; const td_u32* order; const " + scalar +
                                       "* added;") +
             "  const td_u32 key = a.keys[t];\n"
             "  if (t > 0 && a.keys[t - 1] == key) return;\n  " +
             scalar + " x = a.to[key];\n  td_i64 k = t;\n  do {\n    const " + scalar +
             " added = a.added[a.order[k]];\n    " + native_change(adds, type, "added") +
             "\n    ++k;\n  } while (k < a.count && a.keys[k] == key);\n  a.to[key] = x;\n}\n";
  l.count = n;
  l.words = {{NativeWord::kOut, 0}, sorted.keys(), sorted.order(), {NativeWord::kInput + 2, 0}};
  return l;
}

}  // namespace

bool sorting_pays(const SortedIndices& s, int64_t reads) {
  if (s.keys >= int64_t{1} << 31) return false;
  const int64_t passes = RadixSort::passes(bits_of(s.keys));
  const int64_t first = 2 * s.index_bytes + 8, other = 12 + 8, last = s.groups * 2 * 8;
  return sorting_pays(s.indices, passes, s.indices * (first + (passes - 1) * other + last),
                      reads * s.index_bytes);
}

std::vector<NativeText> sorted_scatter(const NativeCallPlan& c, bool along) {
  const int64_t n = numel(c.in_types[1].sizes);
  const Dims& sizes = c.out_types[0].sizes;
  RadixSort sorted(n);
  sorted.by(indices(c, along), bits_of(along ? ops::split_axis(sizes, c.words[0]).size : numel(sizes)));
  NativeText last = along ? add_rows(c, sorted, n) : add_elements(c, sorted, n);
  return std::move(sorted).texts(std::move(last));
}

}  // namespace tandem::jit
