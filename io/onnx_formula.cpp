// Pointwise ops without a row: their formula, called on symbols as kernels are made of it, node by node in
// ONNX's operators. Where the operator is another function at the edges (integer division, remainders, powers
// of e near 0), it is built of several.
#include <limits>
#include <memory>
#include <numbers>

#include "tandem/core/error.h"
#include "tandem/io/onnx_ops.h"

namespace tandem::io {

namespace {

using ops::S;
using ops::ScalarGraph;
using ops::ScalarNode;
using ops::ScalarOp;

class Formula {
 public:
  explicit Formula(OnnxCall& c) : c_(c), m_(c.m) {}

  void run() {
    const ops::OpDef& op = c_.op;
    const DType compute = compute_type();
    std::vector<S> in;
    for (size_t i = 0; i < c_.n.in.size(); ++i) {
      if (i >= c_.n_in()) {
        in.push_back(constant(c_.values.numbers.at(c_.n.in[i])));
        continue;
      }
      const DType t = op.types == ops::TypeRule::select && i == 0 ? DType::bool_ : compute;
      const auto number = c_.values.numbers.find(c_.n.in[i]);
      in.push_back(number == c_.values.numbers.end()
                       ? graph_.node(ScalarOp::load, t, {}, {}, {}, static_cast<int64_t>(i))
                       : ops::cast(constant(number->second), t));
    }
    S out[ops::kMaxOutputs];
    op.formula(graph_, in.data(), out);
    mark(out[0].id);
    keep_halves(compute);
    for (int32_t i = 0; i <= out[0].id; ++i)
      if (needed_[static_cast<size_t>(i)]) values_[static_cast<size_t>(i)] = node(graph_[i]);
    c_.set(c_.expand(value(out[0].id), c_.out_type().sizes));
  }

 private:
  static DType wide(DType t) { return t == DType::float16 || t == DType::bfloat16 ? DType::float32 : t; }
  DType compute_type() const {
    if (c_.op.types == ops::TypeRule::logical) return DType::bool_;
    std::vector<ops::TensorType> types(c_.n_in());
    const auto present = std::make_unique<bool[]>(types.size());
    for (size_t i = 0; i < types.size(); ++i)
      if ((present[i] = c_.has(i))) types[i] = c_.type(i);
    return wide(ops::compute_type({c_.op, types, {present.get(), types.size()}, c_.n.words, c_.n.where}));
  }
  S constant(const OnnxNumber& v) {
    const DType t = is_floating(v.type) ? DType::float64 : DType::int64;
    return graph_.node(ScalarOp::constant, t, {}, {}, {}, v.bits);
  }

  void mark(int32_t root) {
    needed_.assign(static_cast<size_t>(graph_.size()), 0);
    values_.resize(needed_.size());
    needed_[static_cast<size_t>(root)] = 1;
    for (int32_t i = root; i >= 0; --i)
      for (const int32_t v : graph_[i].in)
        if (needed_[static_cast<size_t>(i)] && v >= 0) needed_[static_cast<size_t>(v)] = 1;
  }
  /// One operation on values of float16 gives the same there as in float32 and rounded.
  void keep_halves(DType compute) {
    int operations = 0;
    half_ = false;
    if (compute != DType::float32) return;
    for (int32_t i = 0; i < graph_.size(); ++i) {
      const ScalarNode& n = graph_[i];
      if (!needed_[static_cast<size_t>(i)]) continue;
      if (n.op == ScalarOp::load) {
        const DType t = c_.type(static_cast<size_t>(n.bits)).dtype;
        if (t != DType::float16 && n.type == DType::float32) return void(half_ = false);
        half_ = half_ || t == DType::float16;
      } else if (n.op == ScalarOp::constant) {
        const double v = OnnxNumber{n.type, n.bits}.floating();
        if (half_to_float(float_to_half(static_cast<float>(v))) != v) return void(half_ = false);
      } else if (!folded(n)) {
        ++operations;
      }
    }
    half_ = half_ && operations <= 1;
  }
  /// A cast of a constant, which is one itself.
  bool folded(const ScalarNode& n) const {
    return n.op == ScalarOp::cast && graph_[n.in[0]].op == ScalarOp::constant;
  }

  DType own(DType t) const { return half_ && t == DType::float32 ? DType::float16 : t; }
  OnnxValue value(int32_t id) const { return values_[static_cast<size_t>(id)]; }
  OnnxValue number(OnnxValue like, double v) { return m_.scalar(m_.type(like).dtype, v); }
  OnnxValue make(const char* name, OnnxValue a, OnnxValue b = {}) {
    return b ? c_.pointwise(name, {a, b}) : c_.pointwise(name, {a});
  }
  OnnxValue with(const char* name, OnnxValue a, double b) { return make(name, a, number(a, b)); }

  OnnxValue node(const ScalarNode& n) {
    if (n.op == ScalarOp::load) return c_.in(static_cast<size_t>(n.bits), own(n.type));
    if (n.op == ScalarOp::constant) return m_.scalar(own(n.type), n.bits);
    if (n.op == ScalarOp::cast) return cast(n);
    OnnxValue in[3];
    for (int i = 0; i < 3; ++i)
      if (n.in[i] >= 0) in[i] = value(n.in[i]);
    const DType operands = m_.type(in[n.op == ScalarOp::select]).dtype;
    if (n.op == ScalarOp::select) return select(in[0], in[1], in[2]);
    if (operands == DType::bool_)
      if (const OnnxValue v = of_bools(n.op, in)) return v;
    // Bytes and bools have no arithmetic everywhere: it is done in int32, and wraps when it is cast back.
    const DType carrier = onnx_carrier(operands);
    for (OnnxValue& v : in)
      if (v) v = c_.cast(v, carrier);
    const OnnxValue y = operation(n.op, in[0], in[1], in[2]);
    return c_.cast(y, own(n.type));
  }

  OnnxValue cast(const ScalarNode& n) {
    const ScalarNode& from = graph_[n.in[0]];
    if (from.op != ScalarOp::constant) return c_.cast(value(n.in[0]), own(n.type));
    const OnnxNumber v{from.type, from.bits};
    return is_floating(n.type) ? m_.scalar(own(n.type), v.floating()) : m_.scalar(n.type, v.integer(n.type));
  }

  OnnxValue select(OnnxValue condition, OnnxValue a, OnnxValue b) {
    if (m_.type(a).dtype != DType::bool_) return c_.where(condition, a, b);
    const OnnxValue first = make("And", condition, a);
    const OnnxValue second = make("And", make("Not", condition), b);
    return make("Or", first, second);
  }

  OnnxValue of_bools(ScalarOp op, const OnnxValue* in) {
    switch (op) {
      case ScalarOp::bit_and:
      case ScalarOp::logical_and:
      case ScalarOp::min:
        return make("And", in[0], in[1]);
      case ScalarOp::bit_or:
      case ScalarOp::logical_or:
      case ScalarOp::max:
        return make("Or", in[0], in[1]);
      case ScalarOp::bit_xor:
      case ScalarOp::logical_xor:
      case ScalarOp::ne:
        return make("Xor", in[0], in[1]);
      case ScalarOp::logical_not:
        return make("Not", in[0]);
      case ScalarOp::eq:
        return c_.compare("Equal", in[0], in[1]);
      default:
        return {};
    }
  }

  OnnxValue operation(ScalarOp op, OnnxValue a, OnnxValue b, OnnxValue c) {
    const bool floating = is_floating(m_.type(a).dtype);
    switch (op) {
      case ScalarOp::add:
        return make("Add", a, b);
      case ScalarOp::sub:
        return make("Sub", a, b);
      case ScalarOp::mul:
        return make("Mul", a, b);
      case ScalarOp::div:
        return make("Div", a, b);
      case ScalarOp::idiv:
        return over(a, b, true);
      case ScalarOp::mod:
        return floating ? remainder(a, b) : over(a, b, false);
      case ScalarOp::fma:
        return make("Add", make("Mul", a, b), c);
      case ScalarOp::neg:
        return make("Neg", a);
      case ScalarOp::abs:
        return make("Abs", a);
      case ScalarOp::min:
        return make("Min", a, b);
      case ScalarOp::max:
        return make("Max", a, b);
      case ScalarOp::sqrt:
        return make("Sqrt", a);
      case ScalarOp::exp:
        return make("Exp", a);
      case ScalarOp::expm1: {  // tanh(a / 2) * (exp(a) + 1): no digits are lost near 0
        const OnnxValue bend = make("Tanh", with("Mul", a, 0.5));
        return make("Mul", bend, with("Add", make("Exp", a), 1));
      }
      case ScalarOp::log:
        return make("Log", a);
      case ScalarOp::log1p:
        return log1p(a);
      case ScalarOp::log2:
        return with("Div", make("Log", a), std::numbers::ln2);
      case ScalarOp::sin:
        return make("Sin", a);
      case ScalarOp::cos:
        return make("Cos", a);
      case ScalarOp::tanh:
        return make("Tanh", a);
      case ScalarOp::erf:
        return make("Erf", a);
      case ScalarOp::erfc:
        return make("Sub", number(a, 1), make("Erf", a));
      case ScalarOp::atan2:
        return atan2(a, b);
      case ScalarOp::copysign:
        return copysign(a, b);
      case ScalarOp::pow:
        return make("Pow", a, b);
      case ScalarOp::floor:
        return make("Floor", a);
      case ScalarOp::ceil:
        return make("Ceil", a);
      case ScalarOp::round:
        return make("Round", a);
      case ScalarOp::trunc: {
        const OnnxValue down = make("Floor", a), up = make("Ceil", a);
        return c_.where(c_.compare("Less", a, number(a, 0)), up, down);
      }
      case ScalarOp::eq:
        return c_.compare("Equal", a, b);
      case ScalarOp::ne:
        return make("Not", c_.compare("Equal", a, b));
      case ScalarOp::lt:
        return c_.compare("Less", a, b);
      case ScalarOp::le:
        return c_.compare("LessOrEqual", a, b);
      case ScalarOp::gt:
        return c_.compare("Greater", a, b);
      case ScalarOp::ge:
        return c_.compare("GreaterOrEqual", a, b);
      case ScalarOp::bit_and:
      case ScalarOp::bit_or:
      case ScalarOp::bit_xor:
      case ScalarOp::shl:
      case ScalarOp::shr:
        c_.refuse("operators of version " + std::to_string(kOnnxOpset) + " have no bits of signed integers");
      case ScalarOp::logical_and:
      case ScalarOp::logical_or:
      case ScalarOp::logical_xor:
      case ScalarOp::logical_not:
      case ScalarOp::select:
      case ScalarOp::cast:
      case ScalarOp::uniform:
      case ScalarOp::uniform16:
      case ScalarOp::normal:
      case ScalarOp::load:
      case ScalarOp::number:
      case ScalarOp::constant:
      case ScalarOp::index:
      case ScalarOp::reduced:
      case ScalarOp::count_:
        break;
    }
    internal_error(std::string("onnx: a formula with ") + ops::name(op));
  }

  // Of integers; by 0 it is 0, as in scalar.def. Mod has the divisor's sign.
  OnnxValue over(OnnxValue a, OnnxValue b, bool quotient) {
    int64_t known = 0;
    const bool safe = m_.is_scalar(b, &known) && known != 0;
    const OnnxValue zero = number(a, 0);
    const OnnxValue none = safe ? OnnxValue{} : c_.compare("Equal", b, zero);
    const OnnxValue by = safe ? b : c_.where(none, number(a, 1), b);
    const OnnxValue rest = make("Mod", a, by);
    const OnnxValue y = quotient ? make("Div", make("Sub", a, rest), by) : rest;
    return safe ? y : c_.where(none, zero, y);
  }

  // The remainder with the dividend's sign, brought to the divisor's.
  OnnxValue remainder(OnnxValue a, OnnxValue b) {
    const OnnxValue zero = number(a, 0);
    const OnnxValue rest = c_.pointwise("Mod", {a, b}, {{"fmod", int64_t{1}}});
    const OnnxValue below = c_.compare("Less", rest, zero), divisor_below = c_.compare("Less", b, zero);
    const OnnxValue other = make("Xor", below, divisor_below);
    const OnnxValue any = make("Not", c_.compare("Equal", rest, zero));
    return c_.where(make("And", other, any), make("Add", rest, b), rest);
  }

  // log(u) * a / (u - 1) with u = 1 + a: the rounding of u cancels (Kahan).
  OnnxValue log1p(OnnxValue a) {
    const OnnxValue one = number(a, 1), u = make("Add", a, one), moved = make("Sub", u, one);
    const OnnxValue scale = c_.where(c_.compare("Equal", moved, a), one, make("Div", a, moved));
    return c_.where(c_.compare("Equal", u, one), a, make("Mul", make("Log", u), scale));
  }

  /// Whether a sign is set, that of -0, too.
  OnnxValue negative(OnnxValue a) {
    const OnnxValue zero = number(a, 0), inverse = make("Reciprocal", a);
    const OnnxValue below = c_.compare("Less", a, zero);
    return make("Or", below, c_.compare("Less", inverse, zero));
  }

  OnnxValue copysign(OnnxValue a, OnnxValue b) {
    const OnnxValue minus = negative(b), size = make("Abs", a);
    return c_.where(minus, make("Neg", size), size);
  }

  // atan(y / x), turned by pi where x is negative; y's sign times pi / 2 where x is 0; with y of 0, too, that
  // 0, turned by x's sign. Of two infinite ones the signs are as good.
  OnnxValue atan2(OnnxValue y, OnnxValue x) {
    const OnnxValue zero = number(y, 0), inf = number(y, std::numeric_limits<double>::infinity());
    const OnnxValue y_far = c_.compare("Equal", make("Abs", y), inf);
    const OnnxValue x_far = c_.compare("Equal", make("Abs", x), inf);
    const OnnxValue far = make("And", y_far, x_far), y_sign = make("Sign", y);
    const OnnxValue x_near = c_.where(far, make("Sign", x), x);
    const OnnxValue angle = make("Atan", make("Div", c_.where(far, y_sign, y), x_near));
    const OnnxValue turn = copysign(number(y, std::numbers::pi), y);
    const OnnxValue left = c_.where(c_.compare("Less", x, zero), make("Add", angle, turn), angle);
    const OnnxValue both = c_.where(negative(x), turn, y);
    const OnnxValue quarter =
        c_.where(c_.compare("Equal", y, zero), both, with("Mul", y_sign, std::numbers::pi / 2));
    return c_.where(c_.compare("Equal", x, zero), quarter, left);
  }

  OnnxCall& c_;
  OnnxModel& m_;
  ScalarGraph graph_;
  std::vector<char> needed_;
  std::vector<OnnxValue> values_;  // by scalar node
  bool half_ = false;
};

}  // namespace

void onnx_row::formula(OnnxCall& c) { Formula(c).run(); }

}  // namespace tandem::io
