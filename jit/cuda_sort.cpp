// A stable radix sort of the positions by key (the place in the result), 8 bits a pass at most. Each pass has
// three launches: tiles count their digits; a warp for each digit sums them over the tiles; tiles move what
// they have. A tile's warps have runs of neighbours and rank them by ballots, so that no order but that of
// the positions shows. Then a warp (index_add: of 32 positions beside the axis) or a thread makes what begins
// in its part of the sorted positions.
#include "tandem/jit/cuda_sort.h"

#include <algorithm>
#include <bit>
#include <string>

#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using ops::OpId;

namespace {

using Word = NativeWord;
using Launch = NativeText;

constexpr int64_t kThreads = NativeLaunch::kBlock, kRounds = 8, kTile = kThreads * kRounds;
constexpr int64_t kDigitBits = 8, kMost = int64_t{1} << 31;

template <class I>
std::string num(I v) {
  return std::to_string(v);
}

struct Passes {
  int64_t count, bits;  // bits of a pass
  explicit Passes(int64_t keys) {
    const int64_t all = std::max<int64_t>(1, std::bit_width(static_cast<uint64_t>(keys - 1)));
    count = (all + kDigitBits - 1) / kDigitBits;
    bits = (all + count - 1) / count;
  }
};

/// What a pass sorts: `text` makes `key` and `from` of element q.
struct Source {
  std::string name, fields, text;
  std::vector<Word> words;
};

Source indices(const NativeCallPlan& c, bool along) {
  const DType type = c.in_types[1].dtype;
  const Dims &sizes = c.out_types[0].sizes, &from = c.in_types[1].sizes;
  const int axis = normalize_axis(c.words[0], sizes.rank(), c.op->name);
  Source s;
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

/// Lies in the workspace: two buffers of keys and of positions, counts of each digit and tile, sums of these.
struct Places {
  explicit Places(int64_t n) : n(n), tiles((n + kTile - 1) / kTile) {}
  int64_t n, tiles;
  Word keys(int64_t buffer) const { return {NativeWord::kWorkspace, 8 * n * buffer}; }
  Word order(int64_t buffer) const { return {NativeWord::kWorkspace, 8 * n * buffer + 4 * n}; }
  Word counts() const { return {NativeWord::kWorkspace, 16 * n}; }
  Word totals() const { return {NativeWord::kWorkspace, 16 * n + 4 * tiles * (1 << kDigitBits)}; }
  int64_t bytes() const { return totals().value + 4 * (1 << kDigitBits); }
};

Source sorted(const Places& at, int64_t buffer) {
  return {"sorted",
          "const td_u32* keys; const td_u32* order;",
          "    const td_u32 key = a.keys[q], from = a.order[q];\n",
          {at.keys(buffer), at.order(buffer)}};
}

Launch count_digits(const Source& s, const Places& at, int64_t shift, int64_t bits) {
  const std::string threads = num(kThreads);
  Launch l;
  l.symbol = "tandem_sort_count_" + s.name;
  l.source = native_head(l.symbol, s.fields + " td_i64 n; td_u32* counts; td_i64 shift, mask;") +
             "  const td_i64 tile = blockIdx.x, tiles = a.count / " + threads +
             ";\n  const td_u32 mask = (td_u32)a.mask;\n  __shared__ td_u32 counts[" + threads +
             "];\n"
             "  counts[threadIdx.x] = 0;\n"
             "  __syncthreads();\n"
             "  TD_UNROLLED\n  for (int r = 0; r < " +
             num(kRounds) + "; ++r) {\n    const td_i64 q = tile * " + num(kTile) + " + r * " + threads +
             " + threadIdx.x;\n    if (q >= a.n) continue;\n" + s.text +
             "    atomicAdd(&counts[key >> a.shift & mask], 1u);\n"
             "  }\n"
             "  __syncthreads();\n"
             "  if (threadIdx.x <= mask) a.counts[threadIdx.x * tiles + tile] = counts[threadIdx.x];\n}\n";
  l.count = at.tiles * kThreads;
  l.words = s.words;
  l.words.insert(l.words.end(), {at.n, at.counts(), shift, (int64_t{1} << bits) - 1});
  return l;
}

constexpr const char* kWarpSum =
    "for (int by = 1; by < 32; by *= 2) {\n"
    "      const td_u32 below = __shfl_up_sync(all, sum, by);\n"
    "      if (lane >= by) sum += below;\n"
    "    }\n";

Launch sum_digits(const Places& at, int64_t bits) {
  Launch l;
  l.symbol = "tandem_sort_sum";
  l.source = native_head(l.symbol, "td_u32* counts; td_u32* totals; td_i64 tiles;") +
             "  const td_u32 all = 0xffffffffu;\n"
             "  const int lane = threadIdx.x % 32;\n"
             "  td_u32* const counts = a.counts + t / 32 * a.tiles;\n"
             "  td_u32 before = 0;\n"
             "  for (td_i64 i = lane; i - lane < a.tiles; i += 32) {\n"
             "    const td_u32 mine = i < a.tiles ? counts[i] : 0;\n"
             "    td_u32 sum = mine;\n    " +
             kWarpSum +
             "    if (i < a.tiles) counts[i] = before + sum - mine;\n"
             "    before += __shfl_sync(all, sum, 31);\n"
             "  }\n"
             "  if (lane == 0) a.totals[t / 32] = before;\n}\n";
  l.count = (int64_t{1} << bits) * 32;
  l.words = {at.counts(), at.totals(), at.tiles};
  return l;
}

Launch move(const Source& s, const Places& at, int64_t to, int64_t shift, int64_t bits) {
  const std::string threads = num(kThreads), warps = num(kThreads / 32), rounds = num(kRounds);
  Launch l;
  l.symbol = "tandem_sort_move_" + s.name;
  l.source =
      native_head(l.symbol, s.fields +
                                " td_i64 n; const td_u32* counts; const td_u32* totals; td_u32* to_keys; "
                                "td_u32* to_order; td_i64 shift, bits;") +
      "  const td_u32 all = 0xffffffffu, mask = (1u << a.bits) - 1, digit = threadIdx.x;\n"
      "  const td_i64 tile = blockIdx.x, tiles = a.count / " +
      threads +
      ";\n  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;\n  __shared__ td_u32 places[" +
      warps + "][" + threads + "], sums[" + warps + "];\n  for (int w = 0; w < " + warps +
      "; ++w) places[w][digit] = 0;\n"
      "  __syncthreads();\n"
      "  td_u32 keys[" +
      rounds + "], order[" + rounds + "], rank[" + rounds + "];\n  TD_UNROLLED\n  for (int r = 0; r < " +
      rounds + "; ++r) {\n    const td_i64 q = tile * " + num(kTile) + " + (warp * " + rounds +
      " + r) * 32 + lane;\n    keys[r] = 0;\n    if (q < a.n) {\n" + s.text +
      "    keys[r] = key, order[r] = from;\n    }\n"
      "    const td_u32 mine = keys[r] >> a.shift & mask;\n"
      "    td_u32 same = __ballot_sync(all, q < a.n);\n"
      "    for (int b = 0; b < a.bits; ++b) {\n"
      "      const td_u32 ones = __ballot_sync(all, mine >> b & 1);\n"
      "      same &= mine >> b & 1 ? ones : ~ones;\n"
      "    }\n"
      "    const td_u32 below = same & ((1u << lane) - 1);\n"
      "    rank[r] = places[warp][mine] + __popc(below);\n"
      "    __syncwarp();\n"
      "    if (q < a.n && below == 0) places[warp][mine] = rank[r] + __popc(same);\n"
      "    __syncwarp();\n"
      "  }\n"
      "  const td_u32 total = digit <= mask ? a.totals[digit] : 0;\n"
      "  td_u32 sum = total;\n    " +
      kWarpSum +
      "  if (lane == 31) sums[warp] = sum;\n"
      "  __syncthreads();\n"
      "  td_u32 place = sum - total;  // of the digit's first, of all tiles\n"
      "  for (int w = 0; w < warp; ++w) place += sums[w];\n"
      "  if (digit <= mask) place += a.counts[digit * tiles + tile];\n"
      "  for (int w = 0; w < " +
      warps +
      "; ++w) {\n"
      "    const td_u32 of_warp = places[w][digit];\n"
      "    places[w][digit] = place;\n"
      "    place += of_warp;\n"
      "  }\n"
      "  __syncthreads();\n"
      "  TD_UNROLLED\n  for (int r = 0; r < " +
      rounds + "; ++r) {\n    if (tile * " + num(kTile) + " + (warp * " + rounds +
      " + r) * 32 + lane >= a.n) continue;\n"
      "    const td_u32 found = places[warp][keys[r] >> a.shift & mask] + rank[r];\n"
      "    a.to_keys[found] = keys[r];\n"
      "    a.to_order[found] = order[r];\n"
      "  }\n}\n";
  l.count = at.tiles * kThreads;
  l.words = s.words;
  l.words.insert(l.words.end(), {at.n, at.counts(), at.totals(), at.keys(to), at.order(to), shift, bits});
  return l;
}

/// A warp makes the rows that begin in its 32 of the sorted positions, to their ends; 8 elements of the
/// source are under way.
Launch add_rows(const NativeCallPlan& c, const Places& at, int64_t buffer) {
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
  l.count = (at.n + 31) / 32 * ((positions + 31) / 32) * 32;
  l.words = {{NativeWord::kOut, 0},
             at.keys(buffer),
             at.order(buffer),
             {NativeWord::kInput + 2, 0},
             to.size,
             to.inner,
             at.n,
             positions};
  return l;
}

/// A thread makes the element that begins at its sorted position.
Launch add_elements(const NativeCallPlan& c, const Places& at, int64_t buffer) {
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
  l.count = at.n;
  l.words = {{NativeWord::kOut, 0}, at.keys(buffer), at.order(buffer), {NativeWord::kInput + 2, 0}};
  return l;
}

}  // namespace

bool sorting_pays(const SortedIndices& s, int64_t reads) {
  constexpr int64_t kLaunchBytes = 64 << 20;  // what caches could give meanwhile
  if (s.indices == 0 || s.indices >= kMost || s.keys >= kMost) return false;
  const Passes passes(s.keys);
  const int64_t first = 2 * s.index_bytes + 8, other = 12 + 8, last = s.groups * 2 * 8;
  return reads * s.index_bytes >
         3 * passes.count * kLaunchBytes + s.indices * (first + (passes.count - 1) * other + last);
}

std::vector<NativeText> sorted_scatter(const NativeCallPlan& c, bool along) {
  const Places at(numel(c.in_types[1].sizes));
  const Dims& sizes = c.out_types[0].sizes;
  const Passes passes(along ? ops::split_axis(sizes, c.words[0]).size : numel(sizes));
  std::vector<Launch> all;
  for (int64_t p = 0; p < passes.count; ++p) {
    const Source s = p == 0 ? indices(c, along) : sorted(at, (p - 1) % 2);
    all.push_back(count_digits(s, at, p * passes.bits, passes.bits));
    all.push_back(sum_digits(at, passes.bits));
    all.push_back(move(s, at, p % 2, p * passes.bits, passes.bits));
  }
  const int64_t buffer = (passes.count - 1) % 2;
  all.push_back(along ? add_rows(c, at, buffer) : add_elements(c, at, buffer));
  for (Launch& l : all) l.workspace_bytes = at.bytes();
  return all;
}

}  // namespace tandem::jit
