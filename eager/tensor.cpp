// Tensor's own methods: reading values, autograd state, printing is in print.cpp, ops are in functions*.cpp.
#include "tandem/eager/tensor.h"

#include <atomic>

#include <cstring>
#include <utility>

#include "tandem/eager/emitter.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/tape.h"
#include "tandem/eager/transfer.h"

namespace tandem {

using core::Ref;
using core::TensorImpl;

namespace {

const TensorImpl& single(const Tensor& t, Location where) {
  TensorImpl& impl = t.checked(where);
  if (impl.numel != 1)
    fail("item: a tensor of one element is needed, found shape " + to_string(impl.sizes) +
             "; to_vector() reads all",
         where);
  eager::materialize(&impl, where);
  return impl;
}

}  // namespace

void Tensor::fail_undefined(Location where) { fail("an undefined tensor was used", where); }

int64_t Tensor::size(int64_t axis, Location where) const {
  const Dims& d = checked(where).sizes;
  if (d.rank() == 0) fail("size: a scalar tensor has no axis " + std::to_string(axis), where);
  return d[normalize_axis(axis, d.rank(), "size", where)];
}

double Tensor::item_double(Location where) const {
  const TensorImpl& t = single(*this, where);
  int64_t element = 0;
  eager::load_element(t, &element);
  return core::load_double(t.dtype, &element);
}

int64_t Tensor::item_int(Location where) const {
  const TensorImpl& t = single(*this, where);
  int64_t element = 0;
  eager::load_element(t, &element);
  if (t.dtype == DType::int64) return element;
  const double v = core::load_double(t.dtype, &element);
  if (!(v >= -9.2e18 && v <= 9.2e18))
    fail("item: the value " + std::to_string(v) + " does not fit an integer", where);
  return static_cast<int64_t>(v);
}

void* Tensor::raw_data(DType expected, Location where) const {
  TensorImpl& t = checked(where);
  if (t.dtype != expected)
    fail(std::string("data: the tensor holds ") + name(t.dtype) + ", asked for " + name(expected), where);
  eager::materialize(&t, where, true);
  t.storage->exposed = true;
  return t.data;
}

void Tensor::copy_out(void* out, DType type, Location where) const {
  const NoGrad no_grad;
  const Tensor ready = to(type, where).contiguous(where).to(cpu, where);
  eager::materialize(ready.impl(), where);
  if (ready.impl()->numel) std::memcpy(out, ready.impl()->data, static_cast<size_t>(ready.impl()->nbytes()));
}

const Tensor& Tensor::requires_grad_(bool on, Location where) const {
  TensorImpl& t = checked(where);
  if (t.has(core::kRequiresGrad) == on) return *this;
  if (on && !is_floating(t.dtype))
    fail(std::string("requires_grad_: a floating tensor is needed, found ") + name(t.dtype), where);
  if (!is_leaf()) fail("requires_grad_: the tensor is the result of an op; detach() it first", where);
  if (eager::interceptor()) eager::interceptor()->requires_grad(&t, on, where);
  t.set(core::kRequiresGrad, on);
  core::slot_changed(t);
  return *this;
}

bool Tensor::is_leaf() const {
  if (!requires_grad()) return true;
  if (impl_->frame && eager::interceptor()) eager::interceptor()->need_tape();
  return !impl_->grad_fn;
}

const Tensor& Tensor::grad() const {
  static const Tensor none;
  static_assert(sizeof(Tensor) == sizeof(Ref<TensorImpl>));
  if (impl_ && eager::interceptor() && eager::interceptor()->observes) [[unlikely]]
    eager::interceptor()->grad_used(impl_.get(), false);
  const eager::AutogradState* s = impl_ ? eager::autograd_state(impl_.get()) : nullptr;
  return s && s->grad ? reinterpret_cast<const Tensor&>(s->grad) : none;
}

void Tensor::set_grad(const Tensor& grad, Location where) const {
  TensorImpl& t = checked(where);
  if (grad.defined() && (!(grad.sizes() == t.sizes) || grad.dtype() != t.dtype))
    fail(std::string("set_grad: the tensor is ") + name(t.dtype) + to_string(t.sizes) + ", the gradient " +
             name(grad.dtype()) + to_string(grad.sizes()),
         where);
  if (eager::interceptor() && eager::interceptor()->observes) eager::interceptor()->grad_used(&t, true);
  if (!grad.defined() && !t.leaf) return;
  eager::make_autograd_state(&t).grad = Ref<TensorImpl>(grad.impl());
}

void Tensor::zero_grad() const {
  if (!impl_) return;
  if (eager::interceptor() && eager::interceptor()->observes)
    eager::interceptor()->grad_used(impl_.get(), true);
  if (eager::AutogradState* s = eager::autograd_state(impl_.get())) s->grad.reset();
}

void Tensor::backward(const Tensor& gradient, bool retain_graph, bool create_graph, Location where) const {
  autograd::backward({this, 1}, {&gradient, 1}, retain_graph, create_graph, where);
}

int Tensor::add_hook(std::function<Tensor(const Tensor&)> hook, Location where) const {
  TensorImpl& t = checked(where);
  if (!requires_grad()) fail("register_hook: the tensor does not require grad", where);
  if (eager::interceptor()) eager::interceptor()->need_tape();
  auto& hooks = [&]() -> std::vector<std::pair<int, eager::Hook>>& {
    if (!t.grad_fn) return eager::make_autograd_state(&t).hooks;
    eager::Node* n = eager::as_node(t.grad_fn.get());
    if (!n->extras) n->extras = std::make_unique<eager::Node::Extras>();
    n->extras->hooks.resize(n->out.size());
    return n->extras->hooks[static_cast<size_t>(t.output_index)];
  }();
  static std::atomic<int> numbers = 0;  // never used again, so that who removes a hook removes his own
  const int number = numbers++;
  hooks.emplace_back(number, std::move(hook));
  return number;
}

void Tensor::remove_hook(int number, Location where) const {
  TensorImpl& t = checked(where);
  std::vector<std::pair<int, eager::Hook>>* hooks = nullptr;
  if (t.grad_fn) {
    eager::Node* n = eager::as_node(t.grad_fn.get());
    if (n->extras && !n->extras->hooks.empty())
      hooks = &n->extras->hooks[static_cast<size_t>(t.output_index)];
  } else if (eager::AutogradState* s = eager::autograd_state(&t)) {
    hooks = &s->hooks;
  }
  if (hooks) std::erase_if(*hooks, [&](const auto& h) { return h.first == number; });
}

namespace autograd {

namespace {
eager::WalkRequest request(std::span<const Tensor> roots, std::span<const Tensor> gradients, const char* who,
                           Location where) {
  if (!gradients.empty() && gradients.size() != roots.size())
    fail(std::string(who) + ": " + std::to_string(roots.size()) + " roots but " +
             std::to_string(gradients.size()) + " gradients",
         where);
  eager::WalkRequest r;
  r.where = where;
  for (size_t i = 0; i < roots.size(); ++i) {
    TensorImpl& t = roots[i].checked(where);
    if (!roots[i].requires_grad())
      fail(std::string(who) + ": the tensor does not require grad and has no history", where);
    r.roots.emplace_back(&t);
    if (gradients.empty() || !gradients[i].defined()) {
      if (t.numel != 1)
        fail(std::string(who) + ": a gradient is needed for a tensor of shape " + to_string(t.sizes) +
                 "; only one element goes without",
             where);
      const NoGrad no_grad;
      eager::EagerEmitter e(where);
      const OnDevice guard(t.device);
      r.gradients.push_back(e.tensor(e.full(t.sizes, t.dtype, 1.0)));
    } else {
      r.gradients.push_back(
          eager::as_gradient(gradients[i], {t.dtype, t.device, false, t.sizes}, who, where));
    }
  }
  return r;
}
}  // namespace

void backward(TensorSpan roots, TensorSpan gradients, bool retain_graph, bool create_graph, Location where) {
  eager::Interceptor* interceptor = eager::interceptor();
  if (interceptor) {
    TensorImpl* few[8];
    std::vector<TensorImpl*> many;
    TensorImpl** impls = few;
    if (roots.size() + gradients.size() > std::size(few)) {
      many.resize(roots.size() + gradients.size());
      impls = many.data();
    }
    for (size_t i = 0; i < roots.size(); ++i) impls[i] = &roots[i].checked(where);
    for (size_t i = 0; i < gradients.size(); ++i) impls[roots.size() + i] = gradients[i].impl();
    if (interceptor->backward({{impls, roots.size()},
                               {impls + roots.size(), gradients.size()},
                               retain_graph,
                               create_graph,
                               where})) {
      if (interceptor->borrows && !interceptor->walks) interceptor->backward_over(where);
      return;
    }
  }
  eager::WalkRequest w = request(roots, gradients, "backward", where);
  w.retain_graph = retain_graph || create_graph;
  w.create_graph = create_graph;
  if (!interceptor) {
    eager::walk(w);
    return;
  }
  const bool within = std::exchange(interceptor->walks, true);  // a hook's, of another one
  try {
    eager::walk(w);
  } catch (...) {
    interceptor->walks = within;
    if (interceptor->borrows && !within) interceptor->backward_over(where);
    throw;
  }
  interceptor->walks = within;
  interceptor->end_backward();
  if (interceptor->borrows && !within) interceptor->backward_over(where);
}

TensorList grad(TensorSpan outputs, TensorSpan inputs, TensorSpan grad_outputs, bool retain_graph,
                bool create_graph, bool allow_unused, Location where) {
  if (eager::Interceptor* interceptor = eager::interceptor()) interceptor->need_tape();
  eager::WalkRequest w = request(outputs, grad_outputs, "grad", where);
  w.retain_graph = retain_graph || create_graph;
  w.create_graph = create_graph;
  for (const Tensor& t : inputs) {
    t.checked(where);
    if (!t.requires_grad()) fail("grad: an input does not require grad", where);
    w.inputs.push_back(eager::edge_of(t.impl()));
  }
  TensorList out;
  for (Ref<TensorImpl>& g : eager::walk(w)) {
    if (!g && !allow_unused)
      fail("grad: input " + std::to_string(out.size()) +
               " was not reached; pass allow_unused if that is meant",
           where);
    out.emplace_back(std::move(g));
  }
  return out;
}

TensorList apply(const std::function<TensorList(Context&, const TensorList&)>& forward,
                 const std::function<TensorList(Context&, const TensorList&)>& backward,
                 const TensorList& inputs, Location where) {
  auto custom = std::make_unique<eager::CustomFunction>();
  custom->backward = backward;
  Context& context = custom->context;
  bool wanted = false;
  for (const Tensor& t : inputs) {
    context.needs_.push_back(t.requires_grad() && modes().grad);
    wanted |= context.needs_.back();
  }
  TensorList results;
  {
    const NoGrad no_grad;
    results = forward(context, inputs);
  }
  const TensorList constant = std::exchange(context.non_differentiable_, {});
  if (!wanted) return results;
  if (eager::interceptor()) eager::interceptor()->need_tape();
  for (const Tensor& t : custom->context.saved())
    custom->versions.push_back(t.defined() ? eager::version_of(t.impl()) : 0);
  eager::note_custom(std::move(custom), inputs, results, constant, where);
  return results;
}

}  // namespace autograd
}  // namespace tandem
