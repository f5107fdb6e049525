// A struct from a producer is the work of strangers: every field is checked before memory is looked at, with
// checked arithmetic, and the deleter is called on every way out.
#include "tandem/eager/dlpack.h"

#include <memory>

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/pinned.h"
#include "tandem/eager/dispatch.h"
#include "tandem/eager/functions.h"

namespace tandem {

namespace {

using dlpack::ManagedTensor;
using dlpack::ManagedTensorVersioned;
using dlpack::PackTensor;
using dlpack::PackType;

PackType pack_type(DType t) {
  const auto bits = static_cast<uint8_t>(8 * itemsize(t));
  switch (t) {
    case DType::bool_:
      return {dlpack::kBool, bits, 1};
    case DType::uint8:
      return {dlpack::kUInt, bits, 1};
    case DType::int32:
    case DType::int64:
      return {dlpack::kInt, bits, 1};
    case DType::bfloat16:
      return {dlpack::kBfloat, bits, 1};
    case DType::float16:
    case DType::float32:
    case DType::float64:
      return {dlpack::kFloat, bits, 1};
  }
  internal_error("no such type");
}

// --- Export ---

/// What an exported struct owns. It holds the storage alone: a tensor belongs to whoever may write it, a
/// storage may be dropped on any thread.
template <class Managed>
struct Exported {
  Managed managed{};
  core::Ref<core::Storage> storage;
  int64_t shape[kMaxRank], strides[kMaxRank];
};

/// The deleter of what is exported, by which an import knows it again.
template <class Managed>
void delete_exported(Managed* self) {
  delete static_cast<Exported<Managed>*>(self->manager_ctx);
}

void check_exportable(const Tensor& t, Location where) {
  t.checked(where);
  if (t.requires_grad())
    fail("to_dlpack: the tensor requires grad, which a consumer knows nothing of; detach() it first", where);
}

template <class Managed>
std::unique_ptr<Exported<Managed>> export_tensor(const Tensor& t, Location where) {
  core::TensorImpl& impl = t.checked(where);
  eager::materialize(&impl, where, true);
  if (impl.device.type == DeviceType::cuda) cuda::synchronize(impl.device);
  auto e = std::make_unique<Exported<Managed>>();
  e->storage = impl.storage;
  e->storage->exposed = true;
  PackTensor& p = e->managed.dl_tensor;
  const bool host = impl.device.type == DeviceType::cpu;
  p.device = {host ? dlpack::kCpu : dlpack::kCuda, host ? 0 : int32_t{impl.device.index}};
  p.ndim = impl.sizes.rank();
  p.dtype = pack_type(impl.dtype);
  for (int d = 0; d < impl.sizes.rank(); ++d) {
    e->shape[d] = impl.sizes[d];
    e->strides[d] = impl.strides[d];
  }
  if (p.ndim > 0) p.shape = e->shape, p.strides = e->strides;
  if (impl.numel > 0) {
    p.data = impl.storage->data;
    p.byte_offset = static_cast<uint64_t>(impl.offset * itemsize(impl.dtype));
  }
  e->managed.manager_ctx = e.get();
  e->managed.deleter = delete_exported<Managed>;
  return e;
}

// --- Import ---

/// Owns a producer's struct until its memory's last tensor is gone.
template <class Managed>
class Imported {
 public:
  explicit Imported(Managed* m) : managed_(m) {}
  ~Imported() { release(managed_); }
  Imported(const Imported&) = delete;
  Imported& operator=(const Imported&) = delete;
  /// The storage that calls the deleter at its end; what was exported here has one already.
  core::Ref<core::Storage> storage(void* data, int64_t nbytes, Device device) {
    if (managed_->deleter == delete_exported<Managed>) {
      const auto& own = static_cast<Exported<Managed>*>(managed_->manager_ctx)->storage;
      const auto at = reinterpret_cast<uintptr_t>(data), begin = reinterpret_cast<uintptr_t>(own->data);
      const bool inside = at >= begin && at - begin <= static_cast<uint64_t>(own->nbytes) &&
                          nbytes <= own->nbytes - static_cast<int64_t>(at - begin);
      if (inside && own->device == device) return own;
    }
    core::Ref<core::Storage> s = core::borrow_storage(
        data, nbytes, [](void* m) { release(static_cast<Managed*>(m)); }, managed_);
    managed_ = nullptr;
    s->device = device;
    if (eager::Interceptor* i = eager::interceptor()) i->borrowed();
    return s;
  }

 private:
  static void release(Managed* m) {
    if (m && m->deleter) m->deleter(m);
  }
  Managed* managed_;
};

[[noreturn]] void refuse(const std::string& why, Location where) { fail("from_dlpack: " + why, where); }

DType type_of(const PackType& t, Location where) {
  if (t.lanes == 1)
    for (int i = 0; i < kDTypeCount; ++i) {
      const auto dtype = static_cast<DType>(i);
      const PackType p = pack_type(dtype);
      if (p.code == t.code && p.bits == t.bits) return dtype;
    }
  refuse("no dtype for code " + std::to_string(t.code) + ", " + std::to_string(t.bits) + " bits, " +
             std::to_string(t.lanes) + " lanes",
         where);
}

Device device_of(const dlpack::PackDevice& d, Location where) {
  // Pinned memory is the host's; what waits for its copies knows it by its address.
  if (d.device_type == dlpack::kCpu || d.device_type == dlpack::kCudaHost) return cpu;
  if (d.device_type != dlpack::kCuda)
    refuse("device type " + std::to_string(d.device_type) + " is neither the host (1, 3) nor CUDA (2)",
           where);
  if (!cuda::is_available()) refuse("a CUDA tensor: " + cuda::why_not_available(), where);
  if (d.device_id < 0 || d.device_id >= cuda::device_count())
    refuse("there is no CUDA device " + std::to_string(d.device_id), where);
  return {DeviceType::cuda, static_cast<uint8_t>(d.device_id)};
}

struct Described {
  DType dtype;
  Device device;
  Dims sizes, strides;
  void* data = nullptr;
  int64_t nbytes = 0;  // from the first element's first to the last one's last
};

Described described(const PackTensor& p, Location where) {
  Described d;
  d.dtype = type_of(p.dtype, where);
  d.device = device_of(p.device, where);
  if (p.ndim < 0 || p.ndim > kMaxRank)
    refuse("ndim is " + std::to_string(p.ndim) + ", 0 to " + std::to_string(kMaxRank) + " are possible",
           where);
  if (p.ndim > 0 && !p.shape) refuse("shape is null and ndim " + std::to_string(p.ndim), where);
  for (int i = 0; i < p.ndim; ++i) {
    if (p.shape[i] < 0) refuse("shape has the negative size " + std::to_string(p.shape[i]), where);
    d.sizes.push_back(p.shape[i]);
  }
  const int64_t n = checked_numel(d.sizes, where), item = itemsize(d.dtype);
  checked_mul(n, item, "from_dlpack: size in bytes", where);
  d.strides = contiguous_strides(d.sizes);
  int64_t reach = n == 0 ? 0 : 1;
  for (int i = 0; i < p.ndim && n > 0; ++i) {
    if (p.strides && d.sizes[i] > 1) {
      if (p.strides[i] < 0)
        refuse("strides have the negative step " + std::to_string(p.strides[i]) +
                   ", which tensors here cannot have; let the producer copy",
               where);
      d.strides[i] = p.strides[i];
    }
    const int64_t steps = checked_mul(d.sizes[i] - 1, d.strides[i], "from_dlpack: strides", where);
    reach = checked_add(reach, steps, "from_dlpack: strides", where);
  }
  d.nbytes = checked_mul(reach, item, "from_dlpack: size in bytes", where);
  if (n == 0) return d;
  if (!p.data) refuse("data is null for " + std::to_string(n) + " elements", where);
  const auto address = reinterpret_cast<uintptr_t>(p.data), begin = address + p.byte_offset;
  if (begin < address || begin + static_cast<uint64_t>(d.nbytes) < begin)
    refuse("byte_offset " + std::to_string(p.byte_offset) + " leads out of memory", where);
  if (begin % static_cast<uintptr_t>(item) != 0)
    refuse("the data is not aligned to the " + std::to_string(item) + " bytes of an element", where);
  d.data = reinterpret_cast<void*>(begin);
  return d;
}

template <class Managed>
Tensor import_tensor(Imported<Managed>& owner, const PackTensor& p, bool read_only, Location where) {
  const Described d = described(p, where);
  core::Ref<core::TensorImpl> t(core::new_impl());
  t->dtype = d.dtype;
  t->device = d.device;
  core::set_layout(*t, d.sizes, d.strides);
  core::Ref<core::Storage> storage = owner.storage(d.data, d.nbytes, d.device);
  const int64_t bytes = d.data ? static_cast<char*>(d.data) - static_cast<char*>(storage->data) : 0;
  core::set_storage(*t, std::move(storage), bytes / itemsize(d.dtype));
  const Tensor shared(std::move(t));
  if (!read_only) return shared;
  const NoGrad no_grad;
  const Tensor copy = shared.clone(where);
  eager::materialize(copy.impl(), where);
  if (d.device.type == DeviceType::cuda) cuda::synchronize(d.device);
  return copy;
}

}  // namespace

ManagedTensorVersioned* to_dlpack(const Tensor& t, const DlpackOptions& options, Location where) {
  check_exportable(t, where);
  auto e = export_tensor<ManagedTensorVersioned>(options.copy ? t.clone(where) : t, where);
  e->managed.version = {dlpack::kMajorVersion, dlpack::kMinorVersion};
  e->managed.flags = (options.read_only ? dlpack::kReadOnly : 0) | (options.copy ? dlpack::kIsCopied : 0);
  return &e.release()->managed;
}

ManagedTensor* to_dlpack_unversioned(const Tensor& t, Location where) {
  check_exportable(t, where);
  return &export_tensor<ManagedTensor>(t, where).release()->managed;
}

Tensor from_dlpack(ManagedTensorVersioned* managed, Location where) {
  if (!managed) refuse("the pointer is null", where);
  Imported<ManagedTensorVersioned> owner(managed);
  if (managed->version.major != dlpack::kMajorVersion)
    refuse("the producer's structure has version " + std::to_string(managed->version.major) +
               ".x, version 1 is known",
           where);
  return import_tensor(owner, managed->dl_tensor, managed->flags & dlpack::kReadOnly, where);
}

Tensor from_dlpack(ManagedTensor* managed, Location where) {
  if (!managed) refuse("the pointer is null", where);
  Imported<ManagedTensor> owner(managed);
  return import_tensor(owner, managed->dl_tensor, false, where);
}

}  // namespace tandem
