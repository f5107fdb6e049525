// Forms in place, and the functions that share their calls: clamp, sums with a factor, addcmul, addcdiv.
// Numbers that a double does not hold take a way of their own.
#include <limits>

#include "tandem/eager/call.h"
#include "tandem/eager/functions.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

using Bound = std::optional<AnyNumber>;

CallBuilder clamp_call(const Tensor& a, const Bound& low, const Bound& high, Location where) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return CallBuilder(OpId::clamp, where)
      .in(a)
      .floating(low.value_or(-kInfinity).to_double())
      .floating(high.value_or(kInfinity).to_double());
}

bool beyond_double(const Bound& bound) { return bound && bound->beyond_double(); }

/// Bounds that a double does not hold are operands of their own.
Tensor exact_clamp(Tensor a, Bound low, const Bound& high, Location where) {
  if (beyond_double(low)) {
    a = maximum(Operand(a, where), Operand(*low, where));
    low.reset();
  }
  if (!beyond_double(high)) return clamp_call(a, low, high, where).run();
  if (low) a = clamp_call(a, low, {}, where).run();
  return minimum(Operand(a, where), Operand(*high, where));
}

bool clamps_exactly(const Tensor& a, const Bound& low, const Bound& high, Location where) {
  return (beyond_double(low) || beyond_double(high)) && a.dtype(where) == int64;
}

/// A floating bound makes a tensor of integers floating, as other numbers do.
bool bounds_promote(const Tensor& a, const Bound& low, const Bound& high, Location where) {
  const auto floating = [](const Bound& b) { return b && b->kind == NumberKind::floating; };
  return !is_floating(a.dtype(where)) && (floating(low) || floating(high));
}

}  // namespace

Tensor clamp(const Tensor& a, Bound low, Bound high, Location where) {
  if (bounds_promote(a, low, high, where)) return clamp(a.to(float32, where), low, high, where);
  if (clamps_exactly(a, low, high, where)) return exact_clamp(a, low, high, where);
  return clamp_call(a, low, high, where).run();
}

Tensor clamp(const Tensor& a, const Tensor& low, const Tensor& high, Location where) {
  Tensor out = a;
  if (low.defined()) out = maximum(Operand(out, where), Operand(low, where));
  if (high.defined()) out = minimum(Operand(out, where), Operand(high, where));
  return out;
}

namespace {

bool is_one(AnyNumber n) { return n.to_double() == 1; }
/// Of integers the multiple may be floating, or beyond what a double holds; add_scaled's number is a double.
/// To a number it adds none.
bool adds_multiple(const Operand& a, const Tensor& b, Location where) {
  return !a.impl || !(is_floating(a.impl->dtype) || is_floating(b.dtype(where)));
}
CallBuilder scaled_call(const Operand& a, const Tensor& b, double alpha, Location where) {
  return CallBuilder(OpId::add_scaled, where).in(a).in(b).floating(alpha);
}

/// The product that addcmul adds where a double does not hold the number.
std::optional<Tensor> exact_product(const Tensor& a, const Tensor& b, const Tensor& c, AnyNumber value,
                                    Location where) {
  if (!value.beyond_double() || promote(promote(a.dtype(where), b.dtype(where)), c.dtype(where)) != int64)
    return {};
  return b.to(int64, where).mul(Operand(value, where)).mul(Operand(c, where));
}
CallBuilder addcmul_call(const Tensor& a, const Tensor& b, const Tensor& c, AnyNumber value, Location where) {
  return CallBuilder(OpId::addcmul, where).in(a).in(b).in(c).floating(value.to_double());
}
CallBuilder addcdiv_call(const Tensor& a, const Tensor& b, const Tensor& c, double value, Location where) {
  return CallBuilder(OpId::addcdiv, where).in(a).in(b).in(c).floating(value);
}

}  // namespace

Tensor add(const Operand& a, const Tensor& b, AnyNumber alpha, Location where) {
  if (is_one(alpha)) return add(a, Operand(b, where));
  if (adds_multiple(a, b, where)) return add(a, Operand(b.mul(Operand(alpha, where)), where));
  return scaled_call(a, b, alpha.to_double(), where).run();
}
Tensor sub(const Operand& a, const Tensor& b, AnyNumber alpha, Location where) {
  if (is_one(alpha)) return sub(a, Operand(b, where));
  if (adds_multiple(a, b, where)) return sub(a, Operand(b.mul(Operand(alpha, where)), where));
  return scaled_call(a, b, -alpha.to_double(), where).run();
}
Tensor rsub(const Tensor& a, const Operand& b, AnyNumber alpha) { return sub(b, a, alpha, b.where); }
Tensor Tensor::add(const Tensor& other, AnyNumber alpha, Location where) const {
  return tandem::add(Operand(*this, where), other, alpha, where);
}
Tensor Tensor::sub(const Tensor& other, AnyNumber alpha, Location where) const {
  return tandem::sub(Operand(*this, where), other, alpha, where);
}

Tensor addcmul(const Tensor& a, const Tensor& b, const Tensor& c, AnyNumber value, Location where) {
  if (const auto product = exact_product(a, b, c, value, where)) return a.add(Operand(*product, where));
  return addcmul_call(a, b, c, value, where).run();
}
Tensor addcdiv(const Tensor& a, const Tensor& b, const Tensor& c, double value, Location where) {
  return addcdiv_call(a, b, c, value, where).run();
}

// Forms in place.
#define TANDEM_POINTWISE1(name, ...)                         \
  const Tensor& Tensor::name##_(Location where) const {      \
    CallBuilder(OpId::name, where).in(*this).run_in_place(); \
    return *this;                                            \
  }
#define TANDEM_POINTWISE2(name, ...)                                         \
  const Tensor& Tensor::name##_(const Operand& other) const {                \
    CallBuilder(OpId::name, other.where).in(*this).in(other).run_in_place(); \
    return *this;                                                            \
  }
#define TANDEM_POINTWISE3(name, ...)
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3

const Tensor& Tensor::add_(const Tensor& other, AnyNumber alpha, Location where) const {
  const Operand self(*this, where);
  if (is_one(alpha)) return add_(Operand(other, where));
  if (adds_multiple(self, other, where)) return add_(Operand(other.mul(Operand(alpha, where)), where));
  scaled_call(self, other, alpha.to_double(), where).run_in_place();
  return *this;
}
const Tensor& Tensor::sub_(const Tensor& other, AnyNumber alpha, Location where) const {
  const Operand self(*this, where);
  if (is_one(alpha)) return sub_(Operand(other, where));
  if (adds_multiple(self, other, where)) return sub_(Operand(other.mul(Operand(alpha, where)), where));
  scaled_call(self, other, -alpha.to_double(), where).run_in_place();
  return *this;
}
const Tensor& Tensor::lerp_(const Tensor& end, const Operand& weight) const {
  CallBuilder(OpId::lerp, weight.where).in(*this).in(end).in(weight).run_in_place();
  return *this;
}
const Tensor& Tensor::addcmul_(const Tensor& b, const Tensor& c, AnyNumber value, Location where) const {
  if (const auto product = exact_product(*this, b, c, value, where)) return add_(Operand(*product, where));
  addcmul_call(*this, b, c, value, where).run_in_place();
  return *this;
}
const Tensor& Tensor::addcdiv_(const Tensor& b, const Tensor& c, double value, Location where) const {
  addcdiv_call(*this, b, c, value, where).run_in_place();
  return *this;
}
const Tensor& Tensor::copy_(const Tensor& src, Location where) const {
  if (!(src.device(where) == device(where))) return copy_(src.to(device(where), where), where);
  CallBuilder(OpId::copy, where).in(*this).in(src).run_in_place();
  return *this;
}
const Tensor& Tensor::fill_(const Operand& value) const {
  if (value.impl) return copy_(Tensor(core::Ref<core::TensorImpl>(value.impl)), value.where);
  if (value.kind == NumberKind::integer && dtype(value.where) == int64) {
    // The number of full_like is a double, which does not hold every int64.
    CallBuilder(OpId::copy, value.where).in(*this).in(value).run_in_place();
    return *this;
  }
  CallBuilder(OpId::full_like, value.where).in(*this).floating(value.number().to_double()).run_in_place();
  return *this;
}
const Tensor& Tensor::clamp_(Bound low, Bound high, Location where) const {
  if (bounds_promote(*this, low, high, where))
    fail(std::string("clamp_: a floating bound gives float32, which ") + name(dtype()) + " cannot hold",
         where);
  if (clamps_exactly(*this, low, high, where)) return copy_(exact_clamp(*this, low, high, where), where);
  clamp_call(*this, low, high, where).run_in_place();
  return *this;
}
const Tensor& Tensor::masked_fill_(const Tensor& mask, const Operand& value) const {
  CallBuilder(OpId::masked_fill, value.where).in(*this).in(mask).in(value).run_in_place();
  return *this;
}
const Tensor& Tensor::zero_(Location where) const { return fill_(Operand(0.0, where)); }

}  // namespace tandem
