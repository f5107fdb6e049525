// Making tensors: from numbers, random numbers and host data. What fills by formula is an op like any other
// (a trace records it); what copies host data is real at once.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "tandem/core/cuda/runtime.h"
#include "tandem/eager/call.h"

namespace tandem {

using core::Ref;
using core::TensorImpl;
using eager::CallBuilder;
using ops::OpId;

namespace {

Device checked_device(const TensorOptions& options, const char* who, Location where) {
  const Device d = options.device.value_or(default_device());
  if (d.type == DeviceType::cuda) cuda::Runtime::of(d, who, where);
  return d;
}

/// What integers alone make is of integers.
DType type_of(std::initializer_list<AnyNumber> numbers) {
  const bool real =
      std::ranges::any_of(numbers, [](const AnyNumber& n) { return n.kind == NumberKind::floating; });
  return real ? float32 : int64;
}

Tensor finished(Tensor t, const TensorOptions& options, Location where) {
  if (options.pin_memory) t = t.pin_memory(where);
  if (options.requires_grad) t.requires_grad_(true, where);
  return t;
}

Ref<TensorImpl> fresh(const char* who, const Dims& sizes, DType dtype, Device device, Location where) {
  try {
    return core::make_tensor(sizes, dtype, device);
  } catch (const Error& e) {
    fail_again(e, who, where);
  }
}

/// A real tensor made on the host, cast and finished as the options say; they may leave its type.
Tensor from_fresh(Ref<TensorImpl> t, const TensorOptions& options, Device device, Location where) {
  const DType type = options.dtype.value_or(t->dtype);
  if (type != t->dtype) {
    TensorImpl* in[] = {t.get()};
    const int64_t word = static_cast<int64_t>(type);
    Ref<TensorImpl> out;
    eager::run_op({.op = OpId::cast, .n_in = 1, .n_words = 1, .in = in, .words = &word, .where = where},
                  &out);
    t = std::move(out);
  }
  return finished(Tensor(std::move(t)).to(device, where), options, where);
}

Generator& generator_or_default(Generator* g) { return g ? *g : default_generator(); }

/// Random numbers are drawn, and what is computed from them, in float32 or float64; half types are cast at
/// the end.
DType drawn_type(DType type, const char* who, Location where) {
  if (!is_floating(type))
    fail(std::string(who) + ": a floating type is needed, asked for " + name(type), where);
  return type == float64 ? float64 : float32;
}

/// A random fill op: (dtype, seed, offset, sizes).
Tensor random_fill(OpId op, const Dims& sizes, const TensorOptions& options, Generator* generator,
                   Location where) {
  const char* who = ops::def(op).name;
  const OnDevice guard(checked_device(options, who, where));
  const DType wanted = options.dtype.value_or(float32), type = drawn_type(wanted, who, where);
  const int64_t n = checked_numel(sizes, where);
  Generator& g = generator_or_default(generator);
  const auto seed = static_cast<int64_t>(g.seed());
  const auto offset = static_cast<int64_t>(g.advance(static_cast<uint64_t>(n + 3) / 4));
  Tensor t = CallBuilder(op, where).word(type).word(seed).word(offset).list(sizes).run();
  if (type != wanted) {
    // [0, 1) stays so: what would round to 1 becomes the largest number below it.
    if (op == OpId::rand)
      t = tandem::minimum(Operand(t, where), Operand(1 - (wanted == float16 ? 0x1p-11 : 0x1p-8), where));
    t = t.to(wanted, where);
  }
  return finished(std::move(t), options, where);
}

}  // namespace

Tensor empty(const Dims& sizes, TensorOptions options, Location where) {
  const Device d = checked_device(options, "empty", where);
  const DType type = options.dtype.value_or(float32);
  checked_mul(checked_numel(sizes, where), itemsize(type), "empty", where);
  return finished(Tensor(fresh("empty", sizes, type, d, where)), options, where);
}

Tensor full(const Dims& sizes, AnyNumber value, TensorOptions options, Location where) {
  const OnDevice guard(checked_device(options, "full", where));
  const DType type = options.dtype.value_or(value.kind == NumberKind::bool_ ? bool_ : type_of({value}));
  checked_mul(checked_numel(sizes, where), itemsize(type), "full", where);
  const bool exactly = type == int64 && value.beyond_double();
  Tensor t =
      CallBuilder(OpId::full, where).word(type).floating(exactly ? 0 : value.to_double()).list(sizes).run();
  if (exactly) t = CallBuilder(OpId::copy, where).in(t).in(Operand(value, where)).run();
  return finished(std::move(t), options, where);
}

Tensor zeros(const Dims& sizes, TensorOptions options, Location where) {
  return full(sizes, 0.0, options, where);
}
Tensor ones(const Dims& sizes, TensorOptions options, Location where) {
  return full(sizes, 1.0, options, where);
}
Tensor full_like(const Tensor& t, AnyNumber value, Location where) {
  return full(t.sizes(where), value, {.dtype = t.dtype(where), .device = t.device(where)}, where);
}
Tensor zeros_like(const Tensor& t, Location where) { return full_like(t, 0, where); }
Tensor ones_like(const Tensor& t, Location where) { return full_like(t, 1, where); }
Tensor empty_like(const Tensor& t, Location where) {
  return empty(t.sizes(where), {.dtype = t.dtype(where), .device = t.device(where)}, where);
}

namespace {
/// start + i * step below or above `end`, of integers.
Tensor exact_range(int64_t start, int64_t end, int64_t step, const TensorOptions& options, Location where) {
  const __int128 way = static_cast<__int128>(end) - start, towards = step > 0 ? step - 1 : step + 1;
  const __int128 n = std::max<__int128>(0, (way + towards) / step);
  if (n > int64_t{1} << 53) fail("arange: too many elements", where);
  const Tensor i = arange(0, static_cast<int64_t>(n), 1, {.dtype = int64, .device = options.device}, where);
  const Tensor steps = mul(Operand(i, where), Operand(step, where));
  return finished(add(Operand(steps, where), Operand(start, where)), options, where);
}
}  // namespace

Tensor arange(AnyNumber first, AnyNumber last, AnyNumber by, TensorOptions options, Location where) {
  const OnDevice guard(checked_device(options, "arange", where));
  const DType type = options.dtype.value_or(type_of({first, last, by}));
  const AnyNumber all[] = {first, last, by};
  const auto beyond = [&] {
    return std::ranges::any_of(all, &AnyNumber::beyond_double) ||
           AnyNumber(last.bits - first.bits).beyond_double();
  };
  if (type == int64 && by.bits != 0 &&
      std::ranges::all_of(all, [](const AnyNumber& n) { return n.kind == NumberKind::integer; }) && beyond())
    return exact_range(first.bits, last.bits, by.bits, options, where);
  const double start = first.to_double(), end = last.to_double(), step = by.to_double();
  if (step == 0 || !std::isfinite(start) || !std::isfinite(end) || !std::isfinite(step))
    fail("arange: finite bounds and a step other than 0 are needed, found " + std::to_string(start) + ", " +
             std::to_string(end) + ", " + std::to_string(step),
         where);
  const double n = std::max(0.0, std::ceil((end - start) / step));
  if (n > 9e15) fail("arange: too many elements", where);
  return finished(CallBuilder(OpId::arange, where)
                      .word(type)
                      .word(static_cast<int64_t>(n))
                      .floating(start)
                      .floating(step)
                      .run(),
                  options, where);
}

Tensor linspace(double start, double end, int64_t steps, TensorOptions options, Location where) {
  const OnDevice guard(checked_device(options, "linspace", where));
  if (steps < 0 || !std::isfinite(start) || !std::isfinite(end))
    fail("linspace: finite ends and a number of steps of at least 0 are needed, found " +
             std::to_string(start) + ", " + std::to_string(end) + ", " + std::to_string(steps),
         where);
  const auto last = static_cast<double>(steps - 1);
  return finished(CallBuilder(OpId::linspace, where)
                      .word(options.dtype.value_or(float32))
                      .word(steps)
                      .floating(start)
                      .floating(end)
                      .floating(steps > 1 ? (end - start) / last : 0)
                      .floating(steps > 1 ? last : 1)
                      .run(),
                  options, where);
}

Tensor logspace(double start, double end, int64_t steps, double base, TensorOptions options, Location where) {
  const Tensor powers = linspace(start, end, steps, {.dtype = float64, .device = options.device}, where);
  return finished(
      pow(Operand(base, where), Operand(powers, where)).to(options.dtype.value_or(float32), where), options,
      where);
}

Tensor eye(int64_t n, std::optional<int64_t> m, TensorOptions options, Location where) {
  if (n < 0 || m.value_or(0) < 0)
    fail("eye: sizes must not be negative, found " + std::to_string(n) + " and " +
             std::to_string(m.value_or(n)),
         where);
  const TensorOptions integers{.dtype = int64, .device = options.device};
  const Tensor rows = arange(0, static_cast<double>(n), 1, integers, where).unsqueeze(1, where);
  const Tensor columns = arange(0, static_cast<double>(m.value_or(n)), 1, integers, where);
  return finished(
      eq(Operand(rows, where), Operand(columns, where)).to(options.dtype.value_or(float32), where), options,
      where);
}

namespace {
/// Positions of a matrix for which `chosen(row, column)` holds, row by row.
template <class Chosen>
Tensor positions(const char* op, int64_t rows, int64_t columns, const TensorOptions& options, Location where,
                 Chosen chosen) {
  if (rows < 0 || columns < 0)
    fail(std::string(op) + ": sizes must not be negative, found " + std::to_string(rows) + " and " +
             std::to_string(columns),
         where);
  std::vector<int64_t> at, column;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j)
      if (chosen(i, j)) at.push_back(i), column.push_back(j);
  const auto n = static_cast<int64_t>(at.size());
  at.insert(at.end(), column.begin(), column.end());
  return tensor(std::span<const int64_t>(at), {2, n}, options, where);
}
}  // namespace

Tensor tril_indices(int64_t rows, int64_t columns, int64_t offset, TensorOptions options, Location where) {
  return positions("tril_indices", rows, columns, options, where,
                   [offset](int64_t i, int64_t j) { return j - i <= offset; });
}
Tensor triu_indices(int64_t rows, int64_t columns, int64_t offset, TensorOptions options, Location where) {
  return positions("triu_indices", rows, columns, options, where,
                   [offset](int64_t i, int64_t j) { return j - i >= offset; });
}

Tensor bernoulli(const Tensor& p, Generator* generator, Location where) {
  const NoGrad no_grad;
  const Tensor r =
      rand(p.sizes(where), {.dtype = drawn_type(p.dtype(), "bernoulli", where), .device = p.device()},
           generator, where);
  return lt(Operand(r, where), Operand(p, where)).to(p.dtype(), where);
}

Tensor normal(const Tensor& mean, const Tensor& std, Generator* generator, Location where) {
  const Dims sizes = broadcast(mean.sizes(where), std.sizes(where), "normal", where);
  const Tensor r = randn(sizes, {.dtype = drawn_type(mean.dtype(), "normal", where), .device = mean.device()},
                         generator, where)
                       .to(mean.dtype(), where);
  const Tensor scaled = mul(Operand(r, where), Operand(std, where));
  return add(Operand(scaled, where), Operand(mean, where));
}
Tensor normal(double mean, double std, const Dims& sizes, TensorOptions options, Generator* generator,
              Location where) {
  if (!(std >= 0)) fail("normal: a deviation of at least 0 is needed, found " + std::to_string(std), where);
  const Tensor r = randn(sizes, {.dtype = options.dtype, .device = options.device}, generator, where);
  const Tensor scaled = mul(Operand(r, where), Operand(std, where));
  return finished(add(Operand(scaled, where), Operand(mean, where)), options, where);
}

// Without replacement: the n largest of weight / e with e exponential (P. Efraimidis and P. Spirakis, 2006).
// With it: where a uniform number falls in the running sum.
Tensor multinomial(const Tensor& weights, int64_t n, bool replacement, Generator* generator, Location where) {
  const NoGrad no_grad;
  const int rank = weights.dim(where);
  if (rank < 1 || rank > 2)
    fail("multinomial: weights (C) or (N, C) are needed, found shape " + to_string(weights.sizes()), where);
  const int64_t classes = weights.size(-1);
  if (n < 1 || classes < 1 || (!replacement && n > classes))
    fail("multinomial: cannot draw " + std::to_string(n) + " of " + std::to_string(classes) +
             (replacement ? "" : " without replacement"),
         where);
  const DType type = drawn_type(weights.dtype(), "multinomial", where);
  Dims sizes = weights.sizes();
  if (replacement) sizes[rank - 1] = n;
  const Tensor u = rand(sizes, {.dtype = type, .device = weights.device()}, generator, where);
  const Tensor w = weights.to(type, where);
  if (!replacement) {
    const double half_step = type == float64 ? 0x1p-54 : 0x1p-25;  // so that none waits 0
    const Tensor inside = add(Operand(u, where), Operand(half_step, where));
    const Tensor waits = neg(log1p(neg(inside, where), where), where);
    const Tensor rates = div(Operand(w, where), Operand(waits, where));
    const Tensor possible = gt(Operand(w, where), Operand(0, where));
    const Tensor keys = tandem::where(Operand(possible, where), Operand(rates, where), Operand(-1.0, where));
    return n == 1 ? keys.argmax(-1, true, where) : keys.topk(n, -1, true, where).indices;
  }
  const Tensor sums = w.cumsum(-1, where);
  const Tensor point = mul(Operand(u, where), Operand(sums.narrow(-1, classes - 1, 1, where), where));
  return minimum(Operand(searchsorted(sums, point, true, where), where), Operand(classes - 1, where));
}

Tensor rand(const Dims& sizes, TensorOptions options, Generator* generator, Location where) {
  return random_fill(OpId::rand, sizes, options, generator, where);
}
Tensor randn(const Dims& sizes, TensorOptions options, Generator* generator, Location where) {
  return random_fill(OpId::randn, sizes, options, generator, where);
}

Tensor randint(int64_t low, int64_t high, const Dims& sizes, TensorOptions options, Generator* generator,
               Location where) {
  if (high <= low)
    fail("randint: high must be above low, found " + std::to_string(low) + " and " + std::to_string(high),
         where);
  checked_numel(sizes, where);
  const Device device = checked_device(options, "randint", where);
  Ref<TensorImpl> t = fresh("randint", sizes, DType::int64, cpu, where);
  Generator& g = generator_or_default(generator);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  for (int64_t& v : std::span(static_cast<int64_t*>(t->data), static_cast<size_t>(t->numel)))
    v = static_cast<int64_t>(static_cast<uint64_t>(low) + g.below(range));
  return from_fresh(std::move(t), options, device, where);
}

Tensor rand_like(const Tensor& t, Generator* generator, Location where) {
  return rand(t.sizes(where), {.dtype = t.dtype(), .device = t.device()}, generator, where);
}
Tensor randn_like(const Tensor& t, Generator* generator, Location where) {
  return randn(t.sizes(where), {.dtype = t.dtype(), .device = t.device()}, generator, where);
}
Tensor randint_like(const Tensor& t, int64_t low, int64_t high, Generator* generator, Location where) {
  return randint(low, high, t.sizes(where), {.dtype = t.dtype(), .device = t.device()}, generator, where);
}

Tensor randperm(int64_t n, Generator* generator, Location where) {
  if (n < 0) fail("randperm: a size of at least 0 is needed, found " + std::to_string(n), where);
  Ref<TensorImpl> t = fresh("randperm", {n}, DType::int64, cpu, where);
  const std::span values(static_cast<int64_t*>(t->data), static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) values[static_cast<size_t>(i)] = i;
  Generator& g = generator_or_default(generator);
  for (int64_t i = n - 1; i > 0; --i)
    std::swap(values[static_cast<size_t>(i)], values[g.below(static_cast<uint64_t>(i) + 1)]);
  return Tensor(std::move(t)).to(default_device(), where);
}

Tensor from_blob(void* data, const Dims& sizes, DType dtype, void (*release)(void*), void* context,
                 Location where) {
  const int64_t nbytes = checked_mul(checked_numel(sizes, where), itemsize(dtype), "from_blob", where);
  if (!data && nbytes > 0) fail("from_blob: a null address for " + std::to_string(nbytes) + " bytes", where);
  core::Ref<core::TensorImpl> t(core::new_impl());
  t->dtype = dtype;
  core::set_contiguous_layout(*t, sizes);
  core::set_storage(*t, core::borrow_storage(data, nbytes, release, context));
  if (eager::Interceptor* i = eager::interceptor()) i->borrowed();
  return Tensor(std::move(t));
}

namespace eager {

Tensor from_host(const void* values, DType from, int64_t count, const Dims& sizes,
                 const TensorOptions& options, Location where) {
  const Device d = checked_device(options, "tensor", where);
  if (checked_numel(sizes, where) != count)
    fail("tensor: " + std::to_string(count) + " values for shape " + to_string(sizes), where);
  Ref<TensorImpl> t = fresh("tensor", sizes, from, cpu, where);
  if (count) std::memcpy(t->data, values, static_cast<size_t>(t->nbytes()));
  return from_fresh(std::move(t), options, d, where);
}

}  // namespace eager

const Tensor& Tensor::normal_(double mean, double std, Generator* generator, Location where) const {
  const NoGrad no_grad;
  const Tensor r =
      randn(sizes(where), {.dtype = drawn_type(dtype(where), "normal_", where), .device = device(where)},
            generator, where);
  const Tensor scaled = tandem::mul(Operand(r, where), Operand(std, where));
  return copy_(tandem::add(Operand(scaled, where), Operand(mean, where)), where);
}
const Tensor& Tensor::uniform_(double low, double high, Generator* generator, Location where) const {
  const NoGrad no_grad;
  const Tensor r =
      rand(sizes(where), {.dtype = drawn_type(dtype(where), "uniform_", where), .device = device(where)},
           generator, where);
  const Tensor scaled = tandem::mul(Operand(r, where), Operand(high - low, where));
  return copy_(tandem::add(Operand(scaled, where), Operand(low, where)), where);
}
const Tensor& Tensor::bernoulli_(double p, Generator* generator, Location where) const {
  if (!(p >= 0 && p <= 1)) fail("bernoulli_: p must lie in [0, 1], found " + std::to_string(p), where);
  const NoGrad no_grad;
  const Tensor r = rand(sizes(where), {.dtype = float32, .device = device(where)}, generator, where);
  return copy_(tandem::lt(Operand(r, where), Operand(p, where)), where);
}

}  // namespace tandem
