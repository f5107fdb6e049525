// What a trace has done and holds, as numbers to assert on and as text. Values; any thread that may call the
// traced function.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace tandem {

/// A number that freezing made a constant.
struct FrozenConstant {
  std::string op, attribute;  // "add", "number 0"; "adamw_update", "lr"
  double value = 0;
  std::string file;  // the line of the op
  int line = 0;
};

/// Bytes and counts are sums over the plans of a trace.
struct TraceReport {
  std::string name;
  int64_t calls = 0, recorded = 0;
  int64_t signatures = 0, branches = 0, segments = 0, plans = 0;
  int64_t ops = 0;      // op events recorded, backward included
  int64_t groups = 0;   // of ops that run together
  int64_t entries = 0;  // plan entries, a launch each: kernels, products, natives; alike groups share one
  /// Kernels in entries of their own or, `behind` of them, behind a product or another kernel in its entry.
  int64_t kernels = 0, behind = 0, compiled = 0, interpreted = 0, products = 0, natives = 0;
  int64_t distinct_kernels = 0;
  int64_t graph_nodes = 0;  // of the CUDA graphs; running one is one launch
  /// Read and written by the entries of all plans, each run once; and by the same ops if each ran alone.
  int64_t bytes_moved = 0, bytes_unfused = 0;
  int64_t arena_bytes = 0;       // private to a step: intermediate values
  int64_t persistent_bytes = 0;  // captured tensors: parameters, optimizer state, buffers
  int64_t escaping_bytes = 0;    // fresh memory for results that live on after a segment
  double compile_ms = 0;
  int64_t op_by_op = 0;  // segments that ran op by op, so far
  int64_t slots_bound = 0;
  int64_t backward_skipped = 0, backward_walked = 0;
  int64_t eager_calls = 0;
  int64_t verified = 0;                   // calls that were compared with eager runs
  int64_t record_bytes = 0;               // of what is recorded, estimated
  int64_t kept_bytes = 0;                 // made of captured tensors and kept from call to call, now
  int64_t forgotten = 0;                  // signatures, because of max_bytes
  int64_t frozen_calls = 0;               // under Replay::frozen, besides `calls`
  std::vector<FrozenConstant> constants;  // of what Replay::frozen has frozen
  std::vector<std::string> op_by_op_reasons;
  /// What differed when a signature or branch was recorded after the first: the latest 32.
  std::vector<std::string> misses;
  std::vector<std::string> fallbacks;  // kernels that are interpreted although compiling was asked for
};

/// A page of text.
std::string to_string(const TraceReport& report);
std::ostream& operator<<(std::ostream& out, const TraceReport& report);

}  // namespace tandem
