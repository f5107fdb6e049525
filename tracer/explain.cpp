#include "tandem/tracer/explain.h"

#include <algorithm>
#include <bit>

#include "tandem/core/log.h"
#include "tandem/eager/tape.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/trace.h"

namespace tandem::tracer {

namespace {

constexpr const char* kYesNo[2] = {"no", "yes"};

std::string change(const std::string& what, const std::string& before, const std::string& now) {
  return what + " " + before + " before, " + now + " now";
}

std::string at(Location where) { return where.known() ? " at " + to_string(where) : ""; }

std::string joined(const std::vector<std::string>& parts) {
  constexpr size_t kMost = 8;
  std::string out;
  for (size_t i = 0; i < parts.size() && i < kMost; ++i) out += (i ? "; " : "") + parts[i];
  if (parts.size() > kMost) out += "; and " + std::to_string(parts.size() - kMost) + " more";
  return out;
}

void compare_modes(uint64_t before, uint64_t now, std::vector<std::string>& out) {
  if (before == now) return;
  const Modes b = std::bit_cast<Modes>(before), n = std::bit_cast<Modes>(now);
  const auto flag = [&](const char* name, bool x, bool y) {
    if (x != y) out.push_back(change(std::string("mode ") + name, kYesNo[x], kYesNo[y]));
  };
  flag("grad", b.grad, n.grad);
  flag("deterministic", b.deterministic, n.deterministic);
  flag("flush_denormals", b.flush_denormals, n.flush_denormals);
  flag("tf32", b.tf32, n.tf32);
  const auto cast = [](uint8_t a) { return a ? std::string(name(static_cast<DType>(a - 1))) : "off"; };
  if (b.autocast != n.autocast) out.push_back(change("mode autocast", cast(b.autocast), cast(n.autocast)));
  if (!(b.default_device == n.default_device))
    out.push_back(change("default device", to_string(b.default_device), to_string(n.default_device)));
}

/// Type, layout and history of two tensors.
template <class A, class B>
void compare_types(const std::string& who, const A& a, const B& b, bool b_requires_grad, bool b_leaf,
                   std::vector<std::string>& out) {
  if (a.dtype != b.dtype) out.push_back(who + change("dtype", name(a.dtype), name(b.dtype)));
  if (!(a.sizes == b.sizes))
    out.push_back(who + change("sizes", to_string(a.sizes), to_string(b.sizes)));
  else if (!(a.strides == b.strides))
    out.push_back(who + change("strides", to_string(a.strides), to_string(b.strides)));
  if (a.requires_grad != b_requires_grad)
    out.push_back(who + change("requires_grad", kYesNo[a.requires_grad], kYesNo[b_requires_grad]));
  if (a.leaf != b_leaf) out.push_back(who + change("leaf", kYesNo[a.leaf], kYesNo[b_leaf]));
}

std::string type_text(const TensorImpl* t) { return name(t->dtype) + to_string(t->sizes); }

std::string word_text(ops::AttrType type, int64_t word) {
  switch (type) {
    case ops::AttrType::boolean:
      return kYesNo[word != 0];
    case ops::AttrType::dtype:
      return name(static_cast<DType>(word));
    case ops::AttrType::floating:
      return std::to_string(std::bit_cast<double>(word));
    case ops::AttrType::integer:
    case ops::AttrType::list:
    case ops::AttrType::dynamic:
      break;
  }
  return std::to_string(word);
}

/// The count and the values of the list that begins `words`.
std::span<const int64_t> list_words(std::span<const int64_t> words) {
  return words.first(std::min(words.size(), 1 + static_cast<size_t>(words[0])));
}
std::string list_text(std::span<const int64_t> words) {
  std::string out = "(";
  for (size_t i = 1; i < words.size(); ++i) out += (i > 1 ? ", " : "") + std::to_string(words[i]);
  return out + ")";
}

// Words are number operands' (kind, value), then attributes in declared order, lists last.
void compare_attributes(const ops::OpDef& op, uint32_t numbers, std::span<const int64_t> before,
                        std::span<const int64_t> now, std::vector<std::string>& out) {
  const auto first = static_cast<size_t>(2 * __builtin_popcount(numbers));
  constexpr const char* kKinds[] = {"bool", "integer", "floating"};
  for (size_t w = 0; w < first && w < before.size() && w < now.size(); w += 2)
    if (before[w] != now[w])
      out.push_back(change("number " + std::to_string(w / 2) + ": kind", kKinds[before[w]], kKinds[now[w]]));
  for (size_t a = 0, b = first, n = first; a < static_cast<size_t>(op.n_attrs); ++a) {
    const ops::Attr& attr = op.attrs[a];
    if (b >= before.size() || n >= now.size()) return;
    const std::string who = std::string("attribute ") + attr.name;
    if (attr.type == ops::AttrType::list) {
      const auto old_list = list_words(before.subspan(b)), new_list = list_words(now.subspan(n));
      if (!std::ranges::equal(old_list, new_list))
        out.push_back(change(who, list_text(old_list), list_text(new_list)));
      b += old_list.size(), n += new_list.size();
      continue;
    }
    if (!attr.run_time() && before[b] != now[n])
      out.push_back(change(who, word_text(attr.type, before[b]), word_text(attr.type, now[n])));
    ++b, ++n;
  }
}

std::string kind_text(EventKind kind) {
  switch (kind) {
    case EventKind::op:
      return "an op";
    case EventKind::read:
      return "a read";
    case EventKind::backward:
      return "backward()";
    case EventKind::end_backward:
      return "the end of backward()";
    case EventKind::host_code:
      return "host code";
    case EventKind::requires_grad:
      return "requires_grad_()";
    case EventKind::end:
      break;
  }
  return "the end of the body";
}

std::string op_text(uint16_t op, bool in_place) {
  return std::string(ops::def(static_cast<ops::OpId>(op)).name) + (in_place ? "_ (in place)" : "");
}

}  // namespace

std::pair<size_t, std::string> compare_signatures(const Signature& before, const Signature& now,
                                                  const ArgumentNames& names, size_t fewest) {
  std::vector<std::string> out;
  compare_modes(before.modes, now.modes, out);
  if (before.key.size() != now.key.size()) {
    // Ahead of the others: what is compared below may not be the same argument.
    out.push_back(
        change("number of tensors", std::to_string(before.key.size()), std::to_string(now.key.size())));
    if (now.key.size() > before.key.size()) out.back() += " (from " + names(before.key.size()) + " on)";
    return {out.size() + 1000, joined(out)};
  }
  std::vector<std::string> what;
  for (size_t i = 0; i < now.key.size(); ++i) {
    const ArgumentType &a = before.key[i], &b = now.key[i];
    if (a == b) continue;
    what.clear();
    compare_types("", a, b, b.requires_grad, b.leaf, what);
    if (!(a.device == b.device)) what.push_back(change("device", to_string(a.device), to_string(b.device)));
    const auto other = [&](int k, const char* how) {
      return k < 0 ? "a tensor of its own" : how + names(static_cast<size_t>(k));
    };
    if (a.same_as != b.same_as)
      what.push_back(change("aliasing:", other(a.same_as, "the same tensor as "),
                            other(b.same_as, "the same tensor as ")));
    else if (a.shares != b.shares)
      what.push_back(
          change("aliasing:", other(a.shares, "the memory of "), other(b.shares, "the memory of ")));
    if (out.size() + what.size() >= fewest) return {out.size() + what.size(), ""};
    const std::string who = names(i) + ": ";
    for (const std::string& w : what) out.push_back(who + w);
  }
  return {out.size(), joined(out)};
}

ArgumentType argument_type(std::span<const Tensor> arguments, size_t i) {
  const TensorImpl* t = arguments[i].impl();
  ArgumentType a{
      t->dtype, t->device, t->sizes, t->strides, t->has(core::kRequiresGrad), t->grad_fn == nullptr, -1, -1};
  for (size_t k = 0; k < i; ++k) {
    if (a.same_as < 0 && arguments[k].impl() == t) a.same_as = static_cast<int>(k);
    if (a.shares < 0 && arguments[k].impl()->storage == t->storage) a.shares = static_cast<int>(k);
  }
  return a;
}

std::string Frame::describe(uint32_t handle) const {
  if (!handle) return "none";
  const HandleInfo& info = r_.infos[handle];
  const std::string type = name(info.dtype) + to_string(info.sizes);
  if (info.kind == HandleInfo::Kind::slot) return "a captured " + type;
  if (info.kind == HandleInfo::Kind::result)
    return "the result of " + std::string(ops::def(info.op).name) + at(info.where);
  for (size_t a = 0; a < r_.arguments.size(); ++a)
    if (r_.arguments[a] == handle) return names_(a);
  return type;
}

std::string Frame::describe(const TensorImpl* t) const {
  if (!t) return "none";
  if (t->frame == this && t->handle >= 0) return describe(static_cast<uint32_t>(t->handle));
  for (const uint32_t a : r_.arguments)
    if (r_.handles[a] == t) return describe(a);
  const bool known = r_.slots.contains(const_cast<TensorImpl*>(t));
  return (known ? "a captured " : "another ") + type_text(t);
}

void Frame::compare_calls(const Entry& e, const eager::Call& call, std::vector<std::string>& out) const {
  const ops::OpDef& op = ops::def(call.op);
  if (e.n_in != call.n_in)
    out.push_back(change("number of operands", std::to_string(e.n_in), std::to_string(call.n_in)));
  for (uint32_t i = 0; i < std::min<uint32_t>(e.n_in, call.n_in); ++i) {
    const std::string who = "operand " + std::to_string(i) + ": ";
    const bool number_before = (e.numbers >> std::min(i, 31u)) & 1,
               number = (call.numbers >> std::min(i, 31u)) & 1;
    if (number_before || number) {
      if (number_before != number)
        out.push_back(who + (number ? "a tensor before, a number now" : "a number before, a tensor now"));
      continue;
    }
    const uint32_t h = r_.operand(e, i);
    const TensorImpl* t = call.in[i];
    if (r_.handles[h] == t && (h != 0) == (t != nullptr)) continue;
    const HandleInfo& info = r_.infos[h];
    // A captured tensor may be another one of the same type: what differs is the type, or that it is used
    // twice.
    const size_t n = out.size();
    if (info.kind == HandleInfo::Kind::slot && t && t->frame != this)
      compare_types(who + "captured tensor, ", info, *t, t->has(core::kRequiresGrad), t->grad_fn == nullptr,
                    out);
    if (out.size() == n) out.push_back(who + describe(h) + " before, " + describe(t) + " now");
  }
  compare_attributes(op, call.numbers & e.numbers, {r_.words.data() + e.words, e.n_words},
                     {call.words, call.n_words}, out);
}

void Frame::compare_backwards(const BackwardRecord& b, const eager::BackwardCall& call,
                              std::vector<std::string>& out) const {
  if (b.retain_graph != call.retain_graph)
    out.push_back(change("retain_graph", kYesNo[b.retain_graph], kYesNo[call.retain_graph]));
  if (b.create_graph != call.create_graph)
    out.push_back(change("create_graph", kYesNo[b.create_graph], kYesNo[call.create_graph]));
  if (b.roots.size() != call.roots.size())
    out.push_back(
        change("number of roots", std::to_string(b.roots.size()), std::to_string(call.roots.size())));
  for (size_t i = 0; i < std::min(b.roots.size(), call.roots.size()); ++i)
    if (r_.handles[b.roots[i]] != call.roots[i])
      out.push_back(change("root:", describe(b.roots[i]), describe(call.roots[i])));
  for (size_t i = 0; i < std::min(b.gradients.size(), call.gradients.size()); ++i)
    if (r_.handles[b.gradients[i]] != call.gradients[i])
      out.push_back(change("gradient of the root:", describe(b.gradients[i]), describe(call.gradients[i])));
  for (const LeafGrad& g : b.leaves) {
    const TensorImpl* leaf = r_.handles[g.leaf];
    const std::string who = "leaf " + describe(g.leaf) + ": ";
    if (!leaf) {
      out.push_back(who + "is another tensor now");
      continue;
    }
    const eager::AutogradState* s = eager::autograd_state(leaf);
    const bool grad = s && s->grad;
    if ((g.before != 0) != grad)
      out.push_back(who + change(".grad", kYesNo[g.before != 0], kYesNo[grad]));
    else if (grad && r_.handles[g.before] != s->grad.get())
      out.push_back(who + ".grad is another tensor now");
    if (s && !s->hooks.empty() && b.skippable) out.push_back(who + "has a hook now");
  }
}

std::vector<std::string> Frame::differences(const Entry& e, Location where, const Attempt& now) const {
  std::vector<std::string> out;
  const auto text = [](EventKind kind, uint16_t op, bool in_place) {
    return kind == EventKind::op ? op_text(op, in_place) : kind_text(kind);
  };
  const auto op_now = now.call ? static_cast<uint16_t>(now.call->op) : uint16_t{0};
  const bool in_place_now = now.call && now.call->in_place;
  const std::string before = text(e.kind, e.op, e.in_place), called = text(now.kind, op_now, in_place_now);
  if (before != called) {
    out.push_back("expected " + before + at(where) + ", found " + called + at(now.where));
    return out;
  }
  compare_modes(r_.modes[e.modes], modes_word(modes()), out);
  if (now.call) compare_calls(e, *now.call, out);
  if (now.backward) compare_backwards(r_.backwards[e.more], *now.backward, out);
  if (now.kind == EventKind::requires_grad && (e.numbers != 0) != now.requires_grad)
    out.push_back(change("requires_grad", kYesNo[e.numbers != 0], kYesNo[now.requires_grad]));
  if (out.empty()) out.push_back("it took part in another way");
  out.front() = called + at(now.where) + ": " + out.front();
  return out;
}

std::string Frame::explain_branch(const Attempt& now) const {
  std::vector<std::string> nearest;
  size_t fewest = SIZE_MAX;
  bool named_alike = false;
  int known = 0;
  const auto candidate = [&](const Branch& b, size_t position) {
    if (position >= b.entries.size()) return;
    ++known;
    const Entry& e = b.entries[position];
    const bool alike = e.kind == now.kind && (!now.call || e.op == static_cast<uint16_t>(now.call->op));
    std::vector<std::string> d = differences(e, b.where[position], now);
    if (nearest.empty() || (alike && !named_alike) || (alike == named_alike && d.size() < fewest)) {
      fewest = d.size();
      named_alike = alike;
      nearest = std::move(d);
    }
  };
  candidate(*branch_, static_cast<size_t>(position_));
  for (const auto& [position, other] : branch_->forks)
    if (position == position_) candidate(*r_.branches[static_cast<size_t>(other)], 0);
  std::string text = "event " + std::to_string(linear());
  if (nearest.empty()) return text + at(now.where) + ": nothing is recorded from here on";
  if (known > 1) text += " (" + std::to_string(known) + " ways are known)";
  return text + ": " + joined(nearest);
}

// The new path is noted for reports and in the log, or refused. The first path of a signature was explained
// by it.
void Frame::refuse_branch(const Attempt& now) {
  const TraceOptions& options = *r_.options;
  const bool first = branch_index_ == 0 && branch_->entries.empty();
  const bool twin_may = r_.twin && static_cast<int64_t>(r_.branches.size()) < options.max_traces;
  if (counters_.traces >= options.max_traces && !twin_may)
    fail(options.name + ": max_traces = " + std::to_string(options.max_traces) +
             " allows no new branch: " + explain_branch(now),
         now.where);
  if (first) return;
  const std::string what = "a new branch: " + explain_branch(now);
  counters_.misses.add(what);
  if (core::log_enabled(core::LogArea::trace, core::LogLevel::debug))
    core::log(core::LogArea::trace, core::LogLevel::debug, options.name + ": " + what);
}

void Frame::refuse_partial_capture(const std::string& why, Location where) const {
  if (r_.options->require_full_capture)
    fail(r_.options->name + ": require_full_capture: a part of the call would run op by op: " + why, where);
}

void FailedCall::see(Location where, ops::OpId id) {
  if (where.line != at_.line || std::string_view(where.file) != at_.file) return;
  const ops::OpDef& op = ops::def(id);
  called_ |= inner_ == op.name;
  if (op.kind == ops::OpKind::composite) composite_ = op.name;
}

}  // namespace tandem::tracer
