// What the C printer decides before it writes: on which loops each scalar node depends, in which pass over
// the reduced dimensions it is computed, and which values a later pass reads back instead of computing them
// again. Values only; built for one call of print_c.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/jit/kernel.h"

namespace tandem::jit {

/// The loops that a value depends on, as bits. None: it is the same for the whole call.
inline constexpr uint8_t kOuter = 1;    // the kept dimensions (those outside the vectorised one)
inline constexpr uint8_t kReduced = 2;  // the reduced dimensions
inline constexpr uint8_t kLane = 4;     // the vectorised dimension: such values are vectors

/// A value of an earlier pass that a later one reads from the row's buffer. Rows that are too long for the
/// buffer compute it again, from `again`: nodes that the pass needs for nothing else.
struct Reread {
  int32_t node;
  std::vector<int32_t> again;
};

/// One walk over the reduced dimensions (over the elements, in a pointwise kernel). Lists ascend.
struct CPass {
  std::vector<int32_t>
      before;  // values outside the walk; row kernels: those that the earlier passes make known,
               // column kernels: vectors that this pass reads, computed again for each tile
  std::vector<int32_t> nodes;       // values inside the walk
  std::vector<Reread> rereads;      // some of `nodes`
  std::vector<int32_t> written;     // those of `nodes` that go to the row's buffer
  std::vector<int32_t> reductions;  // accumulated here
  std::vector<int32_t> stores;      // of full level: all in the last walk, as a result may replace an operand
  bool across = false;              // Kernel::across is accumulated here: in the last walk
  bool walks() const { return !reductions.empty() || !stores.empty() || across; }
};

struct CPlan {
  std::vector<uint8_t> loops;  // of each node
  std::vector<int32_t> whole;  // values of the whole call
  std::vector<int32_t>
      outer;  // values that depend on the outer kept dimensions alone (pointwise and column kernels)
  std::vector<CPass> passes;      // the last may have nothing but `before`
  std::vector<int32_t> buffered;  // nodes that have a row buffer
  std::vector<int32_t> row_stores;
  std::vector<int32_t> row_values;  // column kernels: vectors that the row stores need
  std::vector<bool> live;           // of each node: some store needs it
  std::vector<bool> load_used;
  std::vector<bool> as_vector;   // scalar nodes that some vector value reads
  std::vector<bool> as_divisor;  // float32 values of the whole call that some vector value is divided by

  bool is_vector(int32_t node) const { return (loops[static_cast<size_t>(node)] & kLane) != 0; }
  /// A division of vectors by one number for the whole call.
  bool divides_by_whole(const Kernel& k, int32_t node) const;
};

bool is_random(ops::ScalarOp op);
/// Worth a buffer, and too much code to repeat for each accumulator.
bool is_costly(ops::ScalarOp op);

/// `why` is empty afterwards if the printer covers the kernel.
CPlan plan_c(const Kernel& k, std::string* why);

}  // namespace tandem::jit
