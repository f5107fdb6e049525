#include "tandem/eager/dispatch.h"

#include <algorithm>

#include "tandem/core/profile.h"
#include "tandem/eager/autocast.h"
#include "tandem/eager/compiled.h"
#include "tandem/eager/direct.h"
#include "tandem/eager/recompute.h"
#include "tandem/eager/tape.h"
#include "tandem/eager/views.h"

namespace tandem::eager {

constinit thread_local Interceptor* interceptor_ = nullptr;

namespace {

[[noreturn, gnu::cold]] void fail_operand(const Call& call, uint32_t i) {
  fail(std::string(ops::def(call.op).name) + ": operand " + std::to_string(i) + " is an undefined tensor",
       call.where);
}

// In-place ops read operands while they write: an operand that overlaps the written memory is copied, but for
// one that is walked with it and overlaps it exactly.
bool overlaps(const TensorImpl* written, const TensorImpl* read, bool walked) {
  if (!read || read->storage != written->storage) return false;
  return !(walked && read->offset == written->offset && read->sizes == written->sizes &&
           read->strides == written->strides);
}

Ref<TensorImpl> contiguous_copy(TensorImpl* t, Location where) {
  Ref<TensorImpl> out;
  TensorImpl* in[] = {t};
  run_op({.op = ops::OpId::clone, .n_in = 1, .in = in, .where = where}, &out);
  return out;
}

void run_in_place(const Call& call) {
  const ops::OpDef& op = ops::def(call.op);
  std::vector<Ref<TensorImpl>> copies;
  std::vector<TensorImpl*> in(call.in, call.in + call.n_in);
  for (int j = 0; j < op.n_out; ++j) {
    if (op.writes[j] < 0) continue;
    TensorImpl* written = in[static_cast<size_t>(op.writes[j])];
    for (TensorImpl*& t : in) {
      const bool walked = op.kind == ops::OpKind::pointwise || &t == &in[static_cast<size_t>(op.writes[j])];
      if (overlaps(written, t, walked)) t = copies.emplace_back(contiguous_copy(t, call.where)).get();
    }
  }
  Call real = call;
  real.in = in.data();
  const Compiled& c = compiled_call(real);
  std::vector<void*> addresses;
  for (const int i : c.inputs) addresses.push_back(in[static_cast<size_t>(i)]->data);
  run_compiled(c, op.name, call.where, addresses.data(), call.words, nullptr);
}

void bump_written(const Call& call) {
  const ops::OpDef& op = ops::def(call.op);
  for (int j = 0; j < op.n_out; ++j)
    if (op.writes[j] >= 0) bump_version(call.in[op.writes[j]], call.where);
}

}  // namespace

namespace {

/// Whether two elements may share memory: some axis steps less than those that step less than it reach.
bool overlaps_itself(const TensorImpl& t) {
  Dims axes;
  for (int d = 0; d < t.sizes.rank(); ++d)
    if (t.sizes[d] > 1) axes.push_back(d);
  std::sort(axes.begin(), axes.end(), [&](int64_t a, int64_t b) {
    return t.strides[static_cast<int>(a)] < t.strides[static_cast<int>(b)];
  });
  int64_t reach = 0;
  for (const int64_t d : axes) {
    const int64_t step = t.strides[static_cast<int>(d)];
    if (step <= reach) return true;
    reach += (t.sizes[static_cast<int>(d)] - 1) * step;
  }
  return false;
}

}  // namespace

void check_in_place(const Call& call) {
  const ops::OpDef& op = ops::def(call.op);
  for (int j = 0; j < op.n_out; ++j) {
    if (op.writes[j] < 0) continue;
    const TensorImpl* t = call.in[op.writes[j]];
    if (!t) fail_operand(call, static_cast<uint32_t>(op.writes[j]));
    if (!t->has(core::kContiguous) && t->numel > 1 && overlaps_itself(*t))
      fail(std::string(op.name) +
               "_: an expanded tensor, several of whose elements share memory, cannot be changed in place; "
               "clone() it first",
           call.where);
    if (!modes().grad) continue;
    const TensorImpl* base = base_of(call.in[op.writes[j]]);
    const bool unknown = base->frame && interceptor_ && !interceptor_->has_tape();  // was none when recorded
    if (is_grad_leaf(base) && !unknown)
      fail(std::string(op.name) + "_: " + (base == t ? "a leaf" : "a view of a leaf") +
               " that requires grad cannot be changed in place while gradients are noted; "
               "use NoGrad or detach()",
           call.where);
    if (t->has(core::kBlindView) && wants_gradient(call))
      fail(std::string(op.name) +
               "_: the changed tensor is a view made under NoGrad, which its base's history knows nothing "
               "of; make "
               "the view where gradients are noted, or detach() it",
           call.where);
  }
}

namespace {

void run_view(const Call& call, Ref<TensorImpl>* results) {
  const ops::Layout layout = infer_view(call);
  TANDEM_INTERNAL(layout.possible, "a view that needs a copy");
  const TensorImpl* base = call.in[0];
  Ref<TensorImpl> t(core::new_impl());
  t->dtype = base->dtype;
  t->device = base->device;
  core::set_layout(*t, layout.sizes, layout.strides);
  core::set_storage(*t, base->storage, layout.offset);
  mark_view(call, t.get(), modes().grad);
  results[0] = std::move(t);
}

}  // namespace

void check_operands_of_trace(const Call& call) {
  const ops::OpDef& op = ops::def(call.op);
  const uint32_t required = op.n_in < 0 ? call.n_in : static_cast<uint32_t>(op.n_in - op.n_optional);
  const TensorImpl* first = nullptr;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    const TensorImpl* t = call.in[i];
    if (!t) {
      if (i < required && !is_number(call.numbers, i)) fail_operand(call, i);
      continue;
    }
    if (first && !(first->device == t->device))
      fail(std::string(op.name) + ": operands on different devices: " + to_string(first->device) + " and " +
               to_string(t->device),
           call.where);
    first = t;
  }
}

void check_operands(const Call& call) {
  check_operands_of_trace(call);
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (call.in[i] && call.in[i]->has(core::kPending))
      fail(std::string(ops::def(call.op).name) + ": operand " + std::to_string(i) +
               " is a pending tensor of a traced call and was used outside of that call or on another thread",
           call.where);
}

void check_in_place_types(const Call& call, const std::vector<ops::TensorType>& results) {
  const ops::OpDef& op = ops::def(call.op);
  for (int j = 0; j < op.n_out; ++j) {
    if (op.writes[j] < 0) continue;
    const TensorImpl* target = call.in[op.writes[j]];
    const ops::TensorType& result = results[static_cast<size_t>(j)];
    if (!(result.sizes == target->sizes))
      fail(std::string(op.name) + "_: the result of shape " + to_string(result.sizes) +
               " does not fit the tensor " + to_string(target->sizes) + " that it changes in place",
           call.where);
    if (is_floating(result.dtype) && !is_floating(target->dtype))
      fail(std::string(op.name) + "_: a result of type " + name(result.dtype) +
               " cannot be stored in place in a tensor of type " + name(target->dtype),
           call.where);
  }
}

CallTypes call_types(const Call& call) {
  CallTypes out;
  uint32_t word = 0;
  for (uint32_t i = 0; i < call.n_in; ++i) {
    const TensorImpl* t = call.in[i];
    ops::TensorType type;
    bool present = true;
    if (is_number(call.numbers, i)) {
      const auto kind = static_cast<NumberKind>(call.words[word]);
      type.dtype = kind == NumberKind::bool_     ? DType::bool_
                   : kind == NumberKind::integer ? DType::int64
                                                 : DType::float64;
      type.number = true;
      word += 2;
    } else if (t) {
      type = {t->dtype, t->device, false, t->sizes};
    } else {
      present = false;
    }
    out.types.push_back(type);
    out.present.push_back(present);
  }
  ops::SplitWords split =
      ops::split_words(ops::def(call.op), {call.words, call.n_words}, static_cast<int>(word / 2));
  out.structural = std::move(split.structural);
  out.run_time = std::move(split.run_time);
  return out;
}

NumberKind number_kind(const ops::OpDef& op, int n_numbers, std::span<const int64_t> words, int word) {
  if (word < 2 * n_numbers) return static_cast<NumberKind>(words[static_cast<size_t>(word - 1)]);
  int at = 2 * n_numbers;
  for (int k = 0; k < op.n_attrs; ++k) {
    if (at == word)
      return op.attrs[k].type == ops::AttrType::floating ? NumberKind::floating : NumberKind::integer;
    at += op.attrs[k].type == ops::AttrType::list ? static_cast<int>(words[static_cast<size_t>(at)]) + 1 : 1;
  }
  internal_error(std::string("no attribute at word ") + std::to_string(word) + " of " + op.name);
}

std::vector<ops::TensorType> infer_call(const Call& call) {
  const CallTypes t = call_types(call);
  std::vector<ops::TensorType> out;
  static_assert(sizeof(bool) == sizeof(char));
  ops::infer({ops::def(call.op),
              t.types,
              {reinterpret_cast<const bool*>(t.present.data()), t.present.size()},
              t.structural,
              call.where},
             out);
  const Device device = device_of(call);
  for (ops::TensorType& t : out) t.device = device;
  return out;
}

ops::Layout infer_view(const Call& call) {
  const CallTypes t = call_types(call);
  const ops::OpDef& op = ops::def(call.op);
  const ops::InferCall infer{op,
                             t.types,
                             {reinterpret_cast<const bool*>(t.present.data()), t.present.size()},
                             t.structural,
                             call.where};
  std::vector<ops::TensorType> out;
  ops::infer(infer, out);
  const TensorImpl* base = call.in[0];
  return op.view(infer, {base->sizes, base->strides, base->offset});
}

namespace {

void run_now(const Call& call, Ref<TensorImpl>* results) {
  const ops::OpDef& op = ops::def(call.op);
  if (op.kind == ops::OpKind::view) return run_view(call, results);
  if (call.in_place) return run_in_place(call);
  const Compiled& c = compiled_call(call);
  constexpr size_t kMany = 16;
  void* few[kMany];
  std::vector<void*> many;
  void** addresses = few;
  if (c.inputs.size() > kMany) many.resize(c.inputs.size()), addresses = many.data();
  for (size_t i = 0; i < c.inputs.size(); ++i) addresses[i] = call.in[c.inputs[i]]->data;
  run_compiled(c, op.name, call.where, addresses, call.words, results, &call);
}

[[gnu::cold, gnu::noinline]] void run_timed(const Call& call, Ref<TensorImpl>* results) {
  const ops::OpDef& op = ops::def(call.op);
  const bool view = op.kind == ops::OpKind::view;
  int64_t bytes = 0;  // of the operands; the results' are not known before
  for (uint32_t i = 0; i < call.n_in && !view; ++i)
    if (call.in[i]) bytes += call.in[i]->nbytes();
  const core::ProfileSpan span("op", op.name, call.where, bytes, true);
  if (!direct_timed(call, results)) run_now(call, results);
}

}  // namespace

void run_op(const Call& call, Ref<TensorImpl>* results) {
  if (core::profiling()) [[unlikely]]
    return run_timed(call, results);
  run_now(call, results);
}

namespace {

[[gnu::noinline]] void note_taken_over(const Call& call, Ref<TensorImpl>* results) {
  if (!wants_gradient(call)) return;
  const Ref<core::TapeNode> node = note(call, results);
  interceptor_->noted(call, as_node(node.get()));
  node_noted(node, {call.in, call.n_in});
}

[[gnu::always_inline]] inline void take_over(Interceptor& i, const Call& call, Ref<TensorImpl>* results) {
  if (i.op(call, results)) [[unlikely]]
    note_taken_over(call, results);
  if (i.borrows && !i.walks) [[unlikely]]
    i.op_over(call);
}

[[gnu::noinline]] void run_checked(const Call& call, Ref<TensorImpl>* results) {
  check_operands(call);
  if (call.in_place) check_in_place(call);
  run_op(call, results);
}

[[gnu::noinline]] void note_now(const Call& call, Ref<TensorImpl>* results) {
  if (noted_nodes_) [[unlikely]]
    return node_noted(note(call, results), {call.in, call.n_in});
  note_alone(call, results);
}

[[gnu::noinline]] void call_now(const Call& call, Ref<TensorImpl>* results) {
  if (!direct(call, results)) run_checked(call, results);
  if (call.in_place) bump_written(call);
  if (wants_gradient(call)) note_now(call, results);
}

}  // namespace

namespace {

void dispatch(const Call& call, Ref<TensorImpl>* results) {
  if (Interceptor* i = interceptor_) [[unlikely]] {
    // Without gradients the check is about layouts alone, and the interceptor knows those that it has seen.
    if (call.in_place && modes().grad) check_in_place(call);
    take_over(*i, call, results);
    return;
  }
  call_now(call, results);
}

[[gnu::noinline]] void dispatch_cast(const Call& call, Ref<TensorImpl>* results) {
  const AutocastCall cast(call);
  dispatch(cast.call(), results);
}

}  // namespace

void call_into(const Call& call, Ref<TensorImpl>* results) {
  if (modes().autocast) [[unlikely]]
    return dispatch_cast(call, results);
  dispatch(call, results);
}

Tensor call1(const Call& call) {
  Ref<TensorImpl> result;
  if (modes().autocast) [[unlikely]] {
    dispatch_cast(call, &result);
  } else if (Interceptor* i = interceptor_) [[unlikely]] {
    take_over(*i, call, &result);
  } else {
    call_now(call, &result);
  }
  return Tensor(std::move(result));
}

void materialize(TensorImpl* t, Location where, bool pointer) {
  make_real(t, where, pointer);
  if (t->device.type == DeviceType::cpu && t->data) core::settle_host(t->data);
}

void make_real(TensorImpl* t, Location where, bool pointer) {
  if (!t->has(core::kPending) && !(interceptor_ && interceptor_->owes(t, pointer))) {
    if (interceptor_ && interceptor_->observes) interceptor_->real_read(where);
    return;
  }
  if (!interceptor_)
    fail("a pending tensor of a traced call was used outside of that call or on another thread", where);
  interceptor_->read(t, where);
}

void bump_pending_version(TensorImpl* t, const Location& where) {
  if (core::Storage* s = memory_of(t)) {
    ++s->version;
    s->changed_at = where;
  } else if (interceptor()) {
    Version& v = interceptor()->version(t);
    ++v.count;
    v.changed_at = where;
  }
}

uint32_t version_of(TensorImpl* t) {
  if (const core::Storage* s = memory_of(t)) return s->version;
  return interceptor_ ? interceptor_->version(t).count : 0;
}

Location changed_at(TensorImpl* t) {
  if (const core::Storage* s = memory_of(t)) return s->changed_at;
  return interceptor_ ? interceptor_->version(t).changed_at : Location{};
}

}  // namespace tandem::eager
