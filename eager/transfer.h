// Copies between devices. In a traced call the tensor is read: what is pending runs. Any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem::eager {

/// A contiguous copy on `device`, without history. With `non_blocking` the host waits for no copy between a
/// device and pinned memory; a copy to the host is pinned then.
Tensor copied_to(const Tensor& t, Device device, bool non_blocking, Location where);
/// A contiguous copy in pinned memory, without history.
Tensor pinned_copy(const Tensor& t, Location where);
/// The element of a real tensor of one, in 8 bytes of its dtype.
void load_element(const core::TensorImpl& t, void* out);

}  // namespace tandem::eager
