// What a library queues for a traced segment is captured, whatever it does at its first call; a segment of
// which something cannot be captured runs without a graph.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"
#include "tests/log_capture.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

/// What may be captured, while this lives (control.h).
struct Captures {
  explicit Captures(int captures) { simulator().sim_gpu_set_captures(captures); }
  ~Captures() { simulator().sim_gpu_set_captures(2); }
};

struct Net : td::nn::Module {
  td::nn::Conv2d image = child<td::nn::Conv2d>("image", 3, 4, 3);
  td::nn::Linear out = child<td::nn::Linear>("out", 64, 5);
  Tensor forward(const Tensor& x) { return out(td::relu(image(x)).view({-1, 64})); }
};

std::vector<std::vector<char>> trained(bool traced, td::TraceReport* report = nullptr) {
  td::manual_seed(4);
  Net net;
  net.to(kCuda);
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  const auto body = [&](const Tensor& x, const Tensor& y) {
    const Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
  auto step = td::trace(body);
  std::vector<std::vector<char>> out;
  for (int i = 0; i < 5; ++i) {
    const Tensor x = td::randn({2, 3, 6, 6}).to(kCuda), y = td::randint(0, 5, {2}).to(kCuda);
    out.push_back(bits_of(traced ? step(x, y) : body(x, y)));
  }
  for (const Tensor& p : net.parameters()) out.push_back(bits_of(p));
  if (report) *report = step.report();
  return out;
}

}  // namespace

TEST_CASE("cuda capture: libraries may do in it what only a relaxed capture allows", "[cuda]") {
  need_device();
  if (!simulator().there) return;  // a card's libraries do what they do
  const auto expected = trained(false);
  const Captures relaxed(1);
  const LogCapture log;
  const long before = simulator().sim_gpu_count("graph_launches");
  CHECK(trained(true) == expected);
  CHECK(simulator().sim_gpu_count("graph_launches") - before >= 4);
  CHECK(log.warnings().empty());
}

TEST_CASE("cuda capture: what cannot be captured is launched step by step", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  const auto expected = trained(false);
  const Captures none(0);
  const LogCapture log;
  const long before = simulator().sim_gpu_count("graph_launches");
  td::TraceReport report;
  CHECK(trained(true, &report) == expected);
  CHECK(simulator().sim_gpu_count("graph_launches") == before);
  CHECK(report.eager_calls == 0);
  REQUIRE(log.warnings().size() == 1);
  CHECK_THAT(log.warnings()[0], Contains("without a CUDA graph"));
}

TEST_CASE("cuda capture: another call than a segment's first may be refused", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  auto f = td::trace([](const Tensor& x, const Tensor& w) { return td::relu(td::matmul(x, w)); });
  const Tensor w = td::randn({6, 7}).to(kCuda);
  std::vector<Tensor> kept;  // so that operands move
  for (int i = 0; i < 6; ++i) {
    const Tensor x = td::randn({5, 6}).to(kCuda);
    const Captures some(i == 3 ? 0 : 2);
    kept.push_back(x), kept.push_back(f(x, w));
    CHECK(bits_of(kept.back()) == bits_of(td::relu(td::matmul(x, w))));
  }
}
