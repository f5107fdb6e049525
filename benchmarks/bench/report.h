// What was measured as text and as JSON. Plain functions.
#pragma once

#include <string>
#include <vector>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/measure.h"

namespace bench {

struct Run {
  std::string date, machine, device;  // "2026-11-22"
  double load = 0;                    // of the machine, when the run began: a high one makes times noise
  bool quick = false, processor_time = false;
  std::vector<std::string> peers;  // with their versions
  std::vector<Ceilings> ceilings;
  std::vector<Result> results;
  std::vector<Row> host;
};

/// What this machine calls itself and its load.
void describe_machine(Run& run);
/// One workload, everybody's times, and its bars.
void print(const Result& result);
/// One line a row, as a Markdown table.
void print_table(const Run& run);
std::string json(const Run& run);

}  // namespace bench
