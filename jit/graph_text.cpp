// The text form of graphs. Values are numbered in order of definition; attributes are printed by name. Graphs
// that break the rules are printed too, since the checker's message shows them.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>

#include "tandem/core/error.h"
#include "tandem/jit/graph.h"
#include "tandem/ops/user_ops.h"

namespace tandem::jit {

namespace {

using ops::AttrType;
using ops::OpDef;

/// The value itself, in hex digits: "0x1.8p+1", "-inf", "nan", "nan(0x7ff8000000000001)".
std::string constant_text(int64_t bits) {
  const auto v = std::bit_cast<double>(bits);
  char text[64];
  if (std::isnan(v)) {
    if (bits == std::bit_cast<int64_t>(std::nan(""))) return "nan";
    *std::to_chars(text, text + sizeof text - 1, static_cast<uint64_t>(bits), 16).ptr = '\0';
    return "nan(0x" + std::string(text) + ")";
  }
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  *std::to_chars(text, text + sizeof text - 1, std::fabs(v), std::chars_format::hex).ptr = '\0';
  return (std::signbit(v) ? "-0x" : "0x") + std::string(text);
}

class Printer {
 public:
  explicit Printer(const Graph& g) : g_(g) {}

  std::string run() {
    out_ = "graph {\n";
    for (const Node& n : g_.nodes) node(n);
    if (!g_.outputs.empty()) out_ += "  return " + list(g_.outputs) + '\n';
    for (const Write& w : g_.writes) {
      const bool known = w.input >= 0 && static_cast<size_t>(w.input) < g_.inputs.size();
      out_ += "  write " + (known ? value(g_.inputs[static_cast<size_t>(w.input)].value) : "?") + " <- " +
              value(w.value) + '\n';
    }
    return out_ + "}\n";
  }

 private:
  static std::string value(int32_t v) { return v < 0 ? "_" : "%" + std::to_string(v); }
  static std::string list(const std::vector<int32_t>& values) {
    std::string s;
    for (const int32_t v : values) s += (s.empty() ? "" : ", ") + value(v);
    return s;
  }
  static std::string integers(const std::vector<int64_t>& words, size_t from, int64_t n) {
    std::string s = "[";
    for (int64_t i = 0; i < n; ++i) s += (i ? ", " : "") + word(words, from++);
    return s + "]";
  }
  static std::string word(const std::vector<int64_t>& words, size_t i) {
    return i < words.size() ? std::to_string(words[i]) : "?";
  }
  std::string type(const Node& n, size_t i = 0) const {
    if (i >= n.out.size() || n.out[i] < 0 || static_cast<size_t>(n.out[i]) >= g_.values.size()) return "?";
    return to_string(g_.type(n.out[i]));
  }

  void node(const Node& n) {
    out_ += "  " + list(n.out) + " = ";
    switch (n.leaf) {
      case Leaf::input:
        input(n);
        break;
      case Leaf::number: {
        const std::string t = type(n);
        out_ += "number " + t.substr(t.find(':') + 1);
        break;
      }
      case Leaf::constant:
        out_ += "constant " + constant_text(n.bits);
        break;
      case Leaf::count:
        out_ += "count(" + list(n.in) +
                ", axes=" + integers(n.words, 0, static_cast<int64_t>(n.words.size())) + ")";
        break;
      case Leaf::number_op: {
        const int64_t op = n.words.empty() ? -1 : n.words[0];
        const bool known = op >= 0 && op < static_cast<int64_t>(ops::ScalarOp::count_);
        out_ += std::string("number_op ") + (known ? ops::name(static_cast<ops::ScalarOp>(op)) : "?") + "(" +
                list(n.in) + ")";
        break;
      }
      case Leaf::op: {
        if (!ops::is_op(n.op)) {
          out_ += "?";
          break;
        }
        out_ += op_text(n.op) + "(" + list(n.in) + attributes(n) + ") : ";
        for (size_t i = 0; i < n.out.size(); ++i) out_ += (i ? ", " : "") + type(n, i);
        if (n.where.known()) out_ += "  # " + to_string(n.where);
        break;
      }
    }
    out_ += '\n';
  }

  void input(const Node& n) {
    out_ += "input " + type(n);
    if (n.index < 0 || static_cast<size_t>(n.index) >= g_.inputs.size()) return;
    const Input& in = g_.inputs[static_cast<size_t>(n.index)];
    out_ += " strides " + to_string(in.strides);
    if (in.alignment != 64) out_ += " align " + std::to_string(in.alignment);
    if (in.form == Form::panels) out_ += " panels";
    if (in.form == Form::weight) out_ += " weight";
    if (in.name.empty()) return;
    out_ += " \"";
    for (const char c : in.name) {
      if (c == '"' || c == '\\') out_ += '\\';
      out_ += c == '\n' ? std::string("\\n") : std::string(1, c);
    }
    out_ += '"';
  }

  /// A program's own kernel has a name of any kind, and none that the parser knows.
  static std::string op_text(OpId op) {
    const std::string name = ops::def(op).name;
    return ops::is_user(op) ? "kernel \"" + name + "\"" : name;
  }

  static std::string attributes(const Node& n) {
    const OpDef& op = ops::def(n.op);
    std::string s;
    size_t at = 0;
    for (int k = 0; k < op.n_attrs; ++k) {
      if (op.attrs[k].run_time()) continue;
      const size_t here = at++;
      const int64_t v = here < n.words.size() ? n.words[here] : -1;
      if (op.attrs[k].type == AttrType::boolean && v == 0) continue;
      if (!n.in.empty() || !s.empty()) s += ", ";
      s += std::string(op.attrs[k].name) + "=";
      if (op.attrs[k].type == AttrType::list) {
        const auto left = static_cast<int64_t>(n.words.size()) - static_cast<int64_t>(at);
        s += integers(n.words, at, std::min(v, left));
        at += static_cast<size_t>(std::max<int64_t>(0, v));
      } else if (op.attrs[k].type == AttrType::dtype && v >= 0 && v < kDTypeCount) {
        s += tandem::name(static_cast<DType>(v));
      } else {
        s += word(n.words, here);
      }
    }
    return s;
  }

  const Graph& g_;
  std::string out_;
};

}  // namespace

std::string to_string(const Graph& g) { return Printer(g).run(); }

}  // namespace tandem::jit
