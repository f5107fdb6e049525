// Modules and launches: loading images, finding kernels, running one with all its blocks under every thread
// order. Used under the driver's lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim_gpu/driver/state.h"
#include "tests/sim_gpu/prelude_module.inc"

namespace sim_gpu {

/// A loaded shared object; unloaded with its last user.
class LoadedModule {
 public:
  static std::shared_ptr<LoadedModule> load(const void* image, Result* why);
  ~LoadedModule();
  LoadedModule(const LoadedModule&) = delete;
  LoadedModule& operator=(const LoadedModule&) = delete;

  const sim_module& table() const { return *table_; }

 private:
  LoadedModule() = default;

  void* library_ = nullptr;
  const sim_module* table_ = nullptr;
};

}  // namespace sim_gpu

namespace tandem::cuda {

struct FunctionOfDriver {
  std::string name;
  const sim_kernel* kernel;
  std::shared_ptr<sim_gpu::LoadedModule> module;
  unsigned dynamic_limit = sim_dynamic_limit;
};

struct ModuleOfDriver {
  std::shared_ptr<sim_gpu::LoadedModule> module;
  std::map<std::string, std::unique_ptr<FunctionOfDriver>> functions;
};

}  // namespace tandem::cuda

namespace sim_gpu {

/// A launch with copies of its parameters. Immutable once checked.
struct Launch {
  tandem::cuda::FunctionOfDriver function;
  sim_index grid{}, block{};
  unsigned shared_bytes = 0;
  int device = 0;
  std::vector<uint64_t> words;  // the parameters' bytes, each from an even word on
  std::vector<size_t> places;   // where each begins in words
};

/// Copies the parameters; an error if the driver would refuse the launch.
Result make_launch(const KernelNode& asked, const char* function, std::shared_ptr<const Launch>* launch);
Result run_launch(const Launch& launch);

}  // namespace sim_gpu
