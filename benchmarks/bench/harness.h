// Timing for the benchmarks: contestants take turns in short blocks within one run, and medians of their
// blocks and of the ratios block by block are reported. Single-threaded.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace bench {

struct Contestant {
  std::string name;
  std::function<double()> block;  // runs one block and returns microseconds per call
};

struct Row {
  std::string workload, name;
  double median_us = 0, min_us = 0;
  double ratio = 0;  // median over blocks of this one's time over the first contestant's
};

/// Runs `blocks` rounds of all contestants in turn; the first is what ratios are against.
std::vector<Row> interleave(const std::string& workload, const std::vector<Contestant>& contestants,
                            int blocks);

/// Microseconds per call of `f`, over `calls` calls.
double time_us(int calls, const std::function<void()>& f);

/// Replaces what caches of up to so many megabytes hold.
void lose_caches(size_t megabytes);
/// Microseconds of one call of `f` when all that it touches is in the last cache alone, whatever ran before.
double time_without_inner_caches_us(const std::function<void()>& f);
/// The same when `megabytes` were touched before, wherever these come from.
double time_after_us(size_t megabytes, const std::function<void()>& f);

struct Workload {
  std::string name;
  std::function<std::vector<Row>(bool peers)> run;
};
std::vector<Workload> workloads();
std::vector<Row> transformer(bool peers);
std::vector<Row> sizes(bool peers);
std::vector<Row> cuda(bool peers);

}  // namespace bench
