#include "tests/sim_gpu/driver/streams.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "tests/sim_gpu/driver/memory.h"

namespace sim_gpu {

namespace {

struct Streams {
  std::map<int, std::shared_ptr<StreamState>> defaults;  // by device
  std::vector<std::weak_ptr<StreamState>> others;
  Result late = Result::success;
};

Streams& streams() {
  static auto* const s = new Streams;
  return *s;
}

/// The null stream waits for every blocking stream, and they for it.
std::function<Result()> after_others(StreamState& stream) {
  std::vector<std::pair<std::shared_ptr<StreamState>, uint64_t>> waits;
  const auto wait_for = [&](const std::shared_ptr<StreamState>& other) {
    if (other && other.get() != &stream && other->blocking && other->device == stream.device &&
        other->done < other->given)
      waits.emplace_back(other, other->given);
  };
  if (stream.blocking) {
    const auto& home = streams().defaults[stream.device];
    if (home.get() == &stream)
      for (const auto& other : streams().others) wait_for(other.lock());
    else
      wait_for(home);
  }
  if (waits.empty()) return nullptr;
  return [waits] {
    for (const auto& [other, upto] : waits) run_until(*other, upto);
    return Result::success;
  };
}

/// At the end of the graph that captures a stream.
Result capture(StreamState& stream, Step step) {
  if (!stream.capture->steps.empty()) step.after.push_back(stream.capture->steps.size() - 1);
  append(*stream.capture, std::move(step));
  return Result::success;
}

}  // namespace

Result find_stream(StreamHandle stream, const char* function, std::shared_ptr<StreamState>* state) {
  if (current_device() < 0) return kInvalidContext;
  if (stream == nullptr) {
    auto& home = streams().defaults[current_device()];
    if (!home) {
      home = std::make_shared<StreamState>();
      home->device = current_device();
    }
    *state = home;
    return Result::success;
  }
  if (!handle_is(stream, "stream", function)) return kInvalidHandle;
  if (stream->state->device != current_device()) {
    say(std::string(function) + ": a stream of another device than this thread's current one");
    return kInvalidHandle;
  }
  *state = stream->state;
  return Result::success;
}

Result give(StreamState& stream, std::function<Result()> work) {
  if (stream.capture != nullptr) return capture(stream, {{}, nullptr, nullptr, std::move(work)});
  if (settings().lazy == 0 && stream.pending.empty()) {
    ++stream.given;
    ++stream.done;
    return work();
  }
  if (auto wait = after_others(stream)) {
    ++stream.given;
    stream.pending.push_back(std::move(wait));
  }
  ++stream.given;
  stream.pending.push_back(std::move(work));
  return Result::success;
}

Result give_launch(StreamState& stream, std::shared_ptr<const Launch> launch) {
  if (stream.capture != nullptr) return capture(stream, {{}, std::move(launch), nullptr, nullptr});
  return give(stream, [launch] { return run_launch(*launch); });
}

void run_until(StreamState& stream, uint64_t upto) {
  while (stream.done < upto && !stream.pending.empty()) {
    const std::function<Result()> work = std::move(stream.pending.front());
    stream.pending.pop_front();
    const Result result = work();
    ++stream.done;
    if (result != Result::success && streams().late == Result::success) streams().late = result;
  }
}

void run_all(int device) {
  const auto run = [&](const std::shared_ptr<StreamState>& s) {
    if (s && s->device == device) run_until(*s, s->given);
  };
  const std::vector<std::weak_ptr<StreamState>> others = streams().others;
  for (const auto& s : others) run(s.lock());
  run(streams().defaults[device]);
}

Result take_late_error() {
  const Result out = streams().late;
  streams().late = Result::success;
  return out;
}

Result run_steps(const Steps& steps) {
  static unsigned turn = 0;
  ++turn;
  std::vector<size_t> waits(steps.size()), ready;
  std::vector<std::vector<size_t>> next(steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    waits[i] = steps[i].after.size();
    for (const size_t before : steps[i].after) next[before].push_back(i);
    if (waits[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    // First come first served, last come first served, or something between.
    const size_t pick = turn % 3 == 0 ? 0 : turn % 3 == 1 ? ready.size() - 1 : ready.size() / 2;
    const size_t i = ready[pick];
    ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(pick));
    const Step& step = steps[i];
    if (step.launch) add("graph_kernels", 1);
    const Result result = step.launch  ? run_launch(*step.launch)
                          : step.child ? run_steps(*step.child)
                                       : step.host();
    if (result != Result::success) return result;
    add("graph_nodes", 1);
    for (const size_t after : next[i])
      if (--waits[after] == 0) ready.push_back(after);
  }
  return Result::success;
}

GraphNode append(tandem::cuda::GraphOfDriver& graph, Step step) {
  const size_t index = graph.steps.size();
  graph.steps.push_back(std::move(step));
  graph.nodes.push_back(
      std::make_unique<tandem::cuda::GraphNodeOfDriver>(tandem::cuda::GraphNodeOfDriver{index}));
  return graph.nodes.back().get();
}

void destroy_graph(Graph graph) {
  handle_gone(graph, "graph");
  delete graph;
}

// --- streams and events of the driver ---

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA

Result cuStreamCreate(StreamHandle* stream, unsigned flags) {
  const Lock lock(mutex());
  if (stream == nullptr || flags > 1) return Result::invalid_value;
  if (current_device() < 0) return kInvalidContext;
  if (take_failure("cuStreamCreate")) return Result::out_of_memory;
  auto state = std::make_shared<StreamState>();
  state->device = current_device();
  state->blocking = flags == 0;
  streams().others.push_back(state);
  *stream = new tandem::cuda::StreamOfDriver{std::move(state)};
  handle_made(*stream, "stream");
  return Result::success;
}

Result cuStreamDestroy_v2(StreamHandle stream) {
  const Lock lock(mutex());
  if (stream == nullptr || !handle_is(stream, "stream", "cuStreamDestroy")) return kInvalidHandle;
  run_until(*stream->state, stream->state->given);
  auto& all = streams().others;
  all.erase(std::remove_if(all.begin(), all.end(), [&](const auto& s) { return s.lock() == stream->state; }),
            all.end());
  handle_gone(stream, "stream");
  delete stream;
  return Result::success;
}

namespace {

Result wait_checks(StreamHandle stream, const char* function, std::shared_ptr<StreamState>* state) {
  const Result found = find_stream(stream, function, state);
  if (found != Result::success) return found;
  return (*state)->capture != nullptr ? kCaptureUnsupported : Result::success;
}

}  // namespace

Result cuStreamSynchronize(StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = wait_checks(stream, "cuStreamSynchronize", &state);
  if (checked != Result::success) return checked;
  if (take_failure("cuStreamSynchronize")) return Result::launch_failed;
  if (auto wait = after_others(*state); wait && stream == nullptr) wait();
  run_until(*state, state->given);
  return take_late_error();
}

Result cuStreamQuery(StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = wait_checks(stream, "cuStreamQuery", &state);
  if (checked != Result::success) return checked;
  if (state->done == state->given) return take_late_error();
  run_until(*state, state->done + 1);  // so that asking again and again comes to an end
  return Result::not_ready;
}

Result cuEventCreate(EventHandle* event, unsigned flags) {
  const Lock lock(mutex());
  if (event == nullptr || flags > 7) return Result::invalid_value;
  if (current_device() < 0) return kInvalidContext;
  if (take_failure("cuEventCreate")) return Result::out_of_memory;
  *event = new tandem::cuda::EventOfDriver;
  (*event)->timing = (flags & tandem::cuda::kEventWithoutTiming) == 0;
  handle_made(*event, "event");
  return Result::success;
}

Result cuEventDestroy_v2(EventHandle event) {
  const Lock lock(mutex());
  if (event == nullptr || !handle_is(event, "event", "cuEventDestroy")) return kInvalidHandle;
  handle_gone(event, "event");
  delete event;
  return Result::success;
}

Result cuEventRecord(EventHandle event, StreamHandle stream) {
  const Lock lock(mutex());
  if (event == nullptr || !handle_is(event, "event", "cuEventRecord")) return kInvalidHandle;
  std::shared_ptr<StreamState> state;
  const Result checked = wait_checks(stream, "cuEventRecord", &state);
  if (checked != Result::success) return checked;
  if (take_failure("cuEventRecord")) return Result::launch_failed;
  if (auto wait = after_others(*state)) {
    ++state->given;
    state->pending.push_back(std::move(wait));
  }
  if (event->timing) {
    event->time_ms = std::make_shared<double>(0);
    give(*state, [time = event->time_ms] {
      *time = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
                  .count();
      return Result::success;
    });
  }
  event->stream = state;
  event->at = state->given;
  return Result::success;
}

Result cuEventElapsedTime(float* time_ms, EventHandle begin, EventHandle end) {
  const Lock lock(mutex());
  if (time_ms == nullptr) return Result::invalid_value;
  for (const EventHandle event : {begin, end}) {
    if (event == nullptr || !handle_is(event, "event", "cuEventElapsedTime")) return kInvalidHandle;
    if (!event->timing || !event->stream) return kInvalidHandle;
    if (event->stream->done < event->at) return Result::not_ready;
  }
  *time_ms = static_cast<float>(*end->time_ms - *begin->time_ms);
  return Result::success;
}

Result cuEventSynchronize(EventHandle event) {
  const Lock lock(mutex());
  if (event == nullptr || !handle_is(event, "event", "cuEventSynchronize")) return kInvalidHandle;
  if (take_failure("cuEventSynchronize")) return Result::launch_failed;
  if (event->stream) run_until(*event->stream, event->at);
  return take_late_error();
}

Result cuEventQuery(EventHandle event) {
  const Lock lock(mutex());
  if (event == nullptr || !handle_is(event, "event", "cuEventQuery")) return kInvalidHandle;
  if (!event->stream || event->stream->done >= event->at) return take_late_error();
  run_until(*event->stream, event->stream->done + 1);
  return Result::not_ready;
}

Result cuStreamWaitEvent(StreamHandle stream, EventHandle event, unsigned flags) {
  const Lock lock(mutex());
  if (flags != 0) return Result::invalid_value;
  if (event == nullptr || !handle_is(event, "event", "cuStreamWaitEvent")) return kInvalidHandle;
  std::shared_ptr<StreamState> state;
  const Result checked = wait_checks(stream, "cuStreamWaitEvent", &state);
  if (checked != Result::success) return checked;
  if (take_failure("cuStreamWaitEvent")) return Result::launch_failed;
  if (!event->stream || event->stream->done >= event->at) return Result::success;
  return give(*state, [source = event->stream, at = event->at] {
    run_until(*source, at);
    return Result::success;
  });
}

// --- capture ---

Result cuStreamBeginCapture_v2(StreamHandle stream, int mode) {
  const Lock lock(mutex());
  if (mode < 0 || mode > 2) return Result::invalid_value;
  if (stream == nullptr) return kCaptureUnsupported;  // the legacy stream cannot be captured
  std::shared_ptr<StreamState> state;
  const Result found = find_stream(stream, "cuStreamBeginCapture", &state);
  if (found != Result::success) return found;
  if (state->capture != nullptr) return Result{901};
  if (take_failure("cuStreamBeginCapture")) return Result::out_of_memory;
  state->capture = new tandem::cuda::GraphOfDriver;
  state->capture_mode = mode;
  state->capture_broken = false;
  handle_made(state->capture, "graph");
  count_captures(1);
  return Result::success;
}

Result cuStreamEndCapture(StreamHandle stream, Graph* graph) {
  const Lock lock(mutex());
  if (graph == nullptr) return Result::invalid_value;
  std::shared_ptr<StreamState> state;
  const Result found = find_stream(stream, "cuStreamEndCapture", &state);
  if (found != Result::success) return found;
  if (state->capture == nullptr) return Result{904};
  *graph = state->capture;
  state->capture = nullptr;
  count_captures(-1);
  if (!state->capture_broken && !take_failure("cuStreamEndCapture")) return Result::success;
  destroy_graph(*graph);
  *graph = nullptr;
  return kCaptureInvalidated;
}

void sim_gpu_set_lazy(int lazy) {
  const Lock lock(mutex());
  for (int device = 0; device < settings().devices; ++device) run_all(device);
  settings().lazy = lazy;
}

int sim_gpu_is_stream(const void* stream) {
  const Lock lock(mutex());
  return handle_is(stream, "stream", "the stream of a handle") ? 1 : 0;
}

int sim_gpu_enqueue(void* stream, const char* name, int (*run)(const void* data), const void* data,
                    size_t bytes) {
  if (only_counted("products")) return 0;
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result found = find_stream(static_cast<StreamHandle>(stream), name, &state);
  if (found != Result::success) return static_cast<int>(found);
  if (state->capture != nullptr && settings().captures < 2 &&
      (settings().captures == 0 || state->capture_mode != tandem::cuda::kCaptureRelaxed)) {
    state->capture_broken = true;
    return static_cast<int>(kCaptureUnsupported);
  }
  const char* begin = static_cast<const char*>(data);
  const auto copy = std::make_shared<const std::vector<char>>(begin, begin + bytes);
  return static_cast<int>(give(*state, [run, copy] {
    return !settings().libraries || run(copy->data()) != 0 ? Result::success : Result::launch_failed;
  }));
}

}  // namespace sim_gpu
