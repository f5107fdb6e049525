// Timing for the benchmarks. Parts of the host's work take turns in short blocks within one run; medians of
// their blocks and of the ratios block by block are reported. Single-threaded.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tandem/core/device.h"

namespace bench {

struct Part {
  std::string name;
  std::function<double()> block;  // runs one block and returns microseconds per call
};

struct Row {
  std::string workload, name;
  double median_us = 0, min_us = 0;
  double ratio = 0;  // median over blocks of this one's time over the first part's
};

/// Runs `blocks` rounds of all parts in turn; the first is what ratios are against.
std::vector<Row> interleave(const std::string& workload, const std::vector<Part>& parts, int blocks);

/// Of a clock that begins anywhere; of the wall, unless this process's own time was chosen.
double now_us();
/// What is timed from now on is the time that processors spend on this process: for one thread on a busy
/// machine.
void take_processor_time();
/// Waits for a CUDA device.
void synchronize(tandem::Device device);

/// Microseconds per call of `f`, over `calls` calls.
template <class F>
double time_us(int calls, F&& f) {
  const double start = now_us();
  for (int i = 0; i < calls; ++i) f();
  return (now_us() - start) / calls;
}
/// The same until the device has done it all.
template <class F>
double time_us_on(tandem::Device device, int calls, F&& f) {
  synchronize(device);
  const double start = now_us();
  for (int i = 0; i < calls; ++i) f();
  synchronize(device);
  return (now_us() - start) / calls;
}
/// The value below which a share `q` of the sorted list lies.
double quantile(std::vector<double> v, double q);
inline double median(const std::vector<double>& v) { return quantile(v, 0.5); }

/// Replaces what caches of up to so many megabytes hold.
void lose_caches(size_t megabytes);
/// Microseconds of one call of `f` when all that it touches is in the last cache alone, whatever ran before.
double time_without_inner_caches_us(const std::function<void()>& f);
/// The same when `megabytes` were touched before, wherever these come from.
double time_after_us(size_t megabytes, const std::function<void()>& f);

/// What only our host does: rows without a peer.
struct HostPart {
  std::string name;
  std::function<std::vector<Row>()> run;
};
std::vector<HostPart> host_parts();
std::vector<Row> transformer();
std::vector<Row> sizes();
std::vector<Row> cuda();

}  // namespace bench
