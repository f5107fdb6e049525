// What tests on a CUDA device share. The device is the simulated one under ctest label sim_gpu, a card under
// label gpu.
#pragma once

#include <cstring>
#include <vector>

#include "tandem/core/cuda/cuda.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace tandem::test {

inline constexpr Device kCuda{DeviceType::cuda, 0};

/// A network to train: a product, a row kernel, draws, a product.
struct SmallNet : nn::Module {
  nn::Linear hidden = child<nn::Linear>("hidden", 16, 32);
  nn::LayerNorm norm = child<nn::LayerNorm>("norm", 32);
  nn::Linear out = child<nn::Linear>("out", 32, 10);
  Tensor forward(const Tensor& x) { return out(dropout(relu(norm(hidden(x))), 0.25)); }
};

/// A test that needs a device fails without one: it is only run where there should be one.
inline void need_device() {
  if (!cuda::is_available()) FAIL(cuda::why_not_available());
}

/// The same tensor on the device, with its strides.
inline Tensor to_device(const Tensor& t) {
  const NoGrad no_grad;
  const core::TensorImpl& from = *t.impl();
  int64_t reach = 1;
  for (int d = 0; d < from.sizes.rank(); ++d) reach += (from.sizes[d] - 1) * from.strides[d];
  if (from.numel == 0) reach = 0;
  core::Ref<core::TensorImpl> whole(core::new_impl());
  whole->dtype = from.dtype;
  core::set_contiguous_layout(*whole, {reach});
  core::set_storage(*whole, from.storage, from.offset);
  const Tensor moved = Tensor(std::move(whole)).to(kCuda);
  core::Ref<core::TensorImpl> out(core::new_impl());
  out->dtype = from.dtype;
  out->device = kCuda;
  core::set_layout(*out, from.sizes, from.strides);
  core::set_storage(*out, moved.impl()->storage);
  return Tensor(std::move(out));
}

/// The bits of all elements in row-major order.
inline std::vector<char> bits_of(const Tensor& t) {
  const NoGrad no_grad;
  const Tensor host = t.detach().contiguous().to(cpu);
  std::vector<char> out(static_cast<size_t>(host.impl()->nbytes()));
  if (!out.empty()) std::memcpy(out.data(), host.impl()->data, out.size());
  return out;
}

}  // namespace tandem::test
