// A recursive-descent reader of the sample language, over one sample's text at a time.
#include "tandem/ops/samples.h"

#include <bit>
#include <cmath>
#include <cstdlib>

#include "tandem/core/error.h"
#include "tandem/core/generator.h"

namespace tandem::ops {

namespace {

class Reader {
 public:
  Reader(const OpDef& op, const std::string& text) : op_(op), text_(text) {}

  Sample read() {
    Sample s;
    s.text = text_;
    s.must_throw = take('!');
    while (!at_end() && peek() != '|') s.operands.push_back(read_operand());
    std::vector<std::vector<int64_t>> attributes(static_cast<size_t>(op_.n_attrs), std::vector<int64_t>{0});
    if (take('|'))
      while (!at_end()) read_attribute(attributes);
    for (const SampleOperand& o : s.operands) {
      if (o.kind != SampleOperand::Kind::number) continue;
      s.words.push_back(static_cast<int64_t>(o.number));
      s.words.push_back(o.number == NumberKind::floating ? std::bit_cast<int64_t>(o.value)
                                                         : static_cast<int64_t>(o.value));
      ++s.n_numbers;
    }
    for (const auto& words : attributes) s.words.insert(s.words.end(), words.begin(), words.end());
    return s;
  }

 private:
  [[noreturn]] void fail_at(const std::string& expected) const {
    fail(std::string(op_.name) + ": sample \"" + text_ + "\": expected " + expected + " at character " +
         std::to_string(at_ + 1));
  }
  void skip_blanks() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool at_end() {
    skip_blanks();
    return at_ == text_.size();
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    skip_blanks();
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  void need(char c) {
    if (!take(c)) fail_at(std::string("'") + c + "'");
  }
  double read_number(bool* floating = nullptr) {
    const char* begin = text_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end == begin) fail_at("a number");
    const std::string digits(begin, static_cast<size_t>(end - begin));
    if (floating) *floating = digits.find_first_of(".en") != std::string::npos;
    at_ += digits.size();
    return value;
  }
  int64_t read_integer() { return static_cast<int64_t>(read_number()); }
  std::string read_word() {
    std::string word;
    while (std::isalnum(static_cast<unsigned char>(peek())) || peek() == '_') word += text_[at_++];
    return word;
  }
  std::vector<int64_t> read_list(char close) {
    std::vector<int64_t> values;
    if (take(close)) return values;
    do {
      skip_blanks();
      values.push_back(read_integer());
    } while (take(','));
    need(close);
    return values;
  }

  SampleOperand read_operand() {
    using Kind = SampleOperand::Kind;
    SampleOperand o;
    skip_blanks();
    const char next = at_ + 1 < text_.size() ? text_[at_ + 1] : ' ';
    if (peek() == '-' && next == ' ') {
      ++at_;
      o.kind = Kind::absent;
    } else if (next == '(') {
      switch (peek()) {
        case 'f':
          o.kind = Kind::floating, o.low = -2, o.high = 2;
          break;
        case 'i':
          o.kind = Kind::integer, o.low = 0, o.high = 10;
          break;
        case 'b':
          o.kind = Kind::boolean, o.low = 0, o.high = 2;
          break;
        default:
          fail_at("f, i or b");
      }
      at_ += 2;
      const std::vector<int64_t> sizes = read_list(')');
      o.sizes = Dims(sizes.data(), static_cast<int64_t>(sizes.size()));
      if (peek() == '@') {
        ++at_;
        o.low = read_number();
        need(':');
        o.high = read_number();
      }
    } else if (text_.compare(at_, 4, "true") == 0) {
      at_ += 4;
      o.kind = Kind::number, o.number = NumberKind::bool_, o.value = 1;
    } else {
      bool floating = false;
      o.kind = Kind::number;
      o.value = read_number(&floating);
      o.number = floating ? NumberKind::floating : NumberKind::integer;
    }
    return o;
  }

  void read_attribute(std::vector<std::vector<int64_t>>& attributes) {
    const std::string name = read_word();
    int k = 0;
    while (k < op_.n_attrs && name != op_.attrs[k].name) ++k;
    if (k == op_.n_attrs) fail_at("the name of an attribute before");
    need('=');
    std::vector<int64_t>& words = attributes[static_cast<size_t>(k)];
    switch (op_.attrs[k].type) {
      case AttrType::list:
        need('[');
        words = read_list(']');
        words.insert(words.begin(), static_cast<int64_t>(words.size()));
        break;
      case AttrType::dtype: {
        const std::string type = read_word();
        int t = 0;
        while (t < kDTypeCount && type != tandem::name(static_cast<DType>(t))) ++t;
        if (t == kDTypeCount) fail_at("a type before");
        words = {t};
        break;
      }
      case AttrType::floating:
        words = {std::bit_cast<int64_t>(read_number())};
        break;
      case AttrType::integer:
      case AttrType::boolean:
      case AttrType::dynamic:
        words = {read_integer()};
        break;
    }
  }

  const OpDef& op_;
  const std::string text_;
  size_t at_ = 0;
};

}  // namespace

std::vector<Sample> samples(const OpDef& op) {
  std::vector<Sample> result;
  const std::string all = op.samples;
  for (size_t at = 0; at <= all.size();) {
    const size_t end = std::min(all.find(';', at), all.size());
    std::string text = all.substr(at, end - at);
    text.erase(0, text.find_first_not_of(' '));
    while (!text.empty() && text.back() == ' ') text.pop_back();
    result.push_back(Reader(op, text).read());
    at = end + 1;
  }
  return result;
}

std::vector<double> sample_values(const SampleOperand& operand, uint64_t seed) {
  Generator generator(seed);
  std::vector<double> values(static_cast<size_t>(numel(operand.sizes)));
  for (double& v : values) {
    const double unit = static_cast<double>(generator.next_u64() >> 11) * 0x1p-53;
    v = operand.low + unit * (operand.high - operand.low);
    if (operand.kind != SampleOperand::Kind::floating) v = std::floor(v);
  }
  return values;
}

TensorType sample_type(const SampleOperand& operand, DType floating) {
  TensorType t;
  t.sizes = operand.sizes;
  switch (operand.kind) {
    case SampleOperand::Kind::floating:
      t.dtype = floating;
      break;
    case SampleOperand::Kind::integer:
      t.dtype = DType::int64;
      break;
    case SampleOperand::Kind::boolean:
      t.dtype = DType::bool_;
      break;
    case SampleOperand::Kind::number:
      t.number = true;
      t.dtype = operand.number == NumberKind::floating  ? DType::float64
                : operand.number == NumberKind::integer ? DType::int64
                                                        : DType::bool_;
      break;
    case SampleOperand::Kind::absent:
      break;
  }
  return t;
}

}  // namespace tandem::ops
