// The benchmark program: runs the workloads whose name holds --filter, prints one table, and writes JSON with
// --json. Figures are medians of interleaved blocks; compare ratios, not microseconds.
#include <cstdio>
#include <cstring>
#include <fstream>

#include "benchmarks/bench/harness.h"

int main(int argc, char** argv) {
  std::string filter, json;
  bool peers = false;
  for (int i = 1; i < argc; ++i) {
    const auto value = [&]() -> std::string {
      if (i + 1 < argc) return argv[++i];
      std::fprintf(stderr, "bench: %s needs a value\n", argv[i]);
      std::exit(2);
    };
    if (!std::strcmp(argv[i], "--filter"))
      filter = value();
    else if (!std::strcmp(argv[i], "--json"))
      json = value();
    else if (!std::strcmp(argv[i], "--peers"))
      peers = true;
    else {
      std::fprintf(stderr, "usage: bench [--filter TEXT] [--peers] [--json FILE]\n");
      return 2;
    }
  }
  std::vector<bench::Row> rows;
  for (const bench::Workload& w : bench::workloads()) {
    if (w.name.find(filter) == std::string::npos) continue;
    for (bench::Row& r : w.run(peers)) {
      std::printf("%-14s %-34s %10.3f us (min %.3f)  %6.2f x\n", r.workload.c_str(), r.name.c_str(),
                  r.median_us, r.min_us, r.ratio);
      std::fflush(stdout);
      rows.push_back(std::move(r));
    }
  }
  if (json.empty()) return 0;
  std::ofstream out(json);
  out << "[\n";
  for (size_t i = 0; i < rows.size(); ++i)
    out << "  {\"workload\": \"" << rows[i].workload << "\", \"name\": \"" << rows[i].name
        << "\", \"median_us\": " << rows[i].median_us << ", \"min_us\": " << rows[i].min_us
        << ", \"ratio\": " << rows[i].ratio << "}" << (i + 1 < rows.size() ? ",\n" : "\n");
  out << "]\n";
  return out ? 0 : 1;
}
