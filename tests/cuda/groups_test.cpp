// What a training step does to all parameters is a launch or a few, however many there are: updates, the
// clipping of gradients by their norm, the casts of autocast, what GradScaler looks at.
#include <optional>

#include "benchmarks/bench/models.h"
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

enum class With { nothing, clipping, autocast, scaling };

/// Nodes of the graph of a transformer's step: 12 parameters a layer.
td::TraceReport plan_of(int layers, With with) {
  td::manual_seed(1);
  bench::Transformer net({layers, 32, 2, 8, 16, true});
  net.to(kCuda);
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
  td::optim::GradScaler scaler({.device = kCuda});
  auto step = td::trace([&](const Tensor& x, const Tensor& y) {
    Tensor loss;
    {
      std::optional<td::Autocast> cast;
      if (with == With::autocast || with == With::scaling) cast.emplace(td::bfloat16);
      loss = td::cross_entropy(net.forward(x), y);
    }
    opt.zero_grad();
    if (with == With::scaling) {
      scaler.scale(loss).backward();
      scaler.step(opt);
      scaler.update();
      return loss;
    }
    loss.backward();
    if (with == With::clipping) td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
    opt.step();
    return loss;
  });
  const Tensor x = td::randint(0, 16, {2, 8}).to(kCuda), y = td::randint(0, 16, {16}).to(kCuda);
  for (int i = 0; i < 4; ++i) step(x, y);
  return step.report();
}

}  // namespace

TEST_CASE("cuda groups: a transformer of four layers is at most 130 launches", "[cuda]") {
  need_device();
  const td::TraceReport r = plan_of(4, With::nothing);
  INFO(r);
  CHECK(r.entries <= 130);
  CHECK(r.graph_nodes <= 130);
  CHECK(r.natives == 2);  // the embeddings' gradients
}

TEST_CASE("cuda groups: an MLP is at most 15 launches", "[cuda]") {
  need_device();
  td::manual_seed(1);
  bench::Mlp net(64);
  net.to(kCuda);
  td::optim::Adam opt(net.parameters(), {.lr = 1e-3});
  auto step = td::trace([&](const Tensor& x, const Tensor& y) {
    const Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });
  const Tensor x = td::rand({64, 64}).to(kCuda), y = td::randint(0, 10, {64}).to(kCuda);
  for (int i = 0; i < 4; ++i) step(x, y);
  const td::TraceReport r = step.report();
  INFO(r);
  CHECK(r.products == 8);
  CHECK(r.entries <= 15);
  CHECK(r.graph_nodes <= 15);
}

TEST_CASE("cuda groups: a norm's gradients are a walk over its rows and a launch that joins", "[cuda]") {
  need_device();
  td::manual_seed(2);
  const Tensor x = td::randn({2112, 1000}), dy = td::randn({2112, 1000}), weight = td::randn(1000),
               bias = td::randn(1000);
  const auto gradients = [&](td::Device device) {
    td::TensorList leaves;
    for (const Tensor& t : {x, weight, bias}) {
      leaves.push_back(t.detach().to(device));
      leaves.back().requires_grad_();
    }
    const Tensor y = td::layer_norm(leaves[0], 1, leaves[1], leaves[2]), g = dy.to(device);
    auto step =
        td::trace([&] { return td::autograd::grad(std::span(&y, 1), leaves, std::span(&g, 1), true); });
    td::TensorList found;
    for (int i = 0; i < 3; ++i) found = step();
    if (device == kCuda) CHECK(step.report().graph_nodes == 2);
    return found;
  };
  const td::TensorList host = gradients(td::cpu), device = gradients(kCuda);
  for (size_t i = 0; i < host.size(); ++i) {
    CAPTURE(i, (host[i] - device[i].to(td::cpu)).abs().amax().item<float>());
    CHECK((bits_of(host[i]) == bits_of(device[i])));
  }
}

TEST_CASE("cuda groups: clipping and scaling are a few launches for all parameters", "[cuda]") {
  need_device();
  const auto nodes = [](With with) { return plan_of(2, with).graph_nodes; };
  const int64_t plain = nodes(With::nothing), clipped = nodes(With::clipping), cast = nodes(With::autocast),
                scaled = nodes(With::scaling);
  CAPTURE(plain, clipped, cast, scaled);
  CHECK(clipped <= plain + 6);
  CHECK(cast <= plain + 16);
  CHECK(scaled <= cast + 18);
}
