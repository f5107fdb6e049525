#include "tandem/eager/transfer.h"

#include <cstring>

#include "tandem/core/cuda/pinned.h"
#include "tandem/core/cuda/runtime.h"
#include "tandem/eager/dispatch.h"

namespace tandem::eager {

namespace {
cuda::Pointer address(const core::TensorImpl& t) { return reinterpret_cast<cuda::Pointer>(t.data); }

/// A fresh contiguous tensor of the host in pinned memory.
core::Ref<core::TensorImpl> pinned_like(const core::TensorImpl& from, Device device, const char* who,
                                        Location where) {
  core::Ref<core::TensorImpl> to(core::new_impl());
  to->dtype = from.dtype;
  core::set_contiguous_layout(*to, from.sizes);
  core::set_storage(*to, cuda::make_pinned_storage(from.nbytes(), device, who, where));
  return to;
}

}  // namespace

Tensor copied_to(const Tensor& t, Device device, bool non_blocking, Location where) {
  const NoGrad no_grad;
  const Tensor packed = t.contiguous(where);
  core::TensorImpl* from = packed.impl();
  make_real(from, where);
  try {
    if (device.type == DeviceType::cuda) cuda::Runtime::of(device, "to", where);
    const int64_t nbytes = from->nbytes();
    const bool to_host = device.type == DeviceType::cpu && from->device.type == DeviceType::cuda;
    core::Ref<core::TensorImpl> to = to_host && non_blocking && nbytes > 0
                                         ? pinned_like(*from, from->device, "to", where)
                                         : core::make_tensor(from->sizes, from->dtype, device);
    if (nbytes == 0) return Tensor(std::move(to));
    if (from->device.type == DeviceType::cpu && device.type == DeviceType::cpu) {
      core::settle_host(from->data);
      std::memcpy(to->data, from->data, static_cast<size_t>(nbytes));
    } else if (from->device.type == DeviceType::cpu) {
      cuda::Runtime& r = cuda::Runtime::of(device);
      if (from->storage->release && cuda::is_pinned(from->data)) {
        cuda::queue_copy_in(r, address(*to), from->data, nbytes);
        if (!non_blocking) r.synchronize_current();
      } else {
        r.copy_in(address(*to), from->data, nbytes);
      }
    } else if (to_host) {
      cuda::Runtime& r = cuda::Runtime::of(from->device);
      if (non_blocking)
        cuda::queue_copy_out(r, to->data, address(*from), nbytes);
      else
        r.copy_out(to->data, address(*from), nbytes);
    } else {  // through the host
      const Tensor host = copied_to(packed, cpu, false, where);
      cuda::Runtime::of(device).copy_in(address(*to), host.impl()->data, nbytes);
    }
    return Tensor(std::move(to));
  } catch (const Error& e) {
    fail_again(e, "to", where);
  }
}

Tensor pinned_copy(const Tensor& t, Location where) {
  const NoGrad no_grad;
  const Tensor packed = t.contiguous(where);
  core::TensorImpl* from = packed.impl();
  materialize(from, where);
  try {
    core::Ref<core::TensorImpl> to = pinned_like(*from, {DeviceType::cuda, 0}, "pin_memory", where);
    if (from->nbytes() > 0) std::memcpy(to->data, from->data, static_cast<size_t>(from->nbytes()));
    return Tensor(std::move(to));
  } catch (const Error& e) {
    fail_again(e, "pin_memory", where);
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
