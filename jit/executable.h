// A graph made runnable: groups, kernels, products, a static memory plan. Immutable after `make`, shared;
// `run` may be called from several threads, each with an arena of its own, which its other plans use too.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tandem/jit/graph.h"
#include "tandem/jit/non_temporal.h"

namespace tandem::jit {

struct Description;

struct ExecutableOptions {
  bool compile = true;   // print, compile and load kernels; false: the chunk evaluator (eager mode)
  bool optimize = true;  // run the passes and fuse; false: one group per node (tests)
  std::vector<std::string> disabled_passes = {};
  Device device = cpu;  // of all inputs and outputs; on CUDA kernels are always compiled
  // On the host: bytes of a result from which on it is stored past the caches; 0: never.
  int64_t non_temporal_nbytes = host_non_temporal_nbytes();
};

struct ExecutableStats {
  int groups = 0;       // fused groups, before alike ones became one entry
  int entries = 0;      // plan entries, a launch each: kernels, products, natives
  int kernels = 0;      // in entries of their own, tails and joins
  int tails = 0;        // of them behind a product, in its entry
  int joins = 0;        // of them behind another kernel, in its entry (Join, plan.h)
  int compiled = 0;     // kernels that run compiled code
  int interpreted = 0;  // kernels that run in the evaluator
  int distinct = 0;     // different kernels
  int products = 0, natives = 0;
  int graph_nodes = 0;                         // CUDA: of the graph, a launch of which is a run; 0 for none
  int launches = 0;                            // CUDA: work that a run queues, each by a call of its own
  int64_t arena_bytes = 0;                     // peak of intermediate values
  int64_t bytes_moved = 0, bytes_unfused = 0;  // by the kernels as planned; by one kernel per op
  double compile_ms = 0;
};

/// For measuring: compiled executables made while one lives do everything but run their plan's entries, so
/// that what is left is the time of their caller. Their outputs are never written. Any thread's are meant.
class WithoutEntries {
 public:
  WithoutEntries();
  ~WithoutEntries();
  WithoutEntries(const WithoutEntries&) = delete;
  WithoutEntries& operator=(const WithoutEntries&) = delete;
};

class Executable {
 public:
  /// Builds the plan. Throws InternalError on our defects only; a kernel that does not compile runs in the
  /// evaluator.
  static std::shared_ptr<const Executable> make(const Graph& g, const ExecutableOptions& options = {});
  ~Executable();

  /// `inputs`: addresses in the order of Graph::inputs; `numbers`: 8-byte words (bits of float64, int64) in
  /// the order of the run-time numbers; `outputs`: addresses of fresh contiguous memory in the order of
  /// Graph::outputs. Writes happen in place. Returns 0, or 1 + the plan entry at which an index was out of
  /// range: later entries did not run, and no input was written. What a program's own kernel throws on the
  /// host goes on as it is: then no input was written, and `*reached`, if given, is 1 + its entry (0 if no
  /// entry was begun). On CUDA all addresses are the device's, the work is queued, and such an index is told
  /// at the next synchronisation, at `where` if known, else at the op's line in the graph; what cannot be
  /// queued throws, with `*reached` 1 + its entry where something was queued before it.
  int run(void* const* inputs, const int64_t* numbers, void* const* outputs, Location where = {},
          int* reached = nullptr) const;
  /// Of a run that threw at `reached`: whether no input was written.
  bool wrote_nothing(int reached) const;
  /// The op line of a failed entry, and what it was.
  Location entry_where(int entry) const;
  std::string entry_name(int entry) const;

  const ExecutableStats& stats() const;
  /// The optimised graph, the groups and plan as text, and the kernels' source.
  const Graph& graph() const;
  std::string plan_text() const;
  std::string code() const;
  Description describe() const;
  /// Kernels that run in the evaluator because the printer or the compiler refused them, and why.
  std::vector<std::string> fallbacks() const;

 private:
  struct Impl;
  explicit Executable(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::jit
