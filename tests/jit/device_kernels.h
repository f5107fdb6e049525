// Kernels of the IR on a CUDA device as tests run them: the simulated one under ctest label sim_gpu, a card
// under label gpu. Memory has exact sizes, so that the simulated device finds what lies outside. One thread.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/kernel_table.h"
#include "tandem/jit/print_cuda.h"
#include "tests/catch.h"
#include "tests/jit/random_kernels.h"

namespace tandem::jit::samples {

/// The device; a test that needs one fails without: it is only run where there should be one.
inline cuda::Runtime& test_device() {
  if (!cuda::is_available()) FAIL(cuda::why_not_available());
  return cuda::Runtime::of(Device{DeviceType::cuda, 0});
}

/// Bytes on the device. `skew`: how many bytes behind an address for 256 bytes they begin.
class DeviceBytes {
 public:
  DeviceBytes(cuda::Runtime& device, const std::string& bytes, size_t skew = 0)
      : device_(device), bytes_(bytes.size()), skew_(skew) {
    if (bytes_ == 0) return;
    device_.check(device_.api().allocate(&memory_, bytes_ + skew_), "cuMemAlloc");
    device_.copy_in(memory_ + skew_, bytes.data(), static_cast<int64_t>(bytes_));
  }
  ~DeviceBytes() {
    if (memory_) device_.api().release(memory_);
  }
  DeviceBytes(DeviceBytes&& o) noexcept
      : device_(o.device_), bytes_(o.bytes_), skew_(o.skew_), memory_(std::exchange(o.memory_, 0)) {}
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  cuda::Pointer at() const { return memory_ + skew_; }
  std::string read() const {
    std::string out(bytes_, '\0');
    if (bytes_ > 0) device_.copy_out(out.data(), at(), static_cast<int64_t>(bytes_));
    return out;
  }

 private:
  cuda::Runtime& device_;
  size_t bytes_, skew_;
  cuda::Pointer memory_ = 0;
};

/// The kernels' functions, compiled by two threads.
inline std::vector<cuda::Function> device_functions(const std::vector<Case>& cases,
                                                    CudaForm form = CudaForm::one) {
  cuda::Runtime& device = test_device();
  std::vector<std::string> texts;
  for (const Case& c : cases) texts.push_back(to_string(c.k));
  std::vector<CudaKernel> kernels[2];
  for (size_t i = 0; i < cases.size(); ++i) kernels[i % 2].push_back({&cases[i].k, &texts[i], form});
  auto second = std::async(std::launch::async, [&] { return cuda_kernels(device, kernels[1]); });
  const std::vector<cuda::Function> made[2] = {cuda_kernels(device, kernels[0]), second.get()};
  std::vector<cuda::Function> out;
  for (size_t i = 0; i < cases.size(); ++i) out.push_back(made[i % 2][i / 2]);
  return out;
}

/// Runs the whole range of `c` (begin is 0) on the device, by so many blocks at most. `split`: how its rows
/// or columns are split over the grid, if they are; what should be 0 after that is checked.
inline Outcome run_on_device(const Case& c, cuda::Function function, size_t skew = 0,
                             unsigned most_blocks = ~0u, const SplitShape& split = {}) {
  cuda::Runtime& device = test_device();
  device.use();
  std::vector<DeviceBytes> memory;
  for (const std::string& bytes : c.buffers) memory.emplace_back(device, bytes, skew);
  const DeviceBytes error(device, std::string(8, '\0'));
  std::vector<int64_t> words;
  for (const DeviceBytes& m : memory) words.push_back(static_cast<int64_t>(m.at()));
  words.insert(words.end(), c.dims.begin(), c.dims.end());
  words.insert(words.end(), c.strides.begin(), c.strides.end());
  words.insert(words.end(), c.numbers.begin(), c.numbers.end());
  words.push_back(c.end);
  words.push_back(static_cast<int64_t>(error.at()));
  REQUIRE(static_cast<int>(words.size()) == cuda_words(c.k));
  const bool is_split = split.launch.grid > 0;
  const std::string zeros(static_cast<size_t>(4 * split.counters), '\0');
  const DeviceBytes counters(device, zeros),
      parts(device, std::string(static_cast<size_t>(split.bytes), '\x5a'));
  if (is_split) {
    words.push_back(static_cast<int64_t>(counters.at()));
    words.push_back(static_cast<int64_t>(parts.at()));
  }
  const LaunchShape shape = is_split ? split.launch : launch_shape(c.k, c.dims.data(), c.end);
  if (shape.grid > 0) {
    void* parameters[] = {words.data()};
    device.check(device.api().launch(function, std::min(shape.grid, most_blocks), 1, 1, shape.block, 1, 1,
                                     shape.shared_bytes, device.stream(), parameters, nullptr),
                 "cuLaunchKernel");
  }
  Outcome out;
  for (const DeviceBytes& m : memory) out.buffers.push_back(m.read());
  out.failed = error.read() != std::string(8, '\0');
  CHECK(counters.read() == zeros);
  return out;
}

/// Whether results on a card may be others than the CPU's: float64 functions are CUDA's, and so is the sign
/// of a computed NaN, which copysign shows.
inline bool may_differ_on_cards(const Kernel& k) {
  return std::any_of(k.scalars.nodes().begin(), k.scalars.nodes().end(), [&](const ops::ScalarNode& n) {
    switch (n.op) {
      case ScalarOp::exp:
      case ScalarOp::expm1:
      case ScalarOp::log:
      case ScalarOp::log1p:
      case ScalarOp::log2:
      case ScalarOp::sin:
      case ScalarOp::cos:
      case ScalarOp::tanh:
      case ScalarOp::erf:
      case ScalarOp::erfc:
      case ScalarOp::atan2:
      case ScalarOp::pow:
        return n.type == DType::float64;
      case ScalarOp::copysign:
        return true;
      default:
        return false;
    }
  });
}
/// A function of the simulated driver; null on a card.
inline void* simulator_function(const char* name) {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  return driver ? dlsym(driver, name) : nullptr;
}
/// Whether there is a card; asks for the device, for before that no driver is loaded that could be looked at.
inline bool is_card() { return tandem::cuda::is_available() && !simulator_function("sim_gpu_count"); }
/// What the simulated driver counts (tests/sim_gpu/control.h); -1 on a card.
inline long simulator_count(const char* what) {
  using Count = long (*)(const char*);
  const auto count = reinterpret_cast<Count>(simulator_function("sim_gpu_count"));
  return count ? count(what) : -1;
}

}  // namespace tandem::jit::samples
