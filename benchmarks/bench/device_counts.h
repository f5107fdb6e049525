// What a CUDA device is asked to do by the workloads, as counts: launches, nodes of graphs, bytes, and the
// instructions by which kernels load and store. Times are for a card, so none are taken here. Main thread.
#pragma once

#include <vector>

#include "benchmarks/bench/workload.h"

namespace bench {

/// Calls into the driver that could have failed, and what they were; and what kernels did with the device's
/// memory, if they count it (SIM_GPU_ACCESSES=1). Of the simulated driver, all 0 on a card.
struct DeviceCounts {
  long calls = 0, launches = 0, graphs = 0;
  long loads = 0, stores = 0, loaded_bytes = 0, stored_bytes = 0;
};
DeviceCounts device_counts();

/// Whether the driver is the simulated one, which runs nothing in the time of a card.
bool is_simulated();
/// Prints the counts of these workloads; false if results or counts are wrong.
bool print_device_counts(tandem::Device device, const std::vector<Workload>& workloads);

}  // namespace bench
