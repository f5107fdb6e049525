// Which ops have a short way (direct.h) on small contiguous float tensors, and the loops that it calls.
// Internal to eager/. The table is made once and not changed; any thread.
#pragma once

#include <array>

#include "tandem/core/tensor_impl.h"
#include "tandem/jit/evaluator_direct.h"
#include "tandem/ops/op.h"

namespace tandem::eager {

using core::TensorImpl;

/// How an op is run, if it is a short one.
enum class Way : uint8_t {
  none,
  unary,      // f(a)
  binary,     // f(a, b); either may be a number
  constant,   // f(a, c) with a constant of the formula
  reduction,  // of all elements
  // Views:
  reshape,
  permute,
  slice,
  select,
};

struct DirectRow {
  Way way = Way::none;
  bool in_place = false;  // the in-place form changes operand 0
  float constant = 0;
  jit::DirectUnary unary = nullptr;
  // With `a` or `b` one element for all; null where there is no such loop.
  jit::DirectBinary binary = nullptr, first = nullptr, second = nullptr;
  jit::DirectReduction rows = nullptr;
};

using DirectRows = std::array<DirectRow, ops::kOpCount>;
/// By op.
const DirectRows& direct_rows();

// Larger tensors take the general way, which uses all threads; while a profile runs, so do all, to be timed.
template <bool timed>
[[gnu::always_inline]] inline bool directly(const TensorImpl* t) {
  return t && t->dtype == DType::float32 && t->has(core::kContiguous) && !t->has(core::kPending) &&
         t->numel <=
             (timed ? core::kUntimedElements : core::untimed_elements.load(std::memory_order_relaxed)) &&
         t->device.type == DeviceType::cpu;
}

}  // namespace tandem::eager
