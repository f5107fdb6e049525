// Walks over the reduced dimensions, and how the results of their blocks are joined: in order, by every
// thread.
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}
}  // namespace

std::string CudaPrinter::identity(const Reduction& r) const {
  const DType type = k_.scalars[r.input].type;
  return finds_index(r.op) ? std::string("td_none<") + c_scalar(type) + ">()" : identity_text(r.op, type);
}

std::string CudaPrinter::accumulator(const Reduction& r) const {
  const std::string type = c_scalar(k_.scalars[r.input].type);
  return finds_index(r.op) ? "td_best<" + type + ">" : type;
}

std::string CudaPrinter::reduced_size() const {
  std::string text;
  for (int d = k_.kept_rank; d < rank(); ++d) text += (text.empty() ? "d" : " * d") + num(d);
  return text;
}

void CudaPrinter::rows_before(const CudaWalk& walk) {
  for (const int32_t i : walk.before) node(i);
}

// What a walk does at reduced position r: with operands and results as parameters if `passed`.
void CudaPrinter::body(const CudaWalk& walk, const std::string& name, bool passed) {
  std::string parameters;
  if (passed) {
    for (const size_t slot : element_slots(walk)) {
      const std::string name = num(slot);
      parameters += by_offset(slot) ? ", const td_i64 q" + name
                                    : (is_load(slot) ? ", const " : ", ") + element_type(slot) +
                                          (is_load(slot) ? " l" : "& l") + name;
    }
  }
  for (const int32_t r : walk.reductions)
    parameters += ", " + accumulator(k_.reductions[at(r)]) + "& a" + num(r);
  for (const int32_t c : walk.across)
    parameters += ", " + accumulator(across_reduction(k_.across[at(c)])) + "& y" + num(c);
  line("const auto " + name + " = [&](const td_i64 r" + parameters + ") TD_INLINE {");
  if (k_.reduced_rank > 1) {
    line("td_i64 left = r;");
    for (int d = rank() - 1; d > k_.kept_rank; --d)
      line("const td_i64 e" + num(d) + " = td_split(left, d" + num(d) + ");");
    line("const td_i64 e" + num(k_.kept_rank) + " = left;");
  }
  if (!passed) offsets(walk);
  passed_ = passed;
  for (const int32_t i : walk.nodes) node(i);
  for (const int32_t s : walk.stores) store(s);
  passed_ = false;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string acc = "a" + num(r), v = "v" + num(red.input);
    line(acc + " = " +
         (finds_index(red.op) ? std::string("td_") + reduce_name(red.op) + "(" + acc + ", " + v + ", r)"
                              : combine_text(red, acc, v)) +
         ";");
  }
  for (const int32_t c : walk.across) {
    const Reduction as = across_reduction(k_.across[at(c)]);
    line("y" + num(c) + " = " + combine_text(as, "y" + num(c), "v" + num(as.input)) + ";");
  }
  line("};");
}

// The results of a round of blocks join the totals. `width`: of columns side by side, whose results lie side
// by side; or nothing: the threads of a member have one result.
void CudaPrinter::join_blocks(const CudaWalk& walk, const std::string& blocks, const std::string& width) {
  const std::string mine = width.empty() ? "member" : "threadIdx.x",
                    other = width.empty() ? "w" : "w * " + width + " + lane";
  const int size = 32 * cuda_team(k_) / (width.empty() ? kLanes / cuda_lanes(k_) : 1);
  for (const int32_t r : walk.reductions)
    line("__shared__ " + accumulator(k_.reductions[at(r)]) + " z" + num(r) + "[" + num(size) + "];");
  if (width.empty()) line("if (lane == 0) {");
  for (const int32_t r : walk.reductions) line("z" + num(r) + "[" + mine + "] = a" + num(r) + ";");
  if (width.empty()) line("}");
  line("__syncthreads();");
  line("const int last = (int)td_least(team, " + blocks + " - b);");
  line("TD_ROLLED");
  line("for (int w = 0; w < last; ++w) {");
  for (const int32_t r : walk.reductions) {
    const std::string z = "z" + num(r) + "[" + other + "]", t = "t" + num(r);
    line(t + " = b + w == 0 ? " + z + " : " + combine_text(k_.reductions[at(r)], t, z) + ";");
  }
  line("}");
  line("__syncthreads();");
}

// At one row or column, or several side by side: all walks, and what is stored of it. Closes the loop over
// these.
void CudaPrinter::place(WalkPrinter print, const std::string& stores) {
  coordinates();
  pointers();
  if (k_.kind == KernelKind::row && k_.across.empty()) fetch_kept();
  int number = 0;
  for (const CudaWalk& walk : plan_.walks) {
    rows_before(walk);
    if (number == 0) row_loads(stores);
    (this->*print)(walk, "walk" + num(number++));
  }
  row_stores();
  line("}");
}

// What a row's stores alone need of memory is under way during the walks, but for the thread that makes them.
void CudaPrinter::row_loads(const std::string& condition) {
  if (plan_.row_stores.empty()) return;
  line("const bool stores = " + condition + ";");
  for (const int32_t i : plan_.row_loads) node(i, "stores");
}

void CudaPrinter::row_stores() {
  if (plan_.row_stores.empty()) return;
  line("if (stores) {");
  for (const int32_t i : plan_.row_values) node(i);
  for (const int32_t s : plan_.row_stores) store(s);
  line("}");
}

void CudaPrinter::column() {
  line("const td_i64 n = " + reduced_size() + ";");
  line("const int width = td_column_width(count, n, " + num(cuda_few_columns(k_)) + ");");
  line("const int lane = threadIdx.x % width, member = threadIdx.x / width, team = blockDim.x / width;");
  line("TD_ROLLED");
  line("for (td_i64 first = (td_i64)block * width; first < count; first += (td_i64)blocks * width) {");
  line("const bool inside = first + lane < count;  // the others keep the block together");
  line("const td_i64 at = inside ? first + lane : count - 1;");
  if (k_.kept_rank == 1 && plan_.uses_index) line("const td_i64 outer = 0;");
  place(&CudaPrinter::column_walk, "inside && member == 0");
}

// Rows r, then those `step` further, up to e: several at a time, all read before any is written, where the
// rows are of one dimension.
void CudaPrinter::column_elements(const CudaWalk& walk, const std::string& name, const std::string& step_text,
                                  const std::string& accumulators) {
  const bool several = k_.reduced_rank == 1;
  const auto place = [&](size_t s, const std::string& r) {
    const std::string offset = slot_row_level(s) ? "" : step(s, k_.kept_rank, r);
    return offset.empty() ? "0" : offset;
  };
  const auto call = [&](const std::string& r, bool read) {
    std::string text = name + "(" + r;
    for (const size_t s : several ? element_slots(walk) : std::vector<size_t>{}) {
      if (by_offset(s))
        text += ", " + place(s, "(" + r + ")");
      else
        text += ", " + (read ? "w" + num(s) + "[u]" : slot_name(s) + "[" + place(s, r) + "]");
    }
    return text + accumulators + ");";
  };
  if (several) {
    const std::string u = num(under_way(walk)), row = "(r + u * " + step_text + ")";
    line("TD_ROLLED");
    line("for (; r + " + num(under_way(walk) - 1) + " * " + step_text + " < e; r += " + u + " * " +
         step_text + ") {");
    for (const size_t s : element_slots(walk))
      if (!by_offset(s)) line(element_type(s) + " w" + num(s) + "[" + u + "];");
    line("TD_UNROLLED");
    line("for (int u = 0; u < " + u + "; ++u) {");
    for (const size_t s : element_slots(walk))
      if (is_load(s) && !by_offset(s))
        line("w" + num(s) + "[u] = " + slot_name(s) + "[" + place(s, row) + "];");
    line("}");
    line("TD_UNROLLED");
    line("for (int u = 0; u < " + u + "; ++u) {");
    line(call("r + u * " + step_text, true));
    for (const int32_t st : walk.stores) {
      const size_t s = k_.loads.size() + at(st);
      line(slot_name(s) + "[" + place(s, row) + "] = w" + num(s) + "[u];");
    }
    line("}");
    line("}");
  }
  line("for (; r < e; r += " + step_text + ") " + call("r", false));
}

void CudaPrinter::column_walk(const CudaWalk& walk, const std::string& name) {
  body(walk, name, k_.reduced_rank == 1);
  if (walk.reductions.empty()) {
    line("{");
    line("td_i64 r = member;");
    line("const td_i64 e = inside ? n : 0;");
    column_elements(walk, name, "team", "");
    line("}");
    return;
  }
  std::string accumulators;
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " t" + num(r) + " = " + identity(red) + ";");
    accumulators += ", a" + num(r);
  }
  const std::string block = k_.in_order ? "n" : num(kColumnBlock);
  line("TD_ROLLED");
  line("for (td_i64 b = 0; b * " + block + " < n; b += team) {");
  for (const int32_t r : walk.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    line(accumulator(red) + " a" + num(r) + " = " + identity(red) + ";");
  }
  line("td_i64 r = (b + member) * " + block + ";");
  line("const td_i64 e = inside ? td_least((b + member + 1) * " + block + ", n) : 0;");
  column_elements(walk, name, "1", accumulators);
  join_blocks(walk, "(n + " + block + " - 1) / " + block, "width");
  line("}");
}

}  // namespace tandem::jit
