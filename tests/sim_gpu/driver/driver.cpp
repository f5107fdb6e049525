// The functions of the simulated driver that are not about streams and graphs.
#include <cstdio>
#include <cstring>

#include "tests/sim_gpu/driver/launch.h"
#include "tests/sim_gpu/driver/memory.h"
#include "tests/sim_gpu/driver/streams.h"

namespace sim_gpu {

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/driver.def"
#undef TANDEM_CUDA

namespace {

bool initialised = false;

/// What a Context points at: one per device.
struct Primary {
  int device = 0;
  int users = 0;
};
Primary& primary(int device) {
  static auto* const all = [] {
    auto* made = new Primary[64];
    for (int i = 0; i < 64; ++i) made[i].device = i;
    return made;
  }();
  return all[device];
}

bool is_device(int device) { return device >= 0 && device < settings().devices; }

struct ErrorText {
  Result error;
  const char *name, *text;
};
constexpr ErrorText kErrors[] = {
    {Result::success, "CUDA_SUCCESS", "no error"},
    {Result::invalid_value, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {Result::out_of_memory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {Result::not_initialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {Result::no_device, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {Result::invalid_device, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {Result::invalid_image, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {Result::no_binary_for_gpu, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {Result::not_found, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {Result::not_ready, "CUDA_ERROR_NOT_READY", "device not ready"},
    {Result::illegal_address, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {Result::launch_out_of_resources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
     "too many resources requested for launch"},
    {Result::launch_failed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {kUpdateFailure, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE",
     "the graph update was not performed because it included changes which violated constraints specific to "
     "instantiated graph update"},
    {Result::unknown, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

const ErrorText* find_error(Result error) {
  for (const ErrorText& e : kErrors)
    if (e.error == error) return &e;
  return nullptr;
}

/// The checks before anything that needs a context.
Result ready() {
  if (!initialised) return Result::not_initialized;
  return current_device() < 0 ? kInvalidContext : Result::success;
}

}  // namespace

Result cuInit(unsigned flags) {
  const Lock lock(mutex());
  if (flags != 0) return Result::invalid_value;
  if (settings().devices <= 0) return Result::no_device;
  initialised = true;
  return Result::success;
}

Result cuDriverGetVersion(int* version) {
  if (version == nullptr) return Result::invalid_value;
  const Lock lock(mutex());
  *version = settings().version;
  return Result::success;
}

Result cuGetErrorName(Result error, const char** text) {
  const ErrorText* found = find_error(error);
  if (text == nullptr || found == nullptr) return Result::invalid_value;
  *text = found->name;
  return Result::success;
}

Result cuGetErrorString(Result error, const char** text) {
  const ErrorText* found = find_error(error);
  if (text == nullptr || found == nullptr) return Result::invalid_value;
  *text = found->text;
  return Result::success;
}

Result cuDeviceGetCount(int* count) {
  const Lock lock(mutex());
  if (count == nullptr) return Result::invalid_value;
  if (!initialised) return Result::not_initialized;
  *count = settings().devices;
  return Result::success;
}

Result cuDeviceGet(int* device, int ordinal) {
  const Lock lock(mutex());
  if (device == nullptr) return Result::invalid_value;
  if (!initialised) return Result::not_initialized;
  if (!is_device(ordinal)) return Result::invalid_device;
  *device = ordinal;
  return Result::success;
}

Result cuDeviceGetName(char* name, int length, int device) {
  const Lock lock(mutex());
  if (name == nullptr || length <= 0) return Result::invalid_value;
  if (!is_device(device)) return Result::invalid_device;
  std::snprintf(name, static_cast<size_t>(length), "Simulated GPU");
  return Result::success;
}

// The vendor's table of compute capabilities.
int shared_of(int capability) {
  const int kib = capability < 70                        ? 48
                  : capability == 70                     ? 96
                  : capability < 80                      ? 64
                  : capability == 80 || capability == 87 ? 163
                  : capability >= 90 && capability < 120 ? 227
                                                         : 99;
  return 1024 * kib;
}

Result cuDeviceGetAttribute(int* value, int attribute, int device) {
  const Lock lock(mutex());
  if (value == nullptr) return Result::invalid_value;
  if (!is_device(device)) return Result::invalid_device;
  switch (attribute) {
    case tandem::cuda::kMultiprocessors:
      *value = 132;
      return Result::success;
    case tandem::cuda::kMajor:
      *value = settings().capability / 10;
      return Result::success;
    case tandem::cuda::kMinor:
      *value = settings().capability % 10;
      return Result::success;
    case tandem::cuda::kSharedPerBlock:
      *value = sim_dynamic_limit;
      return Result::success;
    case tandem::cuda::kSharedPerBlockOptIn:
      *value = shared_of(settings().capability);
      return Result::success;
    case 1:
      *value = 1024;
      return Result::success;  // threads of a block
    case 10:
      *value = 32;
      return Result::success;  // threads of a warp
    case 39:
      *value = 2048;
      return Result::success;  // threads of a multiprocessor
    case 41:
      *value = 1;
      return Result::success;  // one address space with the host
    default:
      return Result::invalid_value;
  }
}

Result cuDeviceTotalMem_v2(size_t* bytes, int device) {
  const Lock lock(mutex());
  if (bytes == nullptr) return Result::invalid_value;
  if (!is_device(device)) return Result::invalid_device;
  *bytes = settings().device_bytes;
  return Result::success;
}

Result cuDevicePrimaryCtxRetain(Context* context, int device) {
  const Lock lock(mutex());
  if (context == nullptr) return Result::invalid_value;
  if (!initialised) return Result::not_initialized;
  if (!is_device(device)) return Result::invalid_device;
  if (take_failure("cuDevicePrimaryCtxRetain")) return Result::out_of_memory;
  ++primary(device).users;
  *context = reinterpret_cast<Context>(&primary(device));
  return Result::success;
}

Result cuDevicePrimaryCtxRelease_v2(int device) {
  const Lock lock(mutex());
  if (!is_device(device)) return Result::invalid_device;
  if (primary(device).users == 0) return kInvalidContext;
  --primary(device).users;
  return Result::success;
}

Result cuCtxSetCurrent(Context context) {
  const Lock lock(mutex());
  if (!initialised) return Result::not_initialized;
  if (context == nullptr) {
    current_device() = -1;
    return Result::success;
  }
  for (int device = 0; device < settings().devices; ++device) {
    if (reinterpret_cast<Context>(&primary(device)) != context) continue;
    if (primary(device).users == 0) return kInvalidContext;
    current_device() = device;
    return Result::success;
  }
  return kInvalidContext;
}

// No lock: this thread's.
Result cuCtxGetCurrent(Context* context) {
  if (context == nullptr) return Result::invalid_value;
  const int device = current_device();
  *context = device < 0 ? nullptr : reinterpret_cast<Context>(&primary(device));
  return Result::success;
}

// --- memory ---

Result cuMemAlloc_v2(Pointer* memory, size_t bytes) {
  const Lock lock(mutex());
  if (memory == nullptr || bytes == 0) return Result::invalid_value;
  if (ready() != Result::success) return ready();
  if (take_failure("cuMemAlloc") || live_bytes(current_device()) + bytes > settings().device_bytes)
    return Result::out_of_memory;
  char* data = allocate(bytes, current_device());
  *memory = reinterpret_cast<Pointer>(data);
  return data != nullptr ? Result::success : Result::out_of_memory;
}

Result cuMemFree_v2(Pointer memory) {
  const Lock lock(mutex());
  if (memory == 0) return Result::success;
  if (!initialised) return Result::not_initialized;
  const Allocation* a = find_allocation(memory);
  if (a != nullptr && a->device >= 0) run_all(a->device);  // the real one waits too
  if (release(reinterpret_cast<void*>(memory), false)) return Result::success;
  return a == nullptr || reinterpret_cast<Pointer>(a->data) != memory ? Result::invalid_value
                                                                      : Result::launch_failed;
}

Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  const Lock lock(mutex());
  if (free == nullptr || total == nullptr) return Result::invalid_value;
  if (ready() != Result::success) return ready();
  *total = settings().device_bytes;
  *free = *total - std::min(*total, live_bytes(current_device()));
  return Result::success;
}

Result cuMemAllocHost_v2(void** memory, size_t bytes) {
  const Lock lock(mutex());
  if (memory == nullptr || bytes == 0) return Result::invalid_value;
  if (ready() != Result::success) return ready();
  if (take_failure("cuMemAllocHost")) return Result::out_of_memory;
  *memory = allocate(bytes, -1);
  return *memory != nullptr ? Result::success : Result::out_of_memory;
}

Result cuMemFreeHost(void* memory) {
  const Lock lock(mutex());
  if (ready() != Result::success) return ready();
  for (int device = 0; device < settings().devices; ++device) run_all(device);
  return release(memory, true) ? Result::success : Result::invalid_value;
}

namespace {

/// Whether the host memory of a copy may be read or written later: it is pinned.
bool pinned(const void* address) {
  const Allocation* a = find_allocation(reinterpret_cast<uintptr_t>(address));
  return a != nullptr && a->device < 0;
}

Result copy_checks(StreamHandle stream, const char* function, std::shared_ptr<StreamState>* state) {
  if (ready() != Result::success) return ready();
  const Result found = find_stream(stream, function, state);
  if (found != Result::success) return found;
  return take_failure(function) ? Result::launch_failed : Result::success;
}

void count_copy(size_t bytes) {
  add("copies", 1);
  add("copied_bytes", static_cast<long>(bytes));
}

/// Host memory of a copy that lies in a device's memory is a mistake that unified addressing would hide.
bool host_side(const void* address, const char* function) {
  const Allocation* a = find_allocation(reinterpret_cast<uintptr_t>(address));
  if (address != nullptr && (a == nullptr || a->device < 0)) return true;
  say(std::string(function) + ": the host's side of a copy is " +
      (address == nullptr ? "null" : "an address of a device"));
  return false;
}

}  // namespace

Result cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = copy_checks(stream, "cuMemcpyHtoDAsync", &state);
  if (checked != Result::success || bytes == 0) return checked;
  if (!host_side(from, "cuMemcpyHtoDAsync") || !holds(to, bytes, "cuMemcpyHtoDAsync"))
    return Result::invalid_value;
  count_copy(bytes);
  auto* const target = reinterpret_cast<void*>(to);
  if (pinned(from) || settings().lazy == 2 || (settings().lazy == 0 && state->capture == nullptr))
    return give(*state, [=] {
      std::memcpy(target, from, bytes);
      return Result::success;
    });
  // Staged: the bytes are those of now.
  const char* begin = static_cast<const char*>(from);
  return give(*state, [target, staged = std::vector<char>(begin, begin + bytes)] {
    std::memcpy(target, staged.data(), staged.size());
    return Result::success;
  });
}

Result cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = copy_checks(stream, "cuMemcpyDtoHAsync", &state);
  if (checked != Result::success || bytes == 0) return checked;
  if (!host_side(to, "cuMemcpyDtoHAsync") || !holds(from, bytes, "cuMemcpyDtoHAsync"))
    return Result::invalid_value;
  count_copy(bytes);
  const Result given = give(*state, [=] {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return Result::success;
  });
  if (pinned(to) || state->capture != nullptr) return given;
  run_until(*state, state->given);  // into pageable memory the real one waits
  return given;
}

Result cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = copy_checks(stream, "cuMemcpyDtoDAsync", &state);
  if (checked != Result::success || bytes == 0) return checked;
  if (!holds(to, bytes, "cuMemcpyDtoDAsync") || !holds(from, bytes, "cuMemcpyDtoDAsync"))
    return Result::invalid_value;
  if (to < from + bytes && from < to + bytes) {
    say("cuMemcpyDtoDAsync: the two sides overlap");
    return Result::invalid_value;
  }
  count_copy(bytes);
  return give(*state, [=] {
    std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return Result::success;
  });
}

Result cuMemsetD8Async(Pointer to, unsigned char value, size_t bytes, StreamHandle stream) {
  const Lock lock(mutex());
  std::shared_ptr<StreamState> state;
  const Result checked = copy_checks(stream, "cuMemsetD8Async", &state);
  if (checked != Result::success || bytes == 0) return checked;
  if (!holds(to, bytes, "cuMemsetD8Async")) return Result::invalid_value;
  add("fills", 1);
  return give(*state, [=] {
    std::memset(reinterpret_cast<void*>(to), value, bytes);
    return Result::success;
  });
}

// --- modules and launches ---

Result cuModuleLoadData(Module* module, const void* image) {
  const Lock lock(mutex());
  if (module == nullptr || image == nullptr) return Result::invalid_value;
  if (ready() != Result::success) return ready();
  if (take_failure("cuModuleLoadData")) return Result::out_of_memory;
  Result why = Result::success;
  auto loaded = LoadedModule::load(image, &why);
  if (!loaded) return why;
  auto* out = new tandem::cuda::ModuleOfDriver{loaded, {}};
  for (int i = 0; i < loaded->table().n_kernels; ++i) {
    const sim_kernel& kernel = loaded->table().kernels[i];
    auto function = std::make_unique<tandem::cuda::FunctionOfDriver>(
        tandem::cuda::FunctionOfDriver{kernel.name, &kernel, loaded});
    handle_made(function.get(), "function");
    out->functions[kernel.name] = std::move(function);
  }
  *module = out;
  handle_made(out, "module");
  return Result::success;
}

Result cuModuleUnload(Module module) {
  const Lock lock(mutex());
  if (module == nullptr || !handle_is(module, "module", "cuModuleUnload")) return kInvalidHandle;
  for (const auto& [name, function] : module->functions) handle_gone(function.get(), "function");
  handle_gone(module, "module");
  delete module;
  return Result::success;
}

Result cuModuleGetFunction(Function* function, Module module, const char* name) {
  const Lock lock(mutex());
  if (function == nullptr || name == nullptr) return Result::invalid_value;
  if (module == nullptr || !handle_is(module, "module", "cuModuleGetFunction")) return kInvalidHandle;
  if (take_failure("cuModuleGetFunction")) return Result::not_found;
  const auto found = module->functions.find(name);
  if (found == module->functions.end()) return Result::not_found;
  *function = found->second.get();
  return Result::success;
}

Result cuFuncSetAttribute(Function function, int attribute, int value) {
  const Lock lock(mutex());
  if (function == nullptr || !handle_is(function, "function", "cuFuncSetAttribute")) return kInvalidHandle;
  if (take_failure("cuFuncSetAttribute")) return Result::invalid_value;
  if (attribute != tandem::cuda::kMostDynamicShared || value < 0 || value > shared_of(settings().capability))
    return Result::invalid_value;
  function->dynamic_limit = static_cast<unsigned>(value);
  return Result::success;
}

Result cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, StreamHandle stream,
                      void** parameters, void** extra) {
  if (only_counted("launches")) return Result::success;
  const Lock lock(mutex());
  if (ready() != Result::success) return ready();
  std::shared_ptr<StreamState> state;
  Result result = find_stream(stream, "cuLaunchKernel", &state);
  if (result != Result::success) return result;
  std::shared_ptr<const Launch> launch;
  result = make_launch({function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, parameters,
                        extra, nullptr, nullptr},
                       "cuLaunchKernel", &launch);
  if (result != Result::success) return result;
  if (take_failure("cuLaunchKernel")) return Result::launch_failed;
  return give_launch(*state, std::move(launch));
}

}  // namespace sim_gpu
