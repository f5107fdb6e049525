// What the first call of a training step costs (protocol 5.h): recording, planning and compiling, in a
// process of its own, with an empty kernel cache and with the one that a process before left.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/peer.h"
#include "benchmarks/bench/training.h"
#include "benchmarks/bench/workload.h"
#include "tandem/core/error.h"
#include "tandem/jit/child_process.h"

namespace bench {

namespace {

/// Folders of caches, one a step and contestant: those that the cold calls fill serve the warm ones.
const std::string& cache_folder(const std::string& whose) {
  static std::map<std::string, std::unique_ptr<td::jit::PrivateFolder>> all;
  auto& folder = all[whose];
  if (!folder) folder = std::make_unique<td::jit::PrivateFolder>(td::jit::temporary_folders().at(0));
  return folder->path();
}

/// Times `command` with the folder in its environment; `kept`: as the second of two at least.
Contestant contestant(const std::string& name, Side side, int threads, const std::string& whose,
                      const std::string& variable, const std::string& command, bool kept) {
  const auto time = [=](int) {
    static std::map<std::string, bool> filled;
    const std::string line = variable + "='" + cache_folder(whose) + "' " + command;
    if (kept && !filled[whose]) command_number(line);
    filled[whose] = true;
    return command_number(line);
  };
  return {name, side, threads, time, nullptr, true};
}

Workload first_call(const std::string& step, bool kept, bool heavy) {
  Workload w;
  w.name = "first_call_" + step + (kept ? "_kept" : "");
  w.section = "5.h";
  w.what = "the first call of the training step '" + step + "' in a new process, " +
           (kept ? "kernels kept by another" : "nothing kept");
  w.threads = {2};
  w.heavy = heavy;
  w.counted = "nothing: recording, planning, compiling, and the step itself";
  const double over_pytorch = kept || step == "gpt" ? 20 : 10;
  w.bars = {{Bar::Of::at_most_us, kept ? 2e5 : 2e6, ""}, {Bar::Of::times_faster, over_pytorch, "PyTorch"}};
  if (step == "gpt")
    w.open =
        kept ? "a step, its first touch of memory, recording, the compiler's version and loading of two "
               "programs: tens of milliseconds that move with the machine's load; next: fewer lines touched"
             : "bound by compiling on two processors; next: calls in the evaluator while that runs";
  w.prepare = [=](const Setting& setting) {
    const std::string threads = std::to_string(setting.threads);
    const std::string device = " --device " + td::to_string(setting.device);
    Prepared p;
    p.contestants = {contestant(
        "traced", Side::ours, setting.threads, "ours " + step, "TANDEM_CACHE_DIR",
        "TANDEM_NUM_THREADS=" + threads + " " + this_program() + " --first-call " + step + device, kept)};
    const std::string python = python_peer();
    if (!python.empty())
      p.contestants.push_back(contestant("PyTorch compile", Side::peer, setting.threads, "PyTorch " + step,
                                         "TORCHINDUCTOR_CACHE_DIR",
                                         python + " " + threads + device + " --first-call " + step, kept));
    return p;
  };
  return w;
}

}  // namespace

double first_call_us(const std::string& workload, td::Device device) {
  Training training(recipe(workload), device);  // on a card that makes its context, too
  auto step = td::trace([&](const Batch& batch) { return training.step(batch); });
  return time_us_on(device, 1, [&] { step(training.batch(0)); });
}

std::vector<Workload> first_call_workloads() {
  std::vector<Workload> all;
  for (const auto& [step, heavy] :
       {std::pair{"mlp64", false}, {"gpt", false}, {"resnet50", true}, {"gpt2", true}})
    for (const bool kept : {false, true}) all.push_back(first_call(step, kept, heavy));
  return all;
}

}  // namespace bench
