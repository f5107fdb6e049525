#include "tests/sim_gpu/driver/state.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <unordered_map>

namespace sim_gpu {

namespace {

long from_environment(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtol(text, nullptr, 10) : otherwise;
}

/// What `only_counted` has counted: launches, launches of graphs, other calls.
std::atomic<bool> mute{false};
std::atomic<int> captures{0};
std::atomic<long> mute_launches{0}, mute_graphs{0}, mute_calls{0};

struct State {
  Settings settings;
  std::map<std::string, long> counters;
  long calls = 0, fail_at = 0;
  unsigned long engines = ~0ul;
  std::string failed, message;
  std::unordered_map<const void*, const char*> handles;

  State() {
    settings.devices = static_cast<int>(from_environment("SIM_GPU_DEVICES", 1));
    settings.orders = static_cast<int>(from_environment("SIM_GPU_ORDERS", 3));
    settings.capability = static_cast<int>(from_environment("SIM_GPU_CAPABILITY", 90));
    settings.version = static_cast<int>(from_environment("SIM_GPU_DRIVER_VERSION", 13000));
    mute = settings.orders == 0;
    settings.libraries = from_environment("SIM_GPU_LIBRARIES", 1) != 0;
    settings.lazy = static_cast<int>(from_environment("SIM_GPU_LAZY", 0));
    settings.device_bytes = static_cast<size_t>(from_environment("SIM_GPU_BYTES", 8L << 30));
    fail_at = from_environment("SIM_GPU_FAIL", 0);
    for (const char* what : {"launches",
                             "graph_launches",
                             "graph_nodes",
                             "allocations",
                             "live_allocations",
                             "live_bytes",
                             "host_allocations",
                             "copies",
                             "copied_bytes",
                             "fills",
                             "compiles",
                             "products",
                             "convolutions",
                             "attentions",
                             "modules",
                             "streams",
                             "events",
                             "graphs",
                             "global_loads",
                             "global_stores",
                             "global_loaded_bytes",
                             "global_stored_bytes"})
      counters[what] = 0;
  }
};

/// Lives to the process's end: other libraries' destructors may still free memory.
State& state() {
  static auto* const s = new State;
  return *s;
}

}  // namespace

std::recursive_mutex& mutex() {
  static auto* const m = new std::recursive_mutex;
  return *m;
}

bool only_counted(const char* what) {
  if (!mute.load(std::memory_order_relaxed) || captures.load(std::memory_order_relaxed) != 0) return false;
  mute_calls.fetch_add(1, std::memory_order_relaxed);
  if (std::strcmp(what, "launches") == 0) mute_launches.fetch_add(1, std::memory_order_relaxed);
  if (std::strcmp(what, "graph_launches") == 0) mute_graphs.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void count_captures(int by) { captures.fetch_add(by, std::memory_order_relaxed); }

Settings& settings() { return state().settings; }

void say(const std::string& text) {
  state().message = text;
  std::fprintf(stderr, "sim_gpu: %s\n", text.c_str());
}

void add(const char* what, long by) { state().counters[what] += by; }

bool take_failure(const char* function) {
  State& s = state();
  ++s.calls;
  if (s.fail_at == 0 || --s.fail_at != 0) return false;
  s.failed = function;
  return true;
}

void handle_made(const void* handle, const char* kind) {
  state().handles[handle] = kind;
  add((std::string(kind) + 's').c_str(), 1);
}

bool handle_is(const void* handle, const char* kind, const char* function) {
  const auto found = state().handles.find(handle);
  if (found != state().handles.end() && std::strcmp(found->second, kind) == 0) return true;
  say(std::string(function) + ": a " + kind + " that does not exist (any more)");
  return false;
}

void handle_gone(const void* handle, const char* kind) {
  state().handles.erase(handle);
  add((std::string(kind) + 's').c_str(), -1);
}

int& current_device() {
  static thread_local int device = -1;
  return device;
}

void sim_gpu_fail_call(long n) {
  const Lock lock(mutex());
  state().fail_at = n;
  state().failed.clear();
}
long sim_gpu_calls() {
  const Lock lock(mutex());
  return state().calls + mute_calls.load();
}
const char* sim_gpu_failed_call() {
  const Lock lock(mutex());
  return state().failed.c_str();
}
long sim_gpu_count(const char* what) {
  const Lock lock(mutex());
  const auto found = state().counters.find(what);
  if (found == state().counters.end()) return -1;
  return found->second + (found->first == "launches"         ? mute_launches.load()
                          : found->first == "graph_launches" ? mute_graphs.load()
                                                             : 0);
}
const char* sim_gpu_message() {
  const Lock lock(mutex());
  return state().message.c_str();
}
void sim_gpu_set_orders(int orders) {
  const Lock lock(mutex());
  settings().orders = orders;
  mute = orders == 0;
}
void sim_gpu_set_engines(unsigned long engines) {
  const Lock lock(mutex());
  state().engines = engines;
}
unsigned long sim_gpu_engines() {
  const Lock lock(mutex());
  return state().engines;
}
void sim_gpu_set_products(int products) {
  const Lock lock(mutex());
  settings().products = products;
}
int sim_gpu_products() {
  const Lock lock(mutex());
  return settings().products;
}
void sim_gpu_set_captures(int captures) {
  const Lock lock(mutex());
  settings().captures = captures;
}
int sim_gpu_take_failure(const char* function) {
  const Lock lock(mutex());
  return take_failure(function) ? 1 : 0;
}
void sim_gpu_add(const char* what, long by) {
  const Lock lock(mutex());
  add(what, by);
}

}  // namespace sim_gpu
