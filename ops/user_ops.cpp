// The registry: a fixed array of pointers that are set once, so that looking up takes no lock; registering
// does.
//
// A formula is run with three emitters: with types alone for inference, with the caller's for the op itself,
// and behind a log for its gradient, which is that of its steps. Steps that meet only numbers are float64
// arithmetic on the host where they can be, else they are done on tensors of rank 0, which change no type.
#include "tandem/ops/user_ops.h"

#include <array>
#include <atomic>
#include <bit>
#include <deque>
#include <memory>
#include <mutex>

#include "tandem/core/error.h"
#include "tandem/ops/reverse.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

constexpr size_t kMost = 16384;
constexpr size_t kFirst = static_cast<size_t>(OpId::count_) + 1;  // count_ itself means "none"

struct UserOp {
  OpDef def;
  std::string name;
  Formula formula;
  KernelDef kernel;
};

struct Registry {
  std::mutex mutex;        // guards `ops`
  std::deque<UserOp> ops;  // addresses stay
  std::array<std::atomic<const UserOp*>, kMost> by_id{};
};
Registry& registry() {
  static Registry* const r = new Registry;
  return *r;
}

const UserOp* find(OpId id) {
  const size_t at = static_cast<size_t>(id) - kFirst;
  return is_user(id) && at < kMost ? registry().by_id[at].load(std::memory_order_acquire) : nullptr;
}

const UserOp& found(OpId id) {
  const UserOp* op = find(id);
  TANDEM_INTERNAL(op, "no such op");
  return *op;
}

/// The op that equals `fresh`, or `fresh` with an id of its own.
template <class Same>
OpId add(UserOp fresh, Same same) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  for (const UserOp& known : r.ops)
    if (known.def.kind == fresh.def.kind && same(known)) return known.def.id;
  if (r.ops.size() == kMost)
    fail(fresh.name + ": more than " + std::to_string(kMost) + " different ops were made by this program");
  const size_t at = r.ops.size();
  UserOp& op = r.ops.emplace_back(std::move(fresh));
  op.def.name = op.name.c_str();
  op.def.id = static_cast<OpId>(kFirst + at);
  for (int& w : op.def.writes) w = -1;
  r.by_id[at].store(&op, std::memory_order_release);
  return op.def.id;
}

// --- Formulas ---

/// Types without values.
class TypeEmitter final : public Emitter {
 public:
  explicit TypeEmitter(std::span<const TensorType> operands) {
    for (const TensorType& t : operands) add_type(t);
  }
  void emit(OpId id, std::span<const Value> in, Words words, Value* out) override {
    const OpDef& op = def(id);
    const size_t n = in.size() - static_cast<size_t>(op.n_numbers());
    std::vector<TensorType> types(n), results;
    const auto present = std::make_unique<bool[]>(n);
    for (size_t i = 0; i < n; ++i) {
      present[i] = static_cast<bool>(in[i]);
      if (in[i]) types[i] = type(in[i]);
    }
    try {
      infer({op, types, {present.get(), n}, words, {}}, results);
    } catch (const Error& e) {  // without a line it carries the op's name twice
      const std::string text = e.what(), name = std::string(op.name) + ": ";
      fail(text.rfind(name + name, 0) == 0 ? text.substr(name.size()) : text);
    }
    for (size_t j = 0; j < results.size(); ++j) out[j] = add_type(results[j]);
  }
  TensorType type(Value v) override { return types_[static_cast<size_t>(v.id)]; }
  Value number(double) override { return add_type({DType::float64, {}, true, {}}); }
  Value count(Value, const Dims&) override { return number(0); }
  Value number_op(ScalarOp, Value, Value) override { return number(0); }

 private:
  Value add_type(TensorType t) {
    t.device = {};
    types_.push_back(t);
    return {static_cast<int32_t>(types_.size()) - 1};
  }
  std::vector<TensorType> types_;
};

/// What the host computes of numbers; count_: nothing.
ScalarOp host_arithmetic(OpId op) {
  switch (op) {
    case OpId::add:
      return ScalarOp::add;
    case OpId::sub:
      return ScalarOp::sub;
    case OpId::mul:
      return ScalarOp::mul;
    case OpId::div:
      return ScalarOp::div;
    case OpId::neg:
      return ScalarOp::neg;
    default:
      return ScalarOp::count_;
  }
}

class Run {
 public:
  Run(const Formula& f, Emitter& e, std::span<const Value> operands) : f_(f), e_(e), values_(f.nodes.size()) {
    for (size_t i = 0; i < operands.size(); ++i) {
      values_[i] = operands[i];
      const TensorType& t = e.type(operands[i]);
      if (!t.number && t.dtype == DType::float64) floating_ = DType::float64;
    }
  }

  Value result() {
    for (size_t i = 0; i < values_.size(); ++i)
      if (f_.nodes[i].kind == FormulaNode::Kind::step) values_[i] = step(f_.nodes[i]);
    const Value v = operand(f_.result, {});
    return e_.type(v).number ? as_tensor(v) : v;
  }

 private:
  const FormulaNode& node(int32_t i) const { return f_.nodes[static_cast<size_t>(i)]; }
  bool is_integer(int32_t i) const { return node(i).kind == FormulaNode::Kind::integer; }

  /// An operand of a step; `like`: its first tensor, if there is one. An integer beside integers stays one.
  Value operand(int32_t i, Value like, bool floats = false) {
    const FormulaNode& n = node(i);
    if (n.kind == FormulaNode::Kind::floating) return e_.number(std::bit_cast<double>(n.bits));
    if (n.kind != FormulaNode::Kind::integer) return values_[static_cast<size_t>(i)];
    if (like) floats = is_floating(e_.type(like).dtype);
    const auto value = static_cast<double>(n.bits);
    if (floats) return e_.number(value);
    const DType type = like && is_integral(e_.type(like).dtype) ? e_.type(like).dtype : DType::int64;
    return e_.cast(e_.full({}, DType::int64, value), type);  // wraps, as a number beside integers does
  }

  /// A number as a tensor of rank 0.
  Value as_tensor(Value v) {
    const DType type = e_.type(v).dtype == DType::float64 ? floating_ : e_.type(v).dtype;
    const Value zero = e_.full({}, type, 0);
    return e_.add(zero, v);
  }

  Value step(const FormulaNode& n) {
    const OpDef& op = def(n.op);
    const auto n_in = static_cast<size_t>(op.n_in);
    Value like;
    bool floats = false;
    for (size_t i = 0; i < n_in; ++i) {
      const FormulaNode& from = node(n.in[i]);
      const Value v = values_[static_cast<size_t>(n.in[i])];
      const bool tensor = v && !e_.type(v).number, chooses = op.types == TypeRule::select && i == 0;
      if (tensor && !like && !chooses) like = v;
      floats = floats || from.kind == FormulaNode::Kind::floating ||
               (v && !tensor && e_.type(v).dtype == DType::float64);
    }
    std::vector<Value> in;
    bool numbers = true, host = host_arithmetic(n.op) != ScalarOp::count_;
    for (size_t i = 0; i < n.in.size(); ++i) {
      const bool as_float = floats || op.types == TypeRule::floating || i >= n_in;
      in.push_back(operand(n.in[i], as_float ? Value{} : like, as_float));
      if (i >= n_in) continue;
      numbers = numbers && e_.type(in[i]).number;
      host = host && numbers && e_.type(in[i]).dtype == DType::float64;
    }
    if (host) return e_.number_op(host_arithmetic(n.op), in[0], n_in > 1 ? in[1] : Value{});
    if (numbers) in[0] = as_tensor(in[0]);
    Value out[kMaxOutputs];
    e_.emit(n.op, in, n.words, out);
    return out[0];
  }

  const Formula& f_;
  Emitter& e_;
  std::vector<Value> values_;  // Value{}: a constant
  DType floating_ = DType::float32;
};

DType formula_type(const Formula& f, std::span<const TensorType> in) {
  TypeEmitter types(in);
  std::vector<Value> operands;
  for (size_t i = 0; i < in.size(); ++i) operands.push_back({static_cast<int32_t>(i)});
  const Value v = Run(f, types, operands).result();
  return types.type(v).dtype;
}

/// Of all operands, also of those that the formula does not use.
Dims broadcast_sizes(const char* name, std::span<const TensorType> in, Location where) {
  const OpDef all{.name = name, .n_in = static_cast<int>(in.size()), .types = TypeRule::same};
  const std::vector<char> present(in.size(), 1);
  std::vector<TensorType> out;
  infer({all, in, {reinterpret_cast<const bool*>(present.data()), in.size()}, {}, where}, out);
  return out[0].sizes;
}

void infer_formula(const InferCall& call, std::vector<TensorType>& out) {
  TensorType result;
  result.sizes = broadcast_sizes(call.op.name, call.in, call.where);
  result.dtype = formula_type(found(call.op.id).formula, call.in);
  for (const TensorType& t : call.in)
    if (!t.number) result.device = t.device;
  out.push_back(result);
}

/// Operands of the formula's steps in the result's sizes, so that all steps walk one space and become one
/// kernel. A tensor of rank 0 beside other types stays one: it yields in promotion.
std::vector<Value> same_space(Emitter& e, std::span<const Value> operands, const Dims& sizes) {
  std::vector<Value> out(operands.begin(), operands.end());
  for (Value& v : out) {
    const TensorType t = e.type(v);
    bool yields = t.number;
    for (const Value other : operands)
      yields = yields || (t.sizes.empty() && !e.type(other).number && e.type(other).dtype != t.dtype);
    if (!yields) v = e.expand(v, sizes);
  }
  return out;
}

void emit_formula(Body& b) {
  std::vector<TensorType> types;
  for (const Value v : b.operands) types.push_back(b.e.type(v));
  const Dims sizes = broadcast_sizes(b.op.name, types, b.e.location);
  std::vector<Value> operands = same_space(b.e, b.operands, sizes);
  for (Value& v : operands)
    if (!b.e.type(v).number) v = widen(b.e, v);
  const Formula& f = found(b.op.id).formula;
  const Value v = Run(f, b.e, operands).result();
  const Value rounded = b.e.cast(v, formula_type(f, types));
  b.set(b.e.expand(rounded, sizes));
}

/// The steps once more and back, in float32 for halves: sums over broadcast axes are rounded once.
void reverse_formula(Gradient& g) {
  const Dims sizes = broadcast_sizes(g.op.name, g.operand_types, g.e.location);
  std::vector<Value> wide, wanted, grads(g.operands.size());
  for (size_t i = 0; i < g.operands.size(); ++i) {
    wide.push_back(g.e.type(g.operands[i]).number ? g.operands[i] : widen(g.e, g.operands[i]));
    wanted.push_back(g.needed[i] ? wide[i] : Value{});
  }
  LogEmitter log(g.e);
  const std::vector<Value> operands = same_space(log, wide, sizes);
  Value v = Run(found(g.op.id).formula, log, operands).result();
  v = log.expand(v, sizes);
  const Value incoming = g.e.cast(g.grad(), g.e.type(v).dtype);
  reverse(g.e, log.calls(), {&v, 1}, {&incoming, 1}, wanted, grads.data());
  for (size_t i = 0; i < grads.size(); ++i)
    if (grads[i]) g.set(static_cast<int>(i), g.e.cast(grads[i], g.operand_types[i].dtype));
}

// --- Kernels ---

void infer_kernel(const InferCall& call, std::vector<TensorType>& out) {
  const KernelDef& k = found(call.op.id).kernel;
  const std::vector<TensorType> types =
      k.infer ? k.infer(call.in) : std::vector<TensorType>(k.outputs.size(), call.in[0]);
  if (types.size() != k.outputs.size())
    fail(std::string("infer gave ") + std::to_string(types.size()) + " types for " +
         std::to_string(k.outputs.size()) + " results");
  for (TensorType t : types) {
    checked_mul(checked_numel(t.sizes), itemsize(t.dtype));
    t.device = call.in[0].device;
    t.number = false;
    out.push_back(t);
  }
}

}  // namespace

OpId register_formula(std::string name, Formula formula) {
  TANDEM_INTERNAL(formula.n_in >= 1 && formula.result >= 0, "an empty formula");
  UserOp op;
  op.def.kind = OpKind::composite;
  op.def.n_in = formula.n_in;
  op.def.infer = infer_formula;
  op.def.body = emit_formula;
  op.def.gradient = reverse_formula;
  op.def.saves_in = ~0u >> (32 - formula.n_in);
  op.name = std::move(name);
  op.formula = std::move(formula);
  const Formula& f = op.formula;
  const std::string& n = op.name;
  return add(UserOp(op), [&](const UserOp& known) { return known.name == n && known.formula == f; });
}

OpId register_kernel(KernelDef kernel) {
  UserOp op;
  op.def.kind = OpKind::kernel;
  op.def.n_in = static_cast<int>(kernel.inputs.size());
  op.def.n_out = static_cast<int>(kernel.outputs.size());
  op.def.infer = infer_kernel;
  op.def.native = kernel.cpu;
  op.def.differentiable = false;
  op.name = kernel.name;
  op.kernel = std::move(kernel);
  const KernelDef& k = op.kernel;
  return add(UserOp(op), [&](const UserOp& known) { return known.kernel == k; });
}

const OpDef* user_op(OpId id) {
  const UserOp* op = find(id);
  return op ? &op->def : nullptr;
}

const KernelDef* user_kernel(OpId id) {
  const UserOp* op = find(id);
  return op && op->def.kind == OpKind::kernel ? &op->kernel : nullptr;
}

size_t NativeCall::checked(std::span<const TensorType> types, int i, int kind, const char* what) {
  if (i < 0 || static_cast<size_t>(i) >= types.size())
    fail("a kernel's twin: there is no " + std::string(what) + std::to_string(i));
  const DType type = types[static_cast<size_t>(i)].dtype;
  const bool half = type == DType::float16 || type == DType::bfloat16;
  if (kind == kHalf ? !half : kind != static_cast<int>(type))
    fail("a kernel's twin: " + std::string(what) + std::to_string(i) + " is " + tandem::name(type) +
         ", asked for " + (kind == kHalf ? "a half (uint16_t)" : tandem::name(static_cast<DType>(kind))));
  return static_cast<size_t>(i);
}

}  // namespace tandem::ops
