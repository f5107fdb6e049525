// The text form of graphs and its parser. Values are numbered in order of definition; attributes are printed by name.
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/jit/graph.h"

namespace tandem::jit {

namespace {

using ops::AttrType;
using ops::OpDef;

std::string list_text(const int64_t* values, int64_t n) {
  std::string s = "[";
  for (int64_t i = 0; i < n; ++i) s += (i ? ", " : "") + std::to_string(values[i]);
  return s + "]";
}

std::string constant_text(int64_t bits) {
  char text[64];
  std::snprintf(text, sizeof text, "%a", std::bit_cast<double>(bits));
  return text;
}

class Printer {
 public:
  explicit Printer(const Graph& g) : g_(g) {}

  std::string run() {
    out_ = "graph {\n";
    for (const Node& n : g_.nodes) node(n);
    if (!g_.outputs.empty()) {
      out_ += "  return ";
      for (size_t i = 0; i < g_.outputs.size(); ++i) out_ += (i ? ", " : "") + value(g_.outputs[i]);
      out_ += '\n';
    }
    for (const Write& w : g_.writes)
      out_ += "  write " + value(g_.inputs[static_cast<size_t>(w.input)].value) + " <- " + value(w.value) + '\n';
    return out_ + "}\n";
  }

 private:
  static std::string value(int32_t v) { return v < 0 ? "_" : "%" + std::to_string(v); }

  void node(const Node& n) {
    out_ += "  ";
    for (size_t i = 0; i < n.out.size(); ++i) out_ += (i ? ", " : "") + value(n.out[i]);
    out_ += " = ";
    const auto type = [&](size_t i) { return to_string(g_.type(n.out[i])); };
    switch (n.leaf) {
      case Leaf::input: {
        const Input& in = g_.inputs[static_cast<size_t>(n.index)];
        out_ += "input " + type(0) + " strides " + to_string(in.strides);
        if (!in.name.empty()) out_ += " \"" + in.name + '"';
        break;
      }
      case Leaf::number: out_ += std::string("number ") + tandem::name(g_.type(n.out[0]).dtype); break;
      case Leaf::constant: out_ += "constant " + constant_text(n.bits); break;
      case Leaf::count:
        out_ += "count(" + value(n.in[0]) + ", axes=" + list_text(n.words.data(), static_cast<int64_t>(n.words.size())) + ")";
        break;
      case Leaf::number_op:
        out_ += std::string("number_op ") + ops::name(static_cast<ops::ScalarOp>(n.words[0])) + "(" + operands(n) + ")";
        break;
      case Leaf::op: {
        out_ += std::string(ops::def(n.op).name) + "(" + operands(n) + attributes(n) + ") : ";
        for (size_t i = 0; i < n.out.size(); ++i) out_ += (i ? ", " : "") + type(i);
        if (n.where.known()) out_ += std::string("  # ") + n.where.file + ":" + std::to_string(n.where.line);
        break;
      }
    }
    out_ += '\n';
  }

  std::string operands(const Node& n) {
    std::string s;
    for (size_t i = 0; i < n.in.size(); ++i) s += (i ? ", " : "") + value(n.in[i]);
    return s;
  }

  std::string attributes(const Node& n) {
    const OpDef& op = ops::def(n.op);
    std::string s;
    size_t at = 0;
    for (int k = 0; k < op.n_attrs; ++k) {
      if (op.attrs[k].run_time()) continue;
      s += n.in.empty() && s.empty() ? "" : ", ";
      s += std::string(op.attrs[k].name) + "=";
      const int64_t word = n.words[at++];
      if (op.attrs[k].type == AttrType::list) {
        s += list_text(n.words.data() + at, word);
        at += static_cast<size_t>(word);
      } else if (op.attrs[k].type == AttrType::dtype) {
        s += tandem::name(static_cast<DType>(word));
      } else {
        s += std::to_string(word);
      }
    }
    return s;
  }

  const Graph& g_;
  std::string out_;
};

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Graph run() {
    word("graph");
    symbol('{');
    while (!try_symbol('}')) statement();
    return std::move(g_);
  }

 private:
  [[noreturn]] void expected(const std::string& what) {
    int line = 1;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i) line += text_[i] == '\n';
    skip();
    const std::string found = at_ < text_.size() ? text_.substr(at_, 20) : "the end";
    fail("graph text, line " + std::to_string(line) + ": expected " + what + ", found '" + found.substr(0, found.find('\n')) + "'");
  }

  void skip() {
    while (at_ < text_.size() && (std::isspace(static_cast<unsigned char>(text_[at_])) || text_[at_] == '#')) {
      if (text_[at_] == '#')
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      else
        ++at_;
    }
  }
  bool try_symbol(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void symbol(char c) {
    if (!try_symbol(c)) expected(std::string("'") + c + "'");
  }
  std::string identifier() {
    skip();
    const size_t start = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) ++at_;
    if (start == at_) expected("a name");
    return text_.substr(start, at_ - start);
  }
  void word(const char* w) {
    const size_t before = at_;
    if (identifier() != w) {
      at_ = before;
      expected(std::string("'") + w + "'");
    }
  }
  int64_t integer() {
    skip();
    char* end = nullptr;
    errno = 0;
    const int64_t v = std::strtoll(text_.c_str() + at_, &end, 10);
    if (end == text_.c_str() + at_ || errno) expected("an integer");
    at_ = static_cast<size_t>(end - text_.c_str());
    return v;
  }
  std::vector<int64_t> integers(char open, char close) {
    std::vector<int64_t> v;
    symbol(open);
    while (!try_symbol(close)) {
      v.push_back(integer());
      if (!try_symbol(',')) {
        symbol(close);
        break;
      }
    }
    return v;
  }
  Dims dims() {
    const std::vector<int64_t> v = integers('(', ')');
    if (v.size() > kMaxRank) expected("at most " + std::to_string(kMaxRank) + " sizes");
    return Dims(v.data(), static_cast<int64_t>(v.size()));
  }
  DType dtype() {
    const size_t before = at_;
    const std::string s = identifier();
    for (int t = 0; t < kDTypeCount; ++t)
      if (s == tandem::name(static_cast<DType>(t))) return static_cast<DType>(t);
    at_ = before;
    expected("a dtype");
  }
  TensorType type() {
    TensorType t;
    const size_t before = at_;
    if (identifier() == "number") {
      symbol(':');
      t.number = true;
      t.dtype = dtype();
      return t;
    }
    at_ = before;
    t.dtype = dtype();
    t.sizes = dims();
    return t;
  }
  std::string new_value() {
    symbol('%');
    return identifier();
  }
  int32_t value() {
    if (try_symbol('_')) return -1;
    symbol('%');
    const size_t before = at_;
    const auto it = names_.find(identifier());
    if (it != names_.end()) return it->second;
    at_ = before;
    expected("a value defined above");
  }

  void statement() {
    skip();
    if (at_ < text_.size() && text_[at_] != '%') {
      const size_t before = at_;
      const std::string s = identifier();
      if (s == "return") {
        do g_.outputs.push_back(value());
        while (try_symbol(','));
      } else if (s == "write") {
        const int32_t target = value();
        symbol('<');
        symbol('-');
        const int32_t v = value();
        if (target < 0 || g_.node_of(target).leaf != Leaf::input) expected("an input to write");
        g_.writes.push_back({g_.node_of(target).index, v});
      } else {
        at_ = before;
        expected("a definition, 'return' or 'write'");
      }
      return;
    }
    std::vector<std::string> defined;
    do defined.push_back(new_value());
    while (try_symbol(','));
    symbol('=');
    definition(defined);
  }

  void definition(const std::vector<std::string>& defined) {
    const std::string what = identifier();
    if (what == "input") {
      const TensorType t = type();
      word("strides");
      const Dims strides = dims();
      std::string label;
      if (try_symbol('"')) {
        while (at_ < text_.size() && text_[at_] != '"') label += text_[at_++];
        symbol('"');
      }
      if (strides.rank() != t.sizes.rank()) expected("as many strides as sizes");
      return define(defined, g_.add_input(t, strides, label));
    }
    if (what == "number") return define(defined, g_.add_number(dtype()));
    if (what == "constant") {
      skip();
      char* end = nullptr;
      const double v = std::strtod(text_.c_str() + at_, &end);
      if (end == text_.c_str() + at_) expected("a number");
      at_ = static_cast<size_t>(end - text_.c_str());
      return define(defined, g_.add_constant(v));
    }
    Node n;
    std::vector<TensorType> types;
    if (what == "count") {
      n.leaf = Leaf::count;
      symbol('(');
      n.in.push_back(value());
      symbol(',');
      word("axes");
      symbol('=');
      n.words = integers('[', ']');
      symbol(')');
      types.push_back(number_type());
    } else if (what == "number_op") {
      n.leaf = Leaf::number_op;
      n.words.push_back(scalar_op());
      symbol('(');
      do n.in.push_back(value());
      while (try_symbol(','));
      symbol(')');
      types.push_back(number_type());
    } else {
      const OpDef* op = ops::find_op(what.c_str());
      if (!op) {
        at_ -= what.size();
        expected("an op");
      }
      n.op = op->id;
      arguments(*op, n);
      symbol(':');
      do types.push_back(type());
      while (try_symbol(','));
    }
    const auto id = static_cast<int32_t>(g_.nodes.size());
    for (size_t i = 0; i < types.size(); ++i) {
      n.out.push_back(static_cast<int32_t>(g_.values.size()));
      g_.values.push_back({types[i], id, static_cast<int32_t>(i)});
    }
    if (n.out.size() != defined.size()) expected(std::to_string(defined.size()) + " result types");
    for (size_t i = 0; i < defined.size(); ++i) name_value(defined[i], n.out[i]);
    g_.nodes.push_back(std::move(n));
  }

  static TensorType number_type() {
    TensorType t;
    t.dtype = DType::float64;
    t.number = true;
    return t;
  }

  int64_t scalar_op() {
    const std::string s = identifier();
    for (int k = 0; k < static_cast<int>(ops::ScalarOp::count_); ++k)
      if (s == ops::name(static_cast<ops::ScalarOp>(k))) return k;
    at_ -= s.size();
    expected("a scalar function");
  }

  void arguments(const OpDef& op, Node& n) {
    std::vector<std::vector<int64_t>> words(static_cast<size_t>(op.n_attrs));
    symbol('(');
    while (!try_symbol(')')) {
      skip();
      if (at_ < text_.size() && (text_[at_] == '%' || (text_[at_] == '_' && !is_attribute()))) {
        n.in.push_back(value());
      } else {
        attribute(op, words);
      }
      if (!try_symbol(',')) {
        symbol(')');
        break;
      }
    }
    for (int k = 0; k < op.n_attrs; ++k) {
      const auto& w = words[static_cast<size_t>(k)];
      if (op.attrs[k].run_time()) continue;
      if (w.empty()) expected(std::string("attribute ") + op.attrs[k].name + " of " + op.name);
      n.words.insert(n.words.end(), w.begin(), w.end());
    }
  }
  bool is_attribute() const { return at_ + 1 < text_.size() && std::isalnum(static_cast<unsigned char>(text_[at_ + 1])); }

  void attribute(const OpDef& op, std::vector<std::vector<int64_t>>& words) {
    const size_t before = at_;
    const std::string s = identifier();
    for (int k = 0; k < op.n_attrs; ++k) {
      if (s != op.attrs[k].name || op.attrs[k].run_time()) continue;
      symbol('=');
      std::vector<int64_t>& w = words[static_cast<size_t>(k)];
      if (op.attrs[k].type == AttrType::list) {
        w = integers('[', ']');
        w.insert(w.begin(), static_cast<int64_t>(w.size()));
      } else if (op.attrs[k].type == AttrType::dtype) {
        w = {static_cast<int64_t>(dtype())};
      } else {
        w = {integer()};
      }
      return;
    }
    at_ = before;
    expected(std::string("a structural attribute of ") + op.name);
  }

  void define(const std::vector<std::string>& defined, int32_t v) {
    if (defined.size() != 1) expected("one value on the left");
    name_value(defined[0], v);
  }
  void name_value(const std::string& s, int32_t v) {
    if (!names_.emplace(s, v).second) expected("a fresh name instead of %" + s);
  }

  const std::string& text_;
  size_t at_ = 0;
  Graph g_;
  std::unordered_map<std::string, int32_t> names_;
};

}  // namespace

std::string to_string(const Graph& g) { return Printer(g).run(); }
Graph parse_graph(const std::string& text) { return Parser(text).run(); }

}  // namespace tandem::jit
