// Row kernels that also reduce across their rows. Where rows are reduced, too, a thread block has a block of
// rows, one after the other, and each of its threads the same few columns of each, whose results it keeps in
// registers. What is read of the next row is under way while this one is computed. The elements' values are
// put side by side in shared memory, and a warp goes over them in the tree of kernel.h.
// Else it has a tile of a block of rows: a thread has a pack of one row, and puts its values into shared
// memory, where other threads go down the columns.
#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

namespace {

constexpr int kWarp = 32, kTileThreads = 8;  // of a row of a tile: 128 bytes
static_assert(kLanes == 2 * kWarp && int64_t{kCudaAcrossThreads} * 8 <= kRowBlock);

size_t at(int64_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}

int64_t accumulator_bytes(const Kernel& k, const Reduction& r) {
  return finds_index(r.op) ? 16 : itemsize(k.scalars[r.input].type);
}

/// Of shared memory for each element of a row.
int64_t bytes_of_element(const Kernel& k, const CudaWalk& walk) {
  int64_t bytes = 0;
  for (const int32_t r : walk.reductions) bytes += accumulator_bytes(k, k.reductions[at(r)]);
  return bytes;
}

bool tiled(const Kernel& k) { return k.reductions.empty(); }
int tile_columns(const Kernel& k) { return kTileThreads * cuda_lanes(k); }
/// Rows begin in other banks.
int tile_pitch(const Kernel& k) { return tile_columns(k) + kTileThreads; }
int64_t tile_bytes(const Kernel& k, const Across& c) {
  return kColumnBlock * tile_pitch(k) * itemsize(k.scalars[c.input].type);
}

int64_t across_shared_bytes(const Kernel& k, int64_t n) {
  int64_t bytes = 0;
  if (tiled(k)) {
    for (const Across& c : k.across) bytes += tile_bytes(k, c);
    return bytes;
  }
  for (const CudaWalk& walk : plan_cuda(k).walks) bytes = std::max(bytes, bytes_of_element(k, walk));
  return bytes * ((n + 15) / 16 * 16);
}

}  // namespace

bool cuda_takes_across(const Kernel& k, int64_t rows, int64_t columns) {
  constexpr int64_t kFewestBlocks = 64, kFewestThreads = 1 << 14;
  const int64_t lanes = cuda_lanes(k), blocks = rows / kColumnBlock, packs = columns / lanes;
  if (cuda_words(k) > kMaxCudaWords || across_shared_bytes(k, columns) > kCudaKeptBytes) return false;
  if (tiled(k)) return blocks > 0 && rows * packs >= kFewestThreads;
  return columns <= kCudaAcrossThreads * lanes && blocks >= kFewestBlocks && blocks * packs >= kFewestThreads;
}

int cuda_across_threads(const Kernel& k) {
  return tiled(k) ? static_cast<int>(kColumnBlock) * kTileThreads : kCudaAcrossThreads;
}

LaunchShape across_shape(const Kernel& k, int64_t n, int64_t count) {
  const int64_t blocks = (count + kColumnBlock - 1) / kColumnBlock;
  if (tiled(k)) {
    const int64_t tiles = (n + tile_columns(k) - 1) / tile_columns(k);
    return {static_cast<unsigned>(std::min<int64_t>(blocks * tiles, 1 << 30)),
            static_cast<unsigned>(cuda_across_threads(k)), static_cast<unsigned>(across_shared_bytes(k, n))};
  }
  const int64_t threads = (n + cuda_lanes(k) - 1) / cuda_lanes(k);
  TANDEM_INTERNAL(threads <= kCudaAcrossThreads, "rows too long for a thread block");
  return {static_cast<unsigned>(std::min<int64_t>(blocks, 1 << 30)),
          static_cast<unsigned>(std::max<int64_t>(1, (threads + kWarp - 1) / kWarp) * kWarp),
          static_cast<unsigned>(across_shared_bytes(k, n))};
}

// Operands of elements; their packs are w of this row, u of the next.
std::vector<size_t> CudaPrinter::row_operands() const {
  std::vector<size_t> slots;
  for (const CudaWalk& walk : plan_.walks)
    for (const size_t s : element_slots(walk))
      if (is_load(s) && !by_offset(s) && std::find(slots.begin(), slots.end(), s) == slots.end())
        slots.push_back(s);
  return slots;
}

void CudaPrinter::across() {
  const std::string lanes = num(cuda_lanes(k_)), block = num(kColumnBlock);
  line("const td_i64 n = " + reduced_size() + ";");
  across_packs();
  if (tiled(k_)) return tiles();
  line("const int gap = packed ? 1 : blockDim.x;");
  line("const td_i64 start = packed ? threadIdx.x * " + lanes + " : threadIdx.x;");
  line("const bool whole = packed && start + " + num(cuda_lanes(k_) - 1) + " < n;");
  if (across_shared_bytes(k_, 1) > 0) line("extern __shared__ td_u128 td_kept[];");
  for (const size_t s : row_operands())
    line("td_pack<" + element_type(s) + ", " + lanes + "> u" + num(s) + ";");
  fetch_row();
  line("TD_ROLLED");
  line("for (td_i64 first = (td_i64)block * " + block + "; first < count; first += (td_i64)blocks * " +
       block + ") {");
  line("const td_i64 past = td_least(first + " + block + ", count);");
  start_across();
  line("fetch(first);");
  line("TD_ROLLED");
  line("for (td_i64 at = first; at < past; ++at) {");
  for (const size_t s : row_operands())
    line("const td_pack<" + element_type(s) + ", " + lanes + "> w" + num(s) + " = u" + num(s) + ";");
  line("if (at + 1 < past) fetch(at + 1);");
  place(&CudaPrinter::across_walk, "threadIdx.x == 0");
  for (size_t c = 0; c < k_.across.size(); ++c) leave_across(c);
  line("}");
}

void CudaPrinter::start_across() {
  const std::string lanes = num(cuda_lanes(k_));
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const Reduction as = across_reduction(k_.across[c]);
    line(accumulator(as) + " y" + num(c) + "[" + lanes + "];");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) y" + num(c) + "[j] = " + identity(as) + ";");
  }
}

// Whether the addresses of the call allow packs.
void CudaPrinter::across_packs() {
  std::vector<size_t> all;
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s) || slot_row_level(s) || by_offset(s)) continue;
    if ((is_load(s) ? load_of(s).inner : store_of(s).inner) == Inner::contiguous) all.push_back(s);
  }
  packed_if_aligned(all);
}

void CudaPrinter::fetch_row() {
  line("const auto fetch = [&](const td_i64 at) TD_INLINE {");
  coordinates();
  pointers();
  read_row("u");
  line("};");
}

void CudaPrinter::read_row(const std::string& packs_name) {
  const std::string lanes = num(cuda_lanes(k_));
  for (const size_t s : row_operands()) {
    const std::string u = packs_name + num(s);
    const bool packs = load_of(s).inner == Inner::contiguous;
    if (packs) line("if (whole) {");
    if (packs) line(u + " = td_read<" + lanes + ">(" + slot_name(s) + " + start);");
    line(packs ? "} else {" : "{");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) " + u + ".v[j] = " + slot_name(s) + "[" +
         step(s, rank() - 1, "td_least(start + j * gap, n - 1)") + "];");
    line("}");
  }
}

Reduction CudaPrinter::across_reduction(const Across& c) const {
  return {c.op, c.input, k_.scalars[c.input].type};
}

void CudaPrinter::across_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name, true);
  for (const int32_t r : walk.reductions)
    line("__shared__ " + accumulator(k_.reductions[at(r)]) + " z" + num(r) + ";");
  line("{");
  int64_t before = 0;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string type = accumulator(red);
    line(type + "* const k" + num(r) + " = (" + type + "*)((char*)td_kept + (n + 15) / 16 * 16 * " +
         num(before) + ");");
    before += accumulator_bytes(k_, red);
  }
  across_elements(walk, name);
  if (!walk.reductions.empty()) across_lanes(walk);
  line("}");
  for (const int32_t r : walk.reductions)
    line("const " + accumulator(k_.reductions[at(r)]) + " t" + num(r) + " = z" + num(r) + ";");
}

// A thread's elements of a row, from packs w, and what is stored of them.
void CudaPrinter::across_elements(const CudaWalk& walk, const std::string& name) {
  const std::string lanes = num(cuda_lanes(k_));
  std::string arguments;
  for (const size_t s : element_slots(walk)) {
    if (!is_load(s)) line("td_pack<" + element_type(s) + ", " + lanes + "> w" + num(s) + ";");
    const std::string offset = slot_row_level(s) ? "" : step(s, rank() - 1, "(start + j * gap)");
    arguments += !by_offset(s) ? ", w" + num(s) + ".v[j]" : ", " + (offset.empty() ? "0" : offset);
  }
  line("TD_UNROLLED");
  line("for (int j = 0; j < " + lanes + "; ++j) {");
  line("if (start + j * gap >= n) continue;");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " g" + num(r) + " = " + identity(red) + ";");
    arguments += ", g" + num(r);
  }
  for (const int32_t c : walk.across) arguments += ", y" + num(c) + "[j]";
  line(name + "(start + j * gap" + arguments + ");");
  for (const int32_t r : walk.reductions) line("k" + num(r) + "[start + j * gap] = g" + num(r) + ";");
  line("}");
  for (const int32_t st : walk.stores) {
    const size_t s = k_.loads.size() + at(st);
    const bool packs = store_of(s).inner == Inner::contiguous;
    if (packs) line("if (whole) {");
    if (packs) line("td_write<" + lanes + ">(" + slot_name(s) + " + start, w" + num(s) + ");");
    line(packs ? "} else {" : "{");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) if (start + j * gap < n) " + slot_name(s) + "[" +
         step(s, rank() - 1, "(start + j * gap)") + "] = w" + num(s) + ".v[j];");
    line("}");
  }
}

// A warp for each reduction in turn; a thread of it has lanes l and l + 32 of the tree.
void CudaPrinter::across_lanes(const CudaWalk& walk) {
  line("__syncthreads();");
  int turn = 0;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const auto add = [&](const std::string& g, const std::string& i) {
      return g + " = " + combine_text(red, g, "k" + num(r) + "[" + i + "]") + ";";
    };
    line("if (" + num(turn++) + " % (blockDim.x / 32) == threadIdx.x / 32) {");
    line(accumulator(red) + " g[2] = {" + identity(red) + ", " + identity(red) + "};");
    line("_Pragma(\"unroll 8\")");
    line("for (td_i64 i = threadIdx.x % 32; i < n; i += 64) {");
    line(add("g[0]", "i"));
    line("if (i + 32 < n) " + add("g[1]", "i + 32"));
    line("}");
    line("const " + accumulator(red) + " all = td_warp_" + reduce_name(red.op) + "(g, 32, false);");
    line("if (threadIdx.x % 32 == 0) z" + num(r) + " = all;");
    line("}");
  }
  line("__syncthreads();");
}

void CudaPrinter::leave_across(size_t c) {
  const Reduction as = across_reduction(k_.across[c]);
  const int lanes = cuda_lanes(k_), pack = static_cast<int>(std::min<int64_t>(lanes, 16 / itemsize(as.type)));
  const std::string type = accumulator(as), y = "y" + num(c), m = num(pack);
  line("{");
  line(type + "* const z = (" + type + "*)a.buffers[" + num(k_.across[c].buffer) + "] + first / " +
       num(kColumnBlock) + " * n;");
  line("if (whole && n % " + m + " == 0) {");
  line("TD_UNROLLED");
  line("for (int j = 0; j < " + num(lanes) + "; j += " + m + ") {");
  line("td_pack<" + type + ", " + m + "> all;");
  line("TD_UNROLLED");
  line("for (int i = 0; i < " + m + "; ++i) all.v[i] = " + y + "[j + i];");
  line("td_write<" + m + ">(z + start + j, all);");
  line("}");
  line("} else {");
  line("TD_UNROLLED");
  line("for (int j = 0; j < " + num(lanes) + "; ++j) if (start + j * gap < n) z[start + j * gap] = " + y +
       "[j];");
  line("}");
  line("}");
}

// Values that rows store as such are stored by the first tile's threads: no other tile may read them.
void CudaPrinter::tiles() {
  const std::string lanes = num(cuda_lanes(k_)), rows = num(kColumnBlock), columns = num(tile_columns(k_)),
                    threads = num(kTileThreads);
  line("const td_i64 tiles = (n + " + num(tile_columns(k_) - 1) + ") / " + columns + ";");
  line("const td_i64 units = (count + " + num(kColumnBlock - 1) + ") / " + rows + " * tiles;");
  line("const int part = threadIdx.x % " + threads + ", down = threadIdx.x / " + threads + ";");
  line("const int gap = packed ? 1 : " + threads + ";");
  line("extern __shared__ td_u128 td_kept[];");
  int64_t before = 0;
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const std::string type = accumulator(across_reduction(k_.across[c]));
    line(type + "* const k" + num(c) + " = (" + type + "*)((char*)td_kept + " + num(before) + ");");
    before += tile_bytes(k_, k_.across[c]);
  }
  line("TD_ROLLED");
  line("for (td_i64 unit = block; unit < units; unit += blocks) {");
  line("const td_i64 first = unit / tiles * " + rows + ", tile = unit % tiles;");
  line("const int rows = (int)td_least(" + rows + ", count - first);");
  line("const bool inside = down < rows;  // the others keep the block together");
  line("const td_i64 at = inside ? first + down : count - 1;");
  line("const td_i64 start = tile * " + columns + " + (packed ? part * " + lanes + " : part);");
  line("const bool whole = packed && start + " + num(cuda_lanes(k_) - 1) + " < n;");
  place(&CudaPrinter::tile_walk, "inside && part == 0 && tile == 0");
}

// Element j of a thread stands in column part + 8 j of the shared tile, whether its elements are neighbours
// in memory or not.
void CudaPrinter::tile_walk(const CudaWalk& walk, const std::string& name) {
  const std::string lanes = num(cuda_lanes(k_)), columns = num(tile_columns(k_)), pitch = num(tile_pitch(k_)),
                    threads = num(kTileThreads);
  body(walk, name, true);
  line("if (inside) {");
  for (const size_t s : row_operands())
    line("td_pack<" + element_type(s) + ", " + lanes + "> w" + num(s) + ";");
  read_row("w");
  start_across();
  across_elements(walk, name);
  for (size_t c = 0; c < k_.across.size(); ++c) {
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) k" + num(c) + "[down * " + pitch + " + part + j * " +
         threads + "] = y" + num(c) + "[j];");
  }
  line("}");
  line("__syncthreads();");
  const int64_t teams = cuda_across_threads(k_) / tile_columns(k_);
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const Reduction as = across_reduction(k_.across[c]);
    const std::string k = "k" + num(c), type = accumulator(as);
    line("if (threadIdx.x / " + columns + " == " + num(at(static_cast<int64_t>(c) % teams)) + ") {");
    line("const int i = threadIdx.x % " + columns + ";");
    line("const td_i64 column = tile * " + columns + " + (packed ? i % " + threads + " * " + lanes +
         " + i / " + threads + " : i);");
    line(type + " all = " + k + "[i];");
    line("_Pragma(\"unroll 8\")");
    line("for (int r = 1; r < rows; ++r) all = " + combine_text(as, "all", k + "[r * " + pitch + " + i]") +
         ";");
    line("if (column < n) ((" + type + "*)a.buffers[" + num(k_.across[c].buffer) + "])[first / " +
         num(kColumnBlock) + " * n + column] = all;");
    line("}");
  }
  line("__syncthreads();");
}

}  // namespace tandem::jit
