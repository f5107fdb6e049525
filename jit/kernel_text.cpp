// The text of a kernel: the space, then a line for each load, node, reduction and store. Constants are
// printed by their bits, so that equal text means equal structure.
#include <cstdio>

#include "tandem/jit/kernel.h"

namespace tandem::jit {

namespace {

const char* name(KernelKind kind) {
  switch (kind) {
    case KernelKind::pointwise:
      return "pointwise";
    case KernelKind::row:
      return "row";
    case KernelKind::column:
      return "column";
  }
  return "?";
}

const char* name(Inner inner) {
  switch (inner) {
    case Inner::constant:
      return "constant";
    case Inner::contiguous:
      return "contiguous";
    case Inner::strided:
      return "strided";
  }
  return "?";
}

const char* name(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return "sum";
    case ReduceOp::prod:
      return "prod";
    case ReduceOp::max:
      return "max";
    case ReduceOp::min:
      return "min";
    case ReduceOp::argmax:
      return "argmax";
    case ReduceOp::argmin:
      return "argmin";
  }
  return "?";
}

std::string hex(int64_t bits) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(bits));
  return text;
}

}  // namespace

std::string to_string(const Kernel& k) {
  using ops::ScalarOp;
  const auto number = [](auto i) { return std::to_string(i); };
  std::string s = std::string(name(k.kind)) + " kernel, kept " + number(k.kept_rank) + ", reduced " +
                  number(k.reduced_rank) + ", numbers " + number(k.numbers) + ", buffers " +
                  number(k.buffers) + (k.in_order ? ", in order" : "") +
                  (k.side_by_side ? ", side by side\n" : "\n");
  const auto access = [&](int32_t buffer, DType type, Inner inner, bool row_level) {
    return "b" + number(buffer) + " " + tandem::name(type) + " " + name(inner) + (row_level ? " row" : "");
  };
  for (size_t i = 0; i < k.loads.size(); ++i) {
    const Load& l = k.loads[i];
    s += "load " + number(i) + ": " + access(l.buffer, l.dtype, l.inner, l.row_level);
    if (l.index >= 0) s += " at %" + number(l.index);
    if (l.index == kCounts) s += " counts";
    s += l.large ? " from memory\n" : "\n";
  }
  for (int32_t i = 0; i < k.scalars.size(); ++i) {
    const ops::ScalarNode& n = k.scalars[i];
    s += "%" + number(i) + " = " + ops::name(n.op);
    switch (n.op) {
      case ScalarOp::load:
      case ScalarOp::number:
      case ScalarOp::reduced:
        s += " " + number(n.bits);
        break;
      case ScalarOp::constant:
        s += " " + hex(n.bits);
        break;
      default:
        for (int j = 0; j < ops::arity(n.op); ++j) s += (j == 0 ? " %" : ", %") + number(n.in[j]);
    }
    s += std::string(" : ") + tandem::name(n.type) + "\n";
  }
  for (size_t i = 0; i < k.reductions.size(); ++i) {
    const Reduction& r = k.reductions[i];
    s += "reduce " + number(i) + ": " + name(r.op) + " %" + number(r.input) + " : " + tandem::name(r.type) +
         "\n";
  }
  for (size_t i = 0; i < k.stores.size(); ++i) {
    const Store& o = k.stores[i];
    s += "store " + number(i) + ": " + access(o.buffer, o.dtype, o.inner, o.row_level) + " = %" +
         number(o.value) + (o.non_temporal ? " past the caches\n" : "\n");
  }
  for (size_t i = 0; i < k.across.size(); ++i) {
    const Across& c = k.across[i];
    s += "across " + number(i) + ": " + name(c.op) + " %" + number(c.input) + " to b" + number(c.buffer) +
         "\n";
  }
  return s;
}

}  // namespace tandem::jit
