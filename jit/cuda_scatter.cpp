// Scatters on a CUDA device: every element of the result is made by one thread, from what falls on it in the
// order of the index, so that results are the CPU's bit for bit. Few indices are read by many warps, each of
// which has a share of the axis. Where that reads more than sorting costs, the indices are sorted first
// (cuda_sorted_scatter.cpp).
#include <string>
#include <vector>

#include "tandem/jit/cuda_native_text.h"
#include "tandem/jit/cuda_sort.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using ops::AxisSplit;
using ops::OpId;
using ops::split_axis;

namespace {

using Word = NativeWord;
using Launch = NativeText;

/// "x = x + v".
std::string add_to(DType t, const std::string& x, const std::string& v) {
  const DType sum = native_sum_type(t);
  if (t == DType::bool_) return x + " = " + x + " || " + v + ";";
  return x + " = " +
         native_convert(sum, t,
                        "td_add(" + native_convert(t, sum, x) + ", " + native_convert(t, sum, v) + ")") +
         ";";
}

/// The indices are read by each warp, 32 at a time. A warp takes what falls into a segment of the axis, a
/// residue of the index modulo `segments`, in the order of the index; so each element is made by one warp,
/// and long indices cost a walk, not a chain of additions.
std::string scan_text(const std::string& from, const std::string& hit) {
  return "  const td_u32 all = 0xffffffffu, lane = threadIdx.x % 32;\n"
         "  for (td_i64 k = 0; k < a.n; k += 32) {\n"
         "    const bool has = k + lane < a.n;\n"
         "    const td_i64 at = has ? (td_i64)a.index[" +
         from +
         "] : 0;\n"
         "    const bool wrong = has && (at < 0 || at >= a.size);\n"
         "    if (wrong) *a.error = 2;\n"
         "    if (__any_sync(all, wrong)) return;\n"
         "    td_u32 hits = __ballot_sync(all, has && (at & (a.segments - 1)) == segment);\n"
         "    while (hits != 0) {\n"
         "      const int j = __ffs((int)hits) - 1;\n"
         "      hits &= hits - 1;\n" +
         hit + "    }\n  }\n}\n";
}

/// So many segments that `warps` of them, or rather fewer, keep a card busy; a power of 2.
int64_t segments_for(int64_t warps, int64_t size, int64_t n) {
  constexpr int64_t kWarps = 8192, kFewest = 16;  // indices worth a segment
  int64_t segments = 1;
  while (2 * segments * warps <= kWarps && segments < size && 2 * segments * kFewest <= n) segments *= 2;
  return segments;
}

/// index_add and index_copy: 32 positions beside the axis for each warp; nothing where sorting pays.
Launch along_index(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const AxisSplit to = split_axis(c.out_types[0].sizes, c.words[0]);
  const int64_t n = c.in_types[1].sizes[0], positions = to.outer * to.inner, warps = (positions + 31) / 32;
  const int64_t segments = segments_for(warps, to.size, n);
  if (sorting_pays({n, to.size, itemsize(index_type), warps}, warps * segments * n)) return {};
  Launch l;
  const bool adds = c.op->id == OpId::index_add;
  l.symbol = std::string("tandem_") + c.op->name + "_" + c_suffix(type) + "_" + c_suffix(index_type);
  l.source =
      native_head(l.symbol,
                  std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) + "* index; const " +
                      c_scalar(type) +
                      "* added; td_i64 size, inner, n; td_i64* error; td_i64 positions, segments;") +
      "  const td_i64 warp = t / 32, segment = warp & (a.segments - 1);\n"
      "  const td_i64 position = warp / a.segments * 32 + threadIdx.x % 32;\n"
      "  const td_i64 o = position / a.inner, i = position % a.inner;\n" +
      scan_text("k + lane",
                "      const td_i64 row = __shfl_sync(all, at, j);\n"
                "      if (position >= a.positions) continue;\n"
                "      " +
                    std::string(c_scalar(type)) + "& x = a.to[(o * a.size + row) * a.inner + i];\n      " +
                    native_change(adds, type, "a.added[(o * a.n + k + j) * a.inner + i]") + "\n");
  l.count = warps * segments * 32;
  l.words = {out, index, added, to.size, to.inner, n, error, positions, segments};
  return l;
}

/// scatter_add and scatter: a line of the index along the axis (all that can meet at one element of the
/// result) for a thread, or, where there are few and long ones, for a warp of each segment; nothing where
/// sorting pays.
Launch at_index(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const Dims &sizes = c.out_types[0].sizes, &from = c.in_types[1].sizes;
  const int rank = from.rank(), axis = normalize_axis(c.words[0], rank, c.op->name);
  const Dims to_strides = contiguous_strides(sizes), from_strides = contiguous_strides(from);
  int64_t lines = 1;
  for (int d = 0; d < rank; ++d)
    if (d != axis) lines *= from[d];
  const int64_t segments = segments_for(lines, sizes[axis], from[axis]);
  const bool is_long = segments > 1;
  if (is_long && sorting_pays({numel(from), numel(sizes), itemsize(index_type), 1}, segments * numel(from)))
    return {};
  Launch l;
  l.symbol = std::string("tandem_") + c.op->name + (is_long ? "_long_" : "_") + c_suffix(type) + "_" +
             c_suffix(index_type) + "_" + std::to_string(rank) + "_" + std::to_string(axis);
  std::string fields = std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) +
                       "* index; const " + c_scalar(type) +
                       "* added; td_i64* error; td_i64 size, n, segments";
  std::string text = is_long ? "  const td_i64 warp = t / 32, segment = warp & (a.segments - 1);\n"
                               "  td_i64 rest = warp / a.segments, to = 0, from = 0;\n"
                             : "  td_i64 rest = t, to = 0, from = 0;\n";
  l.words = {out, index, added, error, sizes[axis], from[axis], segments};
  for (int d = 0; d < rank; ++d) {
    const std::string n = std::to_string(d);
    fields += ", d" + n + ", t" + n + ", f" + n;
    l.words.insert(l.words.end(), {from[d], to_strides[d], from_strides[d]});
  }
  for (int d = rank - 1; d >= 0; --d) {
    if (d == axis) continue;
    const std::string n = std::to_string(d);
    text += "  to += rest % a.d" + n + " * a.t" + n + "; from += rest % a.d" + n + " * a.f" + n +
            "; rest /= a.d" + n + ";\n";
  }
  const bool adds = c.op->id == OpId::scatter_add;
  const std::string n = std::to_string(axis), element = std::string(c_scalar(type)) + "& x = a.to[to + ";
  if (is_long) {
    text += scan_text("from + (k + lane) * a.f" + n,
                      "      if (lane == (td_u32)j) {\n        " + element + "at * a.t" + n + "];\n        " +
                          native_change(adds, type, "a.added[from + (k + j) * a.f" + n + "]") +
                          "\n      }\n      __syncwarp();  // the next may add to the same\n");
  } else {
    text += "  for (td_i64 k = 0; k < a.n; ++k, from += a.f" + n +
            ") {\n    const td_i64 at = a.index[from];\n"
            "    if (at < 0 || at >= a.size) { *a.error = 2; return; }\n    " +
            element + "at * a.t" + n + "];\n    " + native_change(adds, type, "a.added[from]") + "\n  }\n}\n";
  }
  l.source = native_head(l.symbol, fields + ";") + text;
  l.count = from[axis] == 0 ? 0 : is_long ? lines * segments * 32 : lines;
  return l;
}

}  // namespace

std::string native_change(bool adds, DType t, const std::string& v) {
  return adds ? add_to(t, "x", v) : "x = " + v + ";";
}

std::vector<NativeText> scatter_texts(const NativeCallPlan& c) {
  const Word index{NativeWord::kInput + 1, 0}, added{NativeWord::kInput + 2, 0}, out{NativeWord::kOut, 0},
      error{NativeWord::kError, 0};
  const bool along = c.op->id == OpId::index_add || c.op->id == OpId::index_copy;
  Launch direct = along ? along_index(c, index, added, out, error) : at_index(c, index, added, out, error);
  if (direct.source.empty()) return sorted_scatter(c, along);
  return {std::move(direct)};
}

}  // namespace tandem::jit
