// What the host pays on a CUDA device: eager calls of 4 floats, and the MLP's traced step beside its checks.
// On the simulated GPU (TANDEM_CUDA_PATH), with SIM_GPU_ORDERS=0, launches are empty, so that all that is
// left is the host's; there the calls into the driver are counted too.
#include "tandem/core/cuda/cuda.h"

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "benchmarks/bench/device_counts.h"
#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/cuda/runtime.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/executable.h"

namespace bench {

namespace {

const td::Device kCuda{td::DeviceType::cuda, 0};

template <class F>
void print_counts(const char* what, F&& f) {
  for (int i = 0; i < 4; ++i) f();
  constexpr int kCalls = 10;
  const DeviceCounts before = device_counts();
  for (int i = 0; i < kCalls; ++i) f();
  const DeviceCounts after = device_counts();
  std::printf("cuda: %s: %.1f calls into the driver, of which %.1f launches and %.1f launches of graphs\n",
              what, double(after.calls - before.calls) / kCalls,
              double(after.launches - before.launches) / kCalls,
              double(after.graphs - before.graphs) / kCalls);
}

}  // namespace

std::vector<Row> cuda() {
  if (!td::cuda::is_available()) {
    std::printf("cuda: left out: %s\n", td::cuda::why_not_available().c_str());
    return {};
  }
  td::manual_seed(1);
  const td::Tensor a = td::rand({4}).to(kCuda), b = td::rand({4}).to(kCuda);
  const td::Tensor g = td::rand({4}).to(kCuda).requires_grad_();
  const Recipe& mlp = recipe("host_mlp");
  const auto full = std::make_shared<Training>(mlp, kCuda), checked = std::make_shared<Training>(mlp, kCuda),
             eager = std::make_shared<Training>(mlp, kCuda);
  const td::Tensor &x = full->batch(0)[0], &y = full->batch(0)[1];
  auto step = td::trace([full](td::Tensor a, td::Tensor b) { return full->step(a, b); });
  auto checks = td::trace([checked](td::Tensor a, td::Tensor b) { return checked->step(a, b); });
  {
    const td::jit::WithoutEntries scope;
    for (int i = 0; i < 3; ++i) checks(x, y);
  }
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  const td::cuda::Function nothing = td::jit::cuda_function(
      device, "tandem_nothing",
      "extern \"C\" __global__ void tandem_nothing(td_i64 unused) { (void)unused; }\n");
  int64_t word = 0;
  void* parameters[] = {&word};
  const auto launch = [&] {
    device.check(device.api().launch(nothing, 1, 1, 1, 32, 1, 1, 0, device.stream(), parameters, nullptr),
                 "cuLaunchKernel");
  };
  // Blocks are short, so that a card's queue does not fill and the host never waits inside of one.
  const auto block = [](int calls, auto f) {
    return [calls, f]() mutable {
      td::cuda::synchronize();
      return time_us(calls, f);
    };
  };
  const auto until_done = [](auto f) {
    return [f]() mutable {
      constexpr int kCalls = 100;
      return time_us(1,
                     [&] {
                       for (int i = 0; i < kCalls; ++i) f();
                       td::cuda::synchronize();
                     }) /
             kCalls;
    };
  };
  const bool simulated = device_counts().calls > 0;
  const char* const orders = std::getenv("SIM_GPU_ORDERS");
  const bool empty = simulated && orders && std::string(orders) == "0";
  const int scale = empty ? 10 : 1;
  td::Tensor kept;
  const std::vector<Part> parts = {
      {"empty launch", block(200 * scale, launch)},
      {"add, 4 floats", block(200 * scale, [=] { td::add(a, b); })},
      {"add, 4 floats, gradient noted", block(200 * scale, [=] { td::add(g, b); })},
      {"mul by a number, 4 floats", block(200 * scale, [=] { td::mul(a, 0.5); })},
      {"traced MLP step", block(50 * scale, [&] { step(x, y); })},
      {"the same, the last result held", block(50 * scale, [&] { kept = step(x, y); })},
      {"its checks alone", block(50 * scale, [&] { checks(x, y); })},
      {"eager MLP step", block(5 * scale, [&] { eager->step(x, y); })},
      {"traced MLP step, until done", until_done([&] { step(x, y); })},
      {"eager MLP step, until done", until_done([&] { eager->step(x, y); })},
  };
  std::vector<Row> rows = interleave("cuda", parts, 31);
  rows.push_back({"cuda", "traced MLP step beside its checks", rows[4].median_us - rows[6].median_us,
                  rows[4].min_us - rows[6].min_us, 0});
  if (simulated) {
    print_counts("add", [&] { td::add(a, b); });
    print_counts("add, gradient noted", [&] { td::add(g, b); });
    print_counts("traced MLP step", [&] { step(x, y); });
    print_counts("the same, the last result held", [&] { kept = step(x, y); });
    print_counts("the same, inputs that move", [&] { step(x.clone(), y.clone()); });
    print_counts("those inputs alone", [&] { x.clone(), y.clone(); });
    print_counts("eager MLP step", [&] { eager->step(x, y); });
  }
  const td::TraceReport r = step.report();
  if (r.recorded != 1 || r.op_by_op || r.eager_calls)
    std::fprintf(stderr, "bench: the step was not replayed: its figures mean nothing\n");
  return rows;
}

}  // namespace bench
