#include "benchmarks/bench/harness.h"

#include <algorithm>
#include <chrono>

namespace bench {

double time_us(int calls, const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / calls;
}

namespace {
double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}
}  // namespace

std::vector<Row> interleave(const std::string& workload, const std::vector<Contestant>& contestants,
                            int blocks) {
  std::vector<std::vector<double>> times(contestants.size());
  for (int warm = 0; warm < 2; ++warm)
    for (const Contestant& c : contestants) c.block();
  for (int b = 0; b < blocks; ++b)
    for (size_t c = 0; c < contestants.size(); ++c) times[c].push_back(contestants[c].block());
  std::vector<Row> rows;
  for (size_t c = 0; c < contestants.size(); ++c) {
    std::vector<double> ratios;
    for (int b = 0; b < blocks; ++b)
      ratios.push_back(times[c][static_cast<size_t>(b)] / times[0][static_cast<size_t>(b)]);
    rows.push_back({workload, contestants[c].name, median(times[c]),
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
