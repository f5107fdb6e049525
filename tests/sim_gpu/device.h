// A simulated device for tests: its context made current, kernels from text, memory with values. Owned by the
// test; used by its thread.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "tests/catch.h"
#include "tests/sim_gpu/simulator.h"

namespace sim_gpu {

using tandem::cuda::Result;

inline const Simulator& sim() { return simulator(TANDEM_SIM_GPU); }

struct Compilation {
  int code = -1;
  std::string log, image;
};

inline Compilation compile(const std::string& text,
                           std::vector<const char*> options = {"--gpu-architecture=sm_90", "--fmad=false",
                                                               "-std=c++20"}) {
  const auto& nvrtc = sim().nvrtc;
  Compilation out;
  tandem::cuda::Nvrtc::Program program = nullptr;
  REQUIRE(nvrtc.create(&program, text.c_str(), "kernel.cu", 0, nullptr, nullptr) == 0);
  out.code = nvrtc.compile(program, static_cast<int>(options.size()), options.data());
  size_t bytes = 0;
  REQUIRE(nvrtc.log_size(program, &bytes) == 0);
  out.log.resize(bytes);
  REQUIRE(nvrtc.log(program, out.log.data()) == 0);
  out.log.pop_back();
  if (nvrtc.cubin_size(program, &bytes) == 0) {
    out.image.resize(bytes);
    REQUIRE(nvrtc.cubin(program, out.image.data()) == 0);
  }
  REQUIRE(nvrtc.destroy(&program) == 0);
  return out;
}

/// Makes device 0 current for this thread, forgets failures and sets the switches to their defaults.
class Device {
 public:
  explicit Device(int ordinal = 0) {
    REQUIRE(sim().driver.init(0) == Result::success);
    REQUIRE(sim().driver.context_retain(&context_, ordinal) == Result::success);
    REQUIRE(sim().driver.context_set(context_) == Result::success);
    sim().sim_gpu_fail_call(0);
    sim().sim_gpu_set_orders(3);
    sim().sim_gpu_set_lazy(0);
  }
  ~Device() { sim().driver.context_set(nullptr); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

 private:
  tandem::cuda::Context context_ = nullptr;
};

/// Memory on the device.
template <class T>
class Memory {
 public:
  explicit Memory(size_t n) : n_(n) {
    REQUIRE(sim().driver.allocate(&address_, n * sizeof(T)) == Result::success);
  }
  explicit Memory(const std::vector<T>& values) : Memory(values.size()) { set(values); }
  ~Memory() { sim().driver.release(address_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void set(const std::vector<T>& values) {
    REQUIRE(values.size() == n_);
    REQUIRE(sim().driver.copy_to_device(address_, values.data(), n_ * sizeof(T), nullptr) == Result::success);
  }
  std::vector<T> get() const {
    std::vector<T> out(n_);
    REQUIRE(sim().driver.copy_to_host(out.data(), address_, n_ * sizeof(T), nullptr) == Result::success);
    REQUIRE(sim().driver.stream_synchronize(nullptr) == Result::success);
    return out;
  }
  tandem::cuda::Pointer address() const { return address_; }
  T* pointer() const { return reinterpret_cast<T*>(address_); }

 private:
  size_t n_;
  tandem::cuda::Pointer address_ = 0;
};

/// A compiled text with its kernels.
class Kernels {
 public:
  explicit Kernels(const std::string& text) {
    const Compilation compiled = compile(text);
    INFO(compiled.log);
    REQUIRE(compiled.code == 0);
    REQUIRE(sim().driver.module_load(&module_, compiled.image.data()) == Result::success);
  }
  ~Kernels() { sim().driver.module_unload(module_); }
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  tandem::cuda::Function find(const char* name) const {
    tandem::cuda::Function function = nullptr;
    REQUIRE(sim().driver.module_function(&function, module_, name) == Result::success);
    return function;
  }
  template <class... A>
  Result launch(const char* name, unsigned grid, unsigned block, A... arguments) const {
    return launch_on(nullptr, name, grid, block, 0, arguments...);
  }
  template <class... A>
  Result launch_on(tandem::cuda::StreamHandle stream, const char* name, unsigned grid, unsigned block,
                   unsigned shared, A... arguments) const {
    void* parameters[] = {&arguments..., nullptr};
    return sim().driver.launch(find(name), grid, 1, 1, block, 1, 1, shared, stream, parameters, nullptr);
  }

 private:
  tandem::cuda::Module module_ = nullptr;
};

}  // namespace sim_gpu
