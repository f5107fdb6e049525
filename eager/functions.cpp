// The public functions over ops: each builds its call. Value-dependent rewriting (pow(x, 2), dropout with p =
// 0) happens here and never later, where eager and traced code both pass.
#include "tandem/eager/functions.h"

#include <cmath>
#include <limits>

#include "tandem/core/cuda/pinned.h"
#include "tandem/eager/autograd.h"
#include "tandem/eager/call.h"
#include "tandem/eager/transfer.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {
// Functions that the table generates but that rewrite by value or take a tensor first.
Tensor pointwise2(OpId op, const Operand& a, const Operand& b) {
  if (a.impl && b.impl) [[likely]] {
    core::TensorImpl* in[] = {a.impl, b.impl};
    // Member by member: the operands were just written so, and one wide load of two narrow stores would
    // stall.
    const Location& where = a.where.known() ? a.where : b.where;
    const char* file = where.file;
    int line = where.line;
    asm("" : "+r"(file), "+r"(line));
    return eager::call1({.op = op, .n_in = 2, .in = in, .where = {file, line}});
  }
  if (!a.impl && !b.impl)
    fail(std::string(ops::def(op).name) + ": at least one operand must be a tensor", a.where);
  return CallBuilder(op, a.where.known() ? a.where : b.where).in(a).in(b).run();
}
Tensor as_tensor(const Operand& o) { return Tensor(core::Ref<core::TensorImpl>(o.impl)); }
/// Whether a to the power b is a * a, of the same type: a number makes bools integers, a floating one
/// integers floating.
bool squares(const Operand& a, const Operand& b) {
  return a.impl && !b.impl && b.number().to_double() == 2 && a.impl->dtype != bool_ &&
         (b.kind != NumberKind::floating || is_floating(a.impl->dtype));
}
}  // namespace

#define TANDEM_POINTWISE1(name, ...) \
  Tensor name(const Tensor& a, Location where) { return CallBuilder(OpId::name, where).in(a).run(); }
#define TANDEM_POINTWISE2(name, ...)                           \
  Tensor name(const Operand& a, const Operand& b) {            \
    if constexpr (OpId::name == OpId::pow)                     \
      if (squares(a, b)) return square(as_tensor(a), a.where); \
    return pointwise2(OpId::name, a, b);                       \
  }
#define TANDEM_POINTWISE3(name, ...)                                  \
  Tensor name(const Operand& a, const Operand& b, const Operand& c) { \
    return CallBuilder(OpId::name, a.where).in(a).in(b).in(c).run();  \
  }
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3
#define TANDEM_PARAMETRIC1(name, rule, p, ...)                     \
  Tensor name(const Tensor& a, double p, Location where) {         \
    return CallBuilder(OpId::name, where).in(a).floating(p).run(); \
  }
#define TANDEM_PARAMETRIC2(name, rule, p, default_p, q, ...)                   \
  Tensor name(const Tensor& a, double p, double q, Location where) {           \
    return CallBuilder(OpId::name, where).in(a).floating(p).floating(q).run(); \
  }
#include "tandem/ops/parametric.def"
#undef TANDEM_PARAMETRIC1
#undef TANDEM_PARAMETRIC2

Tensor prelu(const Tensor& a, const Tensor& weight, Location where) {
  const int64_t n = weight.numel(where);
  if (n == 1) return CallBuilder(OpId::prelu, where).in(a).in(weight.reshape({}, where)).run();
  if (weight.dim(where) != 1 || a.dim(where) < 2 || a.size(1, where) != n)
    fail("prelu: one weight or one per channel of (N, C, ...) is needed, found weights " +
             to_string(weight.sizes()) + " for shape " + to_string(a.sizes()),
         where);
  Dims sizes = Dims::filled(a.dim(where) - 1, 1);
  sizes[0] = n;
  return CallBuilder(OpId::prelu, where).in(a).in(weight.reshape(sizes, where)).run();
}

Tensor tanhshrink(const Tensor& a, Location where) {
  return sub(Operand(a, where), Operand(tanh(a, where), where));
}

Tensor glu(const Tensor& a, int64_t axis, Location where) {
  return CallBuilder(OpId::glu, where).in(a).word(axis).run();
}

Tensor nan_to_num(const Tensor& a, double nan, std::optional<double> posinf, std::optional<double> neginf,
                  Location where) {
  double largest = std::numeric_limits<double>::max();
  if (a.dtype(where) == float32) largest = static_cast<double>(std::numeric_limits<float>::max());
  if (a.dtype(where) == float16) largest = 65504;
  if (a.dtype(where) == bfloat16) largest = 0x1.fep127;
  return CallBuilder(OpId::nan_to_num, where)
      .in(a)
      .floating(nan)
      .floating(posinf.value_or(largest))
      .floating(neginf.value_or(-largest))
      .run();
}

Tensor gelu(const Tensor& a, bool tanh_approximation, Location where) {
  return CallBuilder(OpId::gelu, where).in(a).word(tanh_approximation).run();
}

Tensor masked_fill(const Tensor& a, const Tensor& mask, const Operand& value) {
  return CallBuilder(OpId::masked_fill, value.where).in(a).in(mask).in(value).run();
}

Tensor matmul(const Tensor& a, const Tensor& b, Location where) {
  return CallBuilder(OpId::matmul, where).in(a).in(b).word(modes().tf32).run();
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Location where) {
  return CallBuilder(OpId::linear, where).in(x).in(weight).in(bias).word(modes().tf32).run();
}

Tensor embedding(const Tensor& index, const Tensor& weight, std::optional<int64_t> padding_idx,
                 Location where) {
  const Tensor rows = CallBuilder(OpId::embedding, where).in(weight).in(index).run();
  if (!padding_idx) return rows;
  const int64_t n = weight.size(0), at = *padding_idx < 0 ? *padding_idx + n : *padding_idx;
  if (at < 0 || at >= n)
    fail("embedding: padding_idx " + std::to_string(*padding_idx) + " is no row of weight " +
             to_string(weight.sizes()),
         where);
  const Tensor padded = eq(Operand(index, where), Operand(at, where)).unsqueeze(-1, where);
  return tandem::where(Operand(padded, where), Operand(rows.detach(where), where), Operand(rows, where));
}

const Tensor& embedding_renorm_(const Tensor& weight, const Tensor& index, double max_norm, double norm_type,
                                Location where) {
  if (!(max_norm > 0))
    fail("embedding_renorm_: max_norm must be positive, found " + std::to_string(max_norm), where);
  const NoGrad no_grad;
  const Tensor flat = index.reshape({index.numel(where)}, where);
  const Tensor rows = weight.index_select(0, flat, where);
  const Tensor norms = rows.norm(norm_type, {1}, true, where);
  const Tensor above = add(Operand(norms, where), Operand(1e-7, where));
  const Tensor share = div(Operand(max_norm, where), Operand(above, where));
  const Tensor large = gt(Operand(norms, where), Operand(max_norm, where));
  const Tensor scale = tandem::where(Operand(large, where), Operand(share, where), Operand(1.0, where));
  return weight.index_copy_(0, flat, mul(Operand(rows, where), Operand(scale, where)), where);
}

Tensor softmax(const Tensor& a, int64_t axis, Location where) {
  return CallBuilder(OpId::softmax, where).in(a).word(axis).run();
}
Tensor log_softmax(const Tensor& a, int64_t axis, Location where) {
  return CallBuilder(OpId::log_softmax, where).in(a).word(axis).run();
}

Tensor dropout(const Tensor& x, double p, bool training, Location where) {
  if (!(p >= 0 && p <= 1)) fail("dropout: p must lie in [0, 1], found " + std::to_string(p), where);
  if (!training || p == 0) return x;
  if (!is_floating(x.dtype(where)))  // before anything is drawn
    fail(std::string("dropout: a floating tensor is needed, found ") + name(x.dtype()), where);
  Generator& g = default_generator();
  const uint64_t counters = (static_cast<uint64_t>(x.numel(where)) + 7) / 8;
  return CallBuilder(OpId::dropout, where)
      .in(x)
      .floating(p)
      .word(static_cast<int64_t>(g.seed()))
      .word(static_cast<int64_t>(g.advance(counters)))
      .run();
}

// Joining: any number of operands.
Tensor cat(TensorSpan tensors, int64_t axis, Location where) {
  if (tensors.empty()) fail("cat: at least one tensor is needed", where);
  std::vector<core::TensorImpl*> in;
  for (const Tensor& t : tensors) in.push_back(&t.checked(where));
  return eager::call1({.op = OpId::cat,
                       .n_in = static_cast<uint32_t>(in.size()),
                       .n_words = 1,
                       .in = in.data(),
                       .words = &axis,
                       .where = where});
}

Tensor stack(TensorSpan tensors, int64_t axis, Location where) {
  if (tensors.empty()) fail("stack: at least one tensor is needed", where);
  std::vector<Tensor> rows;
  for (const Tensor& t : tensors) {
    if (!(t.sizes(where) == tensors[0].sizes(where)))
      fail("stack: all shapes must be equal, found " + to_string(tensors[0].sizes()) + " and " +
               to_string(t.sizes()),
           where);
    rows.push_back(t.unsqueeze(axis, where));
  }
  return cat(rows, normalize_axis(axis, tensors[0].dim() + 1, "stack", where), where);
}

Tensor vstack(TensorSpan tensors, Location where) {
  std::vector<Tensor> rows;
  for (const Tensor& t : tensors) {
    const int rank = t.dim(where);
    rows.push_back(rank < 2 ? t.reshape({1, rank == 0 ? 1 : t.size(0)}, where) : t);
  }
  return cat(rows, 0, where);
}
Tensor hstack(TensorSpan tensors, Location where) {
  std::vector<Tensor> parts;
  for (const Tensor& t : tensors) parts.push_back(t.dim(where) == 0 ? t.reshape({1}, where) : t);
  return cat(parts, parts.empty() || parts[0].dim() == 1 ? 0 : 1, where);
}

// Methods that are the function of the same name.
#define TANDEM_POINTWISE1(name, ...) \
  Tensor Tensor::name(Location where) const { return tandem::name(*this, where); }
#define TANDEM_POINTWISE2(name, ...) \
  Tensor Tensor::name(const Operand& other) const { return tandem::name(Operand(*this, other.where), other); }
#define TANDEM_POINTWISE3(name, ...)
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3

#define TANDEM_REDUCTION(name)                                                      \
  Tensor Tensor::name(const Dims& axes, bool keepdim, Location where) const {       \
    return CallBuilder(OpId::name, where).in(*this).word(keepdim).list(axes).run(); \
  }
TANDEM_REDUCTION(sum)
TANDEM_REDUCTION(mean)
TANDEM_REDUCTION(logsumexp)
TANDEM_REDUCTION(nansum)
TANDEM_REDUCTION(prod)
TANDEM_REDUCTION(amax)
TANDEM_REDUCTION(amin)
TANDEM_REDUCTION(any)
TANDEM_REDUCTION(all)
#undef TANDEM_REDUCTION

Tensor Tensor::argmax(std::optional<int64_t> axis, bool keepdim, Location where) const {
  return CallBuilder(OpId::argmax, where).in(*this).word(keepdim).list(axis ? Dims{*axis} : Dims{}).run();
}
Tensor Tensor::argmin(std::optional<int64_t> axis, bool keepdim, Location where) const {
  return CallBuilder(OpId::argmin, where).in(*this).word(keepdim).list(axis ? Dims{*axis} : Dims{}).run();
}
Tensor Tensor::var(const Dims& axes, int64_t correction, bool keepdim, Location where) const {
  return CallBuilder(OpId::var, where).in(*this).word(correction).word(keepdim).list(axes).run();
}
Tensor Tensor::std(const Dims& axes, int64_t correction, bool keepdim, Location where) const {
  return CallBuilder(OpId::std, where).in(*this).word(correction).word(keepdim).list(axes).run();
}
// What p says is decided here: 0, 1, 2 and the infinities have ops of their own.
Tensor Tensor::norm(double p, const Dims& axes, bool keepdim, Location where) const {
  if (p == 2) return CallBuilder(OpId::norm, where).in(*this).word(keepdim).list(axes).run();
  if (std::isnan(p)) fail("norm: p is not a number", where);
  if (p == 0)
    return tandem::ne(Operand(*this, where), Operand(0.0, where))
        .to(dtype(where), where)
        .sum(axes, keepdim, where);
  if (p != 1 && std::isfinite(p))
    return CallBuilder(OpId::norm_p, where).in(*this).floating(p).word(keepdim).list(axes).run();
  const Tensor size = tandem::abs(*this, where);
  if (p == 1) return size.sum(axes, keepdim, where);
  return p > 0 ? size.amax(axes, keepdim, where) : size.amin(axes, keepdim, where);
}
Tensor Tensor::count_nonzero(const Dims& axes, Location where) const {
  return CallBuilder(OpId::count_nonzero, where).in(*this).list(axes).run();
}
MinMax Tensor::aminmax(const Dims& axes, bool keepdim, Location where) const {
  const Tensor low = amin(axes, keepdim, where);
  return {low, amax(axes, keepdim, where)};
}
Tensor Tensor::softmax(int64_t axis, Location where) const { return tandem::softmax(*this, axis, where); }
Tensor Tensor::log_softmax(int64_t axis, Location where) const {
  return tandem::log_softmax(*this, axis, where);
}
Tensor Tensor::cumsum(int64_t axis, Location where) const {
  return CallBuilder(OpId::cumsum, where).in(*this).word(axis).word(0).run();
}
Tensor Tensor::cumprod(int64_t axis, Location where) const {
  return CallBuilder(OpId::cumprod, where).in(*this).word(axis).run();
}
Tensor Tensor::logcumsumexp(int64_t axis, Location where) const {
  return CallBuilder(OpId::logcumsumexp, where).in(*this).word(axis).run();
}
Tensor Tensor::clamp(std::optional<AnyNumber> low, std::optional<AnyNumber> high, Location where) const {
  return tandem::clamp(*this, low, high, where);
}
Tensor Tensor::lerp(const Tensor& end, const Operand& weight) const {
  return tandem::lerp(Operand(*this, weight.where), Operand(end, weight.where), weight);
}
Tensor Tensor::addcmul(const Tensor& b, const Tensor& c, AnyNumber value, Location where) const {
  return tandem::addcmul(*this, b, c, value, where);
}
Tensor Tensor::addcdiv(const Tensor& b, const Tensor& c, double value, Location where) const {
  return tandem::addcdiv(*this, b, c, value, where);
}
Tensor Tensor::matmul(const Tensor& other, Location where) const {
  return tandem::matmul(*this, other, where);
}
Tensor Tensor::masked_fill(const Tensor& mask, const Operand& value) const {
  return tandem::masked_fill(*this, mask, value);
}
Tensor Tensor::to(DType dtype, Location where) const {
  if (checked(where).dtype == dtype) return *this;
  return CallBuilder(OpId::cast, where).in(*this).word(dtype).run();
}
namespace {
/// `copy(t)` without history, with the gradient that `back` makes of the copy's.
template <class Copy, class Back>
Tensor copy_with_history(const Tensor& t, Copy&& copy, Back&& back, Location where) {
  if (!t.requires_grad()) return copy(t);
  return autograd::apply([&](autograd::Context&, const TensorList& in) { return TensorList{copy(in[0])}; },
                         [back](const autograd::Context&, const TensorList& gradients) {
                           return TensorList{back(gradients[0])};
                         },
                         {t}, where)[0];
}
}  // namespace

Tensor Tensor::to(Device device, bool non_blocking, Location where) const {
  const Device from = checked(where).device;
  if (from == device) return *this;
  return copy_with_history(
      *this, [&](const Tensor& t) { return eager::copied_to(t, device, non_blocking, where); },
      [from, where](const Tensor& gradient) { return gradient.to(from, where); }, where);
}
Tensor Tensor::pin_memory(Location where) const {
  const Device from = checked(where).device;
  if (from.type != DeviceType::cpu)
    fail("pin_memory: a tensor of the host is needed, found one of " + to_string(from), where);
  if (is_pinned(where)) return *this;
  return copy_with_history(
      *this, [&](const Tensor& t) { return eager::pinned_copy(t, where); },
      [](const Tensor& gradient) { return gradient; }, where);
}
bool Tensor::is_pinned(Location where) const {
  core::TensorImpl& t = checked(where);
  return t.storage && t.storage->release && t.device.type == DeviceType::cpu && cuda::is_pinned(t.data);
}
Tensor Tensor::clone(Location where) const { return CallBuilder(OpId::clone, where).in(*this).run(); }
Tensor Tensor::contiguous(Location where) const {
  return checked(where).has(core::kContiguous) ? *this : clone(where);
}

}  // namespace tandem
