// What a CUDA device is asked to do by the workloads, as counts: launches, nodes of graphs, bytes. Times are
// for a card, so none are taken here. Main thread.
#pragma once

#include <string>

#include "tandem/core/device.h"

namespace bench {

/// Calls into the driver that could have failed, and what they were; of the simulated driver, all 0 on a
/// card.
struct DeviceCounts {
  long calls = 0, launches = 0, graphs = 0;
};
DeviceCounts device_counts();

/// Prints the counts of the workloads whose name holds `filter`; false if results or counts are wrong.
bool print_device_counts(tandem::Device device, const std::string& filter);

}  // namespace bench
