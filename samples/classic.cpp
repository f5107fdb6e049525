// Trains a model of the literature on synthetic data of the real shapes and says how fast: throughput, loss,
// memory. With --out each step's loss is logged, which waits for it, and the last state saved; --resume goes
// on.
#include <sys/resource.h>
#include <tandem/tandem.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <optional>
#include <string>

#include "samples/cli.h"
#include "samples/models/training.h"
#include "samples/models/workloads.h"
#include "samples/run_folder.h"

namespace td = tandem;

namespace {

/// The most memory that the process had at once, in bytes.
int64_t peak_of_process() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  return int64_t{used.ru_maxrss} * 1024;
}

/// Waits for the device and gives the time.
std::chrono::steady_clock::time_point now_on(td::Device device) {
  if (device.type == td::DeviceType::cuda) td::cuda::synchronize(device);
  return std::chrono::steady_clock::now();
}

struct Result {
  double first_loss = 0, last_loss = 0, seconds = 0;
  td::DeviceMemory memory;
  int64_t parameters = 0;
};

struct Plan {
  td::Device device;
  long done, warmup, steps;  // steps of earlier runs, then of this one
  std::string profile;       // the file for one, if named
};

Result measure(samples::Training& training, const Plan& plan, samples::RunFolder& folder) {
  Result r;
  r.parameters = training.workload().model->num_parameters();
  samples::Progress progress("classic", 1, plan.warmup + plan.steps);
  td::Tensor loss;
  long step = plan.done;
  const auto train = [&](long steps) {
    for (long i = 0; i < steps; ++i) {
      loss = training.step();
      if (step++ == plan.done) r.first_loss = loss.item<double>();
      if (folder.active()) folder.log(step, {{"loss", loss.item<double>()}});
      progress.step();
    }
  };
  train(plan.warmup);
  td::reset_peak_memory(plan.device);
  std::optional<td::Profile> timed;
  if (!plan.profile.empty()) timed.emplace(plan.profile);
  const auto start = now_on(plan.device);
  train(plan.steps);
  r.seconds = std::chrono::duration<double>(now_on(plan.device) - start).count();
  r.last_loss = loss.item<double>();
  r.memory = td::device_memory(plan.device);
  progress.epoch("loss " + samples::RunFolder::digits(r.last_loss));
  return r;
}

/// A loss for JSON, which has no NaN.
std::string number(double loss) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", loss);
  return std::isfinite(loss) ? text : "null";
}

std::string model_names() {
  std::string names;
  for (const samples::WorkloadRecipe& r : samples::workload_recipes())
    names += std::string(names.empty() ? "" : ", ") + r.name;
  return names;
}

int run(int argc, char** argv) {
  samples::Options options(argc, argv, "Trains a model of the literature on synthetic data, and measures.");
  const std::string model = options.text("model", "resnet50", model_names());
  const std::string device_name = options.text("device", "cpu", "where to train: cpu, cuda or cuda:1");
  const std::string dtype = options.text("dtype", "float32", "float32, tf32 (CUDA) or bf16 (autocast)");
  const std::string mode = options.text("mode", "checked", "how to run a step: eager, checked or frozen");
  const long batch = options.integer("batch", 0, "images, sentences or samples a step; 0: the model's own");
  const long steps = options.integer("steps", 10, "steps that are timed");
  const long warmup = options.integer("warmup", 3, "steps before them, which are not");
  const double scale = options.number("scale", 1, "1: the real model; less shrinks it and its data");
  const long seed = options.integer("seed", 1, "of weights, data and dropout");
  const std::string profile = options.text("profile", "", "also time the ops of these steps: a Chrome trace");
  const bool json = options.flag("json", "print one line of JSON");
  samples::RunFolder folder(options);
  options.done();
  if (batch < 0 || steps < 1 || warmup < 0)
    options.stop("--batch and --warmup must not be negative, and --steps at least 1");

  const samples::RunMode run_mode = samples::parse_run_mode(mode);
  const samples::Precision precision = samples::parse_precision(dtype);
  const samples::WorkloadRecipe& recipe = samples::workload_recipe(model);
  const td::Device device = td::parse_device(device_name);
  td::set_default_device(device);
  td::manual_seed(static_cast<uint64_t>(seed));
  const long size = batch > 0 ? batch : recipe.batch;
  samples::Training training(recipe.make({.scale = scale, .batch = size}), run_mode, precision);
  const td::Checkpoint parts{.module = training.workload().model.get(),
                             .optimizer = training.workload().optimizer.get(),
                             .generators = {{"default", &td::default_generator()}}};
  const long done = folder.start({{"model", recipe.name},
                                  {"dtype", dtype},
                                  {"scale", samples::RunFolder::digits(scale)},
                                  {"batch", std::to_string(size)},
                                  {"seed", std::to_string(seed)}},
                                 parts);
  const Result r = measure(training, {device, done, warmup, steps, profile}, folder);
  folder.save(done + warmup + steps, parts);
  const double per_second = training.workload().units * static_cast<double>(steps) / r.seconds;
  const double milliseconds = 1e3 * r.seconds / static_cast<double>(steps);
  if (json) {
    std::printf(
        "{\"model\": \"%s\", \"device\": \"%s\", \"dtype\": \"%s\", \"mode\": \"%s\", \"scale\": %g, "
        "\"batch\": %ld, \"steps\": %ld, \"parameters\": %lld, \"unit\": \"%s\", \"per_second\": %.6g, "
        "\"step_ms\": %.6g, \"first_loss\": %s, \"last_loss\": %s, \"peak_bytes\": %lld, "
        "\"process_peak_bytes\": %lld}\n",
        recipe.name, device_name.c_str(), dtype.c_str(), mode.c_str(), scale, size, steps,
        static_cast<long long>(r.parameters), recipe.unit, per_second, milliseconds,
        number(r.first_loss).c_str(), number(r.last_loss).c_str(),
        static_cast<long long>(r.memory.peak_bytes), static_cast<long long>(peak_of_process()));
    return 0;
  }
  constexpr double kMiB = 1 << 20;
  std::printf("%s: %lld parameters, batch %ld, %s, %s on %s", recipe.name,
              static_cast<long long>(r.parameters), size, dtype.c_str(), mode.c_str(), device_name.c_str());
  if (scale < 1) std::printf("; scale %g shrinks %s", scale, recipe.scale);
  std::printf("\n%.4g %s/s, %.4g ms a step\nloss %.6f in the first step, %.6f in the last\n", per_second,
              recipe.unit, milliseconds, r.first_loss, r.last_loss);
  std::printf("memory: %.1f MiB of tensors at most, %.1f MiB the process\n",
              static_cast<double>(r.memory.peak_bytes) / kMiB, static_cast<double>(peak_of_process()) / kMiB);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return samples::run_program("classic", run, argc, argv); }
