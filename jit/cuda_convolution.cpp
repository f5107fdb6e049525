// Convolutions as kernels of our own: a thread an element of the result, which adds up in the order of the
// CPU's plain loops (ops/convolutions/loops_convolution.cpp).
#include "tandem/jit/cuda_native_text.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::jit {

namespace {

using ops::ConvolutionDirection;
using ops::ConvolutionShape;
using ops::kConvolutionAxes;

/// Axes that are trivial in front are left out of the text.
int first_axis(const ConvolutionShape& s) {
  int first = 0;
  while (first + 1 < kConvolutionAxes && s.in[first] == 1 && s.out[first] == 1 && s.kernel[first] == 1 &&
         s.padding[first] == 0)
    ++first;
  return first;
}

class Text {
 public:
  explicit Text(const NativeCallPlan& c)
      : c_(c),
        s_(ops::convolution_shape(*c.op, c.in_types, c.out_types[0], c.words)),
        first_(first_axis(s_)) {
    type_ = s_.dtype;
    wide_ = is_floating(type_) ? native_sum_type(type_) : DType::int64;
    // Integers wrap: they are added up unsigned.
    sum_ = is_floating(type_) ? c_scalar(wide_) : "td_u64";
  }

  NativeText make() {
    NativeText l;
    const bool biased = c_.in.size() > 2 && c_.in[2].base != Base::none;
    l.symbol = std::string("tandem_") + c_.op->name + (biased ? "_bias_" : "_") + c_suffix(type_) + "_" +
               std::to_string(kConvolutionAxes - first_);
    const std::string pointer = std::string("const ") + c_scalar(type_) + "* ";
    std::string fields = pointer + "p; " + pointer + "q; " + c_scalar(type_) + "* to;";
    l.words = {input(0), input(1), NativeWord{NativeWord::kOut, 0}};
    if (biased) {
      fields += " " + pointer + "bias;";
      l.words.push_back(input(2));
    }
    const int64_t channels = s_.group_channels(), outputs = s_.group_outputs();
    fields += " td_i64 batch, groups, channels, outputs";  // the last two of a group
    l.words.insert(l.words.end(), {s_.batch, s_.groups, channels, outputs});
    for (int d = first_; d < kConvolutionAxes; ++d) {
      const std::string n = std::to_string(d);
      for (const char* name : {"i", "o", "k", "s", "b", "d"}) fields += std::string(", ") + name + n;
      l.words.insert(l.words.end(),
                     {s_.in[d], s_.out[d], s_.kernel[d], s_.stride[d], s_.padding[d], s_.dilation[d]});
    }
    l.source = native_head(l.symbol, fields + ";") + body(biased) + "}\n";
    l.count = s_.result_size();
    return l;
  }

 private:
  static NativeWord input(int i) { return {NativeWord::kInput + i, 0}; }

  std::string product_of(const char* letter) const {
    std::string text;
    for (int d = first_; d < kConvolutionAxes; ++d)
      text += std::string(d > first_ ? " * " : "") + "a." + letter + std::to_string(d);
    return text;
  }
  /// Takes `rest` apart: its coordinates `name`0 .. along axes of sizes `letter`.
  std::string split(const char* name, const char* letter) const {
    std::string text;
    for (int d = kConvolutionAxes - 1; d >= first_; --d) {
      const std::string n = std::to_string(d), size = std::string("a.") + letter + n;
      text += std::string("  const td_i64 ") + name + n + " = rest % " + size + "; rest /= " + size + ";\n";
    }
    return text;
  }
  std::string open(const char* name, const char* letter) const {
    std::string text;
    for (int d = first_; d < kConvolutionAxes; ++d) {
      const std::string n = std::to_string(d), at = name + n;
      text += "    for (td_i64 " + at + " = 0; " + at + " < a." + letter + n + "; ++" + at + ")\n";
    }
    return text;
  }
  std::string linear(const char* name, const char* letter) const {
    std::string text = std::string(name) + std::to_string(first_);
    for (int d = first_ + 1; d < kConvolutionAxes; ++d)
      text = "(" + text + " * a." + letter + std::to_string(d) + " + " + name + std::to_string(d) + ")";
    return text;
  }
  /// Declares the position x0 .. of x that tap z0 .. reads at position y0 ..; outside: on to the next.
  std::string to_input() const {
    std::string text;
    for (int d = first_; d < kConvolutionAxes; ++d) {
      const std::string n = std::to_string(d);
      text += "      const td_i64 x" + n + " = y" + n + " * a.s" + n + " + z" + n + " * a.d" + n + " - a.b" +
              n + ";\n      if (x" + n + " < 0 || x" + n + " >= a.i" + n + ") continue;\n";
    }
    return text;
  }
  std::string to_output() const {
    std::string text;
    for (int d = first_; d < kConvolutionAxes; ++d) {
      const std::string n = std::to_string(d);
      text += "      const td_i64 u" + n + " = x" + n + " + a.b" + n + " - z" + n + " * a.d" + n + ", y" + n +
              " = u" + n + " / a.s" + n + ";\n      if (u" + n + " < 0 || u" + n + " % a.s" + n +
              " != 0 || y" + n + " >= a.o" + n + ") continue;\n";
    }
    return text;
  }
  std::string wide(const std::string& element) const {
    return "(" + sum_ + ")" + native_convert(type_, wide_, element);
  }
  std::string add(const std::string& p, const std::string& q) const {
    return "      sum = sum + " + wide(p) + " * " + wide(q) + ";\n";
  }
  std::string store(const std::string& value) const {
    const std::string v = is_floating(type_) ? value : "(td_i64)" + value;
    return "  a.to[t] = " + native_convert(wide_, type_, v) + ";\n";
  }

  std::string body(bool biased) const {
    const std::string in = "(" + product_of("i") + ")", out = "(" + product_of("o") + ")",
                      taps = "(" + product_of("k") + ")";
    const std::string start = "  td_i64 rest = t;\n", sum = "  " + sum_ + " sum = 0;\n";
    const std::string x_at =
                          "[((n * a.groups + g) * a.channels + c) * " + in + " + " + linear("x", "i") + "]",
                      y_at =
                          "[((n * a.groups + g) * a.outputs + o) * " + out + " + " + linear("y", "o") + "]",
                      w_at = "[((g * a.outputs + o) * a.channels + c) * " + taps + " + " + linear("z", "k") +
                             "]";
    std::string text = start;
    switch (s_.direction) {
      case ConvolutionDirection::forward:
        text += split("y", "o") +
                "  const td_i64 o = rest % a.outputs; rest /= a.outputs;\n"
                "  const td_i64 g = rest % a.groups, n = rest / a.groups;\n" +
                sum + "  for (td_i64 c = 0; c < a.channels; ++c)\n" + open("z", "k") + "    {\n" +
                to_input() + add("a.p" + x_at, "a.q" + w_at) + "    }\n";
        if (biased) text += "  sum = sum + " + wide("a.bias[g * a.outputs + o]") + ";\n";
        return text + store("sum");
      case ConvolutionDirection::input:
        text += split("x", "i") +
                "  const td_i64 c = rest % a.channels; rest /= a.channels;\n"
                "  const td_i64 g = rest % a.groups, n = rest / a.groups;\n" +
                sum + "  for (td_i64 o = 0; o < a.outputs; ++o)\n" + open("z", "k") + "    {\n" +
                to_output() + add("a.p" + y_at, "a.q" + w_at) + "    }\n";
        if (biased) text += "  sum = sum + " + wide("a.bias[g * a.channels + c]") + ";\n";
        return text + store("sum");
      case ConvolutionDirection::weight:
        text += split("z", "k") +
                "  const td_i64 c = rest % a.channels; rest /= a.channels;\n"
                "  const td_i64 o = rest % a.outputs, g = rest / a.outputs;\n  " +
                sum_ + " total = 0;\n  for (td_i64 n = 0; n < a.batch; ++n) {\n  " + sum + open("y", "o") +
                "    {\n" + to_input() + add("a.p" + x_at, "a.q" + y_at) +
                "    }\n    total = total + sum;\n  }\n";
        return text + store("total");
    }
    return {};
  }

  const NativeCallPlan& c_;
  const ConvolutionShape s_;
  const int first_;
  DType type_, wide_;
  std::string sum_;
};

}  // namespace

NativeText convolution_text(const NativeCallPlan& c) { return Text(c).make(); }

}  // namespace tandem::jit
