// A training step on the device: traced and eager bit for bit, near the CPU, one plan, no leak.
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

struct Training {
  SmallNet net;
  std::unique_ptr<td::optim::AdamW> opt;
  explicit Training(td::Device device) {
    net.to(device);
    opt = std::make_unique<td::optim::AdamW>(net.parameters(), td::optim::AdamWOptions{.lr = 1e-2});
  }
  Tensor step(const Tensor& x, const Tensor& y) {
    const Tensor loss = td::cross_entropy(net.forward(x), y);
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss;
  }
};

std::vector<float> losses(td::Device device, bool traced, int steps, td::TraceReport* report = nullptr) {
  td::manual_seed(3);
  Training training(device);
  auto step = td::trace([&](const Tensor& x, const Tensor& y) { return training.step(x, y); });
  std::vector<float> out;
  for (int i = 0; i < steps; ++i) {
    const Tensor x = td::randn({8, 16}).to(device);
    const Tensor y = td::randint(0, 10, {8}).to(device);
    out.push_back((traced ? step(x, y) : training.step(x, y)).item<float>());
  }
  if (report) *report = step.report();
  return out;
}

}  // namespace

TEST_CASE("cuda training: traced and eager losses are equal bit for bit, and near the CPU's", "[cuda]") {
  need_device();
  td::TraceReport report;
  const std::vector<float> eager = losses(kCuda, false, 6), traced = losses(kCuda, true, 6, &report),
                           host = losses(td::cpu, false, 6);
  CHECK(eager == traced);
  CHECK(report.recorded == 1);
  CHECK(report.plans == 1);
  CHECK(report.op_by_op == 0);
  CHECK(report.graph_nodes >= report.entries);
  CHECK_THAT(td::to_string(report), Contains("in the graphs of all plans"));
  for (size_t i = 0; i < host.size(); ++i) CHECK(eager[i] == Approx(host[i]).epsilon(1e-4));
}

TEST_CASE("cuda training: nothing stays behind", "[cuda]") {
  need_device();
  losses(kCuda, true, 2);
  const auto before = td::cuda::memory_stats();
  losses(kCuda, true, 4);
  CHECK(td::cuda::memory_stats().live_bytes <= before.live_bytes + (1 << 20));
}

TEST_CASE("cuda training: a batch moved to the device inside the traced step, and the loss out of it",
          "[cuda]") {
  need_device();
  const auto run = [](bool traced) {
    td::manual_seed(2);
    const Tensor w = td::randn({4}).to(kCuda).requires_grad_();
    const auto body = [&](const Tensor& x) {
      const Tensor loss = (x.to(kCuda) * w).square().sum().to(td::cpu);
      w.zero_grad();
      loss.backward();
      const td::NoGrad no_grad;
      w.sub_(w.grad() * 0.1f);
      return loss;
    };
    auto f = td::trace(body);
    std::vector<float> out;
    for (int i = 0; i < 5; ++i) {
      const Tensor x = td::randn({4});
      out.push_back((traced ? f(x) : body(x)).item<float>());
    }
    const std::vector<float> last = w.detach().to_vector<float>();
    out.insert(out.end(), last.begin(), last.end());
    return out;
  };
  CHECK(run(false) == run(true));
}
