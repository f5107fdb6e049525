// A kernel flattened for interpretation: steps over registers, in sections. A register is one element (a
// constant, a run-time number, a value that is the same everywhere), or a chunk of elements in scratch memory
// or, for a load that is contiguous, the kernel's own memory. Built once, immutable, any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "tandem/jit/evaluator_chunks.h"
#include "tandem/jit/kernel.h"

namespace tandem::jit {

/// On what a value depends: nothing in the space, the kept dimensions, all of them. Pointwise kernels have no
/// rows.
enum class Level : uint8_t { uniform, row, full };

enum class StepKind : uint8_t {
  unary,
  binary,
  ternary,
  iota,    // linear indices
  load,    // access: into `out`, or `out` becomes the address
  pick,    // an indexed load: indices in a
  expand,  // row values a to all their elements
  aim,     // `out` becomes the address of store `access`, where that is contiguous
  store,   // access: from a
};

struct Step {
  StepKind kind;
  Level level;                // how many elements `out` has
  bool uniform = false;       // pick: one index for all elements
  bool non_temporal = false;  // store: past the caches
  bool copy =
      false;  // load: never the kernel's own memory, which a store of the same step list may overwrite
  int32_t out = -1, a = -1, b = -1, c = -1;
  int32_t access = -1;  // loads, then stores
  union {
    Unary unary;
    Binary binary;
    Ternary ternary;
  };
  Step(StepKind k, Level l, int32_t to) : kind(k), level(l), out(to), unary(nullptr) {}
};

enum class Place : uint8_t { constant, number, cell, chunk };
struct Register {
  Place place;
  uint8_t itemsize;
  int32_t slot = -1;  // constant, number, cell: index; chunk: which slot
};

struct ReduceStep {
  const Reducer* reducer;
  int32_t reduction;
  int32_t input, result;  // registers
  bool index;             // argmax, argmin: `result` holds indices
};

struct AcrossStep {
  const Reducer* reducer;
  int32_t input;   // register
  int32_t buffer;  // of the kernel
};

struct Section {
  std::vector<Step> before;  // row level
  std::vector<Step> full;
  std::vector<ReduceStep> reductions;
  std::vector<AcrossStep> across;  // of the last one
};

/// How row-level values meet full-level ones, and whether a pass sees all reduced elements at once.
struct Mode {
  bool row_is_element;  // one row at a time: its values are single elements
  bool keep;            // a chunk holds whole rows: what one pass computed, the next uses
};

struct Program {
  std::vector<int64_t> constants;  // one element each
  std::vector<Register> registers;
  int32_t cells = 0;
  std::vector<int64_t> slot_offsets;  // bytes before a slot, per element of capacity
  int64_t slot_bytes = 0;             // bytes of all slots, per element of capacity
  std::vector<Step> once;             // uniform level
  std::vector<Section> passes;
  std::vector<Step> finish;  // row level, after the last pass
};

/// Elements of a chunk, so that all chunks lie in a first-level cache.
int64_t chunk_of(const Program& p);

Program make_program(const Kernel& k, const ChunkFunctions& functions, Mode mode);

}  // namespace tandem::jit
