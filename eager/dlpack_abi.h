// The C structures of DLPack 1.1 (https://dmlc.github.io/dlpack/latest/c_api.html), declared by ourselves:
// the published binary layout, field for field, under names of our own, so that a program may include the
// original header beside it and reinterpret_cast between the two. Plain data.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::dlpack {

inline constexpr uint32_t kMajorVersion = 1, kMinorVersion = 1;

enum DeviceCode : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3 };                     // DLDeviceType
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4, kBool = 6 };  // DLDataTypeCode
inline constexpr uint64_t kReadOnly = 1, kIsCopied = 2;                               // DLPACK_FLAG_BITMASK_*

struct PackVersion {  // DLPackVersion
  uint32_t major, minor;
};
struct PackDevice {  // DLDevice
  int32_t device_type, device_id;
};
struct PackType {  // DLDataType
  uint8_t code, bits;
  uint16_t lanes;
};
struct PackTensor {  // DLTensor; strides in elements
  void* data;
  PackDevice device;
  int32_t ndim;
  PackType dtype;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};
struct ManagedTensor {  // DLManagedTensor, of producers and consumers before DLPack 1.0
  PackTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(ManagedTensor* self);
};
struct ManagedTensorVersioned {  // DLManagedTensorVersioned
  PackVersion version;
  void* manager_ctx;
  void (*deleter)(ManagedTensorVersioned* self);
  uint64_t flags;
  PackTensor dl_tensor;
};

static_assert(sizeof(PackTensor) == 48 && offsetof(PackTensor, dtype) == 20 &&
              offsetof(PackTensor, shape) == 24 && offsetof(PackTensor, byte_offset) == 40);
static_assert(sizeof(ManagedTensor) == 64 && offsetof(ManagedTensor, deleter) == 56);
static_assert(sizeof(ManagedTensorVersioned) == 80 && offsetof(ManagedTensorVersioned, deleter) == 16 &&
              offsetof(ManagedTensorVersioned, dl_tensor) == 32);

}  // namespace tandem::dlpack
