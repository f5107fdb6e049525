// One pool of worker threads for everything that Tandem runs on the CPU. Workers spin at most 100
// microseconds between regions, then sleep. `parallel` may be called from any thread; regions do not nest (an
// inner one runs serially) and two threads' regions take turns.
#pragma once

#include <cstdint>
#include <type_traits>

#include "tandem/core/location.h"

namespace tandem {

/// Threads that ops use, the caller included. Default: TANDEM_NUM_THREADS, else the processors of this
/// process.
int num_threads();
/// 1 .. 256; else an Error.
void set_num_threads(int n, Location where = Location::here());

namespace core {

/// Calls `body(context, begin, end)` on disjoint ranges that cover [0, n), of at least `grain` indices each.
/// Which thread takes which range is unspecified, so results must not depend on it. The first exception is
/// rethrown.
void parallel_ranges(int64_t n, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end),
                     void* context);

/// Threads that a region of this thread would have: num_threads(), but for OnOneThread.
int threads_here();

/// While it lives, and unless `so` is false, regions of its thread stay there.
class OnOneThread {
 public:
  explicit OnOneThread(bool so);
  ~OnOneThread();
  OnOneThread(const OnOneThread&) = delete;
  OnOneThread& operator=(const OnOneThread&) = delete;

 private:
  const bool before_;
};

/// Regions that this thread has shared with others so far.
uint64_t shared_regions();

/// parallel(n, grain, [&](int64_t begin, int64_t end) {...})
template <class F>
void parallel(int64_t n, int64_t grain, F&& f) {
  if (n <= grain) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  using Fn = std::remove_reference_t<F>;
  parallel_ranges(
      n, grain, [](void* c, int64_t b, int64_t e) { (*static_cast<Fn*>(c))(b, e); },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace core
}  // namespace tandem
