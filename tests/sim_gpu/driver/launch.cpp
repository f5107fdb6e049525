#include "tests/sim_gpu/driver/launch.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstring>

#include "tests/sim_gpu/driver/fibers.h"
#include "tests/sim_gpu/driver/memory.h"

#ifdef SIM_GPU_ADDRESS
#include <sanitizer/asan_interface.h>
#endif

namespace sim_gpu {

namespace {

constexpr size_t kGuardBytes = 256;  // behind the dynamic shared memory
constexpr unsigned char kGuardByte = 0xA5;

std::string shape(const sim_index& i) {
  return std::to_string(i.x) + 'x' + std::to_string(i.y) + 'x' + std::to_string(i.z);
}

// Faults of the processor inside a kernel become errors of the launch. Under the address sanitizer its own
// handlers tell more.
#ifndef SIM_GPU_ADDRESS
thread_local sigjmp_buf* landing = nullptr;

void on_fault(int number) {
  if (landing != nullptr) siglongjmp(*landing, number);
  std::signal(number, SIG_DFL);  // not ours: happens again, now for good
}

class FaultHandlers {
 public:
  explicit FaultHandlers(sigjmp_buf* jump) {
    static thread_local char stack[32 * 1024];
    stack_t ours{};
    ours.ss_sp = stack;
    ours.ss_size = sizeof stack;
    sigaltstack(&ours, &stack_before_);
    struct sigaction action {};
    action.sa_handler = on_fault;
    action.sa_flags = SA_ONSTACK;
    for (size_t i = 0; i < 4; ++i) sigaction(kSignals[i], &action, &before_[i]);
    landing = jump;
  }
  ~FaultHandlers() {
    landing = nullptr;
    for (size_t i = 0; i < 4; ++i) sigaction(kSignals[i], &before_[i], nullptr);
    stack_before_.ss_flags &= SS_DISABLE;
    sigaltstack(&stack_before_, nullptr);
  }
  FaultHandlers(const FaultHandlers&) = delete;
  FaultHandlers& operator=(const FaultHandlers&) = delete;

 private:
  static constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
  struct sigaction before_[4];
  stack_t stack_before_{};
};
#endif

/// What the kernel that runs does with its device's memory, as its threads' instructions.
struct Accesses {
  std::vector<const Allocation*> memory;
  const Allocation* last = nullptr;
  long loads = 0, stores = 0, loaded_bytes = 0, stored_bytes = 0;
};
Accesses* accesses = nullptr;

/// All blocks in one order; "" or what is wrong.
std::string run_blocks(const Launch& launch, Order order) {
  const sim_module& module = launch.function.module->table();
  const sim_index& grid = launch.grid;
  // Another NaN in each order: what is read before it was written makes a difference.
  const uint64_t poison = order == Order::forward    ? 0xFFFFFFFFFFFFFFFF
                          : order == Order::backward ? 0x7FFFFFFF7FFFFFFF
                                                     : 0xFFF7FFFFFFF7FFFF;
  *module.runtime = &kRuntime;
  *module.block_size = launch.block;
  *module.grid_size = grid;
  *module.dynamic_bytes = launch.shared_bytes;
  std::vector<void*> parameters;
  std::vector<uint64_t> words = launch.words;
  for (const size_t place : launch.places) parameters.push_back(&words[place]);
  const ThreadOrder threads = thread_order(order, launch.block);
  const auto shared = static_cast<size_t>(module.shared_end - module.shared);
  const unsigned long blocks = 1ul * grid.x * grid.y * grid.z;
  std::memset(module.dynamic + launch.shared_bytes, kGuardByte, kGuardBytes);
  for (unsigned long i = 0; i < blocks; ++i) {
    const unsigned long block = place(order, i, blocks);
    *module.block = {static_cast<unsigned>(block % grid.x), static_cast<unsigned>(block / grid.x % grid.y),
                     static_cast<unsigned>(block / grid.x / grid.y)};
    for (size_t at = 0; at < shared; at += 8)
      std::memcpy(module.shared + at, &poison, std::min<size_t>(8, shared - at));
    for (size_t at = 0; at < launch.shared_bytes; at += 8) std::memcpy(module.dynamic + at, &poison, 8);
    std::memset(module.dynamic + launch.shared_bytes, kGuardByte, kGuardBytes);
    std::string fault = run_block(module, *launch.function.kernel, parameters.data(), threads);
    if (!fault.empty()) return fault;
    for (size_t at = 0; at < kGuardBytes; ++at)
      if (static_cast<unsigned char>(module.dynamic[launch.shared_bytes + at]) != kGuardByte)
        return "written past the end of the dynamic shared memory of " + std::to_string(launch.shared_bytes) +
               " bytes";
  }
  return damaged_guard();
}

std::string run_guarded(const Launch& launch, Order order, Result* result) {
  *result = Result::launch_failed;
#ifdef SIM_GPU_ADDRESS
  return run_blocks(launch, order);
#else
  sigjmp_buf jump;
  const FaultHandlers handlers(&jump);
  const int number = sigsetjmp(jump, 1);
  if (number != 0) {
    const sim_index t = running_thread(), b = *launch.function.module->table().block;
    forget_fibers();
    if (number != SIGFPE) *result = Result::illegal_address;
    return std::string(number == SIGFPE ? "division by zero" : "illegal address") + " in block " + shape(b) +
           ", thread " + shape(t);
  }
  return run_blocks(launch, order);
#endif
}

/// What the allocations of a launch held at some time.
class Snapshot {
 public:
  explicit Snapshot(const std::vector<const Allocation*>& allocations) : allocations_(allocations) {
    for (const Allocation* a : allocations) contents_.emplace_back(a->data, a->data + a->bytes);
  }
  void restore() const {
    for (size_t i = 0; i < allocations_.size(); ++i)
      std::memcpy(allocations_[i]->data, contents_[i].data(), allocations_[i]->bytes);
  }
  /// The first difference between this and what is there now; "" for none.
  std::string difference() const {
    for (size_t i = 0; i < allocations_.size(); ++i) {
      const Allocation& a = *allocations_[i];
      if (std::memcmp(a.data, contents_[i].data(), a.bytes) == 0) continue;
      size_t at = 0;
      while (a.data[at] == contents_[i][at]) ++at;
      at &= ~size_t{3};
      char values[64];
      unsigned before = 0, now = 0;
      std::memcpy(&before, contents_[i].data() + at, std::min<size_t>(4, a.bytes - at));
      std::memcpy(&now, a.data + at, std::min<size_t>(4, a.bytes - at));
      std::snprintf(values, sizeof values, "0x%08x and 0x%08x", before, now);
      return "an allocation of " + std::to_string(a.bytes) + " bytes differs first at byte " +
             std::to_string(at) + ": " + values;
    }
    return {};
  }

 private:
  const std::vector<const Allocation*>& allocations_;
  std::vector<std::vector<char>> contents_;
};

constexpr const char* kOrderNames[] = {"forward", "backward", "permuted"};

}  // namespace

void note_access(const void* address, unsigned bytes, bool written) {
  if (accesses == nullptr) return;
  const char* const at = static_cast<const char*>(address);
  const auto holds = [&](const Allocation* a) { return at >= a->data && at < a->data + a->bytes; };
  if (accesses->last == nullptr || !holds(accesses->last)) {
    const auto& all = accesses->memory;
    const auto found = std::find_if(all.begin(), all.end(), holds);
    if (found == all.end() || (*found)->device < 0) return;  // shared memory, a stack, parameters
    accesses->last = *found;
  }
  (written ? accesses->stores : accesses->loads) += 1;
  (written ? accesses->stored_bytes : accesses->loaded_bytes) += bytes;
}

Result make_launch(const KernelNode& asked, const char* function, std::shared_ptr<const Launch>* launch) {
  if (asked.function == nullptr || !handle_is(asked.function, "function", function)) return kInvalidHandle;
  auto out = std::make_shared<Launch>();
  out->function = *asked.function;
  out->grid = {asked.grid_x, asked.grid_y, asked.grid_z};
  out->block = {asked.block_x, asked.block_y, asked.block_z};
  out->shared_bytes = asked.shared_bytes;
  out->device = current_device();
  const sim_kernel& kernel = *out->function.kernel;
  const auto refuse = [&](const std::string& why, Result result = Result::invalid_value) {
    say(std::string(function) + ": kernel " + out->function.name + ": " + why);
    return result;
  };
  const sim_index &g = out->grid, &b = out->block;
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 2147483647u || g.y > 65535 || g.z > 65535)
    return refuse("a grid of " + shape(g) + " blocks");
  const unsigned long threads = 1ul * b.x * b.y * b.z;
  if (threads == 0 || b.x > 1024 || b.y > 1024 || b.z > 64 || threads > 1024)
    return refuse("a block of " + shape(b) + " threads");
  if (kernel.max_threads > 0 && threads > static_cast<unsigned long>(kernel.max_threads))
    return refuse("a block of " + std::to_string(threads) + " threads; its __launch_bounds__ say " +
                      std::to_string(kernel.max_threads),
                  Result::launch_out_of_resources);
  if (asked.shared_bytes > asked.function->dynamic_limit)
    return refuse(std::to_string(asked.shared_bytes) +
                  " bytes of dynamic shared memory; the function is set to " +
                  std::to_string(asked.function->dynamic_limit));
  // What is declared counts, too. It is known of modules of one kernel.
  const sim_module& module = out->function.module->table();
  const auto declared = static_cast<size_t>(module.n_kernels == 1 ? module.shared_end - module.shared : 0);
  if (asked.function->dynamic_limit <= sim_dynamic_limit && asked.shared_bytes + declared > sim_dynamic_limit)
    return refuse(std::to_string(asked.shared_bytes) + " bytes of dynamic and " + std::to_string(declared) +
                  " of declared shared memory; none was asked for");
  if (asked.extra != nullptr) return refuse("parameters in `extra` are not simulated");
  if (kernel.n_parameters > 0 && asked.parameters == nullptr) return refuse("no parameters");
  for (int i = 0; i < kernel.n_parameters; ++i) {
    if (asked.parameters[i] == nullptr) return refuse("parameter " + std::to_string(i) + " is null");
    out->places.push_back(out->words.size());
    out->words.resize(out->words.size() + (kernel.sizes[i] + 15) / 16 * 2);
    std::memcpy(&out->words[out->places.back()], asked.parameters[i], kernel.sizes[i]);
  }
  *launch = std::move(out);
  return Result::success;
}

Result run_launch(const Launch& launch) {
  add("launches", 1);
  const int orders = std::min(settings().orders, 3);
  if (orders <= 0) return Result::success;
  const std::vector<const Allocation*> touched = reachable(launch.words);
  Accesses noted;
  noted.memory = touched;
  accesses = &noted;
  std::string fault;
  Result result = Result::launch_failed;
  for (const Allocation* a : touched)
    if (a->device >= 0 && a->device != launch.device) {
      fault = "runs on device " + std::to_string(launch.device) + " with memory of device " +
              std::to_string(a->device);
      result = Result::illegal_address;
    }
  if (fault.empty() && orders == 1) {
    fault = run_guarded(launch, Order::forward, &result);
  } else if (fault.empty()) {
    const Snapshot before(touched);
    fault = run_guarded(launch, Order::forward, &result);
    accesses = nullptr;  // of one order
    if (fault.empty()) {
      const Snapshot after(touched);
      for (int i = 1; i < orders && fault.empty(); ++i) {
        before.restore();
        fault = run_guarded(launch, static_cast<Order>(i), &result);
        if (!fault.empty()) break;
        fault = after.difference();
        if (!fault.empty())
          fault = std::string("its result depends on the order of the threads (forward and ") +
                  kOrderNames[i] + "): " + fault;
      }
    }
  }
  accesses = nullptr;
  add("global_loads", noted.loads);
  add("global_stores", noted.stores);
  add("global_loaded_bytes", noted.loaded_bytes);
  add("global_stored_bytes", noted.stored_bytes);
  if (fault.empty()) return Result::success;
  say("kernel " + launch.function.name + ", " + shape(launch.grid) + " blocks of " + shape(launch.block) +
      " threads: " + fault);
  return result;
}

}  // namespace sim_gpu
