// Each segment is checked on its own. The first use of memory in a segment copies it; an op runs on copies
// and on the results of earlier ops; before an op overwrites a shadow, what earlier steps made is kept. When
// a plan's outputs differ from the shadows, the segment is lowered once more with every op's value as an
// output, so that the first op that differs has a name, and not only the first value that was to be seen.
#include "tandem/tracer/shadow.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "tandem/core/cuda/cuda.h"
#include "tandem/tracer/lowering.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

using core::kPending;
using core::Storage;
using eager::Call;

namespace {

// More plans than this are not built to find one op.
constexpr size_t kMostProbes = 64;

int64_t position_of(const Dims& sizes, const Dims& strides, int64_t element) {
  int64_t at = 0;
  for (int d = sizes.rank() - 1; d >= 0; --d) {
    at += element % sizes[d] * strides[d];
    element /= sizes[d];
  }
  return at;
}

std::string index_of(const Dims& sizes, int64_t element) {
  Dims index = sizes;
  for (int d = sizes.rank() - 1; d >= 0; --d) {
    index[d] = element % sizes[d];
    element /= sizes[d];
  }
  return to_string(index);
}

std::string number(double v) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

bool same_element(DType t, const char* a, const char* b) {
  if (std::memcmp(a, b, static_cast<size_t>(itemsize(t))) == 0) return true;
  // Which NaN an operation on two of them gives is the processor's choice.
  return is_floating(t) && std::isnan(core::load_double(t, a)) && std::isnan(core::load_double(t, b));
}

/// The first element, in logical order, at which two memories of one layout differ; -1 if none does.
int64_t first_difference(const HandleInfo& h, const Dims& found_strides, const char* found,
                         const char* expected) {
  const int64_t size = itemsize(h.dtype);
  if (h.contiguous && is_contiguous(h.sizes, found_strides) &&
      std::memcmp(found, expected, static_cast<size_t>(h.numel * size)) == 0)
    return -1;
  for (int64_t i = 0; i < h.numel; ++i)
    if (!same_element(h.dtype, found + position_of(h.sizes, found_strides, i) * size,
                      expected + position_of(h.sizes, h.strides, i) * size))
      return i;
  return -1;
}

const char* data_of(const HandleInfo& h, const Storage& s) {
  return static_cast<const char*>(s.data) + h.offset * itemsize(h.dtype);
}

/// The first element that is not finite, and its value; -1 if all are.
int64_t first_unusual(const TensorImpl& t, double* value = nullptr) {
  if (!is_floating(t.dtype) || t.numel == 0) return -1;
  const Ref<Storage> host = core::on_host(t.storage);
  const char* data = static_cast<const char*>(host->data) + t.offset * itemsize(t.dtype);
  for (int64_t i = 0; i < t.numel; ++i) {
    const double v =
        core::load_double(t.dtype, data + position_of(t.sizes, t.strides, i) * itemsize(t.dtype));
    if (std::isfinite(v)) continue;
    if (value) *value = v;
    return i;
  }
  return -1;
}

/// Waits until the work is done, and throws what failed in it.
void wait_for(Device device) {
  if (device.type == DeviceType::cuda) cuda::synchronize(device);
}

}  // namespace

Shadow::Shadow(Frame& frame, Mode mode, std::string function)
    : frame_(frame), mode_(mode), function_(std::move(function)) {
  frame_.shadow_ = this;
}

Shadow::~Shadow() { frame_.shadow_ = nullptr; }

void Shadow::finish() {
  if (mode_ != Mode::verify || frame_.passthrough_) return;
  ++frame_.counters_.verified;
  if (!waits_) ++frame_.branch_->verified;
}

void Shadow::forget() {
  results_.clear();
  memory_.clear();
  real_of_.clear();
  uses_.clear();
  steps_.clear();
  error_ = nullptr;
}

Shadow::Memory& Shadow::memory_of(const Ref<Storage>& real) {
  Memory& m = memory_[real.get()];
  if (!m.real) {
    m.real = real;
    m.copy = core::copy_storage(*real);
    real_of_[m.copy.get()] = real.get();
  }
  return m;
}

Ref<TensorImpl> Shadow::shadow_of(TensorImpl* t) {
  if (t->frame == &frame_ && t->handle >= 0) {
    const auto known = results_.find(static_cast<uint32_t>(t->handle));
    if (known != results_.end()) return known->second;
  }
  TANDEM_INTERNAL(t->storage, "a pending value without a shadow: value " + std::to_string(t->handle));
  Ref<TensorImpl> twin(core::new_impl());
  twin->dtype = t->dtype;
  twin->device = t->device;
  core::set_layout(*twin, t->sizes, t->strides);
  core::set_storage(*twin, memory_of(t->storage).copy, t->offset);
  return twin;
}

// `storage`, a shadow, is about to be written.
void Shadow::keep_before(const Storage* storage) {
  const auto real = real_of_.find(storage);
  Memory* m = real == real_of_.end() ? nullptr : &memory_[real->second];
  std::vector<std::pair<size_t, size_t>>& uses = uses_[storage];
  if (uses.empty() && (!m || m->before)) return;
  const Ref<Storage> before = core::copy_storage(*storage);
  if (m && !m->before) m->before = before;
  for (const auto& [step, value] : uses) {
    Value& v = steps_[step].values[value];
    v.storage = before;
    v.current = false;
  }
  uses.clear();
}

void Shadow::run(const Call& call) {
  const Entry& e = frame_.branch_->entries[static_cast<size_t>(frame_.position_) - 1];
  const ops::OpDef& op = ops::def(call.op);
  if (e.kind != EventKind::op || e.op != static_cast<uint16_t>(call.op) || e.in_place != call.in_place)
    fail(function_ + ": verify: this " + op.name + " was taken for another op of the record", call.where);
  std::vector<Ref<TensorImpl>> shadows(call.n_in);
  std::vector<TensorImpl*> in(call.n_in);
  Ref<TensorImpl> out[ops::kMaxOutputs];
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (call.in[i]) shadows[i] = shadow_of(call.in[i]);
  for (uint32_t i = 0; i < call.n_in; ++i) in[i] = shadows[i].get();
  if (call.in_place)
    for (const int w : ops::written(op)) keep_before(in[static_cast<size_t>(w)]->storage.get());
  Call eager = call;
  eager.in = in.data();
  {
    const eager::InterceptorGuard alone(nullptr);
    const NoGrad no_grad;
    eager::run_op(eager, out);
    wait_for(device_ = eager::device_of(eager));
  }
  Step step{call.op, call.where, {}};
  const auto value = [&](uint32_t handle, const Ref<Storage>& storage) {
    uses_[storage.get()].emplace_back(steps_.size(), step.values.size());
    while (frame_.r_.infos[handle].view) handle = frame_.r_.infos[handle].base;
    step.values.push_back({frame_.r_.infos[handle].cell, handle, storage});
  };
  TensorImpl* made[ops::kMaxOutputs] = {};
  for (uint32_t j = 0; j < e.n_out; ++j) {
    made[j] = out[j].get();
    if (op.kind != ops::OpKind::view) value(e.out + j, out[j]->storage);
    results_[e.out + j] = std::move(out[j]);
  }
  if (call.in_place)
    for (const int w : ops::written(op))
      value(frame_.r_.operand(e, static_cast<uint32_t>(w)), in[static_cast<size_t>(w)]->storage);
  steps_.push_back(std::move(step));
  if (mode_ == Mode::debug) check_finite(call, in.data(), made);
}

bool Shadow::op(const Call& call, Ref<TensorImpl>* results) {
  const bool note = frame_.op(call, results);
  if (frame_.passthrough_) {  // real already
    forget();
    if (mode_ != Mode::debug) return note;
    TensorImpl* made[ops::kMaxOutputs] = {};
    for (int j = 0; !call.in_place && j < ops::def(call.op).n_out; ++j) made[j] = results[j].get();
    check_finite(call, call.in, made);
    return note;
  }
  if (error_) return note;
  try {
    run(call);
  } catch (const std::exception&) {
    if (mode_ == Mode::verify) {  // an index out of range; the plan must find it as well
      error_ = std::current_exception();
      return note;
    }
    // What came before has happened.
    adopt(frame_.pending_segment().results);
    frame_.failed_ = true;
    throw;
  }
  return note;
}

void Shadow::check_finite(const Call& call, TensorImpl* const* in, TensorImpl* const* out) {
  const ops::OpDef& op = ops::def(call.op);
  if (op.kind == ops::OpKind::view) return;
  const auto check = [&](const TensorImpl* t) {
    double v = 0;
    const int64_t at = t ? first_unusual(*t, &v) : -1;
    if (at < 0) return;
    std::string sizes, before;
    for (uint32_t i = 0; i < call.n_in; ++i) {
      if (!in[i]) continue;
      sizes += (sizes.empty() ? "" : " x ") + to_string(in[i]->sizes);
      const bool written = call.in_place && std::count(op.writes, op.writes + op.n_out, static_cast<int>(i));
      if (!written && first_unusual(*in[i]) >= 0) before += (before.empty() ? "" : ", ") + std::to_string(i);
    }
    fail(function_ + ": " + op.name + (call.in_place ? "_" : "") + (sizes.empty() ? "" : " of " + sizes) +
             " gives " + number(v) + " at element " + index_of(t->sizes, at) + " of " + to_string(t->sizes) +
             "; " +
             (before.empty() ? "its operands were finite"
                             : "operand " + before + " held values that are not finite already"),
         call.where);
  };
  if (call.in_place)
    for (const int w : ops::written(op)) check(in[w]);
  else
    for (int j = 0; j < op.n_out; ++j) check(out[j]);
}

// A backward is walked, so that its ops are seen. What skipping it would have made of the run-time numbers
// inside must be what the walk brings.
bool Shadow::backward(const eager::BackwardCall& call) {
  frame_.need_tape();
  const bool done = frame_.backward(call);
  skipped_.clear();
  backward_at_ = call.where;
  if (mode_ == Mode::verify && frame_.backward_ >= 0 && !frame_.backward_recording_) {
    std::vector<int64_t> words = frame_.r_.words;
    for (const FollowedWord& f : frame_.r_.backwards[static_cast<size_t>(frame_.backward_)].followed) {
      if (on(Mechanism::follow_numbers)) words[f.word] = f.source->bits(words.data(), f.kind);
      skipped_.emplace_back(f.word, words[f.word]);
    }
  }
  return done;
}

void Shadow::end_backward() {
  const int32_t index = frame_.backward_;
  frame_.end_backward();
  if (index < 0 || frame_.recording_ || frame_.passthrough_) return;
  BackwardRecord& b = frame_.r_.backwards[static_cast<size_t>(index)];
  if (!b.skippable || b.end_branch != frame_.branch_index_ || b.end_position != frame_.position_) return;
  for (const auto& [word, skipped] : skipped_) {
    if (frame_.r_.words[word] == skipped) continue;
    b.skippable = false;
    fail(function_ +
             ": verify: a number inside this backward is another one when the backward is skipped than when "
             "it is walked; from now on it is walked",
         backward_at_);
  }
}

void Shadow::adopt(std::span<const uint32_t> results) {
  for (const uint32_t h : results) {
    const auto shadow = results_.find(h);
    if (shadow == results_.end()) continue;
    frame_.lend_home(h);
    const Ref<Storage>& storage = shadow->second->storage;
    const auto real = real_of_.find(storage.get());
    frame_.give_storage(frame_.made_of(h), real == real_of_.end() ? storage : memory_[real->second].real);
  }
  for (const auto& [storage, m] : memory_)
    if (m.before) core::copy_bytes(*m.real, *m.copy, m.real->nbytes);
}

bool Shadow::take_over(const SegmentEnd& segment) {
  if (mode_ != Mode::debug) return false;
  adopt(segment.results);
  ++frame_.counters_.op_by_op;
  frame_.ran_op_by_op_ = true;
  forget();
  return true;
}

// Of the values that are real now, the one that the earliest op made.
Shadow::Difference Shadow::first_visible() const {
  const Record& r = frame_.r_;
  for (const Step& step : steps_)
    for (const Value& v : step.values) {
      const TensorImpl* t = r.handles[v.handle];
      if (!v.current || !t || t->has(kPending) || !t->storage) continue;
      const HandleInfo& h = r.infos[v.handle];
      if (h.numel == 0) continue;
      const Ref<Storage> memory = core::on_host(t->storage), shadow = core::on_host(v.storage);
      const char* found = static_cast<const char*>(memory->data) + t->offset * itemsize(t->dtype);
      const int64_t at = first_difference(h, h.strides, found, data_of(h, *shadow));
      if (at < 0) continue;
      const int64_t byte = position_of(h.sizes, h.strides, at) * itemsize(h.dtype);
      return {&step, &h, at, core::load_double(h.dtype, found + byte),
              core::load_double(h.dtype, data_of(h, *shadow) + byte)};
    }
  return {};
}

// The plan again, on the memory as it was, with the values of all ops as outputs; if the difference goes away
// by that, one op at a time.
Shadow::Difference Shadow::first_of_all(const SegmentEnd& segment, const Difference& visible) const {
  const Record& r = frame_.r_;
  std::vector<char> made(r.handles.size(), 0);
  for (const uint32_t h : segment.results) made[h] = 1;
  Lowering lowering(r, std::move(made));
  struct Probe {
    const Step* step;
    const Value* value;
    int32_t id;
  };
  std::vector<Probe> probes;
  std::vector<TensorImpl*> operands;
  size_t k = 0;
  frame_.for_path(frame_.segment_start_, [&](const Entry& e, Location) {
    k += e.kind == EventKind::op;
    lowering.announce(e);
  });
  if (k != steps_.size()) return visible;  // the segment ran other ops than this call made
  k = 0;
  frame_.for_path(frame_.segment_start_, [&](const Entry& e, Location where) {
    if (e.kind != EventKind::op) return;
    lowering.op(e, frame_.call_of(e, where, operands), -1);
    const Step& step = steps_[k++];
    for (const Value& v : step.values)
      if (&step <= visible.step) probes.push_back({&step, &v, lowering.cell(v.cell).id});
  });
  lowering.finish(segment.plan->outputs);

  const auto differs = [&](std::span<const Probe> some) -> Difference {
    jit::Graph g = lowering.graph();
    const size_t first = g.outputs.size();
    for (const Probe& p : some) g.outputs.push_back(p.id);
    const auto executable = jit::Executable::make(g, {.compile = r.compile, .device = segment.plan->device});
    std::unordered_map<const Storage*, Ref<Storage>> copies;
    std::vector<void*> inputs, outputs;
    for (const uint32_t h : lowering.inputs()) {
      const TensorImpl* t = r.handles[h];
      uint32_t base = h;
      while (!r.handles[base]->storage && r.infos[base].view) base = r.infos[base].base;
      const Ref<Storage>& memory = r.handles[base]->storage;
      if (!memory) {  // an empty tensor
        inputs.push_back(nullptr);
        continue;
      }
      Ref<Storage>& copy = copies[memory.get()];
      const auto m = memory_.find(memory.get());
      if (!copy)
        copy = core::copy_storage(m != memory_.end() && m->second.before ? *m->second.before : *memory);
      inputs.push_back(static_cast<char*>(copy->data) + t->offset * itemsize(t->dtype));
    }
    std::vector<int64_t> numbers;
    for (const uint32_t w : lowering.numbers()) numbers.push_back(r.words[w]);
    std::vector<Ref<Storage>> storages;
    for (const int32_t id : g.outputs) {
      storages.push_back(
          core::make_storage(numel(g.type(id).sizes) * itemsize(g.type(id).dtype), segment.plan->device));
      outputs.push_back(storages.back()->data);
    }
    if (executable->run(inputs.data(), numbers.data(), outputs.data())) return {};
    for (size_t i = 0; i < some.size(); ++i) {
      const HandleInfo& h = r.infos[some[i].value->handle];
      const Ref<Storage> made = core::on_host(storages[first + i]),
                         shadow = core::on_host(some[i].value->storage);
      const auto* found = static_cast<const char*>(made->data);
      const char* expected = data_of(h, *shadow);
      const int64_t at = first_difference(h, contiguous_strides(h.sizes), found, expected);
      if (at >= 0)
        return {
            some[i].step, &h, at, core::load_double(h.dtype, found + at * itemsize(h.dtype)),
            core::load_double(h.dtype, expected + position_of(h.sizes, h.strides, at) * itemsize(h.dtype))};
    }
    return {};
  };
  Difference d = differs(probes);
  for (size_t i = probes.size() - std::min(probes.size(), kMostProbes); !d.step && i < probes.size(); ++i)
    d = differs({&probes[i], 1});
  return d.step ? d : visible;
}

void Shadow::put_right() {
  const Record& r = frame_.r_;
  for (const Step& step : steps_)
    for (const Value& v : step.values) {
      const TensorImpl* t = r.handles[v.handle];
      if (!v.current || !t || t->has(kPending) || !t->storage) continue;
      core::copy_bytes(*t->storage, *v.storage, std::min(t->storage->nbytes, v.storage->nbytes));
    }
}

void Shadow::compare(const SegmentEnd& segment) {
  if (mode_ != Mode::verify) return;
  const eager::InterceptorGuard alone(nullptr);
  waits_ |= segment.op_by_op.empty() && !segment.plan;
  Difference d;
  try {
    wait_for(device_);
  } catch (const Error&) {
    if (!error_) error_ = std::current_exception();  // an index out of range, which the plan has met
  }
  if (!error_) {
    d = first_visible();
    if (!d.step) return forget();
  }
  // The record is not to be trusted: what it says is run op by op from now on.
  frame_.failed_ = true;
  frame_.r_.op_by_op = "verify found a difference";
  if (error_) std::rethrow_exception(error_);
  if (segment.op_by_op.empty() && segment.plan) d = first_of_all(segment, d);
  const std::string message =
      function_ + ": verify: " + ops::def(d.step->op).name +
      " gives another value in the plan than eagerly: " + number(d.found) + " instead of " +
      number(d.expected) + " at element " + index_of(d.layout->sizes, d.element) + " of " +
      to_string(d.layout->sizes) +
      "; the eager values stand, and calls with such arguments run op by op from now on";
  const Location where = d.step->where;
  put_right();
  forget();
  fail(message, where);
}

}  // namespace tandem::tracer
