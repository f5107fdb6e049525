#include "tandem/jit/print_c_text.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

namespace {

size_t at(int32_t i) { return static_cast<size_t>(i); }
std::string num(int64_t v) { return std::to_string(v); }

struct TypeNames {
  const char *scalar, *vector, *suffix;
};
const TypeNames& names(DType t) {
  static constexpr TypeNames kNames[kDTypeCount] = {
      {"bool", "td_mask", "bool"},  {"td_u8", "td_u8v", "u8"},    {"td_i32", "td_i32v", "i32"},
      {"td_i64", "td_i64v", "i64"}, {"td_u16", "td_u16v", "f16"}, {"td_u16", "td_u16v", "bf16"},
      {"td_f32", "td_f32v", "f32"}, {"td_f64", "td_f64v", "f64"},
  };
  return kNames[static_cast<int>(t)];
}

}  // namespace

const char* c_scalar(DType t) { return names(t).scalar; }
const char* c_vector(DType t) { return names(t).vector; }
const char* c_suffix(DType t) { return names(t).suffix; }

bool finds_index(ReduceOp op) { return op == ReduceOp::argmax || op == ReduceOp::argmin; }

std::string kernel_comment(const Kernel& k) {
  std::string out = "// ";
  for (const char c : k.name) out += c >= 32 && c < 127 && c != '\\' ? c : ' ';
  out += '\n';
  const std::string text = to_string(k);
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find('\n', i), text.size());
    out += "//   " + text.substr(i, end - i) + '\n';
    i = end + 1;
  }
  return out;
}

void CText::line(const std::string& text) {
  if (!text.empty() && text[0] == '}') --depth_;
  out.append(at(depth_) * 2, ' ');
  out += text;
  out += '\n';
  if (!text.empty() && text.back() == '{') ++depth_;
}

bool CText::draws_in_order(const ScalarNode& n) const {
  return is_random(n.op) && k_.scalars[n.in[0]].op == ScalarOp::index;
}

int CText::inner_dim() const { return k_.kind == KernelKind::row ? k_.kept_rank : k_.kept_rank - 1; }

std::string CText::stride(size_t slot, int dim) const {
  return "s" + num(static_cast<int64_t>(slot)) + "_" + num(dim);
}

std::string CText::name(int32_t id, bool vector) const {
  if (vector && !plan_.is_vector(id)) return "w" + num(id);
  for (const int32_t a : arrays_)
    if (a == id) return "v" + num(id) + "[u]";
  return "v" + num(id);
}

std::string CText::constant(const ScalarNode& n) {
  char text[64];
  switch (n.type) {
    case DType::bool_:
      return n.bits != 0 ? "true" : "false";
    case DType::uint8:
      return num(static_cast<uint8_t>(n.bits));
    case DType::int32:
    case DType::int64: {
      const int64_t v = n.type == DType::int32 ? static_cast<int32_t>(n.bits) : n.bits;
      std::snprintf(text, sizeof text, "(%s)0x%llxu", c_scalar(n.type), static_cast<unsigned long long>(v));
      if (n.type == DType::int64)
        std::snprintf(text, sizeof text, "(td_i64)0x%llxul", static_cast<unsigned long long>(v));
      if (v >= 0 && v < 1'000'000'000) return num(v);
      return text;
    }
    default:
      break;
  }
  const double v = std::bit_cast<double>(n.bits);
  const bool single = n.type == DType::float32;
  const double rounded = single ? static_cast<double>(static_cast<float>(v)) : v;
  const std::string f = single ? "f" : "";
  if (std::isnan(rounded))
    return std::string(std::signbit(rounded) ? "-" : "") + "__builtin_nan" + f + "(\"\")";
  if (std::isinf(rounded)) return std::string(rounded < 0 ? "-" : "") + "__builtin_inf" + f + "()";
  std::snprintf(text, sizeof text, "%a", rounded);
  return text + f;
}

// Pointer to the element of an access at `place`: of lane 0 for a vector access.
std::string CText::address(size_t slot, Inner inner, bool row_level, const Place& place) const {
  const bool is_load = slot < k_.loads.size();
  std::string text =
      (is_load ? "p" : "o") + num(static_cast<int64_t>(is_load ? slot : slot - k_.loads.size()));
  if (!row_level && !place.row.empty()) text += " + " + place.row + num(static_cast<int64_t>(slot));
  if (place.lane.empty() || inner_dim() < 0 || (k_.kind == KernelKind::row && row_level)) return text;
  if (inner == Inner::contiguous) text += " + " + place.lane;
  if (inner == Inner::strided || (!is_load && inner == Inner::constant))
    text += " + (" + place.lane + ") * " + stride(slot, inner_dim());
  return text;
}

std::string CText::load(int32_t id, const Place& place) const {
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
  if (inner == Inner::contiguous) return "td_load_" + suffix + "(" + p + ", " + place.count + ")";
  return "td_gather_" + suffix + "(" + p + ", " + step + ", " + place.count + ")";
}

std::string CText::value(int32_t id, const Place& place) const {
  const ScalarNode& n = k_.scalars[id];
  const bool vector = plan_.is_vector(id), floating = is_floating(n.type);
  const auto in = [&](int i) { return name(n.in[i], vector); };
  const auto call = [&](const std::string& function) {
    std::string text = "td_" + function + "(";
    for (int i = 0; i < ops::arity(n.op); ++i) text += (i ? ", " : "") + in(i);
    return text + ")";
  };
  switch (n.op) {
    case ScalarOp::load:
      return load(id, place);
    case ScalarOp::number:
      return std::string("td_number_") + c_suffix(n.type) + "(a->numbers[" + num(n.bits) + "])";
    case ScalarOp::constant:
      return constant(n);
    case ScalarOp::index:
      return "td_iota(" + place.index + ")";
    case ScalarOp::reduced: {
      const bool best = finds_index(k_.reductions[at(static_cast<int32_t>(n.bits))].op);
      return "t" + num(n.bits) + (place.array ? "[j / 16 + u]" : "") + (best ? ".index" : "");
    }
    case ScalarOp::add:
      if (floating) return in(0) + " + " + in(1);
      break;
    case ScalarOp::sub:
      if (floating) return in(0) + " - " + in(1);
      break;
    case ScalarOp::mul:
      if (floating) return in(0) + " * " + in(1);
      break;
    case ScalarOp::div:
      return in(0) + " / " + in(1);
    case ScalarOp::neg:
      if (floating) return "-" + in(0);
      break;
    case ScalarOp::cast: {
      const DType from = k_.scalars[n.in[0]].type;
      return call(std::string(c_suffix(from)) + "_to_" + c_suffix(n.type));
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
  return call(ops::name(n.op));
}

void CText::node(int32_t id, const Place& place) {
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
  for (size_t l = 0; l < k_.loads.size(); ++l) {
    if (k_.loads[l].index != id || !plan_.load_used[l]) continue;
    const std::string load_label = num(static_cast<int64_t>(l));
    line("const td_i64 x" + load_label + " = td_at(v" + label + ", n" + load_label + ", m" + load_label +
         ", error, " + num(static_cast<int64_t>(l) + 1) + ");");
  }
}

void CText::store(int32_t store, const Place& place) {
  const Store& s = k_.stores[at(store)];
  const std::string p = address(store_slot(store), s.inner, s.row_level, place);
  if (k_.kind == KernelKind::row && s.row_level) {
    line("*(" + p + ") = " + name(s.value, false) + ";");
    return;
  }
  const std::string v = name(s.value, true);
  if (s.inner == Inner::contiguous || inner_dim() < 0) {
    line(std::string("td_store_") + c_suffix(s.dtype) + "(" + p + ", " + v + ", " + place.count + ");");
  } else {
    line(std::string("td_scatter_") + c_suffix(s.dtype) + "(" + p + ", " +
         stride(store_slot(store), inner_dim()) + ", " + v + ", " + place.count + ");");
  }
}

}  // namespace tandem::jit
