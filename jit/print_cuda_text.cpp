// One line per scalar node: every value is one element's.
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using ops::ScalarNode;
using ops::ScalarOp;

namespace {
size_t at(int64_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}
}  // namespace

bool CudaPrinter::slot_row_level(size_t slot) const {
  if (k_.kind == KernelKind::pointwise) return false;
  return is_load(slot) ? load_of(slot).row_level : store_of(slot).row_level;
}

std::string CudaPrinter::element_type(size_t slot) const {
  const DType type = is_load(slot) ? load_of(slot).dtype : store_of(slot).dtype;
  return type == DType::bool_ ? "td_u8" : c_scalar(type);
}

std::string CudaPrinter::slot_type(size_t slot) const {
  return (is_load(slot) ? "const " : "") + element_type(slot) + "*";
}

std::string CudaPrinter::slot_name(size_t slot) const {
  return is_load(slot) ? "p" + num(slot) : "o" + num(slot - k_.loads.size());
}

std::string CudaPrinter::step(size_t slot, int dim, const std::string& coordinate) const {
  const Inner inner = is_load(slot) ? load_of(slot).inner : store_of(slot).inner;
  if (dim == inner_dim() && inner == Inner::contiguous) return coordinate;
  if (dim == inner_dim() && inner == Inner::constant && is_load(slot)) return "";
  return coordinate + " * s" + num(slot) + "_" + num(dim);
}

// Offsets of the element, beyond the row's pointer, of the accesses that a walk makes.
void CudaPrinter::offsets(const CudaWalk& walk) {
  const int first = k_.kind == KernelKind::pointwise ? 0 : k_.kept_rank;
  const auto offset = [&](size_t slot) {
    if (slot_row_level(slot)) return;
    std::string text;
    for (int d = first; d < rank(); ++d) {
      const std::string coordinate = k_.kind == KernelKind::pointwise ? "c" + num(d)
                                     : k_.reduced_rank == 1           ? "r"
                                                                      : "e" + num(d);
      const std::string term = step(slot, d, coordinate);
      if (!term.empty()) text += (text.empty() ? "" : " + ") + term;
    }
    line("const td_i64 q" + num(slot) + " = " + (text.empty() ? "0" : text) + ";");
  };
  for (const int32_t i : walk.nodes)
    if (k_.scalars[i].op == ScalarOp::load) offset(at(k_.scalars[i].bits));
  for (const int32_t s : walk.stores) offset(k_.loads.size() + at(s));
}

std::string CudaPrinter::element(size_t slot, bool row_level) const {
  if (passed_ && !by_offset(slot)) return "l" + num(slot);
  return slot_name(slot) + "[" + (row_level ? "0" : "q" + num(slot)) + "]";
}

std::string CudaPrinter::load(int32_t id) const {
  const auto slot = at(k_.scalars[id].bits);
  const Load& l = load_of(slot);
  // A load that is of the row because nothing moves it along the row has no offset of an element.
  const bool of_row = k_.kind != KernelKind::pointwise && plan_.level[at(id)] != CudaLevel::element;
  if (l.index == kCounts) {
    const std::string row = slot_name(slot) + " - b" + slot_name(slot);
    return std::string("(") + c_scalar(l.dtype) + ")(" + row + (of_row ? "" : " + q" + num(slot)) + ")";
  }
  if (passed_ && l.index < 0)
    return l.dtype == DType::bool_ ? "td_bool(l" + num(slot) + ")" : "l" + num(slot);
  std::string text = slot_name(slot) + "[";
  if (of_row || slot_row_level(slot)) {
    text += l.index >= 0 ? "x" + num(slot) : "0";
  } else {
    text += "q" + num(slot) + (l.index >= 0 ? " + x" + num(slot) : "");
  }
  text += "]";
  if (l.index >= 0)
    text = "(n" + num(slot) + " > 0 ? " + text + " : (" +
           (l.dtype == DType::bool_ ? "td_u8" : c_scalar(l.dtype)) + ")0)";
  return l.dtype == DType::bool_ ? "td_bool(" + text + ")" : text;
}

std::string CudaPrinter::value(int32_t id) const {
  const ScalarNode& n = k_.scalars[id];
  switch (n.op) {
    case ScalarOp::load:
      return load(id);
    case ScalarOp::number:
      return std::string("td_number_") + c_suffix(n.type) + "(a.numbers[" + num(n.bits) + "])";
    case ScalarOp::constant:
      return constant_text(n);
    case ScalarOp::index:
      switch (k_.kind) {
        case KernelKind::pointwise:
          return "at";
        case KernelKind::row:
          return "at * n + r";
        case KernelKind::column:
          return "(outer * n + r) * d" + num(k_.kept_rank - 1) + " + c" + num(k_.kept_rank - 1);
      }
      break;
    case ScalarOp::reduced:
      return "t" + num(n.bits) + (finds_index(k_.reductions[at(n.bits)].op) ? ".index" : "");
    default:
      break;
  }
  return scalar_text(k_, n, [&](int i) { return "v" + num(n.in[i]); });
}

void CudaPrinter::node(int32_t id, const std::string& condition) {
  const ScalarNode& n = k_.scalars[id];
  const auto read = [&](const std::string& type, const std::string& text) {
    return condition.empty() || n.op != ScalarOp::load ? text
                                                       : condition + " ? " + text + " : " + type + "()";
  };
  // The index is checked where the load is: its value may be known long before.
  if (n.op == ScalarOp::load && load_of(at(n.bits)).index >= 0) {
    const std::string slot = num(n.bits);
    line("const td_i64 x" + slot + " = " +
         read("td_i64", "td_at(v" + num(load_of(at(n.bits)).index) + ", n" + slot + ", m" + slot +
                            ", error, " + num(n.bits + 1) + ")") +
         ";");
  }
  const std::string type = c_scalar(n.type);
  line("const " + type + " v" + num(id) + " = " + read(type, value(id)) + ";");
}

void CudaPrinter::store(int32_t s) {
  const size_t slot = k_.loads.size() + at(s);
  const Store& st = store_of(slot);
  const bool of_row = st.row_level && k_.kind != KernelKind::pointwise;
  line(element(slot, of_row) + " = " + (st.dtype == DType::bool_ ? "(td_u8)" : "") + "v" + num(st.value) +
       ";");
}

}  // namespace tandem::jit
