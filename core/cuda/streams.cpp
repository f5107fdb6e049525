#include "tandem/core/cuda/streams.h"

#include "tandem/core/cuda/runtime.h"

namespace tandem::cuda {

namespace {

/// Says who asked where, if the driver fails.
template <class F>
decltype(auto) asked(const char* who, Location where, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    fail_again(e, who, where);
  }
}

}  // namespace

std::shared_ptr<StreamState> Runtime::new_stream() {
  use();
  const auto nobody_launches = launching();
  if (!several()) {
    check(api_.stream_synchronize(stream_), "cuStreamSynchronize");
    order_.begin_counting();
    several_.store(true);
  }
  if (std::shared_ptr<StreamState> idle = order_.idle_stream()) return idle;
  StreamHandle made = nullptr;
  check(api_.stream_create(&made, kStreamNonBlocking), "cuStreamCreate");
  return order_.shared(order_.add(made));
}

StreamState* Runtime::set_current(StreamState* stream) {
  return std::exchange(current_[static_cast<size_t>(index_)], stream);
}

Stream::Stream(Device device, Location where)
    : state_(asked("Stream", where, [&] { return Runtime::of(device, "Stream", where).new_stream(); })) {}

Device Stream::device() const { return {DeviceType::cuda, static_cast<uint8_t>(state_->device->index())}; }

void* Stream::handle() const { return state_->handle; }

void Stream::synchronize(Location where) const {
  asked("Stream::synchronize", where, [&] { state_->device->synchronize(*state_); });
}

bool Stream::query(Location where) const {
  return asked("Stream::query", where, [&] {
    state_->device->use();
    const Result result = state_->device->api().stream_query(state_->handle);
    if (result != Result::not_ready) state_->device->check(result, "cuStreamQuery");
    return result == Result::success;
  });
}

Stream current_stream(Device device, Location where) {
  Runtime& r = Runtime::of(device, "current_stream", where);
  return Stream(r.order().shared(r.current()));
}

Stream default_stream(Device device, Location where) {
  Runtime& r = Runtime::of(device, "default_stream", where);
  return Stream(r.order().shared(r.order().first()));
}

StreamGuard::StreamGuard(Stream stream)
    : stream_(std::move(stream)), before_(stream_.state_->device->set_current(stream_.state_.get())) {}

StreamGuard::~StreamGuard() {
  Runtime& device = *stream_.state_->device;
  device.set_current(before_);
  if (device.several()) try {
      device.use();
      const auto nobody_launches = device.launching();
      device.order().mark(*stream_.state_);
    } catch (const Error&) {  // who needs the work records a later point
    }
}

struct Event::State {
  ~State() {
    if (event) device->api().event_destroy(event);
  }
  const bool timing;
  Runtime* device = nullptr;
  EventHandle event = nullptr;  // from the first record on
  Clock clock;
  bool recorded = false;
  explicit State(bool timing) : timing(timing) {}
};

Event::Event(bool enable_timing) : state_(std::make_shared<State>(enable_timing)) {}

void Event::record(const Stream& stream, Location where) {
  asked("Event::record", where, [&] {
    State& s = *state_;
    Runtime& device = *stream.state_->device;
    if (s.device && s.device != &device)
      fail("the event belongs to cuda:" + std::to_string(s.device->index()) +
           ", the stream to cuda:" + std::to_string(device.index()));
    device.use();
    const auto nobody_launches = device.launching();
    if (!s.event) {
      device.check(device.api().event_create(&s.event, s.timing ? 0 : kEventWithoutTiming), "cuEventCreate");
      s.device = &device;
    }
    device.check(device.api().event_record(s.event, stream.state_->handle), "cuEventRecord");
    s.clock = device.order().clock(*stream.state_);
    s.recorded = true;
  });
}

void Event::record(Location where) {
  const Device device{DeviceType::cuda, static_cast<uint8_t>(state_->device ? state_->device->index() : 0)};
  record(current_stream(device, where), where);
}

void Stream::wait(const Event& event, Location where) const {
  asked("Stream::wait", where, [&] {
    const Event::State& e = *event.state_;
    if (!e.recorded) return;
    Runtime& device = *state_->device;
    device.use();
    const auto nobody_launches = device.launching();
    device.check(device.api().stream_wait(state_->handle, e.event, 0), "cuStreamWaitEvent");
    if (e.device == &device) device.order().joined(*state_, e.clock);
  });
}

void Stream::wait(const Stream& other, Location where) const {
  if (*this == other) return;
  asked("Stream::wait", where, [&] {
    Runtime& device = *state_->device;
    if (other.state_->device == &device) {
      device.use();
      const auto nobody_launches = device.launching();
      device.order().join(*state_, *other.state_);
      return;
    }
    Event end;
    end.record(other, where);
    wait(end, where);
  });
}

void Event::synchronize(Location where) const {
  asked("Event::synchronize", where, [&] {
    if (!state_->recorded) return;
    state_->device->use();
    state_->device->check(state_->device->api().event_synchronize(state_->event), "cuEventSynchronize");
    state_->device->order().finished(state_->clock);
  });
}

bool Event::query(Location where) const {
  return asked("Event::query", where, [&] {
    if (!state_->recorded) return true;
    state_->device->use();
    const Result result = state_->device->api().event_query(state_->event);
    if (result != Result::not_ready) state_->device->check(result, "cuEventQuery");
    return result == Result::success;
  });
}

double Event::elapsed_ms(const Event& end, Location where) const {
  return asked("Event::elapsed_ms", where, [&]() -> double {
    for (const Event* e : {this, &end}) {
      const char* which = e == this ? "the first event" : "the second event";
      if (!e->state_->timing) fail(std::string(which) + " was made without timing; make it by Event(true)");
      if (!e->state_->recorded) fail(std::string(which) + " was never recorded");
    }
    float time_ms = 0;
    Runtime& device = *state_->device;
    device.use();
    const Result result = device.api().event_elapsed(&time_ms, state_->event, end.state_->event);
    if (result == Result::not_ready) fail("the work before an event is not done; synchronize() it first");
    device.check(result, "cuEventElapsedTime");
    return time_ms;
  });
}

}  // namespace tandem::cuda
