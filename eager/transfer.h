// Copies between devices. In a traced call the tensor is read: what is pending runs. Any thread.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem::eager {

/// A contiguous copy on `device`, without history.
Tensor copied_to(const Tensor& t, Device device, Location where);
/// The element of a real tensor of one, in 8 bytes of its dtype.
void load_element(const core::TensorImpl& t, void* out);

}  // namespace tandem::eager
