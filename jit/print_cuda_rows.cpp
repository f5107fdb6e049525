// Row kernels: 32 threads for a row, or as many as half its elements where it has fewer than 64, or all warps
// of a block, each with blocks of the row of its own. A thread has two neighbouring lanes of the tree, so
// that it reads and writes pairs, several at a time, where the addresses of the call allow it.
#include <algorithm>

#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using ops::ScalarOp;

namespace {

constexpr size_t kFewNodes = 24, kManyNodes = 64, kFewSlots = 3;

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

// Whether a walk's accesses can be made in pairs: each moves by one element, or is looked up.
bool CudaPrinter::has_pairs(const CudaWalk& walk) const {
  if (k_.kind != KernelKind::row || k_.reduced_rank != 1) return false;
  bool any = false;
  for (const size_t s : element_slots(walk)) {
    if (is_indexed(s)) continue;
    if ((is_load(s) ? load_of(s).inner : store_of(s).inner) != Inner::contiguous) return false;
    any = true;
  }
  return any;
}

// Pairs (columns: rows) that a thread has under way: fewer where each takes long anyway.
int CudaPrinter::pairs_of(const CudaWalk& walk) const {
  const bool random = std::any_of(walk.nodes.begin(), walk.nodes.end(),
                                  [&](int32_t i) { return is_random(k_.scalars[i].op); });
  if (random || walk.nodes.size() > kManyNodes) return 1;
  if (walk.nodes.size() > kFewNodes) return 2;
  // A column's rows are one after another: what is under way is all that hides the memory's latency.
  return k_.kind == KernelKind::column && element_slots(walk).size() <= kFewSlots ? 8 : 4;
}

std::string CudaPrinter::pairs_condition() const {
  std::vector<size_t> all;
  for (const CudaWalk& walk : plan_.walks)
    if (has_pairs(walk))
      for (const size_t s : element_slots(walk))
        if (!is_indexed(s) && std::find(all.begin(), all.end(), s) == all.end()) all.push_back(s);
  std::string text;
  for (const size_t s : all) {
    text += (text.empty() ? "" : " && ") + ("td_aligned<2>(b" + slot_name(s) + ")");
    for (int d = 0; d < k_.kept_rank; ++d) text += " && s" + num(s) + "_" + num(d) + " % 2 == 0";
  }
  return text;
}

void CudaPrinter::row() {
  line("const td_i64 n = " + reduced_size() + ";");
  line("const bool together = n > " + num(kRowBlock) + ";  // the block's warps share one row");
  line("const int width = td_row_width(n), lane = threadIdx.x % width;");
  line("const int warps = blockDim.x / 32, rows = together ? 1 : blockDim.x / width;");
  line("const int team = together ? warps : 1, member = together ? threadIdx.x / 32 : 0;");
  if (const std::string condition = pairs_condition(); !condition.empty())
    line("const bool paired = " + condition + ";");
  line("TD_ROLLED");
  line("for (td_i64 first = (td_i64)block * rows; first < count; first += (td_i64)blocks * rows) {");
  line("const td_i64 row = together ? first : first + threadIdx.x / width;");
  line("const bool inside = row < count;  // the others keep the warp together");
  line("const td_i64 at = inside ? row : count - 1, end = inside ? n : 0;");
  coordinates();
  pointers();
  int number = 0;
  for (const CudaWalk& walk : plan_.walks) {
    rows_before(walk);
    if (walk.walks()) row_walk(walk, "walk" + num(number++));
  }
  row_stores("inside && lane == 0 && member == 0");
  line("}");
}

// Operands and results of the element at `r`; in pairs: those of part `j` of pair u.
std::string CudaPrinter::row_arguments(const CudaWalk& walk, const std::string& r, int j) const {
  std::string text;
  for (const size_t s : element_slots(walk)) {
    if (is_indexed(s)) {
      const std::string offset = slot_row_level(s) ? "" : step(s, rank() - 1, "(" + r + ")");
      text += ", " + (offset.empty() ? "0" : offset);
    } else {
      text += j < 0 ? ", " + slot_name(s) + "[" + r + "]" : ", w" + num(s) + "[u].v[" + num(j) + "]";
    }
  }
  return text;
}

// Elements r, r + 1, then those `step` further, up to e; the accumulators of even ones are `low`.
void CudaPrinter::row_elements(const CudaWalk& walk, const std::string& name, const std::string& step,
                               const std::string& low, const std::string& high) {
  const bool pairs = has_pairs(walk);
  const auto call = [&](const std::string& r, int j, const std::string& accumulators) {
    return name + "(" + r + (pairs ? row_arguments(walk, r, j) : "") + accumulators + ");";
  };
  if (pairs) {
    const std::string u = num(pairs_of(walk));
    line("if (paired) {");
    line("TD_ROLLED");
    line("for (; r + " + num(pairs_of(walk) - 1) + " * " + step + " + 1 < e; r += " + u + " * " + step +
         ") {");
    for (const size_t s : element_slots(walk)) {
      if (is_indexed(s)) continue;
      line("td_pack<" + element_type(s) + ", 2> w" + num(s) + "[" + u + "];");
    }
    line("TD_UNROLLED");
    line("for (int u = 0; u < " + u + "; ++u) {");
    for (const size_t s : element_slots(walk))
      if (is_load(s) && !is_indexed(s))
        line("w" + num(s) + "[u] = td_read<2>(" + slot_name(s) + " + r + u * " + step + ");");
    line("}");
    line("TD_UNROLLED");
    line("for (int u = 0; u < " + u + "; ++u) {");
    line(call("r + u * " + step, 0, low));
    line(call("r + u * " + step + " + 1", 1, high));
    for (const int32_t st : walk.stores) {
      const size_t s = k_.loads.size() + at(st);
      line("td_write<2>(" + slot_name(s) + " + r + u * " + step + ", w" + num(s) + "[u]);");
    }
    line("}");
    line("}");
    line("}");
  }
  line("for (; r + 1 < e; r += " + step + ") {");
  line(call("r", -1, low));
  line(call("r + 1", -1, high));
  line("}");
  line("if (r < e) " + call("r", -1, low));
}

void CudaPrinter::row_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name, has_pairs(walk));
  if (walk.reductions.empty()) {
    line("{");
    line("td_i64 r = 2 * (member * 32 + lane);");
    line("const td_i64 e = end;");
    line("const int step = team * 64;");
    row_elements(walk, name, "step", "", "");
    line("}");
    return;
  }
  std::string low, high;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " t" + num(r) + " = " + identity(red) + ";");
    low += ", low" + num(r);
    high += ", high" + num(r);
  }
  line("TD_ROLLED");
  line("for (td_i64 b = 0; b * " + num(kRowBlock) + " < n; b += team) {");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " low" + num(r) + " = " + identity(red) + ", high" + num(r) + " = " +
         identity(red) + ";");
  }
  line("td_i64 r = (b + member) * " + num(kRowBlock) + " + 2 * lane;");
  line("const td_i64 e = td_least((b + member + 1) * " + num(kRowBlock) + ", end);");
  row_elements(walk, name, "64", low, high);
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line("const " + accumulator(red) + " a" + num(r) + " = td_warp_" + reduce_name(red.op) + "(low" + num(r) +
         ", high" + num(r) + ", width);");
  }
  line("if (!together) {");
  for (const int32_t r : walk.reductions)
    line("t" + num(r) + " = b == 0 ? a" + num(r) + " : " +
         combine_text(k_.reductions[at(r)], "t" + num(r), "a" + num(r)) + ";");
  line("continue;");
  line("}");
  join_blocks(walk, "(n + " + num(kRowBlock - 1) + ") / " + num(kRowBlock), "");
  line("}");
}

// A warp for each block of a row: the one that comes last to a row joins the results of its blocks, in order.
void CudaPrinter::split_row() {
  const auto single =
      std::find_if(plan_.walks.begin(), plan_.walks.end(), [](const CudaWalk& w) { return w.walks(); });
  const CudaWalk& walk = *single;
  const std::string block = num(kRowBlock);
  line("const td_i64 n = " + reduced_size() + ", parts = (n + " + num(kRowBlock - 1) + ") / " + block + ";");
  line("const int lane = threadIdx.x;");
  if (const std::string condition = pairs_condition(); !condition.empty())
    line("const bool paired = " + condition + ";");
  std::string low, high;
  for (size_t i = 0; i < walk.reductions.size(); ++i) {
    const std::string r = num(walk.reductions[i]), type = accumulator(k_.reductions[at(walk.reductions[i])]);
    line(type + "* const z" + r + " = (" + type + "*)(all.parts + " + num(i * kCudaPartBytes) +
         " * count * parts);");
    low += ", low" + r;
    high += ", high" + r;
  }
  line("TD_ROLLED");
  line("for (td_i64 part = blockIdx.x; part < count * parts; part += gridDim.x) {");
  line("const td_i64 at = part / parts, b = part - at * parts;");
  coordinates();
  pointers();
  for (auto w = plan_.walks.begin(); w <= single; ++w) rows_before(*w);
  body(walk, "walk0", has_pairs(walk));
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " low" + num(r) + " = " + identity(red) + ", high" + num(r) + " = " +
         identity(red) + ";");
  }
  line("td_i64 r = b * " + block + " + 2 * lane;");
  line("const td_i64 e = td_least((b + 1) * " + block + ", n);");
  row_elements(walk, "walk0", "64", low, high);
  for (const int32_t r : walk.reductions) {
    line("const " + accumulator(k_.reductions[at(r)]) + " a" + num(r) + " = td_warp_" +
         reduce_name(k_.reductions[at(r)].op) + "(low" + num(r) + ", high" + num(r) + ", 32);");
    line("if (lane == 0) z" + num(r) + "[part] = a" + num(r) + ";");
  }
  line("if (!td_is_last(all.counters + at, parts)) continue;");
  for (const int32_t r : walk.reductions)
    line(accumulator(k_.reductions[at(r)]) + " t" + num(r) + " = td_fresh(z" + num(r) + " + at * parts);");
  line("_Pragma(\"unroll 16\")");
  line("for (td_i64 w = 1; w < parts; ++w) {");
  for (const int32_t r : walk.reductions)
    line("t" + num(r) + " = " +
         combine_text(k_.reductions[at(r)], "t" + num(r), "td_fresh(z" + num(r) + " + at * parts + w)") +
         ";");
  line("}");
  for (auto w = single + 1; w < plan_.walks.end(); ++w) rows_before(*w);
  row_stores("lane == 0");
  line("}");
}

}  // namespace tandem::jit
