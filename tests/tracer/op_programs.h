// Programs around one call of a sample of the table, each run traced or as it is, and what they did: results,
// gradients, memory, history, versions and errors, to be compared between both ways. One thread.
#pragma once

#include <algorithm>
#include <bit>
#include <deque>
#include <functional>
#include <set>

#include "tandem/tracer/trace.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_calls.h"

namespace tandem::test {

using ops::OpDef;
using ops::Sample;

inline constexpr int kCalls = 4;
using Body = std::function<TensorList(const TensorList&)>;

/// What a program did, step by step.
class Notes {
 public:
  /// `leaves`: tell those that require grad as leaves from those with a history.
  explicit Notes(bool leaves = true) : leaves_(leaves) {}
  void text(const std::string& what, const std::string& value) { notes_.push_back({what, value, {}}); }
  /// All that a user can see of a tensor.
  void tensor(const std::string& what, const Tensor& t) {
    if (!t.defined()) return text(what, "undefined");
    std::string value =
        std::string(name(t.dtype())) + to_string(t.sizes()) + " strides " + to_string(t.strides());
    value += !t.requires_grad() ? "" : !leaves_ ? " requires grad" : t.is_leaf() ? " leaf" : " with history";
    REQUIRE(t.impl()->data);
    notes_.push_back({what, value, read_values(t)});
  }
  void tensors(const std::string& what, const TensorList& list) {
    for (size_t i = 0; i < list.size(); ++i) tensor(what + " " + std::to_string(i), list[i]);
  }
  /// Which of the tensors show the same memory.
  void memory(const std::string& what, const TensorList& list) {
    std::string value;
    for (size_t i = 0; i < list.size(); ++i) {
      size_t first = 0;
      while (first < i && !(list[first].defined() && list[i].defined() &&
                            list[first].impl()->storage == list[i].impl()->storage))
        ++first;
      value += (i ? " " : "") + std::to_string(first);
    }
    text(what, value);
  }
  /// Empty if equal; else the first thing that differs.
  std::string difference(const Notes& other) const {
    for (size_t i = 0; i < std::min(notes_.size(), other.notes_.size()); ++i) {
      const Note &a = notes_[i], &b = other.notes_[i];
      if (a.what != b.what || a.value != b.value)
        return "eager: " + a.what + ": " + a.value + "; traced: " + b.what + ": " + b.value;
      for (size_t k = 0; k < a.values.size(); ++k)
        if (std::bit_cast<uint64_t>(a.values[k]) != std::bit_cast<uint64_t>(b.values[k])) {
          char line[160];
          std::snprintf(line, sizeof line, "%s, element %zu: eager %.17g, traced %.17g", a.what.c_str(), k,
                        a.values[k], b.values[k]);
          return line;
        }
    }
    return notes_.size() == other.notes_.size() ? "" : "one program did more than the other";
  }
  size_t size() const { return notes_.size(); }

 private:
  struct Note {
    std::string what, value;
    std::vector<double> values;
  };
  bool leaves_;
  std::vector<Note> notes_;
};

/// A body that runs traced or as it is.
class Function {
 public:
  Function(bool traced, Body body, bool compile = false) : body_(std::move(body)) {
    if (traced) traced_.emplace(trace(body_, {.compile = compile}));
  }
  TensorList operator()(const TensorList& in) { return traced_ ? (*traced_)(in) : body_(in); }
  TraceReport report() const { return traced_ ? traced_->report() : TraceReport{}; }

 private:
  Body body_;
  std::optional<TracedFunction<Body>> traced_;
};

/// The sample with other run-time numbers, which no trace may notice.
inline Sample varied(const OpDef& op, Sample s, int call) {
  const auto scale = [&](int64_t& word) {
    word = std::bit_cast<int64_t>(std::bit_cast<double>(word) * (1 - 0.05 * call));
  };
  size_t at = 0;
  for (const ops::SampleOperand& o : s.operands) {
    if (o.kind != ops::SampleOperand::Kind::number) continue;
    if (o.number == NumberKind::floating) scale(s.words[at + 1]);
    if (o.number == NumberKind::integer) s.words[at + 1] += call;
    at += 2;
  }
  for (int k = 0; k < op.n_attrs; ++k, ++at) {  // a list is last
    if (op.attrs[k].type == ops::AttrType::floating) scale(s.words[at]);
    if (op.attrs[k].type == ops::AttrType::dynamic) s.words[at] += call;
  }
  return s;
}

inline Lists values_of_call(const Sample& s, DType type, OperandLayout layout, int call) {
  return rounded(s, type, values_for(s, layout, operand_values(s, 11 + 10 * static_cast<uint64_t>(call))));
}

inline TensorList defined(const TensorList& in) {
  TensorList out;
  for (const Tensor& t : in)
    if (t.defined()) out.push_back(t);
  return out;
}
/// Tensors of a call's arguments back in the sample's places.
inline TensorList placed(const Sample& s, const TensorList& arguments) {
  TensorList in;
  size_t next = 0;
  for (const ops::SampleOperand& o : s.operands) in.push_back(o.is_tensor() ? arguments[next++] : Tensor());
  return in;
}

/// Weights of results or gradients, made once for each type: captured by the bodies.
class Weights {
 public:
  const Tensor& of(const Tensor& t, uint64_t seed) {
    for (const auto& [known, w] : made_)
      if (known == seed && w.dtype() == t.dtype() && w.sizes() == t.sizes()) return w;
    eager::InterceptorGuard outside(nullptr);
    made_.push_back({seed, tensor_of({t.dtype(), {}, false, t.sizes()},
                                     rounded_noise(t.dtype(), static_cast<size_t>(t.numel()), seed))});
    return made_.back().second;
  }
  TensorList all() const {
    TensorList list;
    for (const auto& [seed, w] : made_) list.push_back(w);
    return list;
  }

 private:
  static std::vector<double> rounded_noise(DType type, size_t n, uint64_t seed) {
    std::vector<double> values = noise(n, seed);
    for (double& v : values) v = in_type(type, v);
    return values;
  }
  std::deque<std::pair<uint64_t, Tensor>> made_;
};

/// Results with history, and their weights.
inline void roots_of(const TensorList& out, Weights& known, TensorList& roots, TensorList& weights,
                     uint64_t seed) {
  for (size_t j = 0; j < out.size(); ++j) {
    if (!out[j].defined() || !out[j].requires_grad()) continue;
    roots.push_back(out[j]);
    weights.push_back(known.of(out[j], seed + j));
  }
}

struct Ran {
  Notes notes;
  TraceReport report;
};

// ---- programs ----

/// New arguments in each call; the op, a weighted sum of its results, backward. `used_up`: outside, the
/// results are looked at as what they are on the tape.
inline Ran run_backward(bool traced, const OpDef& op, const Sample& s, DType type, OperandLayout layout,
                        bool used_up = false) {
  Ran r{Notes(used_up), {}};
  Weights known;
  Sample now = s;
  Function f(traced, [&](const TensorList& arguments) {
    const TensorList out = call_sample(op, now, placed(s, arguments));
    TensorList roots, weights;
    roots_of(out, known, roots, weights, 100);
    Tensor loss;
    for (size_t j = 0; j < roots.size(); ++j) {
      const Tensor weighted = roots[j] * weights[j];
      const Tensor sum = weighted.sum();
      loss = loss.defined() ? loss + sum : sum;
    }
    if (loss.defined()) loss.backward();
    return out;
  });
  for (int call = 0; call < kCalls; ++call) {
    now = varied(op, s, call);
    TensorList in = operand_tensors(s, type, values_of_call(s, type, layout, call), layout);
    for (const size_t i : floating_operands(s)) in[i].requires_grad_();
    const std::string at = "call " + std::to_string(call) + ": ";
    TensorList all = f(defined(in));
    TensorList roots, weights;
    roots_of(all, known, roots, weights, 100);
    if (used_up && !roots.empty()) {
      r.notes.tensors(at + "result", all);
      r.notes.text(at + "backward again", message([&] { autograd::backward(roots, weights); }));
    }
    all.insert(all.end(), in.begin(), in.end());
    for (const Tensor& t : in) all.push_back(t.defined() ? t.grad() : Tensor());
    r.notes.tensors(at + "results, operands, gradients", all);
    r.notes.memory(at + "memory", all);
  }
  r.report = f.report();
  return r;
}

/// Captured leaves, with new values or replaced by others between the calls; gradients of gradients.
inline Ran run_grad_of_grad(bool traced, const OpDef& op, const Sample& s, DType type) {
  Ran r;
  Weights known;
  Sample now = s;
  TensorList in, leaves;
  TensorList plain, first, second;
  Function f(traced, [&](const TensorList&) {
    const TensorList out = call_sample(op, now, in);
    TensorList roots, weights, slopes, slope_weights;
    roots_of(out, known, roots, weights, 100);
    plain.clear(), first.clear(), second.clear();
    if (!roots.empty()) plain = autograd::grad(roots, leaves, weights, true, false, true);
    if (!roots.empty()) first = autograd::grad(roots, leaves, weights, true, true, true);
    roots_of(first, known, slopes, slope_weights, 200);
    if (!slopes.empty()) second = autograd::grad(slopes, leaves, slope_weights, false, false, true);
    return out;
  });
  for (int call = 0; call < kCalls; ++call) {
    now = varied(op, s, call);
    const Lists values = values_of_call(s, type, OperandLayout::contiguous, call);
    if (call != 1) {
      in = operand_tensors(s, type, values);
      leaves.clear();
      for (const size_t i : floating_operands(s)) leaves.push_back(in[i].requires_grad_());
    }
    for (size_t i = 0; i < in.size(); ++i)
      if (in[i].defined()) write_values(in[i], values[i]);
    const std::string at = "call " + std::to_string(call) + ": ";
    TensorList all = f({});
    const auto add = [&](const TensorList& more) { all.insert(all.end(), more.begin(), more.end()); };
    add(plain), add(first), add(second);
    r.notes.tensors(at + "results, gradients, gradients with history, second gradients", all);
    add(in), add(known.all());
    r.notes.memory(at + "memory", all);
  }
  r.report = f.report();
  return r;
}

enum class Written : uint8_t {
  argument,         // no history of its own, beside operands that may want gradients
  with_history,     // made of leaves in the call; backward outside of it
  backward_inside,  // the same, backward in the call
};

/// The op in place, then backward.
inline Ran run_in_place(bool traced, const OpDef& op, const Sample& s, DType type, OperandLayout layout,
                        Written written, bool grad) {
  Ran r;
  Weights known;
  Sample now = s;
  std::set<size_t> targets;
  for (int j = 0; j < op.n_out; ++j)
    if (const int w = written_operand(op, s, j); w >= 0) targets.insert(static_cast<size_t>(w));
  Function f(traced, [&](const TensorList& arguments) {
    TensorList in = placed(s, arguments), out;
    if (written != Written::argument)
      for (const size_t w : targets) in[w] = in[w].clone();
    call_sample(op, now, in, true);
    for (const size_t w : targets) out.push_back(in[w]);
    if (written != Written::backward_inside) return out;
    TensorList roots, weights;
    roots_of(out, known, roots, weights, 100);
    if (!roots.empty()) autograd::backward(roots, weights);
    for (Tensor& t : out) t = t.detach();
    return out;
  });
  for (int call = 0; call < kCalls; ++call) {
    now = varied(op, s, call);
    const Lists values = values_of_call(s, type, OperandLayout::contiguous, call);
    TensorList in = operand_tensors(s, type, values);
    for (const size_t w : targets)
      in[w] = tensor_of(ops::sample_type(s.operands[w], type), values[w], layout);
    for (const size_t i : floating_operands(s))
      if (grad && (written != Written::argument || !targets.contains(i))) in[i].requires_grad_();
    const std::string at = "call " + std::to_string(call) + ": ";
    TensorList out;
    const std::string error = message([&] { out = f(defined(in)); });
    r.notes.text(at + "call", error);
    out.insert(out.end(), in.begin(), in.end());
    r.notes.tensors(at + "changed, operands", out);
    r.notes.memory(at + "memory", out);
    for (const Tensor& t : in)
      if (t.defined()) r.notes.text(at + "version", std::to_string(t.impl()->storage->version));
    TensorList roots, weights;
    roots_of(out, known, roots, weights, 100);
    if (!roots.empty()) r.notes.text(at + "backward", message([&] { autograd::backward(roots, weights); }));
    for (const Tensor& t : in) r.notes.tensor(at + "gradient", t.defined() ? t.grad() : Tensor());
  }
  r.report = f.report();
  return r;
}

/// Calls in which a wrong one follows what is right, and calls without it.
inline Ran run_error(bool traced, const OpDef& op, const Sample& good, const Sample& bad, bool bad_first) {
  Ran r;
  Sample now = good;
  bool wrong = false;
  const auto taken = static_cast<std::ptrdiff_t>(
      std::count_if(good.operands.begin(), good.operands.end(), [](const auto& o) { return o.is_tensor(); }));
  const Tensor counter = zeros({2});
  Function f(traced, [&](const TensorList& arguments) {
    counter.add_(1);
    TensorList out = call_sample(op, now, placed(good, arguments));
    if (wrong) {
      // Behind what the good call took.
      const TensorList rest(arguments.begin() + taken, arguments.end());
      call_sample(op, bad, placed(bad, rest));
    }
    counter.mul_(2);
    return out;
  });
  for (int call = 0; call < 6; ++call) {
    wrong = (call % 3 == 0) == bad_first;
    now = varied(op, good, call);
    TensorList in = defined(operand_tensors(
        good, DType::float32, values_of_call(good, DType::float32, OperandLayout::contiguous, call)));
    for (const Tensor& t : defined(operand_tensors(bad, DType::float32, operand_values(bad, 1))))
      in.push_back(t);
    const std::string at = "call " + std::to_string(call) + ": ";
    TensorList out;
    const std::string error = message([&] { out = f(in); });
    CHECK((error != "no error") == wrong);
    if (wrong) {
      CHECK(error.rfind(std::string(op.name) + ": ", 0) == 0);
      CHECK_THAT(error, Contains(" at user.cpp:31"));
    }
    r.notes.text(at + "call", error);
    r.notes.tensors(at + "result", out);
    r.notes.tensor(at + "counter", counter);
  }
  r.report = f.report();
  return r;
}

/// Calls with indices that are no positions, between good ones. Eager mode throws at the op, a trace at the
/// end of the segment.
inline Ran run_bad_index(bool traced, const OpDef& op, const Sample& s, double index, int* thrown) {
  Ran r;
  Function f(traced, [&](const TensorList& arguments) { return call_sample(op, s, placed(s, arguments)); });
  for (int call = 0; call < 6; ++call) {
    Lists values = values_of_call(s, DType::float32, OperandLayout::contiguous, call);
    for (size_t i = 0; i < values.size() && call % 3 == 1; ++i)
      if (s.operands[i].kind == ops::SampleOperand::Kind::integer && !values[i].empty())
        values[i].back() = index;
    TensorList out;
    const std::string error = message([&] { out = f(defined(operand_tensors(s, DType::float32, values))); });
    *thrown += error != "no error";
    // A plan knows the op and its line, not the index.
    const bool told = error.find("out of range") != error.npos && error.find(" at user.cpp:31") != error.npos;
    r.notes.text("call " + std::to_string(call), told ? "out of range" : error);
    r.notes.tensors("result", out);
  }
  r.report = f.report();
  return r;
}

}  // namespace tandem::test
