// Recording: operands are resolved to handles, results become pending tensors with real shapes, and the event
// is appended to the branch. Slots are watched, so that a tensor that dies or changes is never compared by a
// stale address.
#include "tandem/tracer/record.h"

#include <algorithm>

#include "tandem/core/log.h"
#include "tandem/eager/views.h"
#include "tandem/tracer/frame.h"
#include "tandem/tracer/frozen_core.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/registry.h"
#include "tandem/tracer/slots.h"

namespace tandem::tracer {

using eager::Call;
using eager::Node;

namespace {

// About what an executable takes, from heap measurements of small and of large plans.
constexpr size_t kExecutable = 2000, kPlanEntry = 2500, kGraphNode = 400;

constexpr size_t kWarnBranches = 8, kMostBranches = 64;

}  // namespace

int64_t record_bytes(const Record& r) {
  const auto of = [](const auto& v) { return v.capacity() * sizeof(v[0]); };
  size_t n = sizeof(Record) + sizeof(Frame) + of(r.key) + of(r.handles) + of(r.infos) + of(r.slot_memory) +
             of(r.cells) + of(r.arguments) + of(r.view_slots) + of(r.outer_views) + of(r.words) + of(r.more) +
             of(r.modes) + of(r.branches) + of(r.backwards) + of(r.segments);
  constexpr size_t kHashed = 48;  // a node of a hash map, with its bucket
  n += kHashed * (r.slots.size() + r.slot_cells.size() + r.word_source.size());
  for (size_t h = 0; h < r.infos.size(); ++h) {
    if (r.infos[h].kind == HandleInfo::Kind::result && r.handles[h]) n += sizeof(TensorImpl);
    if (r.infos[h].view) n += sizeof(Entry);
  }
  for (const auto& b : r.branches) n += sizeof(Branch) + of(b->entries) + of(b->where) + of(b->forks);
  for (const BackwardRecord& b : r.backwards)
    n += of(b.roots) + of(b.gradients) + of(b.leaves) + of(b.followed) +
         b.followed.size() * sizeof(eager::NumberSource);
  for (const SegmentEnd& s : r.segments) {
    n += of(s.results) + of(s.open_tape);
    if (!s.plan) continue;
    const Plan& p = *s.plan;
    n += sizeof(Plan) + of(p.inputs) + of(p.addresses) + of(p.not_slots) + of(p.roots) + of(p.numbers) +
         of(p.number_runs) + of(p.outputs) + of(p.nbytes) + of(p.covered) + of(p.made);
    n += kExecutable + kPlanEntry * static_cast<size_t>(p.executable->stats().entries) +
         kGraphNode * (p.graph.nodes.size() + p.executable->graph().nodes.size());
  }
  return static_cast<int64_t>(n);
}

Record::Record() = default;

Record::~Record() {
  unwatch(this);
  for (size_t h = 0; h < handles.size(); ++h) {
    TensorImpl* t = handles[h];
    if (!t || infos[h].kind != HandleInfo::Kind::result) continue;
    t->frame = nullptr;
    t->handle = -1;
    Ref<TensorImpl>::adopt(t).reset();
  }
}

void Frame::start_recording(const Attempt& now) {
  const size_t forks = static_cast<size_t>(std::count_if(
      branch_->forks.begin(), branch_->forks.end(), [&](const auto& f) { return f.first == position_; }));
  refuse_branch(now);
  if (!tape_live_) rebuild_tape();
  if (forks >= kMostBranches && on(Mechanism::branch_bound)) {
    // R17: too many ways to go on from here. What is pending runs, and the rest of the call runs as eager
    // code would.
    refuse_partial_capture("a call went on in 64 ways after the same event", now.where);
    SegmentEnd pending = pending_segment();
    run_op_by_op(pending);
    extra_results_ = std::move(pending.results);
    segment_start_ = linear();
    passthrough_ = true;
    comparable_ = 0;
    ++counters_.eager_calls;
    return;
  }
  if (forks + 1 == kWarnBranches)
    core::log(core::LogArea::trace, core::LogLevel::warn,
              "a traced call has gone on in 8 different ways after the same event; each is recorded and "
              "compiled once");
  before_ = {r_.handles.size(),  r_.cells.size(),     r_.words.size(),   r_.more.size(),
             r_.branches.size(), r_.backwards.size(), r_.segments.size()};
  ++r_.recordings;
  ++counters_.recorded;
  if (!r_.twin) ++counters_.traces;
  recording_ = true;
  comparable_ = 0;
  mark_used();
  // What was matched before this event may have brought history, too.
  for (size_t h = 1; h < used_.size(); ++h)
    external_history_ |= used_[h] && r_.infos[h].kind != HandleInfo::Kind::result && !r_.infos[h].leaf;
  if (branch_index_ == 0 && branch_->entries.empty()) return;
  auto branch = std::make_unique<Branch>();
  branch->parent = branch_index_;
  branch->parent_position = position_;
  branch->base = linear();
  branch_->forks.emplace_back(position_, static_cast<int32_t>(r_.branches.size()));
  r_.branches.push_back(std::move(branch));
  jump(static_cast<int32_t>(r_.branches.size()) - 1, 0);
}

void Frame::drop_recording() {
  if (!recording_) return;
  // The branch of this call is the last one, or the root.
  if (branch_index_ == 0) {
    branch_->entries.clear();
    branch_->where.clear();
  } else {
    std::erase_if(r_.branches[static_cast<size_t>(branch_->parent)]->forks,
                  [&](const auto& f) { return f.second == branch_index_; });
    r_.branches.resize(before_.branches);
  }
  for (size_t h = before_.handles; h < r_.handles.size(); ++h) {
    TensorImpl* t = r_.handles[h];
    if (r_.infos[h].kind == HandleInfo::Kind::slot) {
      if (t) r_.slots.erase(t);
      std::erase_if(r_.slot_cells, [&](const auto& c) { return c.second == r_.infos[h].cell; });
    } else if (t && r_.infos[h].kind == HandleInfo::Kind::result) {
      t->frame = nullptr;
      t->handle = -1;
      Ref<TensorImpl>::adopt(t).reset();
    }
  }
  r_.handles.resize(before_.handles);
  r_.slot_memory.resize(before_.handles);
  ++r_.bindings;
  home_ = next_home();  // what was lent may carry a handle that is something else from now on
  std::fill(handed_out_.begin(), handed_out_.end(), 0);
  std::erase_if(r_.view_slots, [&](uint32_t h) { return h >= before_.handles; });
  std::erase_if(r_.outer_views, [&](uint32_t h) { return h >= before_.handles; });
  r_.infos.resize(before_.handles);
  r_.cells.resize(before_.cells);
  r_.words.resize(before_.words);
  std::erase_if(r_.word_source, [&](const auto& s) { return s.first >= before_.words; });
  r_.more.resize(before_.more);
  r_.backwards.resize(before_.backwards);
  r_.segments.resize(before_.segments);
  recording_ = false;
  if (!r_.twin) --counters_.traces;
  jump(0, 0);
}

uint32_t Frame::modes_index() {
  const uint64_t word = modes_word(modes());
  const auto index = std::find(r_.modes.begin(), r_.modes.end(), word) - r_.modes.begin();
  if (index == std::ssize(r_.modes)) r_.modes.push_back(word);
  return static_cast<uint32_t>(index);
}

Entry& Frame::append(EventKind kind, Location where) {
  Entry& e = branch_->entries.emplace_back();
  e.kind = kind;
  e.modes = modes_index();
  branch_->where.push_back(where);
  position_ = static_cast<int32_t>(branch_->entries.size());
  return e;
}

void Frame::noted(const Call& call, core::TapeNode* node) {
  Node& n = *eager::as_node(node);
  n.list(noted_);
  const size_t touched = touched_.size();
  if (call.in_place) {
    for (const int w : ops::written(ops::def(call.op))) {
      for (TensorImpl* t : eager::lineage(call.in[w])) {
        if (t->frame != this)
          touched_.emplace_back(t);
        else if (recording_)
          r_.infos[static_cast<size_t>(t->handle)].history = true;
        if (!recording_ || t->frame != this || !t->grad_fn) continue;
        // What made its history last, for messages.
        const Node& last = *eager::as_node(t->grad_fn.get());
        r_.infos[static_cast<size_t>(t->handle)].op = last.op;
        r_.infos[static_cast<size_t>(t->handle)].where = last.where;
      }
    }
  }
  if (passthrough_ || position_ == 0) return;
  Entry& e = branch_->entries[static_cast<size_t>(position_) - 1];
  n.trace_words = e.words;
  if (!recording_) return;
  e.tape = true;
  e.outside = touched_.size() > touched;
  for (uint32_t j = 0; j < e.n_out; ++j)
    r_.infos[e.out + j].requires_grad = r_.handles[e.out + j]->has(core::kRequiresGrad);
}

uint32_t Frame::new_handle(HandleInfo info, TensorImpl* t) {
  r_.handles.push_back(t);
  r_.slot_memory.push_back(nullptr);
  r_.infos.push_back(std::move(info));
  used_.push_back(0);
  return static_cast<uint32_t>(r_.handles.size()) - 1;
}

HandleInfo info_of(const TensorImpl* t, HandleInfo::Kind kind, uint32_t cell) {
  HandleInfo info;
  info.kind = kind;
  info.cell = cell;
  info.dtype = t->dtype;
  info.device = t->device;
  info.sizes = t->sizes;
  info.strides = t->strides;
  info.offset = t->offset;
  info.numel = t->numel;
  info.contiguous = t->has(core::kContiguous);
  info.requires_grad = t->has(core::kRequiresGrad);
  info.leaf = t->grad_fn == nullptr;
  return info;
}

uint32_t Frame::resolve(TensorImpl* t, bool* first_use) {
  if (t->frame == this && t->handle >= 0 && r_.handles[static_cast<size_t>(t->handle)] == t)
    return static_cast<uint32_t>(t->handle);
  eager::refresh(t);
  if (t->has(core::kRequiresGrad) && t->grad_fn) external_history_ = true;
  if (const uint32_t a = argument_handle(t)) return a;
  uint32_t handle = 0;
  const auto known = r_.slots.find(t);
  if (known != r_.slots.end()) {
    handle = known->second;
  } else {
    uint32_t cell = 0;
    const auto same_memory = r_.slot_cells.find(t->storage.get());
    if (same_memory != r_.slot_cells.end()) cell = same_memory->second;
    for (const uint32_t a : r_.arguments)
      if (r_.handles[a] && r_.handles[a]->storage == t->storage) cell = r_.infos[a].cell, r_.aliased = true;
    for (size_t h = 1; cell == 0 && h < r_.handles.size(); ++h)  // results of this call that a read made real
      if (r_.infos[h].kind == HandleInfo::Kind::result && r_.handles[h] &&
          r_.handles[h]->storage == t->storage)
        cell = r_.infos[h].cell;
    handle = static_cast<uint32_t>(r_.handles.size());
    if (cell) {
      ++r_.cells[cell].members;
    } else {
      cell = static_cast<uint32_t>(r_.cells.size());
      r_.cells.push_back({.root = handle, .members = 1, .external = true});
    }
    new_handle(info_of(t, HandleInfo::Kind::slot, cell), t);
    enter_slot(handle, t);
  }
  if (first_use) *first_use = !used_[handle];
  used_[handle] = 1;
  return handle;
}

void Frame::record_op(const Call& call, Ref<TensorImpl>* results) {
  eager::check_operands_of_trace(call);
  const ops::OpDef& op = ops::def(call.op);
  const std::vector<ops::TensorType> types = eager::infer_call(call);
  if (call.in_place) eager::check_in_place_types(call, types);
  Entry e;
  e.kind = EventKind::op;
  e.op = static_cast<uint16_t>(call.op);
  e.in_place = call.in_place;
  e.numbers = call.numbers;
  e.n_in = static_cast<uint16_t>(call.n_in);
  e.n_words = static_cast<uint16_t>(call.n_words);
  TANDEM_INTERNAL(call.n_in <= UINT16_MAX && call.n_words <= UINT16_MAX, "a call too large for an event");
  e.more = static_cast<uint32_t>(r_.more.size());
  for (uint32_t i = 0; i < call.n_in; ++i) {
    bool first_use = false;
    const uint32_t h = call.in[i] ? resolve(call.in[i], &first_use) : 0;
    if (first_use && i < 32) e.first_use |= 1u << i;
    if (i < 3)
      e.in[i] = h;
    else
      r_.more.push_back(h);
  }
  e.words = static_cast<uint32_t>(r_.words.size());
  r_.words.insert(r_.words.end(), call.words, call.words + call.n_words);
  const int n_numbers = __builtin_popcount(call.numbers);
  e.run_time = ops::run_time_mask(op, n_numbers);
  if (call.sources) {
    for (uint32_t w = 0; w < call.n_words; ++w) {
      if (w >= 64 || !((e.run_time >> w) & 1)) continue;
      if (!call.sources[w] || !call.sources[w]->follows()) {
        e.run_time &= ~(uint64_t{1} << w);  // a constant of the rule: compared, and known to the passes
        continue;
      }
      if (backward_ < 0 || !backward_recording_) continue;
      const NumberKind kind =
          eager::number_kind(op, n_numbers, {call.words, call.n_words}, static_cast<int>(w));
      r_.backwards[static_cast<size_t>(backward_)].followed.push_back({e.words + w, kind, call.sources[w]});
      if (call.sources[w]->word >= 0 && call.sources[w]->kind == kind)
        r_.word_source[e.words + w] = static_cast<uint32_t>(call.sources[w]->word), e.more_to_fit = true;
    }
  }
  e.only_run_time = call.n_words > 0 && call.n_words <= 32 && e.run_time == (uint64_t{1} << call.n_words) - 1;
  if (!call.in_place) {
    e.n_out = static_cast<uint8_t>(op.n_out);
    e.out = static_cast<uint32_t>(r_.handles.size());
    const bool is_view = op.kind == ops::OpKind::view;
    for (const ops::TensorType& type : types) {
      HandleInfo info;
      info.kind = HandleInfo::Kind::result;
      info.dtype = type.dtype;
      info.device = type.device;
      info.sizes = type.sizes;
      info.op = call.op;
      info.where = call.where;
      if (is_view) {
        const ops::Layout layout = eager::infer_view(call);
        TANDEM_INTERNAL(layout.possible, "a view that needs a copy");
        info.strides = layout.strides;
        info.offset = layout.offset;
        info.base = e.in[0];
        info.cell = r_.infos[info.base].cell;
      } else {
        info.strides = contiguous_strides(type.sizes);
        info.cell = static_cast<uint32_t>(r_.cells.size());
        r_.cells.push_back(
            {.root = static_cast<uint32_t>(r_.handles.size()), .members = 1, .external = false});
      }
      info.numel = tandem::numel(info.sizes);
      info.contiguous = is_contiguous(info.sizes, info.strides);
      new_handle(std::move(info), nullptr);
    }
    if (is_view) {
      r_.infos[e.out].view = std::make_shared<const Entry>(e);
      if (r_.cells[r_.infos[e.out].cell].external) r_.outer_views.push_back(e.out);
      r_.infos[e.out].follows = modes().grad && is_floating(types[0].dtype);
      e.moves = r_.infos[e.out].moves = r_.infos[e.in[0]].moves;
      e.more_to_fit |= e.moves;
    }
    for (uint32_t j = 0; j < e.n_out; ++j) results[j] = Ref<TensorImpl>(lend(e.out + j));
    if (is_view) results[0]->history = eager::base_of(results[0].get())->history;
  } else {
    for (const int w : ops::written(op)) {
      TANDEM_INTERNAL(w < 8, "an operand that an event cannot mark as written");
      e.written |= static_cast<uint8_t>(1 << w);
      eager::bump_version(call.in[w], call.where);
    }
  }
  e.set_plain();
  append(EventKind::op, call.where) = e;
  branch_->entries.back().modes = modes_index();
}

void Frame::record_segment(Entry& e) {
  e.more = static_cast<uint32_t>(r_.segments.size());
  SegmentEnd segment = pending_segment();
  segment.first = branch_index_ == 0;
  r_.segments.push_back(std::move(segment));
}

SegmentEnd Frame::pending_segment() {
  SegmentEnd segment;
  for_path(segment_start_, [&](const Entry& e, Location) {
    for (uint32_t j = 0; e.kind == EventKind::op && j < e.n_out; ++j) segment.results.push_back(e.out + j);
  });
  return segment;
}

}  // namespace tandem::tracer
