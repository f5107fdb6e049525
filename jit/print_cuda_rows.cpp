// Row kernels: 8, 16 or 32 threads for a row, so that each has as many lanes of the tree as it moves elements
// at once (16 bytes of the widest operand); fewer where the row has fewer elements than the tree has lanes;
// or all threads of a block, each so many with blocks of the row of their own. Where the addresses of the
// call allow it, a thread's lanes are neighbours, and it reads and writes packs, several at a time. Else its
// lanes are as far apart as there are threads, so that neighbouring threads move neighbouring elements.
#include <algorithm>

#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using ops::ScalarOp;

namespace {

constexpr size_t kVeryFewNodes = 6, kFewNodes = 24, kManyNodes = 64, kFewSlots = 3, kInOrder = 32;
constexpr int64_t kBytesUnderWay = 128;  // of a thread

size_t at(int64_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}

}  // namespace

// The accesses that a walk makes at an element.
std::vector<size_t> CudaPrinter::element_slots(const CudaWalk& walk) const {
  std::vector<size_t> slots;
  for (const int32_t i : walk.nodes)
    if (k_.scalars[i].op == ScalarOp::load) slots.push_back(at(k_.scalars[i].bits));
  for (const int32_t s : walk.stores) slots.push_back(k_.loads.size() + at(s));
  return slots;
}

// Whether a walk's accesses can be made in packs: each moves by one element, or is looked up.
bool CudaPrinter::has_packs(const CudaWalk& walk) const {
  if (k_.kind != KernelKind::row || k_.reduced_rank != 1) return false;
  bool any = false;
  for (const size_t s : element_slots(walk)) {
    if (by_offset(s)) continue;
    if ((is_load(s) ? load_of(s).inner : store_of(s).inner) != Inner::contiguous) return false;
    any = true;
  }
  return any;
}

std::string CudaPrinter::packed(const CudaWalk& walk) const { return has_packs(walk) ? "packed" : "false"; }

// Packs (columns: rows) that a thread has under way: fewer where each takes long anyway.
int CudaPrinter::under_way(const CudaWalk& walk) const {
  const bool random = std::any_of(walk.nodes.begin(), walk.nodes.end(),
                                  [&](int32_t i) { return is_random(k_.scalars[i].op); });
  const size_t slots = element_slots(walk).size();
  if (random || walk.nodes.size() > kManyNodes) return 1;
  if (k_.kind == KernelKind::row) {
    const bool costly = std::any_of(walk.nodes.begin(), walk.nodes.end(),
                                    [&](int32_t i) { return is_costly(k_.scalars[i].op); });
    const bool finds = std::any_of(walk.reductions.begin(), walk.reductions.end(),
                                   [&](int32_t r) { return finds_index(k_.reductions[at(r)].op); });
    // Elements.
    int most = 16;
    if (costly || walk.nodes.size() > kFewNodes || slots > kFewSlots)
      most = 8;
    else if (walk.nodes.size() <= kVeryFewNodes && slots == 1 && !finds && plan_.walks.size() == 1)
      most = 32;
    int64_t bytes = 0;  // of an element
    for (const size_t s : element_slots(walk))
      bytes += itemsize(is_load(s) ? load_of(s).dtype : store_of(s).dtype);
    const int64_t fitting = kBytesUnderWay / std::max<int64_t>(1, bytes);
    return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(most, fitting) / cuda_lanes(k_)));
  }
  if (walk.nodes.size() > kFewNodes) return 2;
  // A column's rows are one after another: what is under way is all that hides the memory's latency. Blocks'
  // results are joined by few threads.
  if (k_.in_order) return static_cast<int>(std::max<size_t>(1, kInOrder / std::max<size_t>(1, slots)));
  return slots <= kFewSlots ? 8 : 4;
}

// Whether the addresses of the call allow packs.
void CudaPrinter::packs_condition() {
  std::vector<size_t> all;
  for (const CudaWalk& walk : plan_.walks)
    if (has_packs(walk))
      for (const size_t s : element_slots(walk))
        if (!by_offset(s) && std::find(all.begin(), all.end(), s) == all.end()) all.push_back(s);
  if (!all.empty()) packed_if_aligned(all);
}

void CudaPrinter::packed_if_aligned(const std::vector<size_t>& accesses) {
  const std::string lanes = num(cuda_lanes(k_));
  std::string text;
  for (const size_t s : accesses) {
    text += (text.empty() ? "" : " && ") + ("td_aligned<" + lanes + ">(b" + slot_name(s) + ")");
    for (int d = 0; d < k_.kept_rank; ++d) text += " && s" + num(s) + "_" + num(d) + " % " + lanes + " == 0";
  }
  line("const bool packed = " + (text.empty() ? "true" : text) + ";");
}

void CudaPrinter::row() {
  line("const td_i64 n = " + reduced_size() + ";");
  const bool may_keep = kept_pack_bytes() > 0;
  line("const bool together = n > " + num(kRowBlock) +
       (may_keep ? " || (td_shared_bytes() > " + num(kCudaKeptBytes) + " && n >= " + num(kLanes) + ")" : "") +
       ";  // all threads of the block have one row");
  line("const int width = td_row_width(n, " + num(cuda_lanes(k_)) + "), lane = threadIdx.x % width;");
  line("const int rows = together ? 1 : blockDim.x / width, team = together ? blockDim.x / width : 1;");
  line("const int member = together ? threadIdx.x / width : 0;");
  packs_condition();
  keep();
  line("TD_ROLLED");
  line("for (td_i64 first = (td_i64)block * rows; first < count; first += (td_i64)blocks * rows) {");
  line("const td_i64 row = together ? first : first + threadIdx.x / width;");
  line("const bool inside = row < count;  // the others keep the warp together");
  line("const td_i64 at = inside ? row : count - 1, end = inside ? n : 0;");
  place(&CudaPrinter::row_walk, "inside && lane == 0 && member == 0");
}

// Whether an operand of rows is read from memory once: several walks read packs of it.
bool CudaPrinter::is_kept(size_t slot) const {
  constexpr size_t kManyReductions = 8;  // whose results need the shared memory
  if (!is_load(slot) || by_offset(slot) || k_.reductions.size() > kManyReductions) return false;
  int walks = 0;
  for (const CudaWalk& walk : plan_.walks) {
    const std::vector<size_t> slots = element_slots(walk);
    if (std::find(slots.begin(), slots.end(), slot) == slots.end()) continue;
    if (!has_packs(walk)) return false;
    ++walks;
  }
  return walks > 1;
}

int64_t CudaPrinter::kept_pack_bytes() const {
  int64_t bytes = 0;
  for (size_t s = 0; s < k_.loads.size(); ++s)
    if (is_kept(s)) bytes += cuda_lanes(k_) * itemsize(load_of(s).dtype);
  return bytes;
}

// Where the rows of operands that are read once lie, if there is room.
void CudaPrinter::keep() {
  const int64_t all = kept_pack_bytes();
  if (all == 0) return;
  line("extern __shared__ td_u128 td_kept[];");
  line("const td_i64 pitch = (n + " + num(kLanes - 1) + ") / " + num(kLanes) + " * width * " +
       num(cuda_lanes(k_)) + ";");
  line("const bool keeps = packed && pitch * rows * " + num(all / cuda_lanes(k_)) + " <= td_shared_bytes();");
  int64_t before = 0;
  for (size_t s = 0; s < k_.loads.size(); ++s) {
    if (!is_kept(s)) continue;
    line(element_type(s) + "* const k" + num(s) + " = (" + element_type(s) +
         "*)((char*)td_kept + pitch * rows * " + num(before) +
         ") + (together ? 0 : threadIdx.x / width * pitch);");
    before += itemsize(load_of(s).dtype);
  }
}

// The row, all of it under way at once. Threads of a row of their own warp read what they brought themselves.
void CudaPrinter::fetch_kept() {
  if (kept_pack_bytes() == 0) return;
  const std::string lanes = num(cuda_lanes(k_)), last = num(cuda_lanes(k_) - 1);
  line("if (keeps) {");
  line("if (together) __syncthreads();  // all are done with the row before");
  line("TD_ROLLED");
  line("for (td_i64 r = member * " + num(kLanes) + " + lane * " + lanes + "; r + " + last +
       " < end; r += team * " + num(kLanes) + ") {");
  for (size_t s = 0; s < k_.loads.size(); ++s)
    if (is_kept(s)) line("td_copy<" + lanes + ">(k" + num(s) + " + r, " + slot_name(s) + " + r);");
  line("}");
  line("td_copied();");
  line("if (together) __syncthreads();");
  line("}");
}

// Operands and results of the element at `r`: those of a pack, or of single elements, are at `values`.
std::string CudaPrinter::row_arguments(const CudaWalk& walk, const std::string& r,
                                       const std::string& values) const {
  std::string text;
  for (const size_t s : element_slots(walk)) {
    if (by_offset(s)) {
      const std::string offset = slot_row_level(s) ? "" : step(s, rank() - 1, "(" + r + ")");
      text += ", " + (offset.empty() ? "0" : offset);
    } else {
      text += ", w" + num(s) + values;
    }
  }
  return text;
}

// The accumulators of lane j, as arguments.
std::string CudaPrinter::lanes_of(const CudaWalk& walk) const {
  std::string text;
  for (const int32_t r : walk.reductions) text += ", g" + num(r) + "[j]";
  return text;
}

// Elements r + j * gap of lanes j, then those `step` further, up to e.
void CudaPrinter::row_elements(const CudaWalk& walk, const std::string& name, const std::string& step) {
  const bool packs = has_packs(walk);
  const std::string lanes = num(cuda_lanes(k_)), last = num(cuda_lanes(k_) - 1), u = num(under_way(walk));
  std::vector<size_t> loads, stores;
  for (const size_t s : element_slots(walk))
    if (!by_offset(s)) (is_load(s) ? loads : stores).push_back(s);
  const auto each_lane = [&](const std::string& what) {
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) " + what);
  };
  if (!packs) {
    line("for (; r + " + last + " * gap < e; r += " + step + ") {");
    each_lane(name + "(r + j * gap" + lanes_of(walk) + ");");
    line("}");
    line("if (r < e) {");
    each_lane("if (r + j * gap < e) " + name + "(r + j * gap" + lanes_of(walk) + ");");
    line("}");
    return;
  }
  const std::string pack = "td_pack<", read = "td_read<" + lanes + ">(", write = "td_write<" + lanes + ">(";
  const auto read_packs = [&](const std::string& which, const std::string& r) {
    for (const size_t s : loads) {
      const std::string n = num(s);
      line("w" + n + which + " = " + read + (is_kept(s) ? "f" + n : slot_name(s)) + " + " + r + ");");
    }
  };
  for (const size_t s : loads) {
    const std::string n = num(s);
    if (is_kept(s))
      line("const " + element_type(s) + "* const f" + n + " = keeps ? k" + n + " : " + slot_name(s) + ";");
  }
  line("if (packed) {");
  line("TD_ROLLED");
  line("for (; r + " + num(under_way(walk) - 1) + " * " + step + " + " + last + " < e; r += " + u + " * " +
       step + ") {");
  for (const size_t s : element_slots(walk))
    if (!by_offset(s)) line(pack + element_type(s) + ", " + lanes + "> w" + num(s) + "[" + u + "];");
  line("TD_UNROLLED");
  line("for (int u = 0; u < " + u + "; ++u) {");
  read_packs("[u]", "r + u * " + step);
  line("}");
  line("TD_UNROLLED");
  line("for (int u = 0; u < " + u + "; ++u) {");
  each_lane(name + "(r + u * " + step + " + j" + row_arguments(walk, "r + u * " + step + " + j", "[u].v[j]") +
            lanes_of(walk) + ");");
  for (const size_t s : stores) line(write + slot_name(s) + " + r + u * " + step + ", w" + num(s) + "[u]);");
  line("}");
  line("}");
  line("}");
  // What is left, and rows at addresses for one element: all is read before anything is written.
  line("TD_ROLLED");
  line("for (; r < e; r += " + step + ") {");
  line("const bool whole = packed && r + " + last + " < e;");
  for (const size_t s : element_slots(walk))
    if (!by_offset(s)) line(pack + element_type(s) + ", " + lanes + "> w" + num(s) + ";");
  if (!loads.empty()) {
    line("if (whole) {");
    read_packs("", "r");
    line("} else {");
    each_lane("{");
    for (const size_t s : loads)
      line("w" + num(s) + ".v[j] = " + slot_name(s) + "[td_least(r + j * gap, e - 1)];");
    line("}");
    line("}");
  }
  each_lane("{");
  line("if (r + j * gap < e) " + name + "(r + j * gap" + row_arguments(walk, "r + j * gap", ".v[j]") +
       lanes_of(walk) + ");");
  line("}");
  if (!stores.empty()) {
    line("if (whole) {");
    for (const size_t s : stores) line(write + slot_name(s) + " + r, w" + num(s) + ");");
    line("} else {");
    each_lane("{");
    line("if (r + j * gap >= e) continue;");
    for (const size_t s : stores) line(slot_name(s) + "[r + j * gap] = w" + num(s) + ".v[j];");
    line("}");
    line("}");
  }
  line("}");
}

// What a thread's lanes accumulate, from the identity, and where they stand.
void CudaPrinter::row_lanes(const CudaWalk& walk) {
  const std::string lanes = num(cuda_lanes(k_));
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " g" + num(r) + "[" + lanes + "];");
    line("TD_UNROLLED");
    line("for (int j = 0; j < " + lanes + "; ++j) g" + num(r) + "[j] = " + identity(red) + ";");
  }
  line("const int gap = " + packed(walk) + " ? 1 : width, start = " + packed(walk) + " ? " + lanes +
       " * lane : lane;");
}

void CudaPrinter::row_join(const CudaWalk& walk) {
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line("const " + accumulator(red) + " a" + num(r) + " = td_warp_" + reduce_name(red.op) + "(g" + num(r) +
         ", width, " + packed(walk) + ");");
  }
}

void CudaPrinter::row_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name, has_packs(walk));
  if (walk.reductions.empty()) {
    line("{");
    row_lanes(walk);
    line("td_i64 r = member * " + num(kLanes) + " + start;");
    line("const td_i64 e = end;");
    line("const int step = team * " + num(kLanes) + ";");
    row_elements(walk, name, "step");
    line("}");
    return;
  }
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " t" + num(r) + " = " + identity(red) + ";");
  }
  line("TD_ROLLED");
  line("for (td_i64 b = 0; b * " + num(kRowBlock) + " < n; b += team) {");
  row_lanes(walk);
  line("td_i64 r = (b + member) * " + num(kRowBlock) + " + start;");
  line("const td_i64 e = td_least((b + member + 1) * " + num(kRowBlock) + ", end);");
  row_elements(walk, name, num(kLanes));
  row_join(walk);
  line("if (!together) {");
  for (const int32_t r : walk.reductions)
    line("t" + num(r) + " = b == 0 ? a" + num(r) + " : " +
         combine_text(k_.reductions[at(r)], "t" + num(r), "a" + num(r)) + ";");
  line("continue;");
  line("}");
  join_blocks(walk, "(n + " + num(kRowBlock - 1) + ") / " + num(kRowBlock), "");
  line("}");
}

}  // namespace tandem::jit
