// Few long rows or columns, split over the grid: each warp has some blocks of rows of the tree (kernel.h) of
// one row, or of columns side by side, and leaves their results in memory. The warp that comes last joins
// them, in order. It needs one walk: a part knows nothing of what the others give.
#include <algorithm>

#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

namespace {

constexpr size_t kUnderWay = 32;  // results of blocks that a thread reads before it joins them

size_t at(int64_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}

}  // namespace

// Where the parts of all rows or columns lie, for each reduction.
void CudaPrinter::parts_of(const CudaWalk& walk) {
  line("char* place = all.parts;");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string type = accumulator(red);
    line(type + "* const z" + num(r) + " = (" + type + "*)place;");
    line("place += (count * parts * " + num(cuda_part_bytes(k_, red)) + " + 15) / 16 * 16;");
  }
}

// The parts of a row or column from `first`, one every `step`.
void CudaPrinter::join_parts(const CudaWalk& walk, const std::string& first, const std::string& step) {
  const auto part = [&](int32_t r, const std::string& w) {
    return "td_fresh(z" + num(r) + " + " + first + " + " + w + " * " + step + ")";
  };
  for (const int32_t r : walk.reductions)
    line(accumulator(k_.reductions[at(r)]) + " t" + num(r) + " = " + part(r, "0") + ";");
  line("_Pragma(\"unroll " + num(std::max<size_t>(1, kUnderWay / walk.reductions.size())) + "\")");
  line("for (td_i64 w = 1; w < parts; ++w) {");
  for (const int32_t r : walk.reductions)
    line("t" + num(r) + " = " + combine_text(k_.reductions[at(r)], "t" + num(r), part(r, "w")) + ";");
  line("}");
}

void CudaPrinter::split_row() {
  const CudaWalk& walk = plan_.walks[0];
  const std::string block = num(kRowBlock);
  line("const td_i64 n = " + reduced_size() + ", parts = (n + " + num(kRowBlock - 1) + ") / " + block + ";");
  line("const int width = " + num(kLanes / cuda_lanes(k_)) + ", lane = threadIdx.x % width;");
  line("const int member = threadIdx.x / width, team = 32 / width;");
  line("const td_i64 warps = (parts + team - 1) / team;  // of a row");
  packs_condition();
  parts_of(walk);
  line("TD_ROLLED");
  line("for (td_i64 unit = blockIdx.x; unit < count * warps; unit += gridDim.x) {");
  line("const td_i64 at = unit / warps, b = (unit - at * warps) * team + member;");
  coordinates();
  pointers();
  rows_before(walk);
  body(walk, "walk0", has_packs(walk));
  row_lanes(walk);
  line("td_i64 r = b * " + block + " + start;");
  line("const td_i64 e = td_least((b + 1) * " + block + ", n);");
  row_elements(walk, "walk0", num(kLanes));
  row_join(walk);
  line("if (lane == 0 && b < parts) {");
  for (const int32_t r : walk.reductions)
    line("td_leave(z" + num(r) + " + at * parts + b, a" + num(r) + ");");
  line("}");
  line("if (!td_is_last(all.counters + at, warps)) continue;");
  row_loads("threadIdx.x == 0");
  join_parts(walk, "at * parts", "1");
  row_stores();
  line("}");
}

void CudaPrinter::split_column() {
  const CudaWalk& walk = plan_.walks[0];
  const std::string block = num(kColumnBlock);
  line("const td_i64 n = " + reduced_size() + ", parts = (n + " + num(kColumnBlock - 1) + ") / " + block +
       ";");
  line("const int width = td_column_width(count, n, " + num(cuda_few_columns(k_)) + ");");
  line("const int lane = threadIdx.x % width, member = threadIdx.x / width, team = 32 / width;");
  line("const td_i64 warps = (parts + team - 1) / team;  // of a group of columns");
  line("const td_i64 groups = (count + width - 1) / width;");
  parts_of(walk);
  line("TD_ROLLED");
  line("for (td_i64 unit = blockIdx.x; unit < groups * warps; unit += gridDim.x) {");
  line("const td_i64 group = unit / warps, b = (unit - group * warps) * team + member;");
  line("const bool inside = group * width + lane < count;  // the others keep the warp together");
  line("const td_i64 at = inside ? group * width + lane : count - 1;");
  if (k_.kept_rank == 1 && plan_.uses_index) line("const td_i64 outer = 0;");
  coordinates();
  pointers();
  rows_before(walk);
  body(walk, "walk0", k_.reduced_rank == 1);
  std::string accumulators;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " a" + num(r) + " = " + identity(red) + ";");
    accumulators += ", a" + num(r);
  }
  line("td_i64 r = b * " + block + ";");
  line("const td_i64 e = inside ? td_least((b + 1) * " + block + ", n) : 0;");
  column_elements(walk, "walk0", "1", accumulators);
  line("if (inside && b < parts) {");
  for (const int32_t r : walk.reductions)
    line("td_leave(z" + num(r) + " + b * count + at, a" + num(r) + ");");
  line("}");
  line("if (!td_is_last(all.counters + group, warps)) continue;");
  row_loads("inside && member == 0");
  join_parts(walk, "at", "count");
  row_stores();
  line("}");
}

}  // namespace tandem::jit
