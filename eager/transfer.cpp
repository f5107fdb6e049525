#include "tandem/eager/transfer.h"

#include <cstring>

#include "tandem/core/cuda/runtime.h"
#include "tandem/eager/dispatch.h"

namespace tandem::eager {

namespace {
cuda::Pointer address(const core::TensorImpl& t) { return reinterpret_cast<cuda::Pointer>(t.data); }
}  // namespace

Tensor copied_to(const Tensor& t, Device device, Location where) {
  const NoGrad no_grad;
  const Tensor packed = t.contiguous(where);
  core::TensorImpl* from = packed.impl();
  materialize(from, where);
  try {
    if (device.type == DeviceType::cuda) cuda::Runtime::of(device, "to", where);
    core::Ref<core::TensorImpl> to = core::make_tensor(from->sizes, from->dtype, device);
    const int64_t nbytes = from->nbytes();
    if (nbytes == 0) return Tensor(std::move(to));
    if (from->device.type == DeviceType::cpu && device.type == DeviceType::cpu) {
      std::memcpy(to->data, from->data, static_cast<size_t>(nbytes));
    } else if (from->device.type == DeviceType::cpu) {
      cuda::Runtime::of(device).copy_in(address(*to), from->data, nbytes);
      // The user's memory may be pinned: then the copy is still to come, and the user free to write there.
      if (from->storage->release) cuda::Runtime::of(device).synchronize();
    } else if (device.type == DeviceType::cpu) {
      cuda::Runtime::of(from->device).copy_out(to->data, address(*from), nbytes);
    } else {  // through the host
      const Tensor host = copied_to(packed, cpu, where);
      cuda::Runtime::of(device).copy_in(address(*to), host.impl()->data, nbytes);
    }
    return Tensor(std::move(to));
  } catch (const Error& e) {
    fail_again(e, "to", where);
  }
}

void load_element(const core::TensorImpl& t, void* out) {
  const auto nbytes = itemsize(t.dtype);
  if (t.device.type == DeviceType::cpu) [[likely]]
    std::memcpy(out, t.data, static_cast<size_t>(nbytes));
  else
    cuda::Runtime::of(t.device).copy_out(out, address(t), nbytes);
}

}  // namespace tandem::eager
