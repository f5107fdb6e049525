#include "tandem/jit/print_c_text.h"

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }
std::string num(int64_t v) { return std::to_string(v); }

}  // namespace

bool CText::draws_in_order(const ScalarNode& n) const {
  return is_random(n.op) && k_.scalars[n.in[0]].op == ScalarOp::index;
}

int CText::inner_dim() const { return k_.kept_rank + (along_row() ? k_.reduced_rank : 0) - 1; }

std::string CText::stride(size_t slot, int dim) const {
  return "s" + num(static_cast<int64_t>(slot)) + "_" + num(dim);
}

std::string CText::name(int32_t id, bool vector) const {
  if (vector && !plan_.is_vector(id)) return "w" + num(id);
  for (const int32_t a : arrays_)
    if (a == id) return "v" + num(id) + "[u]";
  return "v" + num(id);
}

// Pointer to the element of an access at `place`: of lane 0 for a vector access.
std::string CText::address(size_t slot, Inner inner, bool row_level, const CPlace& place) const {
  const bool is_load = slot < k_.loads.size();
  std::string text =
      (is_load ? "p" : "o") + num(static_cast<int64_t>(is_load ? slot : slot - k_.loads.size()));
  if (!row_level && !place.row.empty()) text += " + " + place.row + num(static_cast<int64_t>(slot));
  if (place.lane.empty() || inner_dim() < 0 || (along_row() && row_level)) return text;
  if (inner == Inner::contiguous) text += " + " + place.lane;
  if (inner == Inner::strided || (!is_load && inner == Inner::constant))
    text += " + (" + place.lane + ") * " + stride(slot, inner_dim());
  return text;
}

std::string CText::load(int32_t id, const CPlace& place) const {
  const ScalarNode& n = k_.scalars[id];
  const auto slot = static_cast<size_t>(n.bits);
  const Load& l = k_.loads[slot];
  const std::string suffix = c_suffix(l.dtype), number = num(n.bits);
  const bool vector = plan_.is_vector(id);
  std::string p = address(slot, l.inner, l.row_level, place);
  if (l.index >= 0 && !plan_.is_vector(l.index)) p += " + x" + number;
  if (!vector) return l.dtype == DType::bool_ ? "td_bool(*(" + p + "))" : "*(" + p + ")";
  const Inner inner = inner_dim() < 0 ? Inner::contiguous : l.inner;
  const std::string step = inner == Inner::contiguous ? "1"
                           : inner == Inner::constant ? "0"
                                                      : stride(slot, inner_dim());
  if (l.index >= 0 && plan_.is_vector(l.index)) {
    return "td_pick_" + suffix + "(" + p + ", " + step + ", " + name(l.index, true) + ", n" + number + ", m" +
           number + ", " + place.count + ", error, " + num(n.bits + 1) + ")";
  }
  const std::string text = inner == Inner::contiguous
                               ? "td_load_" + suffix + "(" + p + ", " + place.count + ")"
                               : "td_gather_" + suffix + "(" + p + ", " + step + ", " + place.count + ")";
  if (!place.ends) return text;
  return "whole ? " + text + " : td_gather_at_" + suffix + "(p" + number + ", h" + number + ", " +
         place.count + ")";
}

std::string CText::value(int32_t id, const CPlace& place) const {
  const ScalarNode& n = k_.scalars[id];
  const bool vector = plan_.is_vector(id);
  const auto in = [&](int i) { return name(n.in[i], vector); };
  switch (n.op) {
    case ScalarOp::load:
      return load(id, place);
    case ScalarOp::number:
      return std::string("td_number_") + c_suffix(n.type) + "(a->numbers[" + num(n.bits) + "])";
    case ScalarOp::constant:
      return constant_text(n);
    case ScalarOp::index:
      return "td_iota(" + place.index + ")";
    case ScalarOp::reduced: {
      const bool best = finds_index(k_.reductions[at(static_cast<int32_t>(n.bits))].op);
      return "t" + num(n.bits) + (place.array ? "[j / 16 + u]" : "") + (best ? ".index" : "");
    }
    default:
      break;
  }
  if (is_random(n.op)) {
    const std::string draw = std::string("td_") + ops::name(n.op),
                      counter = name(n.in[1], false) + ", " + name(n.in[2], false) + ")";
    if (draws_in_order(n)) return draw + "_run(g" + num(id) + ", " + place.index + ", " + counter;
    return draw + "(" + in(0) + ", " + counter;
  }
  if (plan_.divides_by_whole(k_, id)) return in(0) + " / r" + num(n.in[1]);
  return scalar_text(k_, n, in);
}

void CText::node(int32_t id, const CPlace& place) {
  const ScalarNode& n = k_.scalars[id];
  const std::string label = num(id);
  if (plan_.is_vector(id)) {
    line((place.array ? name(id, true) : std::string("const ") + c_vector(n.type) + " v" + label) + " = " +
         value(id, place) + ";");
    return;
  }
  line(std::string("const ") + c_scalar(n.type) + " v" + label + " = " + value(id, place) + ";");
  if (plan_.as_vector[at(id)])
    line(std::string("const ") + c_vector(n.type) + " w" + label + " = td_splat_" + c_suffix(n.type) + "(v" +
         label + ");");
  if (plan_.as_divisor[at(id)]) line("const td_divisor r" + label + " = td_divide_by(v" + label + ");");
  for (size_t l = 0; l < k_.loads.size(); ++l) {
    if (k_.loads[l].index != id || !plan_.load_used[l]) continue;
    const std::string load_label = num(static_cast<int64_t>(l));
    line("const td_i64 x" + load_label + " = td_at(v" + label + ", n" + load_label + ", m" + load_label +
         ", error, " + num(static_cast<int64_t>(l) + 1) + ");");
  }
}

void CText::store(int32_t store, const CPlace& place) {
  const Store& s = k_.stores[at(store)];
  const std::string p = address(store_slot(store), s.inner, s.row_level, place);
  if (along_row() && s.row_level) {
    line("*(" + p + ") = " + name(s.value, false) + ";");
    return;
  }
  const std::string v = name(s.value, true);
  if (place.ends) line("if (whole)");
  if (s.non_temporal && s.inner == Inner::contiguous) {
    line(std::string("td_non_temporal_") + c_suffix(s.dtype) + "(" + p + ", " + v + ", " + place.count +
         ", f" + num(store) + ");");
  } else if (s.inner == Inner::contiguous || inner_dim() < 0) {
    line(std::string("td_store_") + c_suffix(s.dtype) + "(" + p + ", " + v + ", " + place.count + ");");
  } else {
    line(std::string("td_scatter_") + c_suffix(s.dtype) + "(" + p + ", " +
         stride(store_slot(store), inner_dim()) + ", " + v + ", " + place.count + ");");
  }
  if (place.ends)
    line(std::string("else td_scatter_at_") + c_suffix(s.dtype) + "(o" + num(store) + ", h" +
         num(static_cast<int64_t>(store_slot(store))) + ", " + v + ", " + place.count + ");");
}

}  // namespace tandem::jit
