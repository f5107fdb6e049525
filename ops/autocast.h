// What autocast does to the operands of each op: one table (autocast.def), looked up by OpId. Constant; any
// thread.
#pragma once

#include "tandem/ops/op.h"

namespace tandem::ops {

enum class AutocastRule : uint8_t { none, lower, float32, widest };
AutocastRule autocast_rule(OpId op);

}  // namespace tandem::ops
