// Memory, copies, streams, events, handles; and failures on demand.
#include <thread>

#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Kernels;
using sim_gpu::Memory;
using sim_gpu::Result;
using sim_gpu::sim;
using tandem::cuda::Pointer;

namespace {

constexpr char kScale[] = R"(
  extern "C" __global__ void td_scale(float* x, float by) { x[threadIdx.x] *= by; })";

}  // namespace

TEST_CASE("devices and contexts") {
  const auto& d = sim().driver;
  const Device device;
  int n = 0, value = 0;
  REQUIRE(d.device_count(&n) == Result::success);
  CHECK(n == 1);
  CHECK(d.device_get(&value, 1) == Result::invalid_device);
  REQUIRE(d.device_attribute(&value, tandem::cuda::kMajor, 0) == Result::success);
  CHECK(value == 9);
  REQUIRE(d.device_attribute(&value, tandem::cuda::kMultiprocessors, 0) == Result::success);
  CHECK(value == 132);
  const char* text = nullptr;
  REQUIRE(d.error_name(Result::out_of_memory, &text) == Result::success);
  CHECK(std::string(text) == "CUDA_ERROR_OUT_OF_MEMORY");
  Result elsewhere = Result::success;
  std::thread([&] {
    Pointer p = 0;
    elsewhere = d.allocate(&p, 4);  // a thread without a context
  }).join();
  CHECK(elsewhere == Result{201});
}

TEST_CASE("memory is counted, copied in its bounds, and given back once") {
  const auto& d = sim().driver;
  const Device device;
  const long before = sim().sim_gpu_count("live_bytes"), blocks = sim().sim_gpu_count("live_allocations");
  Pointer a = 0, b = 0;
  REQUIRE(d.allocate(&a, 10) == Result::success);
  REQUIRE(d.allocate(&b, 10) == Result::success);
  CHECK(a % 256 == 0);
  CHECK(sim().sim_gpu_count("live_bytes") == before + 20);
  char text[11] = "0123456789";
  CHECK(d.copy_to_device(a, text, 10, nullptr) == Result::success);
  CHECK(d.copy_on_device(b, a, 10, nullptr) == Result::success);
  CHECK(d.fill_bytes(b + 4, 'x', 3, nullptr) == Result::success);
  CHECK(d.copy_to_host(text, b, 10, nullptr) == Result::success);
  CHECK(std::string(text) == "0123xxx789");
  CHECK(d.copy_to_device(a, text, 11, nullptr) == Result::invalid_value);
  CHECK(d.copy_to_host(text, b + 1, 10, nullptr) == Result::invalid_value);
  CHECK(d.fill_bytes(b + 10, 0, 1, nullptr) == Result::invalid_value);
  CHECK(d.copy_to_device(a, reinterpret_cast<const void*>(b), 4, nullptr) == Result::invalid_value);
  CHECK(d.release(a + 1) == Result::invalid_value);
  CHECK(d.release(a) == Result::success);
  CHECK(d.release(a) == Result::invalid_value);
  CHECK(d.release(b) == Result::success);
  CHECK(sim().sim_gpu_count("live_bytes") == before);
  CHECK(sim().sim_gpu_count("live_allocations") == blocks);
  CHECK(d.allocate(&a, size_t{1} << 60) == Result::out_of_memory);
  CHECK(d.allocate(&a, 0) == Result::invalid_value);
}

TEST_CASE("handles that are gone") {
  const auto& d = sim().driver;
  const Device device;
  tandem::cuda::StreamHandle stream = nullptr;
  tandem::cuda::EventHandle event = nullptr;
  REQUIRE(d.stream_create(&stream, 1) == Result::success);
  REQUIRE(d.event_create(&event, 2) == Result::success);
  CHECK(d.event_record(event, stream) == Result::success);
  CHECK(d.event_query(event) == Result::success);
  CHECK(d.event_destroy(event) == Result::success);
  CHECK(d.stream_destroy(stream) == Result::success);
  CHECK(d.stream_synchronize(stream) == Result{400});
  CHECK(d.event_record(event, nullptr) == Result{400});
  tandem::cuda::Function function = nullptr;
  const Memory<float> x(1);
  {
    const Kernels kernels(kScale);
    function = kernels.find("td_scale");
  }
  Pointer p = x.address();
  float by = 2;
  void* parameters[] = {&p, &by};
  CHECK(d.launch(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr) == Result{400});
}

TEST_CASE("images that are not ours, or for another device") {
  const auto& d = sim().driver;
  const Device device;
  tandem::cuda::Module module = nullptr;
  std::vector<char> image(4096, 'E');
  CHECK(d.module_load(&module, image.data()) == Result::invalid_image);
  const auto other = sim_gpu::compile(kScale, {"--gpu-architecture=sm_80"});
  REQUIRE(other.code == 0);
  CHECK(d.module_load(&module, other.image.data()) == Result::no_binary_for_gpu);
  const Kernels kernels(kScale);
  tandem::cuda::Function function = nullptr;
  const auto own = sim_gpu::compile(kScale);
  REQUIRE(d.module_load(&module, own.image.data()) == Result::success);
  CHECK(d.module_function(&function, module, "td_other") == Result::not_found);
  CHECK(d.module_unload(module) == Result::success);
}

TEST_CASE("options and programs that NVRTC refuses") {
  CHECK(sim_gpu::compile(kScale, {"--gpu-architecture=sm_90", "--nonsense"}).code == 5);
  CHECK(sim_gpu::compile(kScale, {"--gpu-architecture=compute_61"}).code == 5);
  CHECK(
      sim_gpu::compile(kScale, {"--gpu-architecture=sm_90", "-default-device", "--prec-div=true", "-DTD_X=1"})
          .code == 0);
  CHECK(sim_gpu::compile("int x = ;").code == 6);
}

TEST_CASE("launches that the driver refuses") {
  const Device device;
  const Kernels kernels(R"(
    extern "C" __global__ void __launch_bounds__(128, 2) td_some(float* x) { x[0] = 1; })");
  const Memory<float> x(1);
  CHECK(kernels.launch("td_some", 1, 128, x.pointer()) == Result::success);
  CHECK(kernels.launch("td_some", 1, 129, x.pointer()) == Result::launch_out_of_resources);
  CHECK(kernels.launch("td_some", 0, 128, x.pointer()) == Result::invalid_value);
  CHECK(kernels.launch("td_some", 1, 2048, x.pointer()) == Result::invalid_value);
  CHECK(kernels.launch_on(nullptr, "td_some", 1, 1, 1 << 20, x.pointer()) == Result::invalid_value);
}

TEST_CASE("lazy streams run as late as they may") {
  const auto& d = sim().driver;
  const Device device;
  const Kernels kernels(kScale);
  const Memory<float> x(std::vector<float>{1}), y(1);
  tandem::cuda::StreamHandle first = nullptr, second = nullptr;
  tandem::cuda::EventHandle event = nullptr;
  REQUIRE(d.stream_create(&first, 1) == Result::success);
  REQUIRE(d.stream_create(&second, 1) == Result::success);
  REQUIRE(d.event_create(&event, 2) == Result::success);
  float* host = nullptr;
  REQUIRE(d.allocate_host(reinterpret_cast<void**>(&host), 4) == Result::success);
  sim().sim_gpu_set_lazy(1);
  *host = 0;

  SECTION("pinned memory is read when the copy runs, pageable memory when it is given") {
    *host = 3;
    float pageable = 5;
    REQUIRE(d.copy_to_device(x.address(), host, 4, first) == Result::success);
    REQUIRE(d.copy_to_device(y.address(), &pageable, 4, first) == Result::success);
    *host = 4;
    pageable = 6;
    CHECK(d.stream_query(first) == Result::not_ready);
    REQUIRE(d.stream_synchronize(first) == Result::success);
    CHECK(x.get()[0] == 4);
    CHECK(y.get()[0] == 5);
  }
  SECTION("without a wait the second stream is first; with it, not") {
    for (const bool wait : {false, true}) {
      REQUIRE(d.fill_bytes(y.address(), 0, 4, first) == Result::success);
      REQUIRE(d.stream_synchronize(first) == Result::success);
      REQUIRE(d.copy_on_device(y.address(), x.address(), 4, first) == Result::success);
      REQUIRE(d.event_record(event, first) == Result::success);
      if (wait) REQUIRE(d.stream_wait(second, event, 0) == Result::success);
      REQUIRE(d.copy_to_host(host, y.address(), 4, second) == Result::success);
      REQUIRE(d.stream_synchronize(second) == Result::success);
      CHECK(*host == (wait ? 1.0f : 0.0f));
      REQUIRE(d.stream_synchronize(first) == Result::success);
    }
  }
  SECTION("a launch keeps its parameters, and its error comes late") {
    float by = 3;
    Pointer p = x.address();
    void* parameters[] = {&p, &by};
    REQUIRE(d.launch(kernels.find("td_scale"), 1, 1, 1, 1, 1, 1, 0, first, parameters, nullptr) ==
            Result::success);
    by = 100;
    REQUIRE(d.event_record(event, first) == Result::success);
    CHECK(d.event_query(event) == Result::not_ready);
    REQUIRE(d.event_synchronize(event) == Result::success);
    CHECK(x.get()[0] == 3);
  }
  sim().sim_gpu_set_lazy(0);
  CHECK(d.release_host(host) == Result::success);
  d.event_destroy(event);
  d.stream_destroy(first);
  d.stream_destroy(second);
}

TEST_CASE("each call that can fail does so on demand, and the next works") {
  const auto& d = sim().driver;
  const Device device;
  const auto image = sim_gpu::compile(kScale).image;
  // Each step works; made to fail, it gives its error and leaves nothing behind.
  const auto program = [&]() -> Result {
    Pointer p = 0;
    tandem::cuda::Module module = nullptr;
    tandem::cuda::Function function = nullptr;
    float value = 2, by = 3;
    void* parameters[] = {&p, &by};
    Result r = d.allocate(&p, 4);
    if (r != Result::success) return r;
    r = d.copy_to_device(p, &value, 4, nullptr);
    if (r == Result::success) r = d.module_load(&module, image.data());
    if (r == Result::success) r = d.module_function(&function, module, "td_scale");
    if (r == Result::success) r = d.launch(function, 1, 1, 1, 1, 1, 1, 0, nullptr, parameters, nullptr);
    if (r == Result::success) r = d.stream_synchronize(nullptr);
    if (r == Result::success) r = d.copy_to_host(&value, p, 4, nullptr);
    if (r == Result::success) REQUIRE(value == 6);
    if (module != nullptr) d.module_unload(module);
    d.release(p);
    return r;
  };
  const long bytes = sim().sim_gpu_count("live_bytes"), modules = sim().sim_gpu_count("modules");
  const long begin = sim().sim_gpu_calls();
  REQUIRE(program() == Result::success);
  const long n = sim().sim_gpu_calls() - begin;
  CHECK(n == 7);
  const Result expected[] = {Result::out_of_memory, Result::launch_failed, Result::out_of_memory,
                             Result::not_found,     Result::launch_failed, Result::launch_failed,
                             Result::launch_failed};
  const char* const names[] = {"cuMemAlloc",          "cuMemcpyHtoDAsync", "cuModuleLoadData",
                               "cuModuleGetFunction", "cuLaunchKernel",    "cuStreamSynchronize",
                               "cuMemcpyDtoHAsync"};
  for (long i = 1; i <= n; ++i) {
    sim().sim_gpu_fail_call(i);
    CHECK(program() == expected[i - 1]);
    CHECK(std::string(sim().sim_gpu_failed_call()) == names[i - 1]);
    CHECK(program() == Result::success);
  }
  CHECK(sim().sim_gpu_count("live_bytes") == bytes);
  CHECK(sim().sim_gpu_count("modules") == modules);
  sim().sim_gpu_fail_call(2);  // the program is made, its compilation fails
  CHECK(sim_gpu::compile(kScale).code == 1);
  CHECK(sim_gpu::compile(kScale).code == 0);
}

TEST_CASE("events with timing know when they were reached") {
  const auto& d = sim().driver;
  const Device device;
  tandem::cuda::EventHandle first = nullptr, second = nullptr, plain = nullptr;
  REQUIRE(d.event_create(&first, 0) == Result::success);
  REQUIRE(d.event_create(&second, 0) == Result::success);
  REQUIRE(d.event_create(&plain, tandem::cuda::kEventWithoutTiming) == Result::success);
  float time_ms = -1;
  CHECK(d.event_elapsed(&time_ms, first, second) == Result{400});  // never recorded
  sim().sim_gpu_set_lazy(1);
  for (const auto event : {first, second, plain}) REQUIRE(d.event_record(event, nullptr) == Result::success);
  CHECK(d.event_elapsed(&time_ms, first, second) == Result::not_ready);
  REQUIRE(d.event_synchronize(second) == Result::success);
  CHECK(d.event_elapsed(&time_ms, first, second) == Result::success);
  CHECK(time_ms >= 0);
  CHECK(d.event_elapsed(&time_ms, first, plain) == Result{400});
  for (const auto event : {first, second, plain}) CHECK(d.event_destroy(event) == Result::success);
}

TEST_CASE("a thread's current context can be asked for") {
  const auto& d = sim().driver;
  tandem::cuda::Context found = nullptr;
  {
    const Device device;
    REQUIRE(d.context_get(&found) == Result::success);
    CHECK(found != nullptr);
  }
  REQUIRE(d.context_get(&found) == Result::success);
  CHECK(found == nullptr);
}

TEST_CASE("PTX runs on devices of its architecture and newer ones, machine code on its own alone") {
  const auto& d = sim().driver;
  const Device device;
  const auto load = [&](const char* target, bool ptx) {
    const auto& nvrtc = sim().nvrtc;
    tandem::cuda::Nvrtc::Program program = nullptr;
    REQUIRE(nvrtc.create(&program, kScale, "kernel.cu", 0, nullptr, nullptr) == 0);
    const std::string option = std::string("--gpu-architecture=") + target;
    const char* const options[] = {option.c_str()};
    REQUIRE(nvrtc.compile(program, 1, options) == 0);
    size_t bytes = 0;
    REQUIRE((ptx ? nvrtc.ptx_size : nvrtc.cubin_size)(program, &bytes) == 0);
    std::string code(bytes, '\0');
    REQUIRE((ptx ? nvrtc.ptx : nvrtc.cubin)(program, code.data()) == 0);
    REQUIRE(nvrtc.destroy(&program) == 0);
    tandem::cuda::Module module = nullptr;
    const Result result = d.module_load(&module, code.data());
    if (module != nullptr) d.module_unload(module);
    return result;
  };
  CHECK(load("sm_90", false) == Result::success);
  CHECK(load("compute_80", true) == Result::success);
  CHECK(load("sm_80", false) == Result::no_binary_for_gpu);
  CHECK(sim_gpu::compile(kScale, {"--gpu-architecture=sm_61"}).code == 5);
  int count = 0;
  REQUIRE(sim().nvrtc.supported_count(&count) == 0);
  std::vector<int> known(static_cast<size_t>(count));
  REQUIRE(sim().nvrtc.supported(known.data()) == 0);
  CHECK(known.back() == 90);
}
