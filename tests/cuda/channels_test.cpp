// Batch norm, pooling and interpolation in training steps on the device: traced and eager bit for bit, near
// the CPU.
#include "tests/cuda/on_device.h"

namespace td = tandem;
namespace nn = tandem::nn;
using namespace tandem::test;
using td::Tensor;

namespace {

struct Net : nn::Module {
  nn::BatchNorm2d norm = child<nn::BatchNorm2d>("norm", 2);
  nn::MaxPool2d pool = child<nn::MaxPool2d>("pool", 3, 2, 1);
  nn::AvgPool2d mean = child<nn::AvgPool2d>("mean", 2, 1);
  nn::GroupNorm groups = child<nn::GroupNorm>("groups", 2, 2);
  nn::Upsample wider = child<nn::Upsample>(
      "wider", td::InterpolateOptions{.scale_factor = {1.5}, .mode = td::Interpolation::bilinear});
  Tensor forward(const Tensor& x) { return wider(groups(mean(pool(norm(x))))); }
};

struct Outcome {
  std::vector<float> numbers;
  td::TraceReport report;
};

Outcome train(td::Device device, bool traced) {
  td::manual_seed(3);
  Net net;
  net.to(device);
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  const auto body = [&](const Tensor& x) {
    const Tensor loss = net.forward(x).square().mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
  auto step = td::trace(body);
  Outcome out;
  for (int i = 0; i < 4; ++i) {
    const Tensor x = td::randn({3, 2, 6, 7}).to(device);
    out.numbers.push_back((traced ? step(x) : body(x)).item<float>());
  }
  for (const td::NamedTensor& n : net.state())
    for (const float v : n.tensor.to_vector<float>()) out.numbers.push_back(v);
  out.report = step.report();
  return out;
}

}  // namespace

TEST_CASE("cuda channels: traced and eager steps are equal bit for bit, and near the CPU's", "[cuda]") {
  need_device();
  const Outcome eager = train(kCuda, false), traced = train(kCuda, true), host = train(td::cpu, false);
  CHECK(eager.numbers == traced.numbers);
  CHECK(traced.report.recorded == 1);
  CHECK(traced.report.op_by_op == 0);
  REQUIRE(host.numbers.size() == eager.numbers.size());
  for (size_t i = 0; i < host.numbers.size(); ++i)
    CHECK(eager.numbers[i] == Approx(host.numbers[i]).epsilon(1e-4).margin(1e-5));
}
