// One function per kernel. A pointwise or column kernel walks its range of the kept dimensions in segments
// along the innermost one; a row kernel walks it row by row. Inside, 16 lanes are one vector; bodies are
// lambdas that are inlined twice, for 16 lanes (the count is then a constant, and loads are plain) and for a
// rest.
#include <algorithm>

#include "tandem/jit/print_c_printer.h"

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

extern const char kPreludeText[];

namespace {
constexpr int64_t kFetchAhead = 256;  // elements

size_t at(int32_t i) { return static_cast<size_t>(i); }
std::string num(int64_t v) { return std::to_string(v); }
}  // namespace

bool CPrinter::slot_row_level(size_t slot) const {
  if (k_.kind == KernelKind::pointwise) return true;
  return is_load(slot) ? load(slot).row_level : store(slot).row_level;
}

std::string CPrinter::slot_pointer_type(size_t slot) const {
  const DType type = is_load(slot) ? load(slot).dtype : store(slot).dtype;
  return std::string(is_load(slot) ? "const " : "") + (type == DType::bool_ ? "td_u8" : c_scalar(type)) + "*";
}

std::string CPrinter::slot_pointer(size_t slot) const {
  return is_load(slot) ? "p" + num(static_cast<int64_t>(slot))
                       : "o" + num(static_cast<int64_t>(slot - k_.loads.size()));
}

std::string c_step(const std::string& counter, int first, int last) {
  std::string text;
  for (int d = last - 1; d > first; --d)
    text += "if (++" + counter + num(d) + " == d" + num(d) + ") { " + counter + num(d) + " = 0; ";
  text += "++" + counter + num(first) + ";";
  for (int d = last - 1; d > first; --d) text += " }";
  return text;
}

std::string CPrinter::print(const std::string& symbol) {
  t_.out += kernel_comment(k_);
  t_.line("extern \"C\" void " + symbol + "(const td_args* a) {");
  if (k_.kept_rank > 0) {
    t_.line("if (a->begin >= a->end) return;");
  }
  start();
  switch (k_.kind) {
    case KernelKind::pointwise:
      pointwise();
      break;
    case KernelKind::row:
      k_.side_by_side ? column() : row();
      break;
    case KernelKind::column:
      column();
      break;
  }
  if (stores_past_caches()) t_.line("td_order_non_temporal();");
  t_.line("}");
  return std::move(t_.out);
}

// Base pointers, sizes, strides and the values of the whole call.
void CPrinter::start() {
  t_.line("td_i64* const error = a->error;");
  for (int d = 0; d < rank(); ++d) t_.line("const td_i64 d" + num(d) + " = a->dims[" + num(d) + "];");
  int64_t offset = 0;
  for (size_t s = 0; s < slots(); ++s) {
    const bool indexed = is_load(s) && load(s).index >= 0;
    const int32_t buffer = is_load(s) ? load(s).buffer : store(s).buffer;
    const std::string type = slot_pointer_type(s);
    if (slot_used(s)) {
      t_.line(type + " const b" + slot_pointer(s) + " = (" + type + ")a->buffers[" + num(buffer) + "];");
      for (int d = 0; d < rank(); ++d) {
        if (d >= k_.kept_rank && slot_row_level(s)) continue;
        const bool fixed =
            slot_inner(s) == Inner::contiguous || (slot_inner(s) == Inner::constant && is_load(s));
        if (d == t_.inner_dim() && fixed) continue;
        t_.line("const td_i64 " + t_.stride(s, d) + " = a->strides[" + num(offset + d) + "];");
      }
      if (indexed) {
        const std::string i = num(static_cast<int64_t>(s));
        t_.line("const td_i64 n" + i + " = a->strides[" + num(offset + rank()) + "], m" + i +
                " = a->strides[" + num(offset + rank() + 1) + "];");
      }
    }
    offset += rank() + (indexed ? 2 : 0);
  }
  for (size_t s = k_.loads.size(); s < slots(); ++s)
    if (store(s).non_temporal) t_.line(non_temporal_text(s));
  for (const int32_t i : plan_.whole) t_.node(i, {});
  for (int32_t i = 0; i < k_.scalars.size(); ++i) {
    const ScalarNode& n = k_.scalars[i];
    if (!plan_.live[at(i)] || !t_.draws_in_order(n)) continue;
    t_.line(std::string("td_draws<") + (n.op == ScalarOp::uniform16 ? "td_u16" : "td_u32") + "> g" + num(i) +
            ";");
  }
}

// Whether a store goes past the caches: not over what is loaded, whose lines the caches hold.
std::string CPrinter::non_temporal_text(size_t slot) const {
  const std::string o = "(const void*)b" + slot_pointer(slot);
  std::string text = "const bool f" + num(static_cast<int64_t>(slot - k_.loads.size())) + " = true";
  for (size_t s = 0; s < k_.loads.size(); ++s)
    if (slot_used(s)) text += " && " + o + " != b" + slot_pointer(s);
  return text + ";";
}

/// Whether results go past the caches.
bool CPrinter::stores_past_caches() const {
  return std::any_of(k_.stores.begin(), k_.stores.end(), [](const Store& s) { return s.non_temporal; });
}

// Draws come in bursts, during which no load is issued and the processor's own fetching ahead comes to rest.
void CPrinter::fetch_ahead(const CPass& pass, const std::string& position) {
  if (std::none_of(pass.nodes.begin(), pass.nodes.end(),
                   [&](int32_t node) { return t_.draws_in_order(k_.scalars[node]); }))
    return;
  for (size_t s = 0; s < k_.loads.size(); ++s)
    if (slot_used(s) && load(s).inner == Inner::contiguous && load(s).index < 0)
      t_.line("__builtin_prefetch(" + slot_pointer(s) + " + " + position + " + " + num(kFetchAhead) + ");");
}

// Counters of kept dimensions [0, dims), from the linear index `from`.
void CPrinter::counters(int dims, std::string from) {
  for (int d = dims - 1; d >= 0; --d) {
    t_.line("td_i64 c" + num(d) + " = " + (d == 0 ? from : from + " % d" + num(d)) + ";");
    from += " / d" + num(d);
  }
}

void CPrinter::advance(int dims) {
  if (dims > 0) t_.raw(c_step("c", 0, dims));
}

// Pointers to where the counters stand; `lane`: the position along the innermost kept dimension, if it has
// no counter.
void CPrinter::pointers(int dims, const std::string& lane) {
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s)) continue;
    const std::string type = slot_pointer_type(s);
    std::string text = type + " const " + slot_pointer(s) + " = b" + slot_pointer(s);
    for (int d = 0; d < dims; ++d) text += " + c" + num(d) + " * " + t_.stride(s, d);
    const bool still = is_load(s) && slot_inner(s) == Inner::constant;
    if (!lane.empty() && !still)
      text += " + " + lane + (slot_inner(s) == Inner::contiguous ? "" : " * " + t_.stride(s, dims));
    t_.line(text + ";");
  }
}

// Opens the walk over segments: `i` is the position in the innermost dimension, `count` the elements from
// there.
void CPrinter::open_segments(int64_t limit) {
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

void CPrinter::close_segments() {
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

void CPrinter::pointwise() {
  const CPass& pass = plan_.passes[0];
  if (k_.kept_rank == 0) {
    // One element: one lane of the same body.
    pointers(0, "");
    for (const int32_t node : plan_.outer) t_.node(node, {});
    const CPlace place{"j", "", "n", "j"};
    t_.line("const td_i64 j = 0, n = 1;");
    for (const int32_t node : pass.nodes) t_.node(node, place);
    for (const int32_t s : pass.stores) t_.store(s, place);
    return;
  }
  open_segments();
  const CPlace place{"j", "", "n", "at + j"};
  t_.line("const auto body = [&](const td_i64 j, const td_i64 n) TD_INLINE {");
  fetch_ahead(pass, "j");
  for (const int32_t node : pass.nodes) t_.node(node, place);
  for (const int32_t s : pass.stores) t_.store(s, place);
  t_.line("};");
  t_.line("td_i64 j = 0;");
  t_.line("for (; j + 16 <= count; j += 16) body(j, 16);");
  t_.line("if (j < count) body(j, count - j);");
  close_segments();
}
std::string print_c(const Kernel& k, const std::string& symbol, std::string* why) {
  std::string reason;
  const CPlan plan = plan_c(k, &reason);
  if (why != nullptr) *why = reason;
  return reason.empty() ? CPrinter(k, plan).print(symbol) : std::string();
}

const std::string& c_prelude() {
  static const auto* const text = new std::string(kPreludeText);
  return *text;
}

}  // namespace tandem::jit
