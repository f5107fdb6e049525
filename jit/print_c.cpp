// One function per kernel. A pointwise or column kernel walks its range of the kept dimensions in segments along the
// innermost one; a row kernel walks it row by row. Inside, 16 lanes are one vector; bodies are lambdas that are inlined
// twice, for 16 lanes (the count is then a constant, and loads are plain) and for a rest. Names: p, o: where loads and
// stores stand; s: strides; c: counters of the kept dimensions; q: offsets of the reduced position; v: values; w: the
// vector of a scalar; x: checked offsets of indexed loads, n, m their extents and strides; k: row buffers.
#include <algorithm>
#include <bit>
#include <limits>

#include "tandem/jit/print_c_text.h"

namespace tandem::jit {

extern const char kPreludeText[];

namespace {

using ops::ScalarNode;
using ops::ScalarOp;

constexpr int64_t kRowBuffer = 4096;  // elements: longer rows compute again
constexpr int64_t kPanel = 1024;      // columns
constexpr int kTileRows = 8;
constexpr int kCheapNodes = 12;       // walks of at most so many cheap nodes are unrolled by hand

size_t at(int32_t i) { return static_cast<size_t>(i); }
std::string num(int64_t v) { return std::to_string(v); }
const char* element(DType t) { return t == DType::bool_ ? "td_u8" : c_scalar(t); }
const char* op_name(ReduceOp op) {
  static constexpr const char* kNames[] = {"sum", "prod", "max", "min", "argmax", "argmin"};
  return kNames[static_cast<int>(op)];
}

class Printer {
 public:
  Printer(const Kernel& k, const CPlan& plan) : k_(k), plan_(plan), t_(k, plan) {}

  std::string print(const std::string& symbol) {
    header();
    t_.line("extern \"C\" void " + symbol + "(const td_args* a) {");
    if (k_.kept_rank > 0) {
      t_.line("if (a->begin >= a->end) return;");
    }
    start();
    switch (k_.kind) {
      case KernelKind::pointwise: pointwise(); break;
      case KernelKind::row: row(); break;
      case KernelKind::column: column(); break;
    }
    t_.line("}");
    return std::move(t_.out);
  }

 private:
  int rank() const { return k_.kept_rank + k_.reduced_rank; }
  size_t slots() const { return k_.loads.size() + k_.stores.size(); }
  Inner slot_inner(size_t slot) const {
    return slot < k_.loads.size() ? k_.loads[slot].inner : k_.stores[slot - k_.loads.size()].inner;
  }
  bool slot_row_level(size_t slot) const {
    if (k_.kind == KernelKind::pointwise) return true;
    return slot < k_.loads.size() ? k_.loads[slot].row_level : k_.stores[slot - k_.loads.size()].row_level;
  }
  bool slot_used(size_t slot) const { return slot >= k_.loads.size() || plan_.load_used[slot]; }
  std::string pointer(size_t slot) const {
    return slot < k_.loads.size() ? "p" + num(static_cast<int64_t>(slot)) : "o" + num(static_cast<int64_t>(slot - k_.loads.size()));
  }
  DType slot_type(size_t slot) const {
    return slot < k_.loads.size() ? k_.loads[slot].dtype : k_.stores[slot - k_.loads.size()].dtype;
  }

  void header() {
    std::string name;
    for (const char c : k_.name) name += c >= 32 && c < 127 && c != '\\' ? c : ' ';
    t_.line("// " + name);
    std::string text = to_string(k_);
    for (size_t i = 0; i < text.size();) {
      const size_t end = std::min(text.find('\n', i), text.size());
      t_.line("//   " + text.substr(i, end - i));
      i = end + 1;
    }
  }

  // Base pointers, sizes, strides and the values of the whole call.
  void start() {
    t_.line("td_i64* const error = a->error;");
    for (int d = 0; d < rank(); ++d) t_.line("const td_i64 d" + num(d) + " = a->dims[" + num(d) + "];");
    int64_t offset = 0;
    for (size_t s = 0; s < slots(); ++s) {
      const bool load = s < k_.loads.size();
      const int32_t buffer = load ? k_.loads[s].buffer : k_.stores[s - k_.loads.size()].buffer;
      const std::string type = std::string(load ? "const " : "") + element(slot_type(s)) + "*";
      if (slot_used(s)) {
        t_.line(type + " const b" + pointer(s) + " = (" + type + ")a->buffers[" + num(buffer) + "];");
        for (int d = 0; d < rank(); ++d) {
          if (d >= k_.kept_rank && slot_row_level(s)) continue;
          if (d == t_.inner_dim() && slot_inner(s) == Inner::contiguous) continue;
          t_.line("const td_i64 " + t_.stride(s, d) + " = a->strides[" + num(offset + d) + "];");
        }
        if (load && k_.loads[s].index >= 0) {
          const std::string i = num(static_cast<int64_t>(s));
          t_.line("const td_i64 n" + i + " = a->strides[" + num(offset + rank()) + "], m" + i + " = a->strides[" +
                  num(offset + rank() + 1) + "];");
        }
      }
      offset += rank() + (load && k_.loads[s].index >= 0 ? 2 : 0);
    }
    for (const int32_t i : plan_.whole) t_.node(i, {});
    for (int32_t i = 0; i < k_.scalars.size(); ++i) {
      const ScalarNode& n = k_.scalars[i];
      if (!plan_.live[at(i)] || !t_.draws_in_order(n)) continue;
      t_.line(std::string("td_draws<") + (n.op == ScalarOp::uniform16 ? "td_u16" : "td_u32") + "> g" + num(i) + ";");
    }
  }

  // Counters of kept dimensions [0, dims), from the linear index `from`.
  void counters(int dims, std::string from) {
    for (int d = dims - 1; d >= 0; --d) {
      t_.line("td_i64 c" + num(d) + " = " + (d == 0 ? from : from + " % d" + num(d)) + ";");
      from += " / d" + num(d);
    }
  }
  void advance(int dims) {
    if (dims > 0) t_.raw(step("c", 0, dims));
  }
  // Pointers to where the counters stand; `lane`: the position along the innermost kept dimension, if it has no counter.
  void pointers(int dims, const std::string& lane) {
    for (size_t s = 0; s < slots(); ++s) {
      if (!slot_used(s)) continue;
      const std::string type = std::string(s < k_.loads.size() ? "const " : "") + element(slot_type(s)) + "*";
      std::string text = type + " const " + pointer(s) + " = b" + pointer(s);
      for (int d = 0; d < dims; ++d) text += " + c" + num(d) + " * " + t_.stride(s, d);
      if (!lane.empty()) text += slot_inner(s) == Inner::contiguous ? " + " + lane : " + " + lane + " * " + t_.stride(s, dims);
      t_.line(text + ";");
    }
  }

  // Opens the walk over segments: `i` is the position in the innermost dimension, `count` the elements from there.
  void open_segments(int64_t limit = 0) {
    const int inner = k_.kept_rank - 1;
    const std::string d = "d" + num(inner);
    t_.line("td_i64 i = a->begin % " + d + ";");
    counters(inner, "a->begin / " + d);
    t_.line("for (td_i64 at = a->begin; at < a->end;) {");
    const std::string rest = "td_least(" + d + " - i, a->end - at)";
    t_.line("const td_i64 count = " + (limit > 0 ? "td_least(" + rest + ", " + num(limit) + ")" : rest) + ";");
    limited_ = limit > 0;
    pointers(inner, "i");
    for (const int32_t node : plan_.outer) t_.node(node, {});
  }
  void close_segments() {
    t_.line("at += count;");
    if (limited_) {
      t_.line("i += count;");
      t_.line("if (i == d" + num(k_.kept_rank - 1) + ") {");
    }
    t_.line("i = 0;");
    advance(k_.kept_rank - 1);
    if (limited_) t_.line("}");
    t_.line("}");
  }

  void pointwise() {
    const Pass& pass = plan_.passes[0];
    if (k_.kept_rank == 0) {
      // One element: one lane of the same body.
      pointers(0, "");
      for (const int32_t node : plan_.outer) t_.node(node, {});
      const Place place{"j", "", "n", "j"};
      t_.line("const td_i64 j = 0, n = 1;");
      for (const int32_t node : pass.nodes) t_.node(node, place);
      for (const int32_t s : pass.stores) t_.store(s, place);
      return;
    }
    open_segments();
    const Place place{"j", "", "n", "at + j"};
    t_.line("const auto body = [&](const td_i64 j, const td_i64 n) TD_INLINE {");
    for (const int32_t node : pass.nodes) t_.node(node, place);
    for (const int32_t s : pass.stores) t_.store(s, place);
    t_.line("};");
    t_.line("td_i64 j = 0;");
    t_.line("for (; j + 16 <= count; j += 16) body(j, 16);");
    t_.line("if (j < count) body(j, count - j);");
    close_segments();
  }

  // What accumulation starts from: for lanes, or for the total of a row.
  std::string identity(const Reduction& r, bool vector = true) const {
    const DType type = k_.scalars[r.input].type;
    const std::string t = vector ? c_vector(type) : c_scalar(type);
    if (finds_index(r.op)) return "td_none<" + t + ">()";
    std::string value;
    const auto text = [&](double floating, int64_t integer) {
      const int64_t bits = is_floating(type) ? std::bit_cast<int64_t>(floating) : integer;
      return CText::constant({ScalarOp::constant, type, {-1, -1, -1}, bits});
    };
    constexpr double kInf = std::numeric_limits<double>::infinity();
    switch (r.op) {
      case ReduceOp::sum: value = text(0, 0); break;
      case ReduceOp::prod: value = text(1, 1); break;
      case ReduceOp::max: value = text(-kInf, std::numeric_limits<int64_t>::min()); break;
      case ReduceOp::min: value = text(kInf, std::numeric_limits<int64_t>::max()); break;
      case ReduceOp::argmax:
      case ReduceOp::argmin: break;
    }
    return vector ? std::string("td_splat_") + c_suffix(type) + "(" + value + ")" : value;
  }
  std::string accumulator(const Reduction& r, bool vector = true) const {
    const DType t = k_.scalars[r.input].type;
    const std::string type = vector ? c_vector(t) : c_scalar(t);
    return finds_index(r.op) ? "td_best<" + type + ">" : type;
  }
  // acc = acc joined with another value.
  std::string combine(const Reduction& r, const std::string& a, const std::string& b) const {
    switch (r.op) {
      case ReduceOp::sum: return is_floating(r.type) ? a + " + " + b : "td_add(" + a + ", " + b + ")";
      case ReduceOp::prod: return is_floating(r.type) ? a + " * " + b : "td_mul(" + a + ", " + b + ")";
      case ReduceOp::max: return "td_max(" + a + ", " + b + ")";
      case ReduceOp::min: return "td_min(" + a + ", " + b + ")";
      case ReduceOp::argmax: return "td_join_argmax(" + a + ", " + b + ")";
      case ReduceOp::argmin: return "td_join_argmin(" + a + ", " + b + ")";
    }
    return {};
  }
  // `masked`: only the first n lanes take part.
  void accumulate(int32_t r, const std::string& acc, const std::string& position, bool masked) {
    const Reduction& red = k_.reductions[at(r)];
    const std::string value = t_.name(red.input, true);
    const std::string next = finds_index(red.op) ? std::string("td_") + op_name(red.op) + "(" + acc + ", " + value + ", " + position + ")"
                                                 : combine(red, acc, value);
    t_.line(acc + " = " + (masked ? "td_first(n, " + next + ", " + acc + ")" : next) + ";");
  }

  void row() {
    for (const int32_t i : plan_.buffered)
      t_.line(std::string(c_vector(k_.scalars[i].type)) + " k" + num(i) + "[" + num(kRowBuffer / 16) + "];");
    const std::string d = "d" + num(k_.kept_rank);
    if (!plan_.buffered.empty()) t_.line("const bool keep = " + d + " <= " + num(kRowBuffer) + ";");
    counters(k_.kept_rank, "a->begin");
    t_.line("for (td_i64 at = a->begin; at < a->end; ++at) {");
    pointers(k_.kept_rank, "");
    for (const Pass& pass : plan_.passes) {
      for (const int32_t i : pass.before) t_.node(i, {});
      if (pass.walks()) row_walk(pass);
    }
    for (const int32_t s : plan_.row_stores) t_.store(s, {});
    advance(k_.kept_rank);
    t_.line("}");
  }

  void row_walk(const Pass& pass) {
    const std::string d = "d" + num(k_.kept_rank);
    const std::string body = "walk" + num(&pass - plan_.passes.data());
    std::string parameters;
    for (const int32_t r : pass.reductions)
      parameters += ", " + accumulator(k_.reductions[at(r)]) + "& a" + num(r);
    t_.line("const auto " + body + " = [&](const td_i64 r, const td_i64 n" + parameters + ") TD_INLINE {");
    row_body(pass);
    t_.line("};");
    if (pass.reductions.empty()) {
      t_.line("for (td_i64 r = 0; r + 16 <= " + d + "; r += 16) " + body + "(r, 16);");
      t_.line("if (" + d + " % 16 != 0) " + body + "(" + d + " / 16 * 16, " + d + " % 16);");
      return;
    }
    const bool by_hand = cost(pass) <= kCheapNodes;
    for (const int32_t r : pass.reductions) 
      t_.line(accumulator(k_.reductions[at(r)], false) + " t" + num(r) + " = " + identity(k_.reductions[at(r)], false) + ";");
    t_.line("for (td_i64 b = 0; b < " + d + "; b += " + num(kRowBlock) + ") {");
    t_.line("const td_i64 e = td_least(b + " + num(kRowBlock) + ", " + d + ");");
    t_.line("td_i64 r = b;");
    const auto lanes = [&](const std::string& u) {
      std::string text;
      for (const int32_t r : pass.reductions) text += ", a" + num(r) + u;
      return text;
    };
    if (by_hand) {
      for (const int32_t r : pass.reductions) {
        const std::string a = "a" + num(r), id = identity(k_.reductions[at(r)]);
        t_.line(accumulator(k_.reductions[at(r)]) + " " + a + "_0 = " + id + ", " + a + "_1 = " + id + ", " + a + "_2 = " + id + ", " +
                a + "_3 = " + id + ";");
      }
      t_.line("for (; r + 64 <= e; r += 64) {");
      for (int u = 0; u < 4; ++u) t_.line(body + "(r + " + num(16 * u) + ", 16" + lanes("_" + num(u)) + ");");
      t_.line("}");
      for (const int32_t r : pass.reductions) {
        const std::string a = "a" + num(r);
        t_.line(accumulator(k_.reductions[at(r)]) + " " + a + "[4] = {" + a + "_0, " + a + "_1, " + a + "_2, " + a + "_3};");
      }
    } else {
      for (const int32_t r : pass.reductions) {
        const std::string id = identity(k_.reductions[at(r)]);
        t_.line(accumulator(k_.reductions[at(r)]) + " a" + num(r) + "[4] = {" + id + ", " + id + ", " + id + ", " + id + "};");
      }
      t_.line("for (; r + 64 <= e; r += 64) {");
      t_.line("TD_ROLLED");
      t_.line("for (int u = 0; u < 4; ++u) " + body + "(r + 16 * u, 16" + lanes("[u]") + ");");
      t_.line("}");
    }
    t_.line("TD_ROLLED");
    t_.line("for (int u = 0; r < e; r += 16, ++u) " + body + "(r, td_least(16, e - r)" + lanes("[u]") + ");");
    for (const int32_t r : pass.reductions) {
      const Reduction& red = k_.reductions[at(r)];
      const std::string total = "t" + num(r), lane_total = std::string("td_lanes_") + op_name(red.op) + "(a" + num(r) + ")";
      t_.line("t" + num(r) + " = b == 0 ? " + lane_total + " : " + combine(red, total, lane_total) + ";");
    }
    t_.line("}");
  }

  static int weight(ScalarOp op) { return op >= ScalarOp::exp && op <= ScalarOp::pow ? 20 : 1; }
  int cost(const Pass& pass) const {
    int sum = 0;
    for (const int32_t i : pass.nodes) sum += weight(k_.scalars[i].op);
    return sum;
  }

  void row_body(const Pass& pass) {
    const Place place{"r", "", "n", "at * d" + num(k_.kept_rank) + " + r"};
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
  }

  // Panels of columns, whose accumulators stay in L1; in a panel, tiles of a few rows by 64 columns, so that memory is
  // read along its rows.
  void column() {
    open_segments(kPanel);
    std::string rows = "d" + num(k_.kept_rank);
    for (int d = k_.kept_rank + 1; d < rank(); ++d) rows += " * d" + num(d);
    t_.line("const td_i64 rows = " + rows + ";");
    for (const Pass& pass : plan_.passes)
      for (const int32_t r : pass.reductions) {
        const Reduction& red = k_.reductions[at(r)];
        const std::string size = "[" + num(kPanel / 16) + "]";
        t_.line(accumulator(red) + " t" + num(r) + size + ", a" + num(r) + size + ";");
        t_.line("for (td_i64 x = 0; x * 16 < count; ++x) t" + num(r) + "[x] = " + identity(red) + ";");
      }
    for (const Pass& pass : plan_.passes)
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

  void column_values(const std::vector<int32_t>& values, const std::string& size) {
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

  void column_walk(const Pass& pass) {
    const auto for_reductions = [&](const auto& f) {
      for (const int32_t r : pass.reductions) f(k_.reductions[at(r)], num(r));
    };
    t_.line("for (td_i64 b = 0; b < rows; b += " + num(kColumnBlock) + ") {");
    t_.line("const td_i64 e = td_least(b + " + num(kColumnBlock) + ", rows);");
    for_reductions([&](const Reduction& red, const std::string& r) {
      t_.line("for (td_i64 x = 0; x * 16 < count; ++x) a" + r + "[x] = " + identity(red) + ";");
    });
    t_.line("for (td_i64 g = b; g < e; g += " + num(kTileRows) + ") {");
    t_.line("const td_i64 h = td_least(g + " + num(kTileRows) + ", e);");
    t_.line("const auto tile = [&](const td_i64 j, const int m, const td_i64 n) TD_INLINE {");
    column_values(pass.before, "4");
    for_reductions([&](const Reduction& red, const std::string& r) {
      t_.line(accumulator(red) + " l" + r + "[4];");
      t_.line("for (int u = 0; u < m; ++u) l" + r + "[u] = a" + r + "[j / 16 + u];");
    });
    if (k_.reduced_rank > 1) reduced_counters();
    t_.line("for (td_i64 r = g; r < h; ++r) {");
    column_body(pass);
    t_.line("}");
    for_reductions([&](const Reduction&, const std::string& r) {
      t_.line("for (int u = 0; u < m; ++u) a" + r + "[j / 16 + u] = l" + r + "[u];");
    });
    t_.line("};");
    t_.line("td_i64 j = 0;");
    t_.line("for (; j + 64 <= count; j += 64) tile(j, 4, 16);");
    t_.line("for (; j < count; j += 16) tile(j, 1, td_least(16, count - j));");
    t_.line("}");
    for_reductions([&](const Reduction& red, const std::string& r) {
      t_.line("for (td_i64 x = 0; x * 16 < count; ++x) t" + r + "[x] = b == 0 ? a" + r + "[x] : " +
              combine(red, "t" + r + "[x]", "a" + r + "[x]") + ";");
    });
    t_.line("}");
  }

  void reduced_counters() {
    std::string from = "g";
    for (int d = rank() - 1; d >= k_.kept_rank; --d) {
      t_.line("td_i64 e" + num(d) + " = " + (d == k_.kept_rank ? from : from + " % d" + num(d)) + ";");
      from += " / d" + num(d);
    }
  }

  void column_body(const Pass& pass) {
    for (size_t s = 0; s < slots(); ++s) {
      if (!slot_used(s) || slot_row_level(s)) continue;
      std::string text;
      for (int d = k_.kept_rank; d < rank(); ++d)
        text += (text.empty() ? "" : " + ") + ((k_.reduced_rank > 1 ? "e" + num(d) : "r") + " * ") + t_.stride(s, d);
      t_.line("const td_i64 q" + num(static_cast<int64_t>(s)) + " = " + text + ";");
    }
    for (const int32_t i : pass.nodes)
      if (!plan_.is_vector(i)) t_.node(i, {"", "q", "n", "", false});
    t_.line("for (int u = 0; u < m; ++u) {");
    const Place place{"j + 16 * u", "q", "n", "", false};
    for (const int32_t i : pass.nodes)
      if (plan_.is_vector(i)) t_.node(i, place);
    for (const int32_t s : pass.stores) t_.store(s, place);
    for (const int32_t r : pass.reductions) accumulate(r, "l" + num(r) + "[u]", "td_splat_i64(r)", false);
    t_.line("}");
    if (k_.reduced_rank > 1) t_.raw(step("e", k_.kept_rank, rank()));
  }

  // Advances the counters of dimensions [first, last).
  static std::string step(const std::string& counter, int first, int last) {
    std::string text;
    for (int d = last - 1; d > first; --d)
      text += "if (++" + counter + num(d) + " == d" + num(d) + ") { " + counter + num(d) + " = 0; ";
    text += "++" + counter + num(first) + ";";
    for (int d = last - 1; d > first; --d) text += " }";
    return text;
  }

  inline static const Place kColumns{"j + 16 * u", "", "n", "", true};

  const Kernel& k_;
  const CPlan& plan_;
  CText t_;
  bool limited_ = false;  // segments end before their row does
};

}  // namespace

std::string print_c(const Kernel& k, const std::string& symbol, std::string* why) {
  std::string reason;
  const CPlan plan = plan_c(k, &reason);
  if (why != nullptr) *why = reason;
  return reason.empty() ? Printer(k, plan).print(symbol) : std::string();
}

const std::string& c_prelude() {
  static const auto* const text = new std::string(kPreludeText);
  return *text;
}

}  // namespace tandem::jit
