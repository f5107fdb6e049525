// Says which CUDA libraries a process found, or why none, and whether a step on the device is right; with the
// argument "cudnn", what cuDNN does with two convolutions, with "first call fails", while its first
// call does; with "modules", how many modules kernels need that are found on the disk one by one. For tests
// that set the environment: what is found is found once.
#include <cstdio>
#include <cstring>

#include "tandem/core/cuda/cudnn_api.h"
#include "tandem/core/cuda/libraries.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/cudnn.h"
#include "tandem/jit/precompile.h"
#include "tandem/tandem.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;

namespace {

bool between_devices() {
  bool right = true;
  for (int i = 0; i + 1 < td::cuda::device_count(); ++i) {
    const td::Device here{td::DeviceType::cuda, static_cast<uint8_t>(i)},
        there{td::DeviceType::cuda, static_cast<uint8_t>(i + 1)};
    const td::cuda::Stream a(here), b(there);
    const td::Tensor x = td::arange(0.f, 500).to(here);
    td::Tensor y;
    {
      const td::cuda::StreamGuard on_a(a), on_b(b);
      y = (x * 2.f).to(there) + 1.f;
      td::cuda::Event e;
      e.record(a);
      b.wait(e), b.wait(a);
    }
    const td::Tensor z = (y * 2.f).to(td::cpu, true), w = (x + 1.f).to(td::cpu, true);
    const std::vector<float> found = (z.to(here, true) + w.to(there, true).to(here)).to_vector<float>();
    for (size_t k = 0; k < found.size(); ++k) right &= found[k] == 5 * float(k) + 3;
  }
  return right;
}

void look_at_cudnn(td::Device device, bool fails) {
  if (const td::cuda::Cudnn* const api = td::cuda::cudnn())
    std::printf("cuDNN %zu\n", api->version());
  else
    std::printf("no cuDNN: %s\n", td::cuda::why_no_cudnn().c_str());
  td::jit::CudnnShape s;
  s.x = {1, 1, 4}, s.w = {1, 1, 3}, s.y = {1, 1, 2};
  s.x_strides = {4, 4, 1}, s.w_strides = {3, 3, 1}, s.y_strides = {2, 2, 1};
  s.pads = {0}, s.strides = {1}, s.dilations = {1};
  td::cuda::Runtime& runtime = td::cuda::Runtime::of(device);
  for (int i = 0; i < 2; ++i) {
    std::string why;
    if (fails && i == 0) td::test::simulator().sim_gpu_fail_call(1);
    if (td::jit::cudnn_convolution(runtime, s, &why)) why = "planned";
    std::printf("%s\n", why.c_str());
    s.direction = td::jit::CudnnDirection::weight;
  }
}

/// Kernels of one program, compiled for the first device, are asked for one by one for the second.
void look_at_modules() {
  std::vector<td::jit::Graph> graphs;
  for (const std::string op : {"exp", "neg", "tanh"})
    graphs.push_back(td::jit::parse_graph("graph {\n  %0 = input float32(5,) strides (1,)\n  %1 = " + op +
                                          "(%0) : float32(5,)\n  return %1\n}\n"));
  td::jit::precompile(graphs, {td::DeviceType::cuda, 0});
  const long before = td::test::simulator().sim_gpu_count("modules");
  for (const td::jit::Graph& g : graphs) td::jit::precompile({&g, 1}, {td::DeviceType::cuda, 1});
  const td::jit::CudaCompileStats stats = td::jit::cuda_compile_stats();
  std::printf("%ld programs, %ld kernels found, %ld and %ld modules\n", long(stats.compiles),
              long(stats.disk_hits), before, td::test::simulator().sim_gpu_count("modules") - before);
}

}  // namespace

int main(int argc, char** argv) try {
  const td::Device cuda{td::DeviceType::cuda, 0};
  if (!td::cuda::is_available()) {
    std::printf("missing: %s\n", td::cuda::why_not_available().c_str());
    return 0;
  }
  if (argc > 1 && std::strcmp(argv[1], "modules") == 0) {
    look_at_modules();
    return 0;
  }
  if (argc > 1) {
    look_at_cudnn(cuda, std::strcmp(argv[1], "first call fails") == 0);
    return 0;
  }
  int major = 0, minor = 0;
  td::cuda::nvrtc()->version(&major, &minor);
  std::printf("NVRTC %d.%d, cuBLASLt %zu\n", major, minor, td::cuda::cublaslt()->version());
  const td::Tensor x = td::arange(0.f, 4).to(cuda);
  std::printf("%s\n", td::relu(x - 2.f).sum().item<float>() == 1 && between_devices() ? "right" : "wrong");
  return 0;
} catch (const td::Error& e) {
  std::printf("error: %s\n", e.what());
  return 1;
}
