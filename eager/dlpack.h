// Tensors shared with other libraries of the same process, without a copy, by DLPack. Both directions hand
// over one pointer whose last owner calls its deleter, from any thread; memory stays as long as either side
// holds it. Any thread.
#pragma once

#include "tandem/eager/dlpack_abi.h"
#include "tandem/eager/tensor.h"

namespace tandem {

struct DlpackOptions {
  bool read_only = false;  // the consumer is asked not to write
  bool copy = false;       // memory of its own, which the consumer alone has
};

/// The tensor's memory for a consumer, who owns the result and calls `deleter(result)` once; the tensor may
/// be gone by then. Cast it to the consumer's own DLManagedTensorVersioned*. Sizes and strides are the
/// tensor's; `data` is null if it has no elements. Memory that both sides see changes for both; in-place
/// changes by Tandem move versions as always, those by the consumer are not noticed by backward(). On CUDA
/// all queued work is waited for. In a traced call this is a read, as data<T>() is. An Error for a tensor
/// that requires grad (detach() it first).
dlpack::ManagedTensorVersioned* to_dlpack(const Tensor& t, const DlpackOptions& options = {},
                                          Location where = Location::here());
/// The same for consumers that know only DLPack before 1.0. These have no read-only tensors.
dlpack::ManagedTensor* to_dlpack_unversioned(const Tensor& t, Location where = Location::here());

/// A tensor over the memory of a producer. Takes `managed` over: its deleter is called once, when the last
/// tensor over the memory is gone, or at once if it is refused or was made by to_dlpack() of this program:
/// then the result shares its memory as a detach()ed tensor does, with versions of in-place changes. What is
/// marked read-only is copied, since tensors here can be written. An Error, naming the field, for: null,
/// another major version (then nothing but the deleter is touched), a device or dtype that Tandem has not
/// (int8, uint16, complex, several lanes,
/// ...), more than 8 axes, negative sizes or strides, sizes that overflow, null or unaligned data. Null
/// strides mean row-major, as before DLPack 1.2. CUDA memory must be ready: the producer's stream is not
/// waited for.
Tensor from_dlpack(dlpack::ManagedTensorVersioned* managed, Location where = Location::here());
Tensor from_dlpack(dlpack::ManagedTensor* managed, Location where = Location::here());

}  // namespace tandem
