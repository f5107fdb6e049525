// Measuring: the gate, turns of all contestants, ceilings of the machine, and what the bars say. Main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "benchmarks/bench/peer.h"
#include "benchmarks/bench/workload.h"

namespace bench {

struct Options {
  bool quick = false;  // a look whether everything runs: few, short turns
  double seconds = 2;  // at most, of each contestant's timed calls
  tandem::Device device;
};

/// What the machine can do, measured in the same run: most of several tries, before and after the workloads.
struct Ceilings {
  int threads = 1;
  double copy_gb_s = 0;     // bytes read and written, of 16 MiB copied to 16 MiB; on a card 512 MiB
  double memcpy_gb_s = 0;   // by memcpy alone; 0: not measured
  double gemm_gflop_s = 0;  // float32, 1024^3; on a card 8192^3
  double tf32_gflop_s = 0, bf16_gflop_s = 0;  // of a card
  /// Of a workload's products, told by its name; on a CPU float32's for all.
  double products(const std::string& workload) const;
};
/// Tries again and keeps what is higher.
void measure_ceilings(Ceilings& ceilings, tandem::Device device);

struct Figure {
  std::string name;
  Side side = Side::ours;
  int threads = 1;
  double gate_error = -1;  // relative; -1: not compared
  bool passed = true;      // else there are no times
  std::string failure;     // of a peer that ended or did not answer
  std::vector<double> us;  // per call, a block each, in turns with the others'
  int calls = 0;           // of a block
  double median_us = 0, p10_us = 0, p90_us = 0, min_us = 0;
};
struct Verdict {
  std::string text;
  double value = 0;
  bool measured = false, met = false;
};
/// A row of the table: the workload with so many threads.
struct Line {
  int threads = 1;
  size_t ours = 0;                      // index of the figure
  size_t strongest = SIZE_MAX;          // of the peers with no more threads
  std::vector<double> times;            // of each figure over ours: median over the blocks; 0: none
  std::map<std::string, double> pairs;  // ours over others of ours by name: median over many short turns
  double share_of_copy = 0, share_of_gemm = 0;
  double others = -1;  // processors that others had beside its blocks, if it has two threads; -1: not known
  std::map<std::string, double> facts;
  std::vector<Verdict> verdicts;
};
struct Result {
  Workload workload;
  std::vector<Figure> figures;
  std::vector<Line> lines;
  std::string failure;  // why there is none of this
};

Result measure(const Workload& workload, const Options& options,
               const std::vector<std::unique_ptr<Peer>>& peers);
/// Where the time of the workload's first contestant goes: the framework's profile, on stdout.
void profile(const Workload& workload, const Options& options);
/// Shares of the ceilings, and the bars: once the ceilings are known.
void judge(Result& result, const std::vector<Ceilings>& ceilings);

}  // namespace bench
