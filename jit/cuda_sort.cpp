// Up to 8 bits a pass. Each pass has three launches: tiles count their digits; a warp for each digit sums
// them over the tiles; tiles move what they have. A tile's warps have runs of neighbours and rank them by
// ballots, so that no order but that of the positions shows.
#include "tandem/jit/cuda_sort.h"

#include <string>
#include <utility>

namespace tandem::jit {

namespace {

constexpr int64_t kThreads = NativeLaunch::kBlock, kRounds = 8, kTile = kThreads * kRounds;
constexpr int64_t kDigitBits = 8, kMost = int64_t{1} << 31;

template <class I>
std::string num(I v) {
  return std::to_string(v);
}

constexpr const char* kWarpSum =
    "for (int by = 1; by < 32; by *= 2) {\n"
    "      const td_u32 below = __shfl_up_sync(all, sum, by);\n"
    "      if (lane >= by) sum += below;\n"
    "    }\n";

}  // namespace

bool sorting_pays(int64_t indices, int64_t passes, int64_t moved_bytes, int64_t read_bytes) {
  constexpr int64_t kLaunchBytes = 64 << 20;  // what caches could give meanwhile
  return indices > 0 && indices < kMost && read_bytes > 3 * passes * kLaunchBytes + moved_bytes;
}

RadixSort::RadixSort(int64_t n) : n_(n), tiles_((n + kTile - 1) / kTile) {}

int64_t RadixSort::passes(int64_t key_bits) { return (key_bits + kDigitBits - 1) / kDigitBits; }

NativeWord RadixSort::keys(int64_t buffer) const { return {NativeWord::kWorkspace, 8 * n_ * buffer}; }
NativeWord RadixSort::order(int64_t buffer) const {
  return {NativeWord::kWorkspace, 8 * n_ * buffer + 4 * n_};
}
NativeWord RadixSort::counts() const { return {NativeWord::kWorkspace, 16 * n_}; }
NativeWord RadixSort::totals() const {
  return {NativeWord::kWorkspace, 16 * n_ + 4 * tiles_ * (1 << kDigitBits)};
}

NativeText RadixSort::count_digits(const SortSource& s, int64_t shift, int64_t bits) const {
  const std::string threads = num(kThreads);
  NativeText l;
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
  l.count = tiles_ * kThreads;
  l.words = s.words;
  l.words.insert(l.words.end(), {n_, counts(), shift, (int64_t{1} << bits) - 1});
  return l;
}

NativeText RadixSort::sum_digits(int64_t bits) const {
  NativeText l;
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
  l.words = {counts(), totals(), tiles_};
  return l;
}

NativeText RadixSort::move(const SortSource& s, int64_t to, int64_t shift, int64_t bits) const {
  const std::string threads = num(kThreads), warps = num(kThreads / 32), rounds = num(kRounds);
  NativeText l;
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
  l.count = tiles_ * kThreads;
  l.words = s.words;
  l.words.insert(l.words.end(), {n_, counts(), totals(), keys(to), order(to), shift, bits});
  return l;
}

void RadixSort::by(const SortSource& source, int64_t key_bits) {
  const int64_t count = passes(key_bits), bits = (key_bits + count - 1) / count;
  for (int64_t p = 0; p < count; ++p) {
    const SortSource sorted{"sorted",
                            "const td_u32* keys; const td_u32* order;",
                            "    const td_u32 key = a.keys[q], from = a.order[q];\n",
                            {keys(), order()}};
    const SortSource& s = p == 0 ? source : sorted;
    const int64_t to = 1 - latest_;
    texts_.push_back(count_digits(s, p * bits, bits));
    texts_.push_back(sum_digits(bits));
    texts_.push_back(move(s, to, p * bits, bits));
    latest_ = to;
  }
}

std::vector<NativeText> RadixSort::texts(NativeText behind) && {
  texts_.push_back(std::move(behind));
  for (NativeText& l : texts_) l.workspace_bytes = totals().value + 4 * (1 << kDigitBits);
  return std::move(texts_);
}

}  // namespace tandem::jit
