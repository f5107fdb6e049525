// The simulated cuDNN: its C functions over descriptors.h, convolution.h and graph.h. Its work runs on
// streams of the simulated driver, which must be loaded.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <utility>

#include "tandem/core/cuda/cudnn_api.h"
#include "tests/sim_gpu/cudnn/descriptors.h"
#include "tests/sim_gpu/driver_control.h"

namespace tandem::cuda {

struct HandleOfCudnn {
  StreamHandle stream = nullptr;
};

}  // namespace tandem::cuda

namespace sim_gpu {

using Handle = Cudnn::Handle;
using tandem::cuda::StreamHandle;

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/cudnn.def"
#undef TANDEM_CUDA

namespace {

using Lock = std::lock_guard<std::mutex>;
using A = Cudnn::Attribute;
using K = Cudnn::Kind;

long from_environment(const char* name, long otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr && *text != '\0' ? std::strtol(text, nullptr, 10) : otherwise;
}

/// The memory that a pack has for a tensor; the status.
int find_memory(Descriptor pack, const Tensor& tensor, void** data) {
  auto* const holds = SIM_GPU_CONTROL(sim_gpu_holds);
  if (holds == nullptr) return Cudnn::kNotInitialized;
  const auto ids = pack->read<int64_t>(A::pack_ids);
  const auto pointers = pack->read<void*>(A::pack_pointers);
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] == tensor.id) *data = pointers[i];
  if (*data == nullptr) return refuse("a tensor without memory", Cudnn::kNullPointer);
  if (tensor.by_value) return Cudnn::kSuccess;
  if (reinterpret_cast<uintptr_t>(*data) % static_cast<uintptr_t>(tensor.alignment) != 0)
    return refuse("memory that is aligned worse than the plan was told", Cudnn::kMisaligned);
  if (holds(*data, tensor.span_bytes()) == 0)
    return refuse("a tensor outside of its memory", Cudnn::kBadParam);
  return Cudnn::kSuccess;
}

/// An engine's workspace, which overlaps none of the tensors.
int find_workspace(Descriptor pack, const Engine& by, const std::vector<std::pair<Tensor, void*>>& tensors,
                   void** workspace, size_t* bytes) {
  if (by.workspace_bytes == 0) return Cudnn::kSuccess;
  if (pack->values.count(A::pack_workspace) != 0) *workspace = pack->first<void*>(A::pack_workspace);
  *bytes = static_cast<size_t>(by.workspace_bytes);
  if (*workspace == nullptr || reinterpret_cast<uintptr_t>(*workspace) % 256 != 0 ||
      SIM_GPU_CONTROL(sim_gpu_holds)(*workspace, *bytes) == 0)
    return refuse("a workspace outside of its memory, or misaligned", Cudnn::kBadParam);
  for (const auto& [tensor, data] : tensors) {
    const auto* const from = static_cast<const char*>(data);
    const auto* const place = static_cast<const char*>(*workspace);
    if (!tensor.by_value && from < place + *bytes && place < from + tensor.span_bytes())
      return refuse("a workspace that overlaps a tensor", Cudnn::kBadParam);
  }
  return Cudnn::kSuccess;
}

/// A plan's convolution with the memory of a pack.
int bind(Descriptor plan, Descriptor pack, ConvolutionData* out) {
  *out = *plan->problem;
  const Engine& by = engine(plan->engine);
  out->spoiled = by.spoiled;
  for (const int note : by.notes)
    out->tf32 |= note == Cudnn::Note::tensor_core && out->x.type == Cudnn::kFloat;
  std::vector<std::pair<Tensor, void*>> tensors;
  for (const auto& [tensor, data] :
       {std::pair(&out->x, &out->x_data), std::pair(&out->w, &out->w_data), std::pair(&out->y, &out->y_data),
        std::pair(&out->bias, &out->bias_data)}) {
    if (tensor == &out->bias && !out->biased) continue;
    if (const int status = find_memory(pack, *tensor, data); status != Cudnn::kSuccess) return status;
    tensors.push_back({*tensor, *data});
  }
  return find_workspace(pack, by, tensors, &out->workspace, &out->workspace_bytes);
}

/// The same of another graph.
int bind(Descriptor plan, Descriptor pack, GraphData* out) {
  out->operations = plan->graph;
  const Engine& by = engine(plan->engine);
  out->spoiled = by.spoiled;
  std::vector<std::pair<Tensor, void*>> tensors;
  for (const Tensor& t : out->tensors()) {
    void* data = nullptr;
    if (const int status = find_memory(pack, t, &data); status != Cudnn::kSuccess) return status;
    tensors.push_back({t, data});
    if (t.by_value)
      out->numbers[t.id] = *static_cast<const float*>(data);  // it is read now, not when the work runs
    else
      out->memory[t.id] = data;
  }
  return find_workspace(pack, by, tensors, &out->workspace, &out->workspace_bytes);
}

}  // namespace

size_t cudnnGetVersion() { return 90100; }

size_t cudnnGetCudartVersion() { return static_cast<size_t>(from_environment("SIM_GPU_CUDNN_CUDA", 13000)); }

const char* cudnnGetErrorString(int status) {
  switch (status) {
    case Cudnn::kSuccess:
      return "CUDNN_STATUS_SUCCESS";
    case Cudnn::kNotInitialized:
      return "CUDNN_STATUS_NOT_INITIALIZED";
    case Cudnn::kNotSupported:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    case Cudnn::kHostAllocationFailed:
      return "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED";
    case Cudnn::kExecutionFailed:
      return "CUDNN_STATUS_EXECUTION_FAILED";
    default:
      return "CUDNN_STATUS_BAD_PARAM";
  }
}

void cudnnGetLastErrorString(char* text, size_t bytes) {
  if (text != nullptr && bytes > 0) std::snprintf(text, bytes, "%s", last_refusal().c_str());
}

int cudnnCreate(Handle* handle) {
  if (handle == nullptr) return Cudnn::kNullPointer;
  if (SIM_GPU_CONTROL(sim_gpu_enqueue) == nullptr) return Cudnn::kNotInitialized;  // no driver
  if (from_environment("SIM_GPU_CUDNN_BROKEN", 0) != 0) return Cudnn::kNotInitialized;
  if (made_to_fail("cudnnCreate")) return Cudnn::kHostAllocationFailed;
  *handle = new tandem::cuda::HandleOfCudnn;
  return Cudnn::kSuccess;
}

int cudnnDestroy(Handle handle) {
  delete handle;
  return Cudnn::kSuccess;
}

int cudnnSetStream(Handle handle, StreamHandle stream) {
  if (handle == nullptr) return refuse("no handle", Cudnn::kNullPointer);
  if (made_to_fail("cudnnSetStream")) return Cudnn::kExecutionFailed;
  auto* const is_stream = SIM_GPU_CONTROL(sim_gpu_is_stream);  // the library may look at the one it had
  if (handle->stream != nullptr && (is_stream == nullptr || is_stream(handle->stream) == 0))
    return Cudnn::kExecutionFailed;
  handle->stream = stream;
  return Cudnn::kSuccess;
}

int cudnnBackendCreateDescriptor(int kind, Descriptor* descriptor) {
  const Lock lock(descriptors_lock());
  if (descriptor == nullptr) return Cudnn::kNullPointer;
  if (made_to_fail("cudnnBackendCreateDescriptor")) return Cudnn::kHostAllocationFailed;
  *descriptor = make_descriptor(kind);
  return *descriptor != nullptr ? Cudnn::kSuccess
                                : refuse("a kind of descriptor that is not simulated", Cudnn::kNotSupported);
}

int cudnnBackendDestroyDescriptor(Descriptor descriptor) {
  const Lock lock(descriptors_lock());
  if (const int status = check_descriptor(descriptor); status != Cudnn::kSuccess) return status;
  forget_descriptor(descriptor);
  delete descriptor;
  return Cudnn::kSuccess;
}

int cudnnBackendSetAttribute(Descriptor descriptor, int attribute, int type, int64_t count,
                             const void* values) {
  const Lock lock(descriptors_lock());
  if (const int status = check_descriptor(descriptor); status != Cudnn::kSuccess) return status;
  if (made_to_fail("cudnnBackendSetAttribute")) return Cudnn::kHostAllocationFailed;
  return set_attribute(descriptor, attribute, type, count, values);
}

int cudnnBackendGetAttribute(Descriptor descriptor, int attribute, int type, int64_t wanted, int64_t* count,
                             void* values) {
  const Lock lock(descriptors_lock());
  if (const int status = check_descriptor(descriptor); status != Cudnn::kSuccess) return status;
  if (made_to_fail("cudnnBackendGetAttribute")) return Cudnn::kHostAllocationFailed;
  return get_attribute(descriptor, attribute, type, wanted, count, values);
}

int cudnnBackendFinalize(Descriptor descriptor) {
  const Lock lock(descriptors_lock());
  if (const int status = check_descriptor(descriptor); status != Cudnn::kSuccess) return status;
  if (made_to_fail("cudnnBackendFinalize")) return Cudnn::kHostAllocationFailed;
  return finalize(descriptor);
}

int cudnnBackendExecute(Handle handle, Descriptor plan, Descriptor pack) {
  ConvolutionData c;
  GraphData* g = nullptr;
  {
    const Lock lock(descriptors_lock());
    if (handle == nullptr) return refuse("no handle", Cudnn::kNullPointer);
    for (const auto& [part, kind] : {std::pair(plan, K::plan), std::pair(pack, K::pack)}) {
      if (const int status = check_descriptor(part); status != Cudnn::kSuccess) return status;
      if (part->kind != kind) return refuse("a descriptor of another kind", Cudnn::kBadParam);
      if (!part->finalized) return refuse("a descriptor that is not finalized", Cudnn::kNotFinalized);
    }
    if (!plan->problem) {  // what is queued may run again as long as a graph lives
      static auto* const all = new std::deque<GraphData>;
      g = &all->emplace_back();
    }
    if (const int status = g != nullptr ? bind(plan, pack, g) : bind(plan, pack, &c);
        status != Cudnn::kSuccess)
      return status;
  }
  auto* const enqueue = SIM_GPU_CONTROL(sim_gpu_enqueue);
  auto* const add = SIM_GPU_CONTROL(sim_gpu_add);
  if (enqueue == nullptr || add == nullptr) return Cudnn::kNotInitialized;
  if (made_to_fail("cudnnBackendExecute")) return Cudnn::kExecutionFailed;
  add(g != nullptr ? "attentions" : "convolutions", 1);
  const auto convolve = [](const void* data) {
    run_convolution(*static_cast<const ConvolutionData*>(data));
    return 1;
  };
  const auto attend = [](const void* data) {
    run_graph(**static_cast<GraphData* const*>(data));
    return 1;
  };
  const int status = g != nullptr ? enqueue(handle->stream, "cudnnBackendExecute", attend, &g, sizeof g)
                                  : enqueue(handle->stream, "cudnnBackendExecute", convolve, &c, sizeof c);
  return status == 0 ? Cudnn::kSuccess : Cudnn::kExecutionFailed;
}

}  // namespace sim_gpu
