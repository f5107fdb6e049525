// What reports and drawings see of a trace: it belongs to the trace, and no checked call starts while one
// lives. Signatures that another thread is calling at this moment are left out.
#pragma once

#include <mutex>
#include <vector>

#include "tandem/tracer/frame.h"
#include "tandem/tracer/trace.h"

namespace tandem::tracer {

struct Inspected {
  std::unique_lock<std::mutex> frozen_lock, lock;
  const TraceOptions& options;
  const Counters& counters;
  int64_t record_bytes = 0, forgotten = 0;
  std::vector<const Record*> records;  // one a signature of arguments
  const class FrozenCore* frozen = nullptr;
};
Inspected inspect(const Trace& trace);
TraceReport report(const Inspected& seen);

}  // namespace tandem::tracer
