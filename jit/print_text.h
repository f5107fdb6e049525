// What the C and the CUDA printer write alike: indented lines, and a scalar node's or a reduction's words in
// the prelude's functions. Pure functions but for the writer; one writer, one thread.
#pragma once

#include <string>

#include "tandem/jit/kernel.h"
#include "tandem/jit/type_names.h"

namespace tandem::jit {

/// Text in lines, each as far in as braces are open.
class CodeText {
 public:
  std::string out;
  void line(const std::string& text);  // a brace at its end opens, one at its start closes a block
  void raw(const std::string& text) {
    out += std::string(static_cast<size_t>(depth_) * 2, ' ') + text + '\n';
  }

 private:
  int depth_ = 0;
};

/// The kernel as comment lines, to stand before its code.
std::string kernel_comment(const Kernel& k);
/// A constant of a node's type; floats in hexadecimal.
std::string constant_text(const ops::ScalarNode& n);
/// What a node of arithmetic, a comparison, a function or a cast computes; `in(i)` names operand i.
template <class In>
std::string scalar_text(const Kernel& k, const ops::ScalarNode& n, In&& in) {
  using ops::ScalarOp;
  const auto infix = [&](const char* op) { return in(0) + op + in(1); };
  std::string name = ops::name(n.op);
  if (is_floating(n.type)) {
    if (n.op == ScalarOp::add) return infix(" + ");
    if (n.op == ScalarOp::sub) return infix(" - ");
    if (n.op == ScalarOp::mul) return infix(" * ");
    if (n.op == ScalarOp::neg) return "-" + in(0);
  }
  if (n.op == ScalarOp::div) return infix(" / ");
  if (n.op == ScalarOp::cast)
    name = std::string(c_suffix(k.scalars[n.in[0]].type)) + "_to_" + c_suffix(n.type);
  std::string text = "td_" + name + "(";
  for (int i = 0; i < ops::arity(n.op); ++i) text += (i ? ", " : "") + in(i);
  return text + ")";
}

bool finds_index(ReduceOp op);
/// "sum", "argmax", ...
const char* reduce_name(ReduceOp op);
/// What an accumulation starts from, unless it finds an index.
std::string identity_text(ReduceOp op, DType type);
/// Two results of the reduction joined.
std::string combine_text(const Reduction& r, const std::string& a, const std::string& b);

}  // namespace tandem::jit
