// What reports and drawings see of a trace. Valid while the trace is not called; it belongs to the trace.
#pragma once

#include <vector>

#include "tandem/tracer/frame.h"
#include "tandem/tracer/trace.h"

namespace tandem::tracer {

struct Inspected {
  const TraceOptions& options;
  const Counters& counters;
  int64_t record_bytes = 0, forgotten = 0;
  std::vector<const Record*> records;  // one a signature of arguments
};
Inspected inspect(const Trace& trace);

}  // namespace tandem::tracer
