// Making a handle's description from a tensor that enters a trace. Free function, any thread.
#pragma once

#include "tandem/tracer/record.h"

namespace tandem::tracer {

HandleInfo info_of(const TensorImpl* t, HandleInfo::Kind kind, uint32_t cell);

}  // namespace tandem::tracer
