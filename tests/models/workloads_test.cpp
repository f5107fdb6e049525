// Every workload at small scale: eager, checked and frozen training give the same losses and weights, bit for
// bit, in float32 and under autocast. On the CPU, or the device of TANDEM_TEST_DEVICE.
#include "samples/models/workloads.h"

#include <cmath>
#include <cstring>
#include <future>

#include "samples/models/training.h"
#include "tests/catch.h"

namespace td = tandem;
using samples::Precision, samples::RunMode;

namespace {

constexpr int kSteps = 4;  // frozen: two that run the body, two that do not

struct Outcome {
  std::vector<float> losses;
  std::vector<td::Tensor> state;
  std::optional<td::TraceReport> report;
};

Outcome train(const samples::WorkloadRecipe& recipe, RunMode mode, Precision precision) {
  td::manual_seed(5);
  samples::Training training(recipe.make({.scale = 0.0625, .batch = 2}), mode, precision);
  Outcome out;
  for (int i = 0; i < kSteps; ++i) out.losses.push_back(training.step().item<float>());
  for (const td::NamedTensor& t : training.workload().model->state())
    out.state.push_back(t.tensor.detach().to(td::cpu).clone());
  out.report = training.report();
  return out;
}

bool same_bits(const td::Tensor& a, const td::Tensor& b) {
  return a.dtype() == b.dtype() && a.sizes() == b.sizes() &&
         std::memcmp(a.impl()->data, b.impl()->data, static_cast<size_t>(a.impl()->nbytes())) == 0;
}

void check_modes(const samples::WorkloadRecipe& recipe, Precision precision) {
  INFO(recipe.name);
  const Outcome eager = train(recipe, RunMode::eager, precision);
  for (const float loss : eager.losses) CHECK(std::isfinite(loss));
  if (recipe.unit == std::string("images")) CHECK(eager.losses.back() < eager.losses.front());
  if (td::default_device().type == td::DeviceType::cuda && precision == Precision::float32) {
    const td::OnDevice host(td::cpu);
    CHECK(eager.losses.front() ==
          Approx(train(recipe, RunMode::eager, precision).losses.front()).epsilon(1e-4));
  }
  for (const RunMode mode : {RunMode::checked, RunMode::frozen}) {
    CAPTURE(int(mode));
    const Outcome traced = train(recipe, mode, precision);
    CHECK(traced.losses == eager.losses);
    REQUIRE(traced.state.size() == eager.state.size());
    size_t different = 0;
    for (size_t i = 0; i < eager.state.size(); ++i) different += !same_bits(eager.state[i], traced.state[i]);
    CHECK(different == 0);
    CHECK(traced.report->recorded == 1);
    CHECK(traced.report->plans == 1);
    CHECK(traced.report->op_by_op == 0);
    CHECK(traced.report->eager_calls == 0);
    CHECK(traced.report->frozen_calls == (mode == RunMode::frozen ? kSteps - 2 : 0));
  }
}

}  // namespace

TEST_CASE("Workloads train alike in all modes") {
  for (const samples::WorkloadRecipe& r : samples::workload_recipes()) check_modes(r, Precision::float32);
}

TEST_CASE("Workloads train alike in all modes under autocast", "[full]") {
  for (const samples::WorkloadRecipe& r : samples::workload_recipes()) check_modes(r, Precision::bf16);
}

TEST_CASE("A traced step of ResNet-50 needs no more memory than an eager one", "[full]") {
  if (td::default_device().type != td::DeviceType::cpu) return;  // nothing is computed at this size there
  const auto on_new_thread = [](RunMode mode) {                  // which keeps no memory of earlier plans
    td::reset_peak_memory(td::cpu);
    const int64_t before = td::device_memory(td::cpu).live_bytes;
    samples::Training training(samples::workload_recipe("resnet50").make({.scale = 1, .batch = 4}), mode,
                               Precision::float32);
    training.step();
    return td::device_memory(td::cpu).peak_bytes - before;
  };
  const auto peak = [&](RunMode mode) { return std::async(std::launch::async, on_new_thread, mode).get(); };
  const int64_t eager = peak(RunMode::eager), traced = peak(RunMode::checked);
  std::printf("ResNet-50, batch 4: %lld MiB eager, %lld MiB traced\n", static_cast<long long>(eager >> 20),
              static_cast<long long>(traced >> 20));
  CHECK(traced <= eager);
}

TEST_CASE("Workloads train in TF32 on CUDA alone") {
  const samples::WorkloadRecipe& r = samples::workload_recipe("alexnet");
  if (td::default_device().type == td::DeviceType::cuda)
    check_modes(r, Precision::tf32);
  else
    CHECK_THROWS_WITH(train(r, RunMode::eager, Precision::tf32), Contains("TF32") && Contains("CPU"));
}

TEST_CASE("Dropout of a workload can be switched off") {
  td::manual_seed(5);
  samples::Workload w = samples::workload_recipe("alexnet").make({.scale = 0.0625, .dropout = false});
  const float loss = w.loss(w.batch).item<float>();
  CHECK(w.loss(w.batch).item<float>() == loss);
  w = samples::workload_recipe("alexnet").make({.scale = 0.0625});
  const float other = w.loss(w.batch).item<float>();
  CHECK(w.loss(w.batch).item<float>() != other);
}

TEST_CASE("Workloads refuse what they cannot make") {
  CHECK_THROWS_WITH(samples::workload_recipe("lenet"), Contains("no 'lenet'; there are alexnet, vgg19"));
  const auto make = samples::workload_recipe("resnet50").make;
  CHECK_THROWS_WITH(make({.scale = 0}), Contains("scale"));
  CHECK_THROWS_WITH(make({.scale = 0.1, .batch = 0}), Contains("batch: 0 images"));
  CHECK_THROWS_WITH(samples::parse_run_mode("traced"), Contains("none of eager, checked, frozen"));
  CHECK_THROWS_WITH(samples::parse_precision("fp8"), Contains("none of float32, tf32, bf16"));
}
