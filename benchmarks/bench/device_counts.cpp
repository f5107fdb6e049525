#include "benchmarks/bench/device_counts.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdio>

#include "tandem/core/cuda/cuda.h"

namespace bench {

DeviceCounts device_counts() {
  using Calls = long (*)();
  using Count = long (*)(const char*);
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  static const auto calls = driver ? reinterpret_cast<Calls>(dlsym(driver, "sim_gpu_calls")) : nullptr;
  static const auto count = driver ? reinterpret_cast<Count>(dlsym(driver, "sim_gpu_count")) : nullptr;
  if (!calls || !count) return {};
  return {calls(), count("launches"), count("graph_launches")};
}

bool is_simulated() { return device_counts().calls > 0; }

bool print_device_counts(tandem::Device device, const std::vector<Workload>& workloads) {
  bool right = true;
  std::printf(
      "| workload | launches of graphs | other launches | nodes | kernels | products | natives | plan's MB | "
      "counted MB "
      "| plan / counted |\n|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Workload& w : workloads) {
    if (w.flop <= 0 && w.bytes <= 0) continue;
    const Prepared prepared = w.prepare({device, 1});
    const Contestant& traced = prepared.contestants.front();
    traced.time_us(4);  // records, compiles, makes the graph
    constexpr int kCalls = 4;
    const DeviceCounts before = device_counts();
    traced.time_us(kCalls);
    const DeviceCounts after = device_counts();
    const auto facts = prepared.facts ? prepared.facts() : std::map<std::string, double>{};
    const auto fact = [&](const char* name) {
      const auto at = facts.find(name);
      return at == facts.end() ? 0 : at->second;
    };
    const auto each = [&](long DeviceCounts::*of) { return double(after.*of - before.*of) / kCalls; };
    const double moved = fact("plan's bytes moved"), times = moved / w.bytes;
    std::printf("| %s | %.4g | %.4g | %.0f | %.0f | %.0f | %.0f | %.4g | %.4g | %.3f |\n", w.name.c_str(),
                each(&DeviceCounts::graphs), each(&DeviceCounts::launches), fact("graph nodes"),
                fact("kernels"), fact("products"), fact("natives"), moved * 1e-6, w.bytes * 1e-6, times);
    std::fflush(stdout);
    if (fact("recorded") > 1 || fact("op by op") > 0) {
      std::fprintf(stderr, "bench: %s was not replayed\n", w.name.c_str());
      right = false;
    }
    // Steps keep more than what cannot be avoided; rows shall not.
    if (w.flop <= 0 && std::abs(times - 1) > 0.05)
      std::printf("bar NOT MET: %s moves %.3f times the bytes counted by hand, not within 5 %%\n",
                  w.name.c_str(), times);
  }
  return right;
}

}  // namespace bench
