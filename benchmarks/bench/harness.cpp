#include "benchmarks/bench/harness.h"

#include <algorithm>
#include <ctime>

#include "tandem/core/cuda/cuda.h"

namespace bench {

namespace {
clockid_t timed_clock = CLOCK_MONOTONIC;
}

double now_us() {
  timespec t;
  clock_gettime(timed_clock, &t);
  return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}
void take_processor_time() { timed_clock = CLOCK_PROCESS_CPUTIME_ID; }

void synchronize(tandem::Device device) {
  if (device.type == tandem::DeviceType::cuda) tandem::cuda::synchronize(device);
}

double quantile(std::vector<double> v, double q) {
  const auto at = static_cast<std::ptrdiff_t>(q * static_cast<double>(v.size() - 1) + 0.5);
  std::nth_element(v.begin(), v.begin() + at, v.end());
  return v[static_cast<size_t>(at)];
}

std::vector<Row> interleave(const std::string& workload, const std::vector<Part>& parts, int blocks) {
  std::vector<std::vector<double>> times(parts.size());
  for (int warm = 0; warm < 2; ++warm)
    for (const Part& c : parts) c.block();
  for (int b = 0; b < blocks; ++b)
    for (size_t c = 0; c < parts.size(); ++c) times[c].push_back(parts[c].block());
  std::vector<Row> rows;
  for (size_t c = 0; c < parts.size(); ++c) {
    std::vector<double> ratios;
    for (int b = 0; b < blocks; ++b)
      ratios.push_back(times[c][static_cast<size_t>(b)] / times[0][static_cast<size_t>(b)]);
    rows.push_back({workload, parts[c].name, median(times[c]),
                    *std::min_element(times[c].begin(), times[c].end()), median(ratios)});
  }
  return rows;
}

void lose_caches(size_t megabytes) {
  static std::vector<int64_t> memory(size_t{128} << 20 >> 3);
  for (size_t i = 0; i < megabytes << 20 >> 3; i += 8) ++memory[i];
}

double time_without_inner_caches_us(const std::function<void()>& f) {
  constexpr size_t kInner = 8;  // MB: more than L1 and L2, less than the last cache
  lose_caches(kInner);  // so that the second time these come from the last cache, and push nothing out
  for (int i = 0; i < 20; ++i) f();
  return time_after_us(kInner, f);
}

double time_after_us(size_t megabytes, const std::function<void()>& f) {
  lose_caches(megabytes);
  return time_us(1, f);
}

}  // namespace bench
