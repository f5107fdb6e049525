// Row kernels that also reduce across their rows: a thread block has a block of rows, one after the other,
// and each of its threads the same few columns of each, whose results it keeps in registers. What is read of
// the next row is under way while this one is computed. Where rows are reduced, their elements' values are
// put side by side in shared memory, and a warp goes over them in the tree of kernel.h.
#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

namespace {

constexpr int kWarp = 32;
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

int64_t across_shared_bytes(const Kernel& k, int64_t n) {
  int64_t bytes = 0;
  for (const CudaWalk& walk : plan_cuda(k).walks) bytes = std::max(bytes, bytes_of_element(k, walk));
  return bytes * ((n + 15) / 16 * 16);
}

}  // namespace

bool cuda_takes_across(const Kernel& k, int64_t rows, int64_t columns) {
  constexpr int64_t kFewestBlocks = 64, kFewestThreads = 1 << 14;
  const int64_t blocks = rows / kColumnBlock;
  return cuda_words(k) <= kMaxCudaWords && columns <= int64_t{kCudaAcrossThreads} * cuda_lanes(k) &&
         across_shared_bytes(k, columns) <= kCudaKeptBytes && blocks >= kFewestBlocks &&
         blocks * (columns / cuda_lanes(k)) >= kFewestThreads;
}

LaunchShape across_shape(const Kernel& k, int64_t n, int64_t count) {
  const int64_t threads = (n + cuda_lanes(k) - 1) / cuda_lanes(k);
  TANDEM_INTERNAL(threads <= kCudaAcrossThreads, "rows too long for a thread block");
  const int64_t blocks = (count + kColumnBlock - 1) / kColumnBlock;
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
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const Reduction as = across_reduction(k_.across[c]);
    line(accumulator(as) + " y" + num(c) + "[" + lanes + "];");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) y" + num(c) + "[j] = " + identity(as) + ";");
  }
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
  const std::string lanes = num(cuda_lanes(k_));
  line("const auto fetch = [&](const td_i64 at) TD_INLINE {");
  coordinates();
  pointers();
  for (const size_t s : row_operands()) {
    const std::string u = "u" + num(s);
    const bool packs = load_of(s).inner == Inner::contiguous;
    if (packs) line("if (whole) {");
    if (packs) line(u + " = td_read<" + lanes + ">(" + slot_name(s) + " + start);");
    line(packs ? "} else {" : "{");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) " + u + ".v[j] = " + slot_name(s) + "[" +
         step(s, rank() - 1, "td_least(start + j * gap, n - 1)") + "];");
    line("}");
  }
  line("};");
}

Reduction CudaPrinter::across_reduction(const Across& c) const {
  return {c.op, c.input, k_.scalars[c.input].type};
}

void CudaPrinter::across_walk(const CudaWalk& walk, const std::string& name) {
  const std::string lanes = num(cuda_lanes(k_));
  body(walk, name, true);
  for (const int32_t r : walk.reductions)
    line("__shared__ " + accumulator(k_.reductions[at(r)]) + " z" + num(r) + ";");
  line("{");
  std::string arguments;
  for (const size_t s : element_slots(walk)) {
    if (!is_load(s)) line("td_pack<" + element_type(s) + ", " + lanes + "> w" + num(s) + ";");
    const std::string offset = slot_row_level(s) ? "" : step(s, rank() - 1, "(start + j * gap)");
    arguments += !by_offset(s) ? ", w" + num(s) + ".v[j]" : ", " + (offset.empty() ? "0" : offset);
  }
  int64_t before = 0;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string type = accumulator(red);
    line(type + "* const k" + num(r) + " = (" + type + "*)((char*)td_kept + (n + 15) / 16 * 16 * " +
         num(before) + ");");
    before += accumulator_bytes(k_, red);
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
  if (!walk.reductions.empty()) across_lanes(walk);
  line("}");
  for (const int32_t r : walk.reductions)
    line("const " + accumulator(k_.reductions[at(r)]) + " t" + num(r) + " = z" + num(r) + ";");
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

}  // namespace tandem::jit
