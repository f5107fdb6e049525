// The first traced step of a process on a CUDA device, in which call number argv[1] into the driver, NVRTC or
// cuBLASLt fails: nothing is compiled, loaded or allocated yet. Exits with 0 if the call gave an Error or was
// survived, parameters were as before, and the step then works; with 2 if there was no such call; else says
// what went wrong.
#include <cstdio>
#include <cstdlib>

#include "tandem/tandem.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using td::Tensor;

namespace {

int wrong(const char* what) {
  std::printf("%s (call %s)\n", what, tandem::test::simulator().sim_gpu_failed_call());
  return 1;
}

int run(long failing) {
  const td::Device cuda{td::DeviceType::cuda, 0};
  td::manual_seed(5);
  const Tensor w = td::randn({4, 3}), x = td::randn({6, 4}), y = td::randint(0, 3, {6});
  const Tensor weight = w.to(cuda).requires_grad_(), in = x.to(cuda), labels = y.to(cuda);
  td::optim::SGD opt({weight}, {.lr = 0.1});
  auto step = td::trace([&](const Tensor& a, const Tensor& b) {
    const Tensor loss = td::cross_entropy(td::matmul(td::tanh(a), weight), b);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });
  const std::vector<float> start = weight.to_vector<float>();
  tandem::test::simulator().sim_gpu_fail_call(failing);
  bool threw = false;
  try {
    step(in, labels);
    td::cuda::synchronize();
  } catch (const td::Error&) {
    threw = true;
  }
  const bool reached = tandem::test::simulator().sim_gpu_failed_call()[0] != 0;
  tandem::test::simulator().sim_gpu_fail_call(0);
  if (!reached) return 2;
  const std::vector<float> now = weight.to_vector<float>();
  if (!threw && now == start) return wrong("no error, and no step");
  if (now == start) step(in, labels).item<float>();

  // The same on the CPU.
  const Tensor host = w.clone().requires_grad_();
  td::cross_entropy(td::matmul(td::tanh(x), host), y).backward();
  const Tensor expected = host.detach() - host.grad() * 0.1f;
  const std::vector<float> after = weight.to_vector<float>(), wanted = expected.to_vector<float>();
  for (size_t i = 0; i < after.size(); ++i)
    if (std::abs(after[i] - wanted[i]) > 1e-5f) return wrong("another result");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return argc == 2 ? run(std::atol(argv[1])) : wrong("one number is expected");
  } catch (const std::exception& e) {
    return wrong(e.what());
  }
}
