// Candidates run in turns, each turn a few products between two events, so that what the machine does besides
// hits all of them; the median of a candidate's turns counts.
#include "tandem/jit/cuda_tuning.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "tandem/core/env.h"
#include "tandem/core/log.h"
#include "tandem/core/version.h"
#include "tandem/jit/disk_cache.h"
#include "tandem/jit/sha256.h"

namespace tandem::jit {

using cuda::CublasLt;
using cuda::Runtime;

namespace {

constexpr int kTurns = 5, kProducts = 4;

DiskCache& disk() {
  static DiskCache* const cache =
      new DiskCache(core::environment().cache_dir, "products", uint64_t{16} << 20);
  return *cache;
}

class Events {
 public:
  explicit Events(Runtime& device) : device_(device) {
    for (cuda::EventHandle& e : events_) device.check(device.api().event_create(&e, 0), "cuEventCreate");
  }
  ~Events() {
    for (const cuda::EventHandle e : events_)
      if (e) device_.api().event_destroy(e);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  void record(int i) const {
    device_.check(device_.api().event_record(events_[i], device_.stream()), "cuEventRecord");
  }
  float between_ms() const {
    float ms = 0;
    device_.check(device_.api().event_synchronize(events_[1]), "cuEventSynchronize");
    device_.check(device_.api().event_elapsed(&ms, events_[0], events_[1]), "cuEventElapsedTime");
    return ms;
  }

 private:
  Runtime& device_;
  cuda::EventHandle events_[2] = {nullptr, nullptr};
};

/// Milliseconds of a candidate's turns; none if it cannot run.
std::vector<std::vector<float>> measure(Runtime& device, size_t n, const std::function<bool(size_t)>& queue) {
  const Events events(device);
  std::vector<std::vector<float>> times(n);
  std::vector<char> runs(n, 1);
  for (size_t i = 0; i < n; ++i) runs[i] = queue(i);  // whatever the first call prepares
  for (int turn = 0; turn < kTurns; ++turn)
    for (size_t i = 0; i < n; ++i) {
      if (!runs[i]) continue;
      events.record(0);
      for (int k = 0; k < kProducts; ++k) runs[i] = runs[i] && queue(i);
      events.record(1);
      times[i].push_back(events.between_ms());
    }
  for (size_t i = 0; i < n; ++i) {
    if (!runs[i]) times[i].clear();
    std::sort(times[i].begin(), times[i].end());
  }
  return times;
}

std::string device_name(const Runtime& device) {
  char name[256] = "";
  device.api().device_name(name, sizeof name, device.index());
  return name;
}

}  // namespace

bool tunes_products() { return core::environment().cuda_tune; }

CublasLt::HeuristicResult tuned(Runtime& device, const std::string& key,
                                const std::vector<CublasLt::HeuristicResult>& candidates,
                                const std::function<bool(CublasLt::HeuristicResult& algorithm)>& works,
                                const std::function<bool(size_t i)>& queue) {
  const std::string whole = std::string("tandem ") + core::version() + ", " + device_name(device) +
                            ", capability " + std::to_string(device.capability()) + ", cuBLASLt " +
                            std::to_string(cuda::cublaslt()->version()) + ", " + key;
  const std::string name = hex(sha256(whole));
  CublasLt::HeuristicResult result = candidates[0];
  if (const std::optional<std::string> kept = disk().load(name, whole, "");
      kept && kept->size() == sizeof result.algorithm) {
    std::memcpy(&result.algorithm, kept->data(), sizeof result.algorithm);
    if (works(result)) return result;
    result = candidates[0];
  }
  if (candidates.size() > 1) {
    const std::vector<std::vector<float>> times = measure(device, candidates.size(), queue);
    std::optional<size_t> best;
    const auto median = [&](size_t i) { return times[i][times[i].size() / 2]; };
    for (size_t i = 0; i < times.size(); ++i)
      if (!times[i].empty() && (!best || median(i) < median(*best))) best = i;
    if (!best) return result;
    result = candidates[*best];
    if (core::log_enabled(core::LogArea::jit, core::LogLevel::debug))
      core::log(core::LogArea::jit, core::LogLevel::debug,
                "product " + key + ": candidate " + std::to_string(*best) + " of " +
                    std::to_string(candidates.size()) + ", " + std::to_string(median(*best) / kProducts) +
                    " ms, the first one " +
                    (times[0].empty() ? "cannot run" : std::to_string(median(0) / kProducts) + " ms"));
  }
  disk().store(name, whole, "",
               std::string(reinterpret_cast<const char*>(&result.algorithm), sizeof result.algorithm));
  return result;
}

}  // namespace tandem::jit
