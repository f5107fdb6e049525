// The benchmark program: runs the workloads whose name holds --filter, everybody in turns, prints each with
// its bars and one table, and writes JSON with --json. Compare ratios, not microseconds. See
// benchmarks/README.md.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>

#include "benchmarks/bench/device_counts.h"
#include "benchmarks/bench/report.h"
#include "tandem/core/allocator.h"
#include "tandem/core/cuda/cuda.h"
#include "tandem/tandem.h"

namespace {

constexpr const char* kUsage =
    "usage: bench [--filter TEXT] [--row WORKLOAD] [--heavy] [--list] [--quick] [--seconds S] [--threads N]\n"
    "             [--processor-time] [--device cpu|cuda] [--counts] [--times] [--libtorch] [--python "
    "PYTHON]\n"
    "             [--profile WORKLOAD] [--json FILE] [--reasons]\n";

struct Arguments {
  bench::Options options;
  bench::PeerOptions peers;
  std::string filter, row, json, first_call, private_bytes, profile;
  bool list = false, reasons = false, heavy = false, counts = false, times = false;

  bool wants(const std::string& name, bool is_heavy) const {
    if (!row.empty()) return name == row;
    return (heavy || !is_heavy) && name.find(filter) != std::string::npos;
  }
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 < argc) return argv[++i];
      std::fprintf(stderr, "bench: %s needs a value\n", option.c_str());
      std::exit(2);
    };
    if (option == "--filter")
      a.filter = value();
    else if (option == "--json")
      a.json = value();
    else if (option == "--row")
      a.row = value();
    else if (option == "--heavy")
      a.heavy = true;
    else if (option == "--counts")
      a.counts = true;
    else if (option == "--times")
      a.times = true;
    else if (option == "--list")
      a.list = true;
    else if (option == "--reasons")  // why rows lose, for reasons_test.py
      a.reasons = true;
    else if (option == "--quick")
      a.options.quick = true, a.options.seconds = 0.02;
    else if (option == "--processor-time")
      a.peers.processor_time = true;
    else if (option == "--seconds")
      a.options.seconds = std::atof(value().c_str());
    else if (option == "--threads")
      a.peers.threads = {std::atoi(value().c_str())};
    else if (option == "--device")
      a.options.device = a.peers.device = tandem::parse_device(value());
    else if (option == "--libtorch")
      a.peers.libtorch = true;
    else if (option == "--python")
      a.peers.python = value();
    else if (option == "--profile")
      a.profile = value();
    else if (option == "--first-call")  // of this program by itself
      a.first_call = value();
    else if (option == "--private-bytes")
      a.private_bytes = value();
    else {
      std::fputs(kUsage, stderr);
      std::exit(2);
    }
  }
  if (a.options.device != tandem::cpu) a.peers.threads = {1}, a.peers.libtorch = false;
  return a;
}

int run(const Arguments& a) {
  bench::Run run;
  bench::describe_machine(run);
  run.quick = a.options.quick;
  run.device = tandem::to_string(a.options.device);
  std::vector<bench::Workload> workloads = bench::workloads(a.options.device.type);
  std::erase_if(workloads, [&](const bench::Workload& w) { return !a.wants(w.name, w.heavy); });
  if (a.options.device != tandem::cpu) {
    if (!tandem::cuda::is_available()) {
      std::printf("bench: CUDA is left out: %s\n", tandem::cuda::why_not_available().c_str());
      return 1;
    }
    tandem::zeros({1}).to(
        a.options.device);  // from here on the driver is there, and known to be simulated or not
    if (a.counts || (bench::is_simulated() && !a.times))
      return bench::print_device_counts(a.options.device, workloads) ? 0 : 1;
    for (bench::Workload& w : workloads) {
      w.threads = {1};
      // Own tiles take what follows a product into its entry; the library's products do not.
      std::erase_if(w.bars, [](const bench::Bar& b) { return b.against == "plan entries"; });
    }
  }

  run.processor_time = a.peers.processor_time;
  if (run.processor_time) bench::take_processor_time();
  const auto peers = bench::start_peers(a.peers);
  for (const auto& p : peers)
    run.peers.push_back(p->name() + " " + p->version() + ", threads: " + std::to_string(p->threads()));
  for (const int threads : a.peers.threads) run.ceilings.push_back({threads});
  const auto measure_ceilings = [&] {
    // The simulated device would take minutes.
    if (a.options.device == tandem::cpu || !bench::is_simulated())
      for (bench::Ceilings& c : run.ceilings) bench::measure_ceilings(c, a.options.device);
  };
  measure_ceilings();
  bool failed = false;
  for (bench::Workload& w : workloads) {
    std::erase_if(w.threads, [&](int n) {
      return std::find(a.peers.threads.begin(), a.peers.threads.end(), n) == a.peers.threads.end();
    });
    if (w.threads.empty()) continue;
    run.results.push_back(bench::measure(w, a.options, peers));
    bench::judge(run.results.back(), run.ceilings);
    bench::print(run.results.back());
    failed |= !run.results.back().failure.empty();
  }
  measure_ceilings();
  for (bench::Result& r : run.results) {
    bench::judge(r, run.ceilings);
    for (const bench::Figure& f : r.figures) failed |= !f.passed && f.side == bench::Side::ours;
  }
  if (!a.options.quick)
    for (const bench::HostPart& part : bench::host_parts()) {
      const bool on_card = part.name == "cuda";
      if (!a.wants(part.name, false) || on_card != (a.options.device != tandem::cpu)) continue;
      for (bench::Row& r : part.run()) {
        std::printf("%-14s %-42s %10.3f us (min %.3f)  %6.2f x\n", r.workload.c_str(), r.name.c_str(),
                    r.median_us, r.min_us, r.ratio);
        std::fflush(stdout);
        run.host.push_back(std::move(r));
      }
    }
  if (!run.results.empty()) bench::print_table(run);
  if (!a.json.empty() && !(std::ofstream(a.json) << bench::json(run))) {
    std::fprintf(stderr, "bench: %s cannot be written\n", a.json.c_str());
    return 1;
  }
  return failed ? 1 : 0;
}

}  // namespace

namespace bench {
std::vector<Workload> workloads(tandem::DeviceType type) {
  const bool card = type == tandem::DeviceType::cuda;
  std::vector<Workload> all;
  for (const auto& part :
       {training_workloads(), inference_workloads(), row_workloads(), first_call_workloads(),
        guard_workloads(), card ? card_workloads() : literature_workloads(),
        card ? card_row_workloads() : dispatch_workloads()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}
}  // namespace bench

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);  // a peer that ended is told of by the write
  if (!a.first_call.empty()) {
    std::printf("%f\n", bench::first_call_us(a.first_call, a.options.device));
    return 0;
  }
  if (!a.private_bytes.empty()) tandem::core::count_small_blocks();  // before any tensor is made
  for (const bench::Workload& w : bench::workloads(a.options.device.type)) {
    if (a.list && a.wants(w.name, false))
      std::printf("%-24s %-9s %s%s\n", w.name.c_str(), w.section.c_str(), w.what.c_str(),
                  w.heavy ? " (heavy)" : "");
    if (a.reasons && !w.open.empty()) std::printf("%s\t%s\n", w.name.c_str(), w.open.c_str());
    if (w.name == a.private_bytes) std::printf("%.0f\n", w.eager_private_bytes(a.options.device));
    if (w.name == a.profile) bench::profile(w, a.options);
  }
  if (a.list)
    for (const bench::HostPart& part : bench::host_parts())
      std::printf("%-24s %-9s the host's work alone\n", part.name.c_str(), "5.i");
  if (a.list || a.reasons || !a.private_bytes.empty() || !a.profile.empty()) return 0;
  return run(a);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
