// The parser of the text form: one pass without recursion. Whatever it accepts keeps the rules of the
// checker; everything else is an Error that names the line, what was expected and what stands there.
#include <algorithm>
#include <bit>
#include <charconv>
#include <limits>
#include <unordered_map>

#include "tandem/core/error.h"
#include "tandem/jit/graph_check.h"

namespace tandem::jit {

namespace {

using ops::AttrType;
using ops::OpDef;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  Graph run() {
    word("graph");
    symbol('{');
    while (!try_symbol('}')) statement();
    skip();
    if (at_ < text_.size()) expected("the end");
    return std::move(g_);
  }

 private:
  // --- Characters and words ---

  [[noreturn]] void expected(const std::string& what) { expected(what, at_); }
  [[noreturn]] void expected(const std::string& what, size_t at) {
    at_ = at;
    skip();
    int line = 1;
    for (size_t i = 0; i < at_; ++i) line += text_[i] == '\n';
    std::string found = at_ < text_.size() ? text_.substr(at_, 24) : "the end";
    found.resize(std::min(found.size(), found.find_first_of("\r\n")));
    fail("graph text, line " + std::to_string(line) + ": expected " + what + ", found '" + found + "'");
  }

  void skip() {
    while (at_ < text_.size() && (is_space(text_[at_]) || text_[at_] == '#')) {
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
  std::string identifier(const char* what) {
    skip();
    const size_t start = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    if (start == at_) expected(what);
    return text_.substr(start, at_ - start);
  }
  bool try_word(const char* w) {
    skip();
    const size_t before = at_;
    while (at_ < text_.size() && is_name(text_[at_])) ++at_;
    if (text_.compare(before, at_ - before, w) == 0) return true;
    at_ = before;
    return false;
  }
  void word(const char* w) {
    if (!try_word(w)) expected(std::string("'") + w + "'");
  }

  // --- Numbers, types ---

  int64_t integer() {
    skip();
    int64_t v = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), v);
    if (error != std::errc() || end == begin) expected("an integer of 64 bits");
    at_ += static_cast<size_t>(end - begin);
    return v;
  }
  double real() {
    skip();
    const size_t before = at_;
    const bool negative = try_symbol('-');
    if (try_word("inf"))
      return negative ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    if (!negative && try_word("nan")) {
      if (!try_symbol('(')) return std::numeric_limits<double>::quiet_NaN();
      const auto v =
          std::bit_cast<double>(digits<uint64_t>(text_.compare(at_, 2, "0x") == 0 ? 2 : 0, 16, before));
      if (v == v) expected("the bits of a NaN", before);
      symbol(')');
      return v;
    }
    const bool hex = text_.compare(at_, 2, "0x") == 0;
    const double v =
        digits<double>(hex ? 2 : 0, hex ? std::chars_format::hex : std::chars_format::general, before);
    if (v != v) expected("a number", before);
    return negative ? -v : v;
  }
  template <class T, class Format>
  T digits(size_t prefix, Format format, size_t before) {
    T v{};
    const char* const end = text_.data() + text_.size();
    const char* const begin = text_.data() + std::min(at_ + prefix, text_.size());
    if (begin == end || !is_name(*begin)) expected("a number", before);
    const auto [stop, error] = std::from_chars(begin, end, v, format);
    if (error != std::errc() || stop == begin) expected("a number", before);
    at_ = static_cast<size_t>(stop - text_.data());
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
    skip();
    const size_t before = at_;
    const std::vector<int64_t> v = integers('(', ')');
    if (v.size() > kMaxRank) expected("at most " + std::to_string(kMaxRank) + " sizes", before);
    return Dims(v.data(), static_cast<int64_t>(v.size()));
  }
  DType dtype() {
    skip();
    const size_t before = at_;
    const std::string s = identifier("a dtype");
    for (int t = 0; t < kDTypeCount; ++t)
      if (s == tandem::name(static_cast<DType>(t))) return static_cast<DType>(t);
    expected("a dtype", before);
  }
  TensorType type() {
    TensorType t;
    if (try_word("number")) {
      symbol(':');
      t.number = true;
      t.dtype = dtype();
      return t;
    }
    t.dtype = dtype();
    t.sizes = dims();
    return t;
  }

  // --- Values ---

  int32_t value(const char* what = "a value defined above") {
    skip();
    const size_t before = at_;
    if (try_symbol('%')) {
      const auto it = names_.find(identifier(what));
      if (it != names_.end()) return it->second;
    }
    expected(what, before);
  }
  bool at_operand() {
    skip();
    return at_ < text_.size() && (text_[at_] == '%' || (text_[at_] == '_' && (at_ + 1 == text_.size() ||
                                                                              !is_name(text_[at_ + 1]))));
  }
  int32_t operand() { return try_symbol('_') ? -1 : value(); }

  // --- Statements ---

  void statement() {
    skip();
    if (at_ < text_.size() && text_[at_] == '%') return definition();
    if (try_word("return")) {
      do {
        skip();
        const size_t before = at_;
        g_.outputs.push_back(value());
        if (g_.type(g_.outputs.back()).number) expected("a tensor", before);
      } while (try_symbol(','));
    } else if (try_word("write")) {
      write();
    } else {
      expected("a definition, 'return', 'write' or '}'");
    }
  }

  void write() {
    skip();
    size_t before = at_;
    const int32_t target = value("an input");
    const Node& n = g_.node_of(target);
    if (n.leaf != Leaf::input) expected("an input", before);
    for (const Write& w : g_.writes)
      if (w.input == n.index) expected("an input that is not yet written", before);
    symbol('<');
    symbol('-');
    skip();
    before = at_;
    const int32_t v = value();
    if (!(g_.type(v) == g_.type(target))) expected("a value of type " + to_string(g_.type(target)), before);
    g_.writes.push_back({n.index, v});
  }

  void definition() {
    std::vector<std::string> defined;
    do {
      skip();
      const size_t before = at_;
      symbol('%');
      std::string name = identifier("a name");
      if (names_.count(name) || std::find(defined.begin(), defined.end(), name) != defined.end())
        expected("a name that is not yet defined", before);
      defined.push_back(std::move(name));
    } while (try_symbol(','));
    symbol('=');
    skip();
    const size_t start = at_;
    std::vector<TensorType> types;
    size_t types_at = start;
    Node n = right_side(types, types_at);
    if (types.size() != defined.size())
      expected(
          std::to_string(types.size()) + (types.size() == 1 ? " value" : " values") + " on the left of this",
          start);

    for (size_t i = 0; i < types.size(); ++i) {
      n.out.push_back(static_cast<int32_t>(g_.values.size()));
      names_.emplace(defined[i], n.out.back());
      g_.values.push_back({types[i], static_cast<int32_t>(g_.nodes.size()), static_cast<int32_t>(i)});
    }
    if (n.leaf == Leaf::input) g_.inputs.back().value = n.out[0];
    const Defect d = node_defect(g_, n);
    if (!d.expected.empty()) expected(d.expected, d.result >= 0 ? types_at : start);
    g_.nodes.push_back(std::move(n));
  }

  Node right_side(std::vector<TensorType>& types, size_t& types_at) {
    skip();
    const size_t start = at_;
    const std::string what = identifier("an op, 'input', 'number', 'constant', 'count' or 'number_op'");
    Node n;
    TensorType number;
    number.dtype = DType::float64;
    number.number = true;
    if (what == "input") {
      n = input(types, types_at);
    } else if (what == "number") {
      skip();
      types_at = at_;
      n.leaf = Leaf::number;
      number.dtype = dtype();
      n.index = g_.numbers++;
      g_.number_types.push_back(number.dtype);
      types.push_back(number);
    } else if (what == "constant") {
      n.leaf = Leaf::constant;
      n.bits = std::bit_cast<int64_t>(real());
      types.push_back(number);
    } else if (what == "count") {
      n.leaf = Leaf::count;
      symbol('(');
      n.in.push_back(value());
      symbol(',');
      word("axes");
      symbol('=');
      n.words = integers('[', ']');
      symbol(')');
      types.push_back(number);
    } else if (what == "number_op") {
      n.leaf = Leaf::number_op;
      n.words.push_back(scalar_op());
      symbol('(');
      do n.in.push_back(value());
      while (try_symbol(','));
      symbol(')');
      types.push_back(number);
    } else {
      const OpDef* op = ops::find_op(what.c_str());
      if (!op) expected("an op, 'input', 'number', 'constant', 'count' or 'number_op'", start);
      n.op = op->id;
      arguments(*op, n);
      symbol(':');
      skip();
      types_at = at_;
      do types.push_back(type());
      while (try_symbol(','));
    }
    return n;
  }

  Node input(std::vector<TensorType>& types, size_t& types_at) {
    Node n;
    n.leaf = Leaf::input;
    n.index = static_cast<int32_t>(g_.inputs.size());
    skip();
    types_at = at_;
    types.push_back(type());
    word("strides");
    skip();
    size_t before = at_;
    Input in;
    in.value = -1;
    in.strides = dims();
    if (in.strides.rank() != types[0].sizes.rank()) expected("as many strides as sizes", before);
    if (try_word("align")) {
      skip();
      before = at_;
      in.alignment = integer();
      if (in.alignment <= 0) expected("a positive alignment", before);
    }
    if (try_word("panels"))
      in.form = Form::panels;
    else if (try_word("weight"))
      in.form = Form::weight;
    if (try_symbol('"')) {
      for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
        const bool escaped = text_[at_] == '\\' && at_ + 1 < text_.size();
        if (escaped) ++at_;
        in.name += escaped && text_[at_] == 'n' ? '\n' : text_[at_];
      }
      symbol('"');
    }
    g_.inputs.push_back(std::move(in));
    return n;
  }

  int64_t scalar_op() {
    skip();
    const size_t before = at_;
    const std::string s = identifier("arithmetic of numbers");
    for (int64_t k = 0; k < static_cast<int64_t>(ops::ScalarOp::count_); ++k)
      if (s == ops::name(static_cast<ops::ScalarOp>(k)) &&
          (is_number_arithmetic(k, 1) || is_number_arithmetic(k, 2)))
        return k;
    expected("arithmetic of numbers", before);
  }

  void arguments(const OpDef& op, Node& n) {
    std::vector<std::vector<int64_t>> words(static_cast<size_t>(op.n_attrs));
    symbol('(');
    while (!try_symbol(')')) {
      if (at_operand())
        n.in.push_back(operand());
      else
        attribute(op, words);
      if (try_symbol(',')) continue;
      if (!try_symbol(')')) expected("',' or ')'");
      break;
    }
    for (int k = 0; k < op.n_attrs; ++k) {
      auto& w = words[static_cast<size_t>(k)];
      if (op.attrs[k].run_time()) continue;
      if (w.empty() && op.attrs[k].type == AttrType::boolean) w = {0};
      if (w.empty()) expected(std::string("attribute ") + op.attrs[k].name + " of " + op.name, at_ - 1);
      n.words.insert(n.words.end(), w.begin(), w.end());
    }
  }

  void attribute(const OpDef& op, std::vector<std::vector<int64_t>>& words) {
    skip();
    const size_t before = at_;
    const std::string what = std::string("an operand or attribute of ") + op.name;
    const std::string s = identifier(what.c_str());
    for (int k = 0; k < op.n_attrs; ++k) {
      if (s != op.attrs[k].name || op.attrs[k].run_time()) continue;
      std::vector<int64_t>& w = words[static_cast<size_t>(k)];
      if (!w.empty()) expected(std::string("attribute ") + s + " once", before);
      symbol('=');
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
    expected(what, before);
  }

  const std::string& text_;
  size_t at_ = 0;
  Graph g_;
  std::unordered_map<std::string, int32_t> names_;
};

}  // namespace

Graph parse_graph(const std::string& text) { return Parser(text).run(); }

}  // namespace tandem::jit
