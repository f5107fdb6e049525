// Streams and events of CUDA devices, as programs use them: work that is queued on two streams may run at the
// same time, on the device, or while a copy runs.
//   td::cuda::Stream side;                                      // of device 0
//   { td::cuda::StreamGuard on(side); next = batch.to(cuda, true); }  // what this thread queues here is
//   side's step(next);  // the default stream waits for the copy by itself
// Order is kept by itself, too: a device remembers for each block of its memory which streams read and wrote
// it last, and an op, copy or traced segment first makes its stream wait (on the device, not on the host) for
// what others do with its operands, or did with memory that it takes over. Streams that only read the same
// tensors do not wait for one another. So nothing has to be recorded on a stream, and no result depends on
// streams. Kernels that a program launches itself on handle() are its own to order, by events. Each traced
// segment is launched as a whole on the stream that is current at its end; streams are no part of what a
// trace compares. Traced segments of one device share their intermediate memory, so two of them run one after
// another, whatever their streams. A program without a Stream pays one look at a flag a launch. Any thread; a
// guard belongs to its thread, an event to one thread at a time.
#pragma once

#include <memory>

#include "tandem/core/device.h"

namespace tandem::cuda {

struct StreamState;
class Event;

/// A stream: work on it runs in order. Copies are the same stream; one that nobody holds any more is handed
/// out again.
class Stream {
 public:
  /// Another stream of the device; an Error if the device is not there.
  explicit Stream(Device device = {DeviceType::cuda, 0}, Location where = Location::here());

  Device device() const;
  /// Work queued here from now on waits for the event, or for all that the other stream was given, of
  /// whatever device. The host goes on.
  void wait(const Event& event, Location where = Location::here()) const;
  void wait(const Stream& other, Location where = Location::here()) const;
  /// The host waits for all that was queued here; throws what failed in it (an index out of range, with its
  /// op and line).
  void synchronize(Location where = Location::here()) const;
  /// True if all that was queued here is done.
  bool query(Location where = Location::here()) const;
  /// The driver's CUstream, for a program's own kernels; owned by Tandem.
  void* handle() const;

  friend bool operator==(const Stream& a, const Stream& b) { return a.state_ == b.state_; }

 private:
  friend class Event;
  friend class StreamGuard;
  friend Stream current_stream(Device device, Location where);
  friend Stream default_stream(Device device, Location where);
  explicit Stream(std::shared_ptr<StreamState> state) : state_(std::move(state)) {}
  std::shared_ptr<StreamState> state_;
};

/// What this thread queues on the device goes to: the innermost guard's, else the default one.
Stream current_stream(Device device = {DeviceType::cuda, 0}, Location where = Location::here());
Stream default_stream(Device device = {DeviceType::cuda, 0}, Location where = Location::here());

/// Makes a stream the current one of its device for this thread, until the end of the scope.
class StreamGuard {
 public:
  explicit StreamGuard(Stream stream);
  ~StreamGuard();
  StreamGuard(const StreamGuard&) = delete;
  StreamGuard& operator=(const StreamGuard&) = delete;

 private:
  Stream stream_;
  StreamState* before_;
};

/// A point in a stream's work. Made on the device at the first record; copies are the same event.
class Event {
 public:
  /// `enable_timing`: for elapsed_ms.
  explicit Event(bool enable_timing = false);

  /// Moves the event to the end of what the stream was given; the first stream decides about the device.
  void record(const Stream& stream, Location where = Location::here());
  /// On the current stream of device 0, or of the device it was recorded on before.
  void record(Location where = Location::here());
  /// Work queued on the stream from now on waits for the event. An event that was never recorded is done.
  void wait(const Stream& stream, Location where = Location::here()) const { stream.wait(*this, where); }
  /// The host waits. Indices out of range are told by the next read, or by synchronize() of a stream.
  void synchronize(Location where = Location::here()) const;
  /// True if what was before it is done.
  bool query(Location where = Location::here()) const;
  /// Milliseconds from this event to `end`; both recorded, made with `enable_timing`, and done.
  double elapsed_ms(const Event& end, Location where = Location::here()) const;

 private:
  friend class Stream;
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace tandem::cuda
