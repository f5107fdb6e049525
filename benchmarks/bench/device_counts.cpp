#include "benchmarks/bench/device_counts.h"

#include <dlfcn.h>

#include <cmath>
#include <cstdio>
#include <optional>

#include "benchmarks/bench/device_floors.h"
#include "tandem/core/cuda/cuda.h"

namespace bench {

DeviceCounts device_counts() {
  using Calls = long (*)();
  using Count = long (*)(const char*);
  static void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  static const auto calls = driver ? reinterpret_cast<Calls>(dlsym(driver, "sim_gpu_calls")) : nullptr;
  static const auto count = driver ? reinterpret_cast<Count>(dlsym(driver, "sim_gpu_count")) : nullptr;
  if (!calls || !count) return {};
  return {calls(),
          count("launches") - count("graph_kernels"),
          count("graph_launches"),
          count("global_loads"),
          count("global_stores"),
          count("global_loaded_bytes"),
          count("global_stored_bytes")};
}

bool is_simulated() { return device_counts().calls > 0; }

namespace {

/// A count beside that by hand: "1.2e6 (1.000)", or a dash.
std::string beside(double found, double by_hand) {
  char text[64];
  if (found == 0) return "-";
  std::snprintf(text, sizeof text, by_hand > 0 ? "%.6g (%.3f)" : "%.6g", found,
                by_hand > 0 ? found / by_hand : 0);
  return text;
}

/// Whether it is not more than `most` times the count by hand; says so if not.
bool within(const std::string& workload, const char* what, double found, double by_hand, double most) {
  if (found == 0 || by_hand == 0 || found <= most * by_hand) return true;
  std::printf("bar NOT MET: %s: %s: %.3f times those counted by hand\n", workload.c_str(), what,
              found / by_hand);
  return false;
}
}  // namespace

bool print_device_counts(tandem::Device device, const std::vector<Workload>& workloads) {
  bool right = true;
  int met = 0, missed = 0, uncounted = 0;
  std::printf(
      "| workload | launches of graphs | other launches | entries | nodes | kernels | products | natives | "
      "plan's MB (of counted) | loads (of counted) | stores (of counted) | MB loaded and stored |\n"
      "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const Workload& w : workloads) {
    if (w.flop <= 0 && w.bytes <= 0) continue;
    const Prepared prepared = w.prepare({device, 1});
    const Contestant& traced = prepared.contestants.front();
    // Records, compiles, makes the graph, and gives blocks of its own to what moves.
    const bool counts = device_counts().loads > 0;
    traced.time_us(4);
    const int calls = counts ? 1 : 4;
    const DeviceCounts before = device_counts();
    traced.time_us(calls);
    const DeviceCounts after = device_counts();
    const auto facts = prepared.facts ? prepared.facts() : std::map<std::string, double>{};
    const auto fact = [&](const char* name) {
      const auto at = facts.find(name);
      return at == facts.end() ? 0 : at->second;
    };
    const auto each = [&](long DeviceCounts::*of) { return double(after.*of - before.*of) / calls; };
    const double moved = fact("plan's bytes moved"), loads = each(&DeviceCounts::loads),
                 stores = each(&DeviceCounts::stores),
                 bytes = each(&DeviceCounts::loaded_bytes) + each(&DeviceCounts::stored_bytes);
    const std::optional<DeviceFloor> by_hand = device_floor(w.name);
    const DeviceFloor floor = by_hand.value_or(DeviceFloor());
    std::printf("| %s | %.4g | %.4g | %.0f | %.0f | %.0f | %.0f | %.0f | %s | %s | %s | %s |\n",
                w.name.c_str(), each(&DeviceCounts::graphs), each(&DeviceCounts::launches),
                fact("plan entries"), fact("graph nodes"), fact("kernels"), fact("products"), fact("natives"),
                beside(moved * 1e-6, w.bytes * 1e-6).c_str(), beside(loads, floor.loads).c_str(),
                beside(stores, floor.stores).c_str(), beside(bytes * 1e-6, floor.bytes * 1e-6).c_str());
    std::printf("    by hand: %s\n", by_hand ? floor.how.c_str() : "no hand count of loads and stores");
    bool within_bars = true;
    if (fact("recorded") > 1 || fact("op by op") > 0 || each(&DeviceCounts::graphs) != 1) {
      std::fprintf(stderr, "bench: %s was not replayed by one launch\n", w.name.c_str());
      right = false;
    }
    // Steps keep more than what cannot be avoided; rows shall not.
    const auto bar = [&](const char* what, double found, double expected) {
      within_bars = within(w.name, what, found, expected, kAboveFloor) && within_bars;
    };
    if (w.flop <= 0) bar("bytes of the plan", moved, w.bytes);
    bar("loads", loads, floor.loads);
    bar("stores", stores, floor.stores);
    bar("bytes loaded and stored", bytes, floor.bytes);
    within_bars = within(w.name, "entries", fact("plan entries"), floor.entries, 1) && within_bars;
    right = right && within_bars;
    ++(!within_bars ? missed : by_hand ? met : uncounted);
    std::fflush(stdout);
  }
  std::printf(
      "workloads within their counts by hand: %d; beyond: %d; without a count of loads and stores: %d\n", met,
      missed, uncounted);
  return right;
}

}  // namespace bench
