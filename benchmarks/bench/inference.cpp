// Networks that only infer: what training workloads compute forward (their loss), without gradients and in
// evaluation mode. Frozen first, since that is what is served; it keeps what it makes of the weights.
#include <memory>
#include <optional>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/literature.h"
#include "benchmarks/bench/training.h"
#include "benchmarks/bench/workload.h"

namespace bench {

namespace {

constexpr const char* kEnd = "_infer";

/// One call: the loss of a batch, or of its first row.
struct Infer {
  std::shared_ptr<Training> training;
  bool one = false;

  Batch batch(int64_t i) const {
    Batch b = training->batch(i);
    if (one)
      for (td::Tensor& t : b) t = t.narrow(0, 0, 1).contiguous();
    return b;
  }
  td::Tensor operator()(const Batch& batch) const {
    const td::NoGrad no_grad;
    return training->loss(batch);
  }
};

/// Losses of all batches; of a frozen function once it keeps what it can.
template <class Call>
Answer losses(const Infer& infer, Call&& call) {
  Answer answer(1);
  for (const bool last : {false, true})
    for (int64_t i = 0; i < kBatches; ++i) {
      const double loss = call(infer.batch(i)).template item<double>();
      if (last) answer[0].push_back(loss);
    }
  return answer;
}

Infer network(const std::string& step, bool one, td::Device device, td::DType dtype = td::float32) {
  Recipe r = recipe(step);
  if (dtype == td::float64) r.precision = Precision::float32;
  Infer infer{std::make_shared<Training>(r, device, dtype), one};
  infer.training->net.module->eval();
  return infer;
}

Workload row(const std::string& step, bool one, const std::string& what, double flop, double weights) {
  Workload w;
  w.name = step + kEnd + (one ? "1" : "");
  w.section = "5.j";
  w.what = what + (one ? ", one row" : "") + ": inference";
  w.flop = flop;
  w.bytes = weights;
  w.counted = "two FLOP a multiplication and addition; the weights once";
  w.tolerance = step.ends_with("_bf16") ? 2e-2 : 1e-3;
  w.heavy = literature(step).has_value();
  const td::DType exact = w.heavy ? td::float32 : td::float64;
  w.reference = [=] {
    const Infer infer = network(step, one, td::cpu, exact);
    return losses(infer, infer);
  };
  w.prepare = [=](const Setting& setting) {
    const Infer infer = network(step, one, setting.device);
    const auto traced = std::make_shared<td::TracedFunction<Infer>>(td::trace(infer, {.name = "infer"}));
    for (int i = 0; i < 2; ++i) (*traced)(infer.batch(0));
    const auto frozen = std::make_shared<td::Frozen<Infer>>(traced->freeze());
    std::vector<Batch> ring;
    for (int64_t i = 0; i < kBatches; ++i) ring.push_back(infer.batch(i));
    Prepared p;
    const auto ours = [&](const char* who, auto call) {
      const auto time = [=, next = size_t{0}](int calls) mutable {
        return time_us_on(setting.device, calls, [&] { call(ring[next++ % ring.size()]); });
      };
      p.contestants.push_back({who, Side::ours, setting.threads, time, [=] { return losses(infer, call); }});
    };
    ours("frozen", [frozen](const Batch& b) { return (*frozen)(b); });
    ours("traced", [traced](const Batch& b) { return (*traced)(b); });
    ours("eager", infer);
    p.facts = [=] {
      const td::TraceReport r = traced->report();
      return std::map<std::string, double>{{"plan entries", static_cast<double>(r.entries)},
                                           {"plan's bytes moved", static_cast<double>(r.bytes_moved)},
                                           {"kept bytes", static_cast<double>(frozen->report().kept_bytes)},
                                           {"op by op", static_cast<double>(r.op_by_op + r.eager_calls)}};
    };
    return p;
  };
  w.bars = {{Bar::Of::times_faster, 1, "PyTorch"}, {Bar::Of::times_faster, 1, "LibTorch"}};
  if (w.heavy || step.ends_with("_bf16")) w.bars.pop_back();  // which LibTorch's C++ has none of
  return w;
}

}  // namespace

std::vector<Workload> inference_workloads() {
  const double mlp784 = 784 * 256 + 256 * 128 + 128 * 10, mlp1024 = 784 * 1024 + 1024 * 1024 + 1024 * 10;
  const std::string digits = "784-256-128-10, batch 64", large = "784-1024-1024-10, batch 64",
                    gpt = "a transformer of 4 layers, 128 wide, batch 12 of 64",
                    resnet = "ResNet-50 v1.5, batch 2 of 224 x 224";
  const double gpt_weights = 4 * 12 * 128 * 128 + 65 * 128,
               gpt_flop = 2 * 12 * 64 * (gpt_weights + 4 * 2 * 64 * 128);
  return {row("mlp784", true, digits, 2 * mlp784, 4 * mlp784),
          row("mlp784", false, digits, 64 * 2 * mlp784, 4 * mlp784),
          row("mlp784_1024", true, large, 2 * mlp1024, 4 * mlp1024),
          row("mlp784_1024", false, large, 64 * 2 * mlp1024, 4 * mlp1024),
          row("gpt", false, gpt, gpt_flop, 4 * gpt_weights),
          row("gpt_bf16", false, gpt, gpt_flop, 2 * gpt_weights),
          row("resnet50", true, resnet, 8.1e9, 4 * 25.6e6),
          row("resnet50", false, resnet, 2 * 8.1e9, 4 * 25.6e6)};
}

}  // namespace bench
