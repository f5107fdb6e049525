// One CUDA device as Tandem uses it: its context, its stream, on which everything runs in order, or, once a
// program makes more (streams.h), its streams; and a caching allocator: free lists by stream and size class,
// a block's class being a function of the bytes asked for alone. Made at first use, one a device, living to
// the process's end. Any thread: calls are serialised by the driver, the allocator and the error words have a
// lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/libraries.h"
#include "tandem/core/cuda/stream_order.h"

namespace tandem::cuda {

inline constexpr int kMostDevices = 16;

class Block;

/// What is told if an index is out of range.
using ErrorText = std::shared_ptr<const std::string>;

class Runtime {
 public:
  /// Throws Error, with one sentence that says what is missing, if the device is not there.
  static Runtime& of(Device device, const char* who, Location where = {});
  /// The same for a device whose tensors exist already.
  static Runtime& of(Device device) {
    if (device.index < kMostDevices)
      if (Runtime* r = made_[static_cast<size_t>(device.index)].load(std::memory_order_acquire)) [[likely]]
        return *r;
    return of(device, "cuda");
  }

  const Driver& api() const { return api_; }
  /// This thread's current stream.
  StreamHandle stream() const { return several() ? current().handle : stream_; }
  /// Whether the program made a stream; once true, always.
  bool several() const { return several_.load(std::memory_order_relaxed); }
  StreamState& current() const {
    StreamState* const mine = current_[static_cast<size_t>(index_)];
    return mine ? *mine : order_.first();
  }
  /// Another stream, or one that nobody holds any more.
  std::shared_ptr<StreamState> new_stream();
  /// `stream` for this thread; null: the device's own. Returns what was there.
  StreamState* set_current(StreamState* stream);
  StreamOrder& order() { return order_; }
  int index() const { return index_; }
  /// 90 for compute capability 9.0.
  int capability() const { return capability_; }
  int multiprocessors() const { return multiprocessors_; }
  /// Bytes of shared memory that a block can have, static and dynamic, if a function asks for it.
  int shared_bytes() const { return shared_bytes_; }
  /// Makes the context this thread's. The driver is asked each time: other users of CUDA in the process may
  /// have changed it.
  void use() const {
    Context now = nullptr;
    if (api_.context_get(&now) != Result::success || now != context_) [[unlikely]]
      set_context();
  }

  /// At least `nbytes`, 256-byte aligned; null for 0. Memory given back is free for work that is queued
  /// later, on whatever stream.
  Pointer allocate(int64_t nbytes);
  /// `nbytes` as it was asked for.
  void give_back(Pointer block, int64_t nbytes) noexcept;
  void empty_cache() noexcept;
  MemoryStats memory_stats() const;
  void reset_peak();

  // Work on the current stream.
  /// From pinned memory, which stays as it is until the stream comes to it.
  void queue_copy_in(Pointer to, const void* from, int64_t nbytes);
  /// Waits: `from` is the caller's again.
  void copy_in(Pointer to, const void* from, int64_t nbytes);
  /// Into pinned memory, which is there when the stream comes to it.
  void queue_copy_out(void* to, Pointer from, int64_t nbytes);
  /// Waits for what is queued before.
  void copy_out(void* to, Pointer from, int64_t nbytes);
  void copy(Pointer to, Pointer from, int64_t nbytes);
  void fill(Pointer to, unsigned char byte, int64_t nbytes);

  /// Waits for everything that is queued on any stream; throws what failed since the last time.
  void synchronize();
  /// The same for one stream, and what it waited for.
  void synchronize(StreamState& stream);
  void synchronize_current() { synchronize(current()); }

  /// An int64 that host and device read and write, 0 now, for launches that may meet an index out of range
  /// and set it then. The next synchronisation throws `what` at `where` for the first that is set. For one
  /// launch:
  Pointer error_word(ErrorText what, Location where);
  /// Held from there to the launch: a synchronisation of another thread between the two would take the word
  /// for one that was looked at. With several streams, around all that is queued.
  std::unique_lock<std::recursive_mutex> launching() { return std::unique_lock(launching_); }
  /// For launches that are repeated: `expect_errors` before each.
  Pointer keep_error_word(ErrorText what, Location where);
  /// Launches of the same words follow one another.
  void expect_errors(std::span<const Pointer> kept);
  void release_error_word(Pointer kept) noexcept;
  /// What precedes an event that is recorded at the current stream's end, under launching().
  struct Past {
    bool may_fail = false;  // launches that were not looked at
    uint64_t launches = 0;  // with one stream: of them, those up to this one
    Clock clock;            // with several
  };
  Past past() const;
  /// The host has waited for that event: throws what failed before it, as synchronize() does.
  void finished(const Past& past);

  /// One block for intermediate values of whole graphs, which run one after another and share it. It lives
  /// while `users` of it do; one that is too small goes when a larger one replaces it and nobody launches.
  /// `mine`: what an earlier call gave.
  std::shared_ptr<Block> graph_arena(int64_t nbytes, std::weak_ptr<Block>& mine);
  void add_arena_user();
  void remove_arena_user() noexcept;

  /// Throws for anything but success, naming the call and what the driver says.
  void check(Result result, const char* call) const;

 private:
  static constexpr size_t kErrorWords = 1024;  // a region of them
  static constexpr size_t kClasses = 2048 + 400;
  struct FreeBlocks {
    std::vector<Pointer> blocks;  // of the first stream: reserved for all that there are
    size_t there = 0;             // in use and free
  };
  using FreeLists = std::vector<FreeBlocks>;  // by size class
  struct ErrorWord {
    ErrorText what;
    Location where;
    bool expected = false, kept = false;
    // Of launches that were not looked at the first, and the last of them: with several streams, and by
    // their number.
    Moment first, launch;
    uint64_t first_number = 0, number = 0;
    uint64_t thread = 0;  // that launched
  };
  /// An error that another thread was told first.
  struct Owed {
    uint64_t thread;
    ErrorText what;
    Location where;
  };

  Runtime(const Driver& api, int index);
  void set_context() const;
  FreeLists& free_lists(uint32_t stream);
  Pointer cached_block(int64_t nbytes);
  Pointer new_block(int64_t nbytes, int64_t block_bytes, FreeBlocks* list);
  void count_live(int64_t bytes);
  void release_cached() noexcept;
  /// Of launches that are done. With one stream: those up to `last`.
  void check_errors(uint64_t last = UINT64_MAX);
  void expect(size_t index);
  /// Under the lock: the index of a word that is not in use; false if there is none.
  bool take_error_word(ErrorText what, Location where, size_t* index);
  void add_error_words();
  int64_t& word_at(size_t index) const { return error_regions_[index / kErrorWords][index % kErrorWords]; }
  Pointer error_address(size_t index) const { return reinterpret_cast<Pointer>(&word_at(index)); }
  size_t error_index(Pointer word) const;

  static constinit thread_local std::array<StreamState*, kMostDevices> current_;
  static constinit std::array<std::atomic<Runtime*>, kMostDevices> made_;

  const Driver& api_;
  int index_ = 0, capability_ = 0, multiprocessors_ = 0, shared_bytes_ = 0;
  const bool exact_, poison_;  // TANDEM_CUDA_EXACT, TANDEM_POISON
  Context context_ = nullptr;
  StreamHandle stream_ = nullptr;
  std::atomic<bool> several_{false};
  mutable StreamOrder order_{*this};
  std::recursive_mutex launching_;  // taken before mutex_
  mutable std::mutex mutex_;
  FreeLists classes_{kClasses};                     // of the first stream
  std::vector<std::unique_ptr<FreeLists>> others_;  // of stream i + 1
  MemoryStats stats_;
  std::shared_ptr<Block> arena_;
  int64_t arena_users_ = 0;
  std::atomic<const Block*> current_arena_{nullptr};
  std::vector<int64_t*> error_regions_;  // pinned: devices know them by the same addresses
  std::vector<ErrorWord> error_words_;
  std::vector<size_t> unused_errors_;  // indices of words
  std::vector<size_t> expected_;       // in the order of their launches
  uint64_t launches_ = 0;              // that expected errors
  std::vector<Owed> owed_;
};

/// Around the queueing of work on the current stream, which first waits for what other streams do with the
/// memory that it touches: `touches(add)` calls `add(Touch)` for each piece. With one stream that is one
/// look at a flag.
template <class Touches>
class Ordered {
 public:
  Ordered(Runtime& device, Touches touches) : Ordered(device, device.several(), std::move(touches)) {}
  /// `several`: what the device said before a lock was taken that comes behind launching().
  Ordered(Runtime& device, bool several, Touches touches) : device_(device), touches_(std::move(touches)) {
    if (!several) [[likely]]
      return;
    lock_ = device_.launching();
    device_.order().begin(device_.current(), listed());
  }
  ~Ordered() {
    // Another thread made the second stream in between: the work counts as what it is now.
    if (!lock_.owns_lock() && device_.several()) [[unlikely]]
      device_.order().note(device_.current(), listed());
  }
  Ordered(const Ordered&) = delete;
  Ordered& operator=(const Ordered&) = delete;

 private:
  std::vector<Touch> listed() const {
    std::vector<Touch> all;
    touches_([&](Touch t) {
      if (t.at) all.push_back(t);
    });
    return all;
  }

  Runtime& device_;
  const Touches touches_;
  std::unique_lock<std::recursive_mutex> lock_;
};

/// Memory of a device, given back at the end of its life: for work that is queued later.
class Block {
 public:
  Block(Runtime& device, int64_t bytes) : device_(device), bytes_(bytes), memory_(device.allocate(bytes)) {}
  ~Block() { device_.give_back(memory_, bytes_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  Pointer memory() const { return memory_; }
  int64_t bytes() const { return bytes_; }

 private:
  Runtime& device_;
  const int64_t bytes_;
  const Pointer memory_;
};

}  // namespace tandem::cuda
