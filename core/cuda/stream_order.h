// Who used which memory of a device last, so that work queued on another stream waits for that first. A
// device with one stream asks nothing of this; once a program makes a second one, each launch and copy is
// queued inside an `Ordered` (runtime.h) that lists what it reads and writes. Pieces of memory are known by
// the blocks that the driver gave, so tensors, arenas and constants are ordered alike, and a block that is
// used again on another stream waits like a tensor that goes there. Reads of several streams do not wait for
// one another. Owned by the Runtime. Any thread: a lock of its own, held for no wait; what waits for or
// records an event is called under Runtime::launching(), which is held until the work that was noted is
// queued.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "tandem/core/cuda/api.h"

namespace tandem::cuda {

class Runtime;

/// A piece of memory that work uses.
struct Touch {
  Pointer at = 0;
  bool writes = false;
};

/// The `ticket`-th work of a stream, counted from 1.
struct Moment {
  uint32_t stream = 0;
  uint64_t ticket = 1;
};

/// By stream, the latest work that is behind one.
using Clock = std::vector<uint64_t>;

/// A stream, from its making to the process's end: one that nobody holds is handed out again.
struct StreamState {
  Runtime* device = nullptr;
  StreamHandle handle = nullptr;
  uint32_t index = 0;
  Clock clock;  // what precedes work queued from now on; its own entry is the last work queued
  struct Mark {
    EventHandle event = nullptr;
    Clock clock;
  };
  std::deque<Mark> marks;            // recorded on it, in order
  std::weak_ptr<StreamState> users;  // the handles of a program
};

class StreamOrder {
 public:
  explicit StreamOrder(Runtime& device) : device_(device) {}

  /// A block of the driver's, and its end; or an object of the host's, whose uses shall follow one another.
  void hold(Pointer block, int64_t bytes);
  void drop(Pointer block) noexcept;

  StreamState& add(StreamHandle stream);
  /// One that nobody holds; null for none.
  std::shared_ptr<StreamState> idle_stream();
  /// Who holds it, as the public handles do.
  std::shared_ptr<StreamState> shared(StreamState& stream);
  StreamState& first() { return *first_; }
  std::vector<StreamState*> streams() const;
  /// What the first stream was given before there was another counts as one work, which is done.
  void begin_counting();

  /// Makes `on` wait for what conflicts, and notes the work that its caller queues next.
  void begin(StreamState& on, std::span<const Touch> touches);
  /// Notes work that was queued already.
  void note(StreamState& on, std::span<const Touch> touches);
  /// A point of the stream that others may wait for: where a program leaves it.
  void mark(StreamState& stream);

  Clock clock(const StreamState& stream) const;
  /// `on` waits for an event with this clock, or for all that another stream was given.
  void joined(StreamState& on, const Clock& clock);
  void join(StreamState& on, StreamState& other);
  /// The host has waited for all of it.
  void finished(const Clock& clock);
  bool is_finished(const Moment& m) const;
  Moment last(const StreamState& stream) const;
  /// The stream that alone used a block, else `otherwise`.
  uint32_t home(Pointer block, uint32_t otherwise) const noexcept;

 private:
  struct Region {
    int64_t bytes = 0;
    Moment write;               // before the second stream everything was the first one's
    std::vector<Moment> reads;  // since then, one a stream
  };
  Region* find(Pointer at);
  void wait(StreamState& on, const Moment& m);
  const StreamState::Mark& new_mark(StreamState& stream);
  void note_locked(StreamState& on, std::span<const Touch> touches);

  Runtime& device_;
  mutable std::mutex mutex_;
  std::map<Pointer, Region> regions_;  // by address
  std::vector<std::unique_ptr<StreamState>> streams_;
  StreamState* first_ = nullptr;  // of them, from the start on
  Clock finished_;
};

#ifdef TANDEM_TEST_SWITCHES
/// Tests switch the waits off, also those for copies of pinned memory, to show that they are needed.
extern bool streams_wait;
#else
inline constexpr bool streams_wait = true;
#endif

}  // namespace tandem::cuda
