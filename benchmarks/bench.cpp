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
#include "tandem/core/error.h"

namespace {

constexpr const char* kUsage =
    "usage: bench [--filter TEXT] [--list] [--quick] [--seconds S] [--threads N] [--processor-time]\n"
    "             [--device cpu|cuda] [--libtorch] [--python PYTHON] [--profile WORKLOAD] [--json FILE]\n";

struct Arguments {
  bench::Options options;
  bench::PeerOptions peers;
  std::string filter, json, first_call, private_bytes, profile;
  bool list = false;
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
    else if (option == "--list")
      a.list = true;
    else if (option == "--quick")
      a.options.quick = true, a.options.seconds = 0.02;
    else if (option == "--processor-time")
      a.peers.processor_time = true;
    else if (option == "--seconds")
      a.options.seconds = std::atof(value().c_str());
    else if (option == "--threads")
      a.peers.threads = {std::atoi(value().c_str())};
    else if (option == "--device")
      a.options.device = tandem::parse_device(value());
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
  return a;
}

int run(const Arguments& a) {
  bench::Run run;
  bench::describe_machine(run);
  run.quick = a.options.quick;
  run.device = tandem::to_string(a.options.device);
  if (a.options.device != tandem::cpu) return bench::print_device_counts(a.options.device, a.filter) ? 0 : 1;

  run.processor_time = a.peers.processor_time;
  if (run.processor_time) bench::take_processor_time();
  const auto peers = bench::start_peers(a.peers);
  for (const auto& p : peers)
    run.peers.push_back(p->name() + " " + p->version() + ", threads: " + std::to_string(p->threads()));
  for (const int threads : a.peers.threads) run.ceilings.push_back({threads});
  for (bench::Ceilings& c : run.ceilings) bench::measure_ceilings(c);
  bool failed = false;
  for (bench::Workload w : bench::workloads()) {
    std::erase_if(w.threads, [&](int n) {
      return std::find(a.peers.threads.begin(), a.peers.threads.end(), n) == a.peers.threads.end();
    });
    if (w.name.find(a.filter) == std::string::npos || w.threads.empty()) continue;
    run.results.push_back(bench::measure(w, a.options, peers));
    bench::judge(run.results.back(), run.ceilings);
    bench::print(run.results.back());
    failed |= !run.results.back().failure.empty();
  }
  for (bench::Ceilings& c : run.ceilings) bench::measure_ceilings(c);
  for (bench::Result& r : run.results) {
    bench::judge(r, run.ceilings);
    for (const bench::Figure& f : r.figures) failed |= !f.passed && f.side == bench::Side::ours;
  }
  if (!a.options.quick)
    for (const bench::HostPart& part : bench::host_parts()) {
      if (part.name.find(a.filter) == std::string::npos) continue;
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
std::vector<Workload> workloads() {
  std::vector<Workload> all;
  for (const auto& part :
       {training_workloads(), row_workloads(), dispatch_workloads(), first_call_workloads()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}
}  // namespace bench

int main(int argc, char** argv) try {
  const Arguments a = parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);  // a peer that ended is told of by the write
  if (!a.first_call.empty()) {
    std::printf("%f\n", bench::first_call_us(a.first_call));
    return 0;
  }
  for (const bench::Workload& w : bench::workloads()) {
    if (a.list) std::printf("%-24s %-9s %s\n", w.name.c_str(), w.section.c_str(), w.what.c_str());
    if (w.name == a.private_bytes) std::printf("%.0f\n", w.eager_private_bytes());
    if (w.name == a.profile) bench::profile(w, a.options);
  }
  if (a.list)
    for (const bench::HostPart& part : bench::host_parts())
      std::printf("%-24s %-9s the host's work alone\n", part.name.c_str(), "5.i");
  if (a.list || !a.private_bytes.empty() || !a.profile.empty()) return 0;
  return run(a);
} catch (const std::exception& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return 1;
}
