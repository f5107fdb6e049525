// Walks over the reduced dimensions, and how the results of their blocks are joined: in order, by every
// thread.
#include <bit>
#include <limits>

#include "tandem/jit/print_c_text.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using ops::ScalarOp;

namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}
const char* op_name(ReduceOp op) {
  static constexpr const char* kNames[] = {"sum", "prod", "max", "min", "argmax", "argmin"};
  return kNames[static_cast<int>(op)];
}

}  // namespace

std::string CudaPrinter::identity(const Reduction& r) const {
  const DType type = k_.scalars[r.input].type;
  if (finds_index(r.op)) return std::string("td_none<") + c_scalar(type) + ">()";
  const auto text = [&](double floating, int64_t integer) {
    const int64_t bits = is_floating(type) ? std::bit_cast<int64_t>(floating) : integer;
    return CText::constant({ScalarOp::constant, type, {-1, -1, -1}, bits});
  };
  constexpr double kInf = std::numeric_limits<double>::infinity();
  switch (r.op) {
    case ReduceOp::sum:
      return text(0, 0);
    case ReduceOp::prod:
      return text(1, 1);
    case ReduceOp::max:
      return text(-kInf, std::numeric_limits<int64_t>::min());
    case ReduceOp::min:
      return text(kInf, std::numeric_limits<int64_t>::max());
    case ReduceOp::argmax:
    case ReduceOp::argmin:
      break;
  }
  return {};
}

std::string CudaPrinter::accumulator(const Reduction& r) const {
  const std::string type = c_scalar(k_.scalars[r.input].type);
  return finds_index(r.op) ? "td_best<" + type + ">" : type;
}

std::string CudaPrinter::combine(const Reduction& r, const std::string& a, const std::string& b) const {
  switch (r.op) {
    case ReduceOp::sum:
      return is_floating(r.type) ? a + " + " + b : "td_add(" + a + ", " + b + ")";
    case ReduceOp::prod:
      return is_floating(r.type) ? a + " * " + b : "td_mul(" + a + ", " + b + ")";
    case ReduceOp::max:
      return "td_max(" + a + ", " + b + ")";
    case ReduceOp::min:
      return "td_min(" + a + ", " + b + ")";
    case ReduceOp::argmax:
      return "td_join_argmax(" + a + ", " + b + ")";
    case ReduceOp::argmin:
      return "td_join_argmin(" + a + ", " + b + ")";
  }
  return {};
}

std::string CudaPrinter::reduced_size() const {
  std::string text;
  for (int d = k_.kept_rank; d < rank(); ++d) text += (text.empty() ? "d" : " * d") + num(d);
  return text;
}

void CudaPrinter::rows_before(const CudaWalk& walk) {
  for (const int32_t i : walk.before) node(i);
}

// What a walk does at reduced position r.
void CudaPrinter::body(const CudaWalk& walk, const std::string& name) {
  std::string parameters;
  for (const int32_t r : walk.reductions)
    parameters += ", " + accumulator(k_.reductions[at(r)]) + "& a" + num(r);
  line("const auto " + name + " = [&](const td_i64 r" + parameters + ") TD_INLINE {");
  if (k_.reduced_rank > 1) {
    line("td_i64 left = r;");
    for (int d = rank() - 1; d > k_.kept_rank; --d)
      line("const td_i64 e" + num(d) + " = td_split(left, d" + num(d) + ");");
    line("const td_i64 e" + num(k_.kept_rank) + " = left;");
  }
  offsets(walk);
  for (const int32_t i : walk.nodes) node(i);
  for (const int32_t s : walk.stores) store(s);
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string acc = "a" + num(r), v = "v" + num(red.input);
    line(acc + " = " +
         (finds_index(red.op) ? std::string("td_") + op_name(red.op) + "(" + acc + ", " + v + ", r)"
                              : combine(red, acc, v)) +
         ";");
  }
  line("};");
}

// The results of a round of blocks, one a warp, join the totals. `lane`: index of the column among 32, or
// nothing: the whole warp has one result.
void CudaPrinter::join_blocks(const CudaWalk& walk, const std::string& blocks, const std::string& lane) {
  const std::string team = num(cuda_team(k_)), place = lane.empty() ? "" : "[" + lane + "]";
  for (const int32_t r : walk.reductions)
    line("__shared__ " + accumulator(k_.reductions[at(r)]) + " z" + num(r) + "[" + team + "]" +
         (lane.empty() ? "" : "[32]") + ";");
  if (lane.empty()) line("if (lane == 0) {");
  for (const int32_t r : walk.reductions) line("z" + num(r) + "[member]" + place + " = a" + num(r) + ";");
  if (lane.empty()) line("}");
  line("__syncthreads();");
  line("const int last = (int)td_least(team, " + blocks + " - b);");
  line("TD_ROLLED");
  line("for (int w = 0; w < last; ++w) {");
  for (const int32_t r : walk.reductions) {
    const std::string z = "z" + num(r) + "[w]" + place, t = "t" + num(r);
    line(t + " = b + w == 0 ? " + z + " : " + combine(k_.reductions[at(r)], t, z) + ";");
  }
  line("}");
  line("__syncthreads();");
}

void CudaPrinter::row_stores(const std::string& condition) {
  if (plan_.row_stores.empty()) return;
  line("if (" + condition + ") {");
  for (const int32_t s : plan_.row_stores) store(s);
  line("}");
}

void CudaPrinter::row() {
  line("const td_i64 n = " + reduced_size() + ";");
  line("const int lane = threadIdx.x % 32, warps = blockDim.x / 32;");
  line("const bool together = n > " + num(kRowBlock) + ";  // the block's warps share one row");
  line("const int team = together ? warps : 1, member = together ? threadIdx.x / 32 : 0;");
  line("const td_i64 step = together ? gridDim.x : (td_i64)gridDim.x * warps;");
  line("TD_ROLLED");
  line(
      "for (td_i64 at = together ? blockIdx.x : (td_i64)blockIdx.x * warps + threadIdx.x / 32; at < count; "
      "at += step) {");
  coordinates();
  pointers();
  int number = 0;
  for (const CudaWalk& walk : plan_.walks) {
    rows_before(walk);
    if (walk.walks()) row_walk(walk, "walk" + num(number++));
  }
  row_stores("lane == 0 && member == 0");
  line("}");
}

void CudaPrinter::row_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name);
  if (walk.reductions.empty()) {
    line("for (td_i64 r = member * 32 + lane; r < n; r += team * 32) " + name + "(r);");
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
  line("td_i64 r = (b + member) * " + num(kRowBlock) + " + lane;");
  line("const td_i64 e = td_least((b + member + 1) * " + num(kRowBlock) + ", n);");
  line("for (; r + 32 < e; r += 64) {");
  line(name + "(r" + low + ");");
  line(name + "(r + 32" + high + ");");
  line("}");
  line("if (r < e) " + name + "(r" + low + ");");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line("const " + accumulator(red) + " a" + num(r) + " = td_warp_" + op_name(red.op) + "(low" + num(r) +
         ", high" + num(r) + ");");
  }
  line("if (!together) {");
  for (const int32_t r : walk.reductions)
    line("t" + num(r) + " = b == 0 ? a" + num(r) + " : " +
         combine(k_.reductions[at(r)], "t" + num(r), "a" + num(r)) + ";");
  line("continue;");
  line("}");
  join_blocks(walk, "(n + " + num(kRowBlock - 1) + ") / " + num(kRowBlock), "");
  line("}");
}

void CudaPrinter::column() {
  line("const td_i64 n = " + reduced_size() + ";");
  line("const int lane = threadIdx.x % 32, member = threadIdx.x / 32, team = blockDim.x / 32;");
  line("TD_ROLLED");
  line("for (td_i64 first = (td_i64)blockIdx.x * 32; first < count; first += (td_i64)gridDim.x * 32) {");
  line("const bool inside = first + lane < count;  // the others keep the block together");
  line("const td_i64 at = inside ? first + lane : count - 1;");
  if (k_.kept_rank == 1 && plan_.uses_index) line("const td_i64 outer = 0;");
  coordinates();
  pointers();
  int number = 0;
  for (const CudaWalk& walk : plan_.walks) {
    rows_before(walk);
    if (walk.walks()) column_walk(walk, "walk" + num(number++));
  }
  row_stores("inside && member == 0");
  line("}");
}

void CudaPrinter::column_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name);
  if (walk.reductions.empty()) {
    line("if (inside) {");
    line("for (td_i64 r = member; r < n; r += team) " + name + "(r);");
    line("}");
    return;
  }
  std::string accumulators;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " t" + num(r) + " = " + identity(red) + ";");
    accumulators += ", a" + num(r);
  }
  line("TD_ROLLED");
  line("for (td_i64 b = 0; b * " + num(kColumnBlock) + " < n; b += team) {");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " a" + num(r) + " = " + identity(red) + ";");
  }
  line("const td_i64 e = inside ? td_least((b + member + 1) * " + num(kColumnBlock) + ", n) : 0;");
  line("for (td_i64 r = (b + member) * " + num(kColumnBlock) + "; r < e; ++r) " + name + "(r" + accumulators +
       ");");
  join_blocks(walk, "(n + " + num(kColumnBlock - 1) + ") / " + num(kColumnBlock), "lane");
  line("}");
}

}  // namespace tandem::jit
