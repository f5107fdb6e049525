// Waits are events. A stream keeps the last few points at which one was recorded: where a StreamGuard left
// it, or where somebody had to wait. Who needs work that no point is behind of records another one, at the
// stream's end. A clock says what a point has before it, through other streams too, so nothing is waited for
// twice.
#include "tandem/core/cuda/stream_order.h"

#include <algorithm>

#include "tandem/core/cuda/runtime.h"

namespace tandem::cuda {

#ifdef TANDEM_TEST_SWITCHES
bool streams_wait = true;
#endif

namespace {

constexpr size_t kMarks = 8;

uint64_t at(const Clock& clock, uint32_t stream) { return stream < clock.size() ? clock[stream] : 0; }

void merge(Clock& into, const Clock& from) {
  if (into.size() < from.size()) into.resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) into[i] = std::max(into[i], from[i]);
}

}  // namespace

void StreamOrder::hold(Pointer block, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  regions_[block] = {bytes, {}, {}};
}

void StreamOrder::drop(Pointer block) noexcept {
  const std::lock_guard lock(mutex_);
  regions_.erase(block);
}

StreamState& StreamOrder::add(StreamHandle stream) {
  auto s = std::make_unique<StreamState>();
  s->device = &device_;
  s->handle = stream;
  const std::lock_guard lock(mutex_);
  s->index = static_cast<uint32_t>(streams_.size());
  s->clock.resize(streams_.size() + 1);
  streams_.push_back(std::move(s));
  if (!first_) first_ = streams_.back().get();
  return *streams_.back();
}

std::shared_ptr<StreamState> StreamOrder::idle_stream() {
  const std::lock_guard lock(mutex_);
  for (size_t i = 1; i < streams_.size(); ++i)
    if (streams_[i]->users.expired()) {
      const std::shared_ptr<StreamState> s(streams_[i].get(), [](StreamState*) {});
      s->users = s;
      return s;
    }
  return nullptr;
}

std::shared_ptr<StreamState> StreamOrder::shared(StreamState& stream) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<StreamState> s = stream.users.lock();
  if (!s) {
    s.reset(&stream, [](StreamState*) {});
    s->users = s;
  }
  return s;
}

std::vector<StreamState*> StreamOrder::streams() const {
  const std::lock_guard lock(mutex_);
  std::vector<StreamState*> out;
  for (const auto& s : streams_) out.push_back(s.get());
  return out;
}

void StreamOrder::begin_counting() {
  const std::lock_guard lock(mutex_);
  merge(first().clock, {1});
  merge(finished_, {1});
}

StreamOrder::Region* StreamOrder::find(Pointer p) {
  auto after = regions_.upper_bound(p);
  if (after == regions_.begin()) return nullptr;
  const auto& [base, region] = *--after;
  return p - base < static_cast<uint64_t>(region.bytes) ? &after->second : nullptr;
}

void StreamOrder::begin(StreamState& on, std::span<const Touch> touches) {
  const std::lock_guard lock(mutex_);
  for (const Touch& t : touches) {
    const Region* const r = find(t.at);
    if (!r || !streams_wait) continue;
    wait(on, r->write);
    if (t.writes)
      for (const Moment& m : r->reads) wait(on, m);
  }
  note_locked(on, touches);
}

void StreamOrder::note(StreamState& on, std::span<const Touch> touches) {
  const std::lock_guard lock(mutex_);
  note_locked(on, touches);
}

void StreamOrder::note_locked(StreamState& on, std::span<const Touch> touches) {
  const Moment now{on.index, ++on.clock[on.index]};
  for (const Touch& t : touches) {
    Region* const r = find(t.at);
    if (!r) continue;
    if (t.writes) {
      r->write = now;
      r->reads.clear();
      continue;
    }
    const auto mine =
        std::find_if(r->reads.begin(), r->reads.end(), [&](const Moment& m) { return m.stream == on.index; });
    if (mine == r->reads.end())
      r->reads.push_back(now);
    else
      *mine = now;
  }
}

void StreamOrder::wait(StreamState& on, const Moment& m) {
  if (m.ticket <= at(on.clock, m.stream) || m.ticket <= at(finished_, m.stream)) return;
  StreamState& from = *streams_[m.stream];
  const auto behind = std::find_if(from.marks.begin(), from.marks.end(), [&](const StreamState::Mark& mark) {
    return at(mark.clock, m.stream) >= m.ticket;
  });
  const StreamState::Mark& mark = behind == from.marks.end() ? new_mark(from) : *behind;
  device_.check(device_.api().stream_wait(on.handle, mark.event, 0), "cuStreamWaitEvent");
  merge(on.clock, mark.clock);
}

const StreamState::Mark& StreamOrder::new_mark(StreamState& stream) {
  const Driver& api = device_.api();
  StreamState::Mark mark;
  if (stream.marks.size() == kMarks) {
    mark = std::move(stream.marks.front());
    stream.marks.pop_front();
  } else {
    device_.check(api.event_create(&mark.event, kEventWithoutTiming), "cuEventCreate");
  }
  if (const Result result = api.event_record(mark.event, stream.handle); result != Result::success) {
    api.event_destroy(mark.event);
    device_.check(result, "cuEventRecord");
  }
  mark.clock = stream.clock;
  stream.marks.push_back(std::move(mark));
  return stream.marks.back();
}

void StreamOrder::mark(StreamState& stream) {
  const std::lock_guard lock(mutex_);
  const uint64_t ticket = stream.clock[stream.index];
  if (ticket <= at(finished_, stream.index)) return;
  if (stream.marks.empty() || at(stream.marks.back().clock, stream.index) < ticket) new_mark(stream);
}

Clock StreamOrder::clock(const StreamState& stream) const {
  const std::lock_guard lock(mutex_);
  return stream.clock;
}

void StreamOrder::joined(StreamState& on, const Clock& clock) {
  const std::lock_guard lock(mutex_);
  merge(on.clock, clock);
}

void StreamOrder::join(StreamState& on, StreamState& other) {
  const std::lock_guard lock(mutex_);
  wait(on, {other.index, other.clock[other.index]});
}

void StreamOrder::finished(const Clock& clock) {
  const std::lock_guard lock(mutex_);
  merge(finished_, clock);
}

bool StreamOrder::is_finished(const Moment& m) const {
  const std::lock_guard lock(mutex_);
  return m.ticket <= at(finished_, m.stream);
}

Moment StreamOrder::last(const StreamState& stream) const {
  const std::lock_guard lock(mutex_);
  return {stream.index, stream.clock[stream.index]};
}

uint32_t StreamOrder::home(Pointer block, uint32_t otherwise) const noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = regions_.find(block);
  if (found == regions_.end()) return otherwise;
  const Region& r = found->second;
  if (r.reads.empty()) return r.write.stream;
  const auto elsewhere = [&](const Moment& m) { return m.stream != r.reads[0].stream; };
  return std::any_of(r.reads.begin(), r.reads.end(), elsewhere) ? otherwise : r.reads[0].stream;
}

}  // namespace tandem::cuda
