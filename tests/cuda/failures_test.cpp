// Each call into the driver, NVRTC and cuBLASLt that a traced step makes fails in turn: the step gives an
// Error or completes, parameters are as at its start or as after it, nothing leaks, and the next step works.
#include <sys/wait.h>

#include <cstdlib>

#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

struct Net : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 4, 8);
  td::nn::Linear out = child<td::nn::Linear>("out", 8, 3);
  Tensor forward(const Tensor& x) { return out(td::relu(hidden(x))); }
};

std::vector<std::vector<float>> values(Net& net) {
  std::vector<std::vector<float>> all;
  for (const Tensor& p : net.parameters()) all.push_back(p.to_vector<float>());
  return all;
}

/// Steps of one program in which call number `failing` of the second step fails; 0: none. Returns whether the
/// call was reached.
bool steps_with_failure(long failing, const std::vector<std::vector<float>>& expected,
                        std::vector<std::vector<float>>* after) {
  td::manual_seed(5);
  Net net;
  net.to(kCuda);
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  const Tensor x = td::randn({6, 4}).to(kCuda), y = td::randint(0, 3, {6}).to(kCuda);
  auto step = td::trace([&](const Tensor& in, const Tensor& labels) {
    const Tensor loss = td::cross_entropy(net.forward(in), labels);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });
  const Simulator& sim = simulator();
  td::cuda::synchronize();
  const auto start = values(net);
  sim.sim_gpu_fail_call(failing);
  bool threw = false;
  try {
    step(x, y);
    td::cuda::synchronize();
  } catch (const td::Error&) {
    threw = true;
  }
  const bool reached = failing && std::string(sim.sim_gpu_failed_call()) != "";
  sim.sim_gpu_fail_call(0);
  if (threw) {
    CAPTURE(failing, sim.sim_gpu_failed_call());
    const auto now = values(net);
    CHECK((now == start || now == expected));  // not begun, or complete and the read failed
    if (now == start) step(x, y).item<float>();
  }
  *after = values(net);
  return reached;
}

}  // namespace

TEST_CASE("cuda failures: every call of a traced step may fail", "[cuda]") {
  if (!simulator().there) return;  // a card does not fail on demand
  std::vector<std::vector<float>> expected, after;
  steps_with_failure(0, {}, &expected);
  steps_with_failure(1, expected, &after);  // what is compiled for the way after a failure stays
  int reached = 0;
  for (long failing = 1; failing <= 200; ++failing) {
    const int64_t live = td::cuda::memory_stats().live_bytes;
    CAPTURE(failing);
    if (!steps_with_failure(failing, expected, &after)) break;
    ++reached;
    CHECK(after == expected);
    CHECK(td::cuda::memory_stats().live_bytes == live);
  }
  CHECK(reached > 20);
}

TEST_CASE("cuda failures: every call of a process's first traced step may fail", "[cuda][simulator]") {
  if (!simulator().there) return;
  // Compilations and loads are among them: nothing comes from a cache.
  int reached = 0;
  for (int failing = 1; failing <= 200; ++failing) {
    const std::string command = "TANDEM_CACHE_DIR=off SIM_GPU_ORDERS=1 " TANDEM_FIRST_STEP " " +
                                std::to_string(failing) + " 2>/dev/null";
    const int status = std::system(command.c_str());
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2) break;
    CAPTURE(failing);
    CHECK(WEXITSTATUS(status) == 0);
    ++reached;
  }
  CHECK(reached > 30);
}

TEST_CASE("cuda failures: a frozen call that fails between two launches has changed what it changed",
          "[cuda]") {
  const Simulator& sim = simulator();
  if (!sim.there) return;
  int half_done = 0, reached = 0;
  for (long failing = 1; failing <= 100; ++failing, ++reached) {
    CAPTURE(failing);
    const Tensor first = td::ones({8, 16}, {.device = kCuda}), second = td::ones({16, 8}, {.device = kCuda});
    const Tensor x = td::ones({8, 16}, {.device = kCuda});
    auto traced = td::trace([&](const Tensor& in) {
      first.add_(in);
      const Tensor product = td::mm(in, second);  // of a library, so that nothing joins the two
      second.add_(product.sum());
      return product;
    });
    for (int i = 0; i < 3; ++i) traced(x);
    auto frozen = traced.freeze();
    const Tensor p = td::ones({8, 16}, {.device = kCuda, .requires_grad = true});
    const Tensor kept = (p * first).sum();  // its gradient needs the elements of now
    const std::vector<float> before = first.to_vector<float>();
    bool threw = false;
    {
      const auto profile = td::profile("");  // one launch after another
      sim.sim_gpu_fail_call(failing);
      try {
        frozen(x);
      } catch (const td::Error&) {
        threw = true;
      }
    }
    const bool failed = std::string(sim.sim_gpu_failed_call()) != "";
    sim.sim_gpu_fail_call(0);
    if (!failed) break;
    const bool changed = first.to_vector<float>() != before;
    if (changed)
      CHECK_THROWS_AS(kept.backward(), td::Error);
    else
      CHECK_NOTHROW(kept.backward());
    half_done += threw && changed;
  }
  CHECK(reached > 3);
  CHECK(half_done > 0);
}
