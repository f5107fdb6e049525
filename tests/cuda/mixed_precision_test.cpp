// Autocast, GradScaler and checkpoint on the device: as on the CPU, eager and traced bit for bit, no read.
#include <cmath>

#include "tandem/ops/autocast.h"
#include "tests/cuda/on_device.h"
#include "tests/op_calls.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

struct Training {
  SmallNet net;
  std::unique_ptr<td::optim::AdamW> opt;
  td::optim::GradScaler scaler;
  bool recompute;
  Training(td::Device device, bool recompute)
      : scaler({.init_scale = 256, .growth_interval = 3, .device = device}), recompute(recompute) {
    net.to(device);
    opt = std::make_unique<td::optim::AdamW>(net.parameters(), td::optim::AdamWOptions{.lr = 1e-2});
  }
  Tensor step(const Tensor& x, const Tensor& y) {
    opt->zero_grad();
    Tensor loss;
    {
      const td::Autocast region(td::float16);
      const auto forward = [&](const Tensor& in) { return net.forward(in); };
      loss = td::cross_entropy(recompute ? td::checkpoint(forward, x) : forward(x), y);
    }
    scaler.scale(loss).backward();
    scaler.step(*opt);
    scaler.update();
    return loss.detach();
  }
};

struct Run {
  std::vector<float> losses;
  std::vector<char> bits;  // of all parameters, at the end
  double scale = 0;
  int64_t steps = 0;
  td::TraceReport report;
};
Run run(td::Device device, bool traced, bool recompute) {
  td::manual_seed(3);
  Training training(device, recompute);
  auto step = td::trace([&](const Tensor& x, const Tensor& y) { return training.step(x, y); });
  Run out;
  for (int i = 0; i < 7; ++i) {
    const Tensor x = td::randn({8, 16}), y = td::randint(0, 10, {8}).to(device);
    const Tensor in = (i == 2 ? x * HUGE_VAL : x).to(device);
    out.losses.push_back((traced ? step(in, y) : training.step(in, y)).item<float>());
  }
  for (const Tensor& p : training.net.parameters())
    for (const char c : bits_of(p)) out.bits.push_back(c);
  out.scale = training.scaler.get_scale();
  out.steps = training.opt->state()[7].tensor.item<int64_t>();
  out.report = step.report();
  return out;
}

}  // namespace

TEST_CASE("mixed precision: scaled steps in float16 on the device are those of the CPU", "[cuda]") {
  need_device();
  const Run host = run(td::cpu, false, false), eager = run(kCuda, false, false),
            traced = run(kCuda, true, false), again = run(kCuda, false, true);
  CHECK(eager.bits == traced.bits);
  CHECK(eager.bits == again.bits);
  for (size_t i = 0; i < host.losses.size(); ++i)
    if (i != 2) CHECK(eager.losses[i] == Approx(host.losses[i]).epsilon(1e-2));
  CHECK(std::isnan(eager.losses[2]));
  for (const Run* r : {&host, &eager, &traced, &again}) {
    CHECK(r->steps == 6);
    CHECK(r->scale == 256);  // halved once, doubled once
  }
  CHECK(traced.report.recorded == 1);
  CHECK(traced.report.segments == 1);
  CHECK(traced.report.op_by_op == 0);
}

TEST_CASE("autocast: rows of the table on the device", "[cuda]") {
  need_device();
  int ran = 0;
  for (int id = 0; id < td::ops::kOpCount; ++id) {
    const td::ops::OpDef& op = td::ops::def(static_cast<td::ops::OpId>(id));
    const td::ops::AutocastRule rule = td::ops::autocast_rule(op.id);
    if (rule != td::ops::AutocastRule::lower && id % 8 != 0) continue;  // the CPU's test has them all
    if (rule == td::ops::AutocastRule::none) continue;
    CAPTURE(op.name);
    const td::ops::Sample s = td::ops::samples(op)[0];
    std::vector<Tensor> in, by_hand;
    for (size_t i = 0; i < s.operands.size(); ++i) {
      const bool tensor = s.operands[i].is_tensor();
      const Tensor t = tensor ? to_device(tensor_of(td::ops::sample_type(s.operands[i], td::bfloat16),
                                                    td::ops::sample_values(s.operands[i], i + 1)))
                              : Tensor();
      const bool half = tensor && t.dtype() == td::bfloat16;
      in.push_back(half && i == 0 ? t.to(td::float32) : t);
      by_hand.push_back(half ? t.to(rule == td::ops::AutocastRule::lower ? td::bfloat16 : td::float32) : t);
    }
    const std::vector<Tensor> wanted = call_sample(op, s, by_hand);
    const td::Autocast region(td::bfloat16);
    const std::vector<Tensor> found = call_sample(op, s, in);
    for (size_t j = 0; j < found.size(); ++j) {
      CHECK(found[j].dtype() == wanted[j].dtype());
      CHECK(found[j].device() == kCuda);
      CHECK(bits_of(found[j]) == bits_of(wanted[j]));
    }
    ++ran;
  }
  CHECK(ran >= 6);
}

TEST_CASE("deterministic: where indices meet and sums are long, the same bits every time", "[cuda]") {
  need_device();
  td::manual_seed(4);
  const Tensor source = td::randn({600, 8}).to(kCuda), index = td::randint(0, 3, {600}).to(kCuda),
               wide = td::randint(0, 2, {600, 8}).to(kCuda), start = td::zeros({3, 8}, {.device = kCuda});
  const auto all = [&] {
    std::vector<char> out;
    for (const Tensor& t : {start.index_add(0, index, source), start.scatter_add(0, wide, source),
                            start.scatter(0, wide, source), start.index_copy(0, index, source), source.sum(),
                            source.mean({0}), td::matmul(source.transpose(0, 1), source)})
      for (const char c : bits_of(t)) out.push_back(c);
    return out;
  };
  const td::Deterministic mode(true);
  const std::vector<char> first = all();
  for (int i = 0; i < 3; ++i) CHECK(all() == first);
}
