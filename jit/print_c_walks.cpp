// Walks over the reduced dimensions. A row has 64 lanes: four vectors, taken in turn. Columns are walked in
// panels whose accumulators stay in L1; in a panel, tiles of a few rows by 64 columns, so that memory is read
// along its rows. Rows that lie side by side are walked as columns that have 64 lanes each.
#include <algorithm>
#include <bit>
#include <limits>

#include "tandem/jit/print_c_printer.h"

namespace tandem::jit {

using ops::ScalarOp;

namespace {

constexpr int64_t kRowBuffer = 4096;  // elements: what lies beyond them is computed again
constexpr int kCostly = 20;           // an exp, say, beside an addition
constexpr int kUnrolledCost = 64;     // cheaper walks over rows get a body per accumulator
constexpr int64_t kPanel = 1024;      // columns; fewer where many accumulators would leave L1
constexpr int64_t kManyPanel = 256;
constexpr int64_t kLanePanel = 64;  // of rows side by side
constexpr int64_t kManyLanePanel = 16;
constexpr size_t kManyReductions = 4;
constexpr int kTileRows = 8;

const CPlace kColumns{"j + 16 * u", "", "n", "", true};

size_t at(int32_t i) { return static_cast<size_t>(i); }
std::string num(int64_t v) { return std::to_string(v); }
}  // namespace

// What accumulation starts from: for lanes, or for the total of a row.
std::string CPrinter::identity(const Reduction& r, bool vector) const {
  const DType type = k_.scalars[r.input].type;
  if (finds_index(r.op)) return std::string("td_none<") + (vector ? c_vector(type) : c_scalar(type)) + ">()";
  const std::string value = identity_text(r.op, type);
  return vector ? std::string("td_splat_") + c_suffix(type) + "(" + value + ")" : value;
}

std::string CPrinter::accumulator(const Reduction& r, bool vector) const {
  const DType t = k_.scalars[r.input].type;
  const std::string type = vector ? c_vector(t) : c_scalar(t);
  return finds_index(r.op) ? "td_best<" + type + ">" : type;
}

// `masked`: only the first n lanes take part.
void CPrinter::accumulate(int32_t r, const std::string& acc, const std::string& position, bool masked) {
  const Reduction& red = k_.reductions[at(r)];
  const std::string value = t_.name(red.input, true);
  const std::string next = finds_index(red.op) ? std::string("td_") + reduce_name(red.op) + "(" + acc + ", " +
                                                     value + ", " + position + ")"
                                               : combine_text(red, acc, value);
  t_.line(acc + " = " + (masked ? "td_first(n, " + next + ", " + acc + ")" : next) + ";");
}

void CPrinter::row() {
  for (const int32_t i : plan_.buffered)
    t_.line(std::string(c_vector(k_.scalars[i].type)) + " k" + num(i) + "[" + num(kRowBuffer / 16) + "];");
  counters(k_.kept_rank, "a->begin");
  if (k_.reduced_rank > 1) {
    std::string size, declared;
    for (int d = k_.kept_rank; d < rank(); ++d) {
      size += (size.empty() ? "d" : " * d") + num(d);
      declared += (declared.empty() ? "e" : ", e") + num(d);
    }
    t_.line("const td_i64 size = " + size + ";");
    t_.line("td_i64 " + declared + ";");
  }
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const std::string type = c_scalar(k_.scalars[k_.across[c].input].type);
    t_.line(type + "* const y" + num(static_cast<int64_t>(c)) + " = (" + type + "*)a->buffers[" +
            num(k_.across[c].buffer) + "];");
  }
  t_.line("for (td_i64 at = a->begin; at < a->end; ++at) {");
  pointers(k_.kept_rank, "");
  begin_block();
  for (const CPass& pass : plan_.passes) {
    for (const int32_t i : pass.before) t_.node(i, {});
    if (pass.walks()) row_walk(pass);
  }
  for (const int32_t s : plan_.row_stores) t_.store(s, {});
  advance(k_.kept_rank);
  t_.line("}");
}

// Where the row's block leaves its results; the first row of a block begins them.
void CPrinter::begin_block() {
  if (k_.across.empty()) return;
  const std::string d = "d" + num(k_.kept_rank), block = num(kColumnBlock);
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const std::string n = num(static_cast<int64_t>(c));
    t_.line(std::string(c_scalar(k_.scalars[k_.across[c].input].type)) + "* const z" + n + " = y" + n +
            " + at / " + block + " * " + d + ";");
  }
  t_.line("if (at % " + block + " == 0) {");
  t_.line("for (td_i64 r = 0; r < " + d + "; r += 16) {");
  t_.line("const td_i64 n = td_least(16, " + d + " - r);");
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const Reduction as = reduction(k_.across[c]);
    t_.line(std::string("td_store_") + c_suffix(as.type) + "(z" + num(static_cast<int64_t>(c)) + " + r, " +
            identity(as) + ", n);");
  }
  t_.line("}");
  t_.line("}");
}

Reduction CPrinter::reduction(const Across& c) const { return {c.op, c.input, k_.scalars[c.input].type}; }

// A walk's main loop has a body for each of the four accumulators, so that they stay in registers, and knows
// that the row's buffer holds what it reads and writes. What is left of the row, what lies beyond the buffer,
// and the whole of a walk whose bodies would be too much code, take one vector after another.
void CPrinter::row_walk(const CPass& pass) {
  const std::string d = row_size();
  const std::string body = "walk" + num(&pass - plan_.passes.data());
  const bool buffer = !pass.rereads.empty() || !pass.written.empty();
  std::string parameters = buffer ? ", const bool keep" : "";
  for (const int32_t r : pass.reductions)
    parameters += ", " + accumulator(k_.reductions[at(r)]) + "& a" + num(r);
  t_.line("const auto " + body + " = [&](const td_i64 r, const td_i64 n" + parameters + ") TD_INLINE {");
  row_body(pass);
  t_.line("};");
  const auto lanes = [](int32_t r) {
    const std::string a = "a" + num(r) + "_";
    return a + "0, " + a + "1, " + a + "2, " + a + "3";
  };
  const auto call = [&](const std::string& r, const std::string& n, bool main, const std::string& lane) {
    std::string text = body + "(" + r + ", " + n;
    if (buffer) text += main ? ", true" : ", r < " + num(kRowBuffer);
    for (const int32_t i : pass.reductions) text += ", a" + num(i) + lane;
    return text + ");";
  };
  const auto walk = [&](const std::string& e) {
    if (k_.reduced_rank == 1 && cost(pass) <= kUnrolledCost) {
      const std::string most = buffer ? "td_least(" + e + ", " + num(kRowBuffer) + ")" : e;
      t_.line("for (; r + 64 <= " + most + "; r += 64) {");
      for (int u = 0; u < 4; ++u) t_.line(call("r + " + num(16 * u), "16", true, "_" + num(u)));
      t_.line("}");
    }
    t_.line("if (r < " + e + ") {");
    for (const int32_t i : pass.reductions)
      t_.line(accumulator(k_.reductions[at(i)]) + " a" + num(i) + "[4] = {" + lanes(i) + "};");
    t_.line("TD_ROLLED");
    t_.line("for (; r + 16 <= " + e + "; r += 16) " + call("r", "16", false, "[r / 16 % 4]"));
    t_.line("if (r < " + e + ") " + call("r", e + " - r", false, "[r / 16 % 4]"));
    for (const int32_t i : pass.reductions)
      for (int u = 0; u < 4; ++u)
        t_.line("a" + num(i) + "_" + num(u) + " = a" + num(i) + "[" + num(u) + "];");
    t_.line("}");
  };
  for (int d = k_.kept_rank; k_.reduced_rank > 1 && d < rank(); ++d) t_.line("e" + num(d) + " = 0;");
  if (pass.reductions.empty()) {
    t_.line("{");
    t_.line("td_i64 r = 0;");
    walk(d);
    t_.line("}");
    return;
  }
  for (const int32_t r : pass.reductions)
    t_.line(accumulator(k_.reductions[at(r)], false) + " t" + num(r) + " = " +
            identity(k_.reductions[at(r)], false) + ";");
  t_.line("for (td_i64 b = 0; b < " + d + "; b += " + num(kRowBlock) + ") {");
  t_.line("const td_i64 e = td_least(b + " + num(kRowBlock) + ", " + d + ");");
  t_.line("td_i64 r = b;");
  for (const int32_t r : pass.reductions) {
    const std::string a = "a" + num(r), id = identity(k_.reductions[at(r)]);
    t_.line(accumulator(k_.reductions[at(r)]) + " " + a + "_0 = " + id + ", " + a + "_1 = " + id + ", " + a +
            "_2 = " + id + ", " + a + "_3 = " + id + ";");
  }
  walk("e");
  for (const int32_t r : pass.reductions) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string total = "t" + num(r), all = "l" + num(r),
                      joined = std::string("td_lanes_") + reduce_name(red.op) + "(" + all + ")";
    t_.line("const " + accumulator(red) + " " + all + "[4] = {" + lanes(r) + "};");
    t_.line(total + " = b == 0 ? " + joined + " : " + combine_text(red, total, joined) + ";");
  }
  t_.line("}");
}

int CPrinter::cost(const CPass& pass) const {
  int sum = 0;
  for (const int32_t i : pass.nodes) sum += is_costly(k_.scalars[i].op) ? kCostly : 1;
  return sum;
}

// While a walk has much to do in the first-level cache nothing comes from memory: of large operands the next
// row does then.
void CPrinter::fetch_next_row(const CPass& pass, const std::string& position) {
  if (k_.kept_rank == 0 || &pass == plan_.passes.data()) return;
  const bool computes = cost(pass) >= kCostly && pass.rereads.empty();
  if (!pass.across && !computes) return;
  for (size_t s = 0; s < k_.loads.size(); ++s)
    if (slot_used(s) && load(s).large && load(s).inner == Inner::contiguous && load(s).index < 0 &&
        !load(s).row_level)
      t_.line("__builtin_prefetch(" + slot_pointer(s) + " + " + t_.stride(s, k_.kept_rank - 1) + " + " +
              position + ");");
}

void CPrinter::row_body(const CPass& pass) {
  const bool several = k_.reduced_rank > 1;
  const CPlace place{
      several ? "" : "r", several ? "q" : "", "n", "at * " + row_size() + " + r", false, several};
  if (several) {
    row_offsets(pass);
  } else {
    fetch_ahead(pass, "r");
    fetch_next_row(pass, "r");
  }
  size_t next_reread = 0, next_written = 0;
  for (const int32_t i : pass.nodes) {
    const std::string label = num(i);
    if (next_reread < pass.rereads.size() && pass.rereads[next_reread].node == i) {
      t_.line(std::string(c_vector(k_.scalars[i].type)) + " v" + label + ";");
      t_.line("if (keep) {");
      t_.line("v" + label + " = k" + label + "[r / 16];");
      t_.line("} else {");
      for (const int32_t again : pass.rereads[next_reread].again) t_.node(again, place);
      t_.line("v" + label + " = " + t_.value(i, place) + ";");
      t_.line("}");
      ++next_reread;
    } else {
      t_.node(i, place);
    }
    if (next_written < pass.written.size() && pass.written[next_written] == i) {
      t_.line("if (keep) k" + label + "[r / 16] = v" + label + ";");
      ++next_written;
    }
  }
  for (const int32_t s : pass.stores) t_.store(s, place);
  for (const int32_t r : pass.reductions) accumulate(r, "a" + num(r), "td_iota(r)", true);
  if (several) {
    const int inner = rank() - 1;
    const std::string e = "e" + num(inner), size = "d" + num(inner);
    t_.line(e + " += n;");
    t_.raw("while (" + e + " >= " + size + ") { " + e + " -= " + size + "; " +
           c_step("e", k_.kept_rank, inner) + " }");
  }
  if (!pass.across) return;
  for (size_t c = 0; c < k_.across.size(); ++c) {
    const Reduction as = reduction(k_.across[c]);
    const std::string z = "z" + num(static_cast<int64_t>(c)) + " + r", suffix = c_suffix(as.type);
    const std::string so_far = "td_load_" + suffix + "(" + z + ", n)";
    t_.line("td_store_" + suffix + "(" + z + ", " + combine_text(as, so_far, t_.name(as.input, true)) +
            ", n);");
  }
}

// Where the operands and results of the position stand, of several reduced dimensions, and those of each lane
// where the innermost dimension ends within them.
void CPrinter::row_offsets(const CPass& pass) {
  std::vector<size_t> used;
  const auto use = [&](const std::vector<int32_t>& nodes) {
    for (const int32_t i : nodes) {
      if (k_.scalars[i].op != ScalarOp::load) continue;
      const auto s = static_cast<size_t>(k_.scalars[i].bits);
      if (!load(s).row_level && std::find(used.begin(), used.end(), s) == used.end()) used.push_back(s);
    }
  };
  use(pass.nodes);
  for (const Reread& r : pass.rereads) use(r.again);
  for (const int32_t s : pass.stores) used.push_back(t_.store_slot(s));
  const auto offset = [&](size_t s, const std::string& counter) {
    std::string text;
    for (int d = k_.kept_rank; d < rank(); ++d) {
      const bool inner = d == rank() - 1;
      if (inner && slot_inner(s) == Inner::constant && is_load(s)) continue;
      text += (text.empty() ? "" : " + ") + counter + num(d);
      if (!inner || slot_inner(s) != Inner::contiguous) text += " * " + t_.stride(s, d);
    }
    return text;
  };
  const std::string inner = num(rank() - 1);
  t_.line("const bool whole = e" + inner + " + n <= d" + inner + ";");
  for (const size_t s : used)
    t_.line("const td_i64 q" + num(static_cast<int64_t>(s)) + " = " + offset(s, "e") + ";");
  for (const size_t s : used) t_.line("td_i64 h" + num(static_cast<int64_t>(s)) + "[16];");
  t_.line("if (!whole) {");
  for (int d = k_.kept_rank; d < rank(); ++d) t_.line("td_i64 i" + num(d) + " = e" + num(d) + ";");
  t_.line("for (td_i64 l = 0; l < n; ++l) {");
  for (const size_t s : used) t_.line("h" + num(static_cast<int64_t>(s)) + "[l] = " + offset(s, "i") + ";");
  t_.raw(c_step("i", k_.kept_rank, rank()));
  t_.line("}");
  t_.line("}");
}

// Panels of columns, whose accumulators stay in L1; in a panel, tiles of a few rows by 64 columns, so that
// memory is read along its rows.
void CPrinter::column() {
  const bool many = k_.reductions.size() > kManyReductions, lanes = k_.side_by_side;
  const int64_t panel = lanes ? (many ? kManyLanePanel : kLanePanel) : many ? kManyPanel : kPanel;
  open_segments(panel);
  std::string rows = "d" + num(k_.kept_rank);
  for (int d = k_.kept_rank + 1; d < rank(); ++d) rows += " * d" + num(d);
  t_.line("const td_i64 rows = " + rows + ";");
  for (const CPass& pass : plan_.passes)
    for (const int32_t r : pass.reductions) {
      const Reduction& red = k_.reductions[at(r)];
      t_.line(accumulator(red) + " t" + num(r) + "[" + num(panel / 16) + "], a" + num(r) + "[" +
              num(panel / 16 * (lanes ? kLanes : 1)) + "];");
      t_.line("for (td_i64 x = 0; x * 16 < count; ++x) t" + num(r) + "[x] = " + identity(red) + ";");
    }
  for (const CPass& pass : plan_.passes)
    if (pass.walks()) column_walk(pass);
  if (!plan_.row_stores.empty()) {
    t_.line("for (td_i64 j = 0, u = 0; j < count; j += 16) {");
    t_.line("const td_i64 n = td_least(16, count - j);");
    column_values(plan_.row_values, "1");
    for (const int32_t s : plan_.row_stores) t_.store(s, kColumns);
    t_.line("}");
  }
  close_segments();
}

void CPrinter::column_values(const std::vector<int32_t>& values, const std::string& size) {
  for (const int32_t i : values) {
    t_.line(std::string(c_vector(k_.scalars[i].type)) + " v" + num(i) + "[" + size + "];");
    t_.set_array(i);
  }
  if (values.empty()) return;
  const bool loop = size != "1";
  if (loop) t_.line("for (int u = 0; u < m; ++u) {");
  for (const int32_t i : values) t_.node(i, kColumns);
  if (loop) t_.line("}");
}

void CPrinter::column_walk(const CPass& pass) {
  const auto for_reductions = [&](const auto& f) {
    for (const int32_t r : pass.reductions) f(k_.reductions[at(r)], num(r));
  };
  const bool lanes = k_.side_by_side;
  const std::string block = k_.in_order ? "rows" : num(lanes ? kRowBlock : kColumnBlock);
  const std::string first = lanes ? "a%[x * " + num(kLanes) + "]" : "a%[x]";  // of a vector of columns
  const auto named = [](std::string text, const std::string& r) {
    return text.replace(text.find('%'), 1, r);
  };
  t_.line("for (td_i64 b = 0; b < rows; b += " + block + ") {");
  t_.line("const td_i64 e = td_least(b + " + block + ", rows);");
  for_reductions([&](const Reduction& red, const std::string& r) {
    const std::string all = lanes ? "x < (count + 15) / 16 * " + num(kLanes) : "x * 16 < count";
    t_.line("for (td_i64 x = 0; " + all + "; ++x) a" + r + "[x] = " + identity(red) + ";");
  });
  // Accumulators cost little beside an expensive function, and memory is best read row by row.
  const int tile = k_.reduced_rank == 1 && cost(pass) >= kCostly ? 1 : kTileRows;
  t_.line("for (td_i64 g = b; g < e; g += " + num(tile) + ") {");
  t_.line("const td_i64 h = td_least(g + " + num(tile) + ", e);");
  t_.line("const auto tile = [&](const td_i64 j, const int m, const td_i64 n) TD_INLINE {");
  column_values(pass.before, "4");
  for_reductions([&](const Reduction& red, const std::string& r) {
    if (lanes) return;
    t_.line(accumulator(red) + " l" + r + "[4];");
    t_.line("for (int u = 0; u < m; ++u) l" + r + "[u] = a" + r + "[j / 16 + u];");
  });
  if (k_.reduced_rank > 1) reduced_counters();
  t_.line("for (td_i64 r = g; r < h; ++r) {");
  column_body(pass);
  t_.line("}");
  for_reductions([&](const Reduction&, const std::string& r) {
    if (!lanes) t_.line("for (int u = 0; u < m; ++u) a" + r + "[j / 16 + u] = l" + r + "[u];");
  });
  t_.line("};");
  t_.line("td_i64 j = 0;");
  t_.line("for (; j + 64 <= count; j += 64) tile(j, 4, 16);");
  t_.line("for (; j < count; j += 16) tile(j, 1, td_least(16, count - j));");
  t_.line("}");
  for_reductions([&](const Reduction& red, const std::string& r) {
    const std::string total = "t" + r + "[x]", of_block = named(first, r);
    t_.line("for (td_i64 x = 0; x * 16 < count; ++x) {");
    if (lanes) {
      t_.line(accumulator(red) + "* const l = &" + of_block + ";");
      t_.line("for (int half = " + num(kLanes / 2) + "; half > 0; half /= 2)");
      t_.line("for (int i = 0; i < half; ++i) l[i] = " + combine_text(red, "l[i]", "l[i + half]") + ";");
    }
    t_.line(total + " = b == 0 ? " + of_block + " : " + combine_text(red, total, of_block) + ";");
    t_.line("}");
  });
  t_.line("}");
}

void CPrinter::reduced_counters() {
  std::string from = "g";
  for (int d = rank() - 1; d >= k_.kept_rank; --d) {
    t_.line("td_i64 e" + num(d) + " = " + (d == k_.kept_rank ? from : from + " % d" + num(d)) + ";");
    from += " / d" + num(d);
  }
}

void CPrinter::column_body(const CPass& pass) {
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s) || slot_row_level(s)) continue;
    std::string text;
    for (int d = k_.kept_rank; d < rank(); ++d)
      text += (text.empty() ? "" : " + ") + ((k_.reduced_rank > 1 ? "e" + num(d) : "r") + " * ") +
              t_.stride(s, d);
    t_.line("const td_i64 q" + num(static_cast<int64_t>(s)) + " = " + text + ";");
  }
  for (const int32_t i : pass.nodes)
    if (!plan_.is_vector(i)) t_.node(i, {"", "q", "n", "", false});
  t_.line("for (int u = 0; u < m; ++u) {");
  const CPlace place{"j + 16 * u", "q", "n", "", false};
  for (const int32_t i : pass.nodes)
    if (plan_.is_vector(i)) t_.node(i, place);
  for (const int32_t s : pass.stores) t_.store(s, place);
  for (const int32_t r : pass.reductions) {
    const std::string lane = "a" + num(r) + "[(j / 16 + u) * " + num(kLanes) + " + r % " + num(kLanes) + "]";
    accumulate(r, k_.side_by_side ? lane : "l" + num(r) + "[u]", "td_splat_i64(r)", false);
  }
  t_.line("}");
  if (k_.reduced_rank > 1) t_.raw(c_step("e", k_.kept_rank, rank()));
}

}  // namespace tandem::jit
