#include "tandem/jit/cudnn.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <mutex>

#include "tandem/core/error.h"
#include "tandem/core/log.h"

namespace tandem::jit {

using cuda::Cudnn;
using cuda::Pointer;
using cuda::Runtime;

namespace {

constexpr int64_t kAligned = 16;  // bytes; operands that are not lie at multiples of their elements

/// cuDNN on one device. A handle has one stream at a time, so its users take turns.
struct Library {
  std::mutex mutex;
  Cudnn::Handle handle = nullptr;
  std::string broken;  // why there is no handle, for good
  struct Found {
    std::unique_ptr<const CudnnConvolution> convolution;
    std::string why;  // there is none
  };
  std::map<std::vector<int64_t>, Found> found;
};

Library& library_of(const Runtime& device) {
  static auto* const all = new std::array<Library, cuda::kMostDevices>;
  return (*all)[static_cast<size_t>(device.index())];
}

std::vector<int64_t> key_of(const CudnnShape& s) {
  std::vector<int64_t> key = {static_cast<int64_t>(s.direction), static_cast<int64_t>(s.dtype), s.tf32,
                              s.groups, s.x.rank()};
  for (const Dims* const list :
       {&s.x, &s.w, &s.y, &s.x_strides, &s.w_strides, &s.y_strides, &s.pads, &s.strides, &s.dilations})
    key.insert(key.end(), list->begin(), list->end());
  return key;
}

/// Elements from the first to the last, as long as they are fewer than 2^31; 0 for sizes of 0.
int64_t reach(const Dims& sizes, const Dims& strides) {
  constexpr int64_t kMost = int64_t{1} << 31;
  int64_t last = 0;
  for (int d = 0; d < sizes.rank(); ++d) {
    if (sizes[d] == 0) return 0;
    if (sizes[d] > kMost || strides[d] > kMost) return kMost;
    last = std::min(last + (sizes[d] - 1) * strides[d], kMost);
  }
  return std::min(last + 1, kMost);
}

void check_shape(const CudnnShape& s) {
  const int rank = s.x.rank(), axes = rank - 2;
  bool right = rank >= 3 && rank <= 5 && s.groups > 0;
  for (const Dims* const list : {&s.w, &s.y, &s.x_strides, &s.w_strides, &s.y_strides})
    right = right && list->rank() == rank;
  for (const Dims* const list : {&s.pads, &s.strides, &s.dilations}) right = right && list->rank() == axes;
  right =
      right && s.x[0] == s.y[0] && s.w[0] == s.y[1] && s.w[1] * s.groups == s.x[1] && s.w[0] % s.groups == 0;
  for (int d = 0; right && d < axes; ++d) right = s.strides[d] > 0 && s.dilations[d] > 0 && s.pads[d] >= 0;
  TANDEM_INTERNAL(right, "a convolution whose sizes do not fit: " + to_string(s));
}

/// Whether y is all that x gives; a transposed convolution may leave more of x without an output.
bool complete(const CudnnShape& s) {
  for (int d = 0; d < s.pads.rank(); ++d) {
    const int64_t room = s.x[d + 2] + 2 * s.pads[d] - s.dilations[d] * (s.w[d + 2] - 1) - 1;
    if (room < 0 || s.y[d + 2] != room / s.strides[d] + 1) return false;
  }
  return true;
}

}  // namespace

struct CudnnConvolution {
  CudnnPlan aligned, loose;
  int64_t element;
};

namespace {

/// Under the library's lock.
std::unique_ptr<const CudnnConvolution> make(Runtime& device, Library& library, const CudnnShape& shape,
                                             std::string* why) {
  const Cudnn& api = *cuda::cudnn();
  device.use();
  if (!library.handle && library.broken.empty()) {
    int status = api.create(&library.handle);
    if (status != Cudnn::kSuccess) {  // it may have wanted the memory that is cached
      device.empty_cache();
      status = api.create(&library.handle);
    }
    if (status != Cudnn::kSuccess) {
      library.handle = nullptr;
      library.broken = std::string("cudnnCreate: ") + api.error_string(status);
      core::log(core::LogArea::jit, core::LogLevel::warn,
                library.broken + "; convolutions are done by kernels of Tandem's own, which are slower");
    }
  }
  if (!library.broken.empty()) {
    *why = library.broken;
    return nullptr;
  }
  const CudnnTarget target{&api, library.handle, nullptr};
  const int64_t element = itemsize(shape.dtype);
  std::optional<CudnnPlan> aligned = CudnnPlan::make(target, shape, kAligned, why);
  if (!aligned) return nullptr;
  std::optional<CudnnPlan> loose = CudnnPlan::make(target, shape, element, why);
  if (!loose) return nullptr;
  return std::make_unique<const CudnnConvolution>(
      CudnnConvolution{std::move(*aligned), std::move(*loose), element});
}

}  // namespace

CudnnShape cudnn_shape(const ops::ConvolutionShape& s) {
  CudnnShape out;
  out.direction = static_cast<CudnnDirection>(s.direction);
  out.dtype = s.dtype;
  out.tf32 = s.tf32;
  out.groups = s.groups;
  out.x = {s.batch, s.channels}, out.w = {s.outputs, s.group_channels()}, out.y = {s.batch, s.outputs};
  const bool flat = s.in[0] == 1 && s.out[0] == 1 && s.kernel[0] == 1 && s.padding[0] == 0;
  for (int d = flat ? 1 : 0; d < ops::kConvolutionAxes; ++d) {
    out.x.push_back(s.in[d]), out.w.push_back(s.kernel[d]), out.y.push_back(s.out[d]);
    out.pads.push_back(s.padding[d]), out.strides.push_back(s.stride[d]);
    out.dilations.push_back(s.dilation[d]);
  }
  out.x_strides = contiguous_strides(out.x);
  out.w_strides = contiguous_strides(out.w);
  out.y_strides = contiguous_strides(out.y);
  return out;
}

bool cudnn_can(const CudnnShape& s, std::string* why) {
  const auto no = [&](std::string reason) {
    if (why) *why = std::move(reason);
    return false;
  };
  if (s.dtype != DType::float32 && s.dtype != DType::float16 && s.dtype != DType::bfloat16)
    return no(std::string("cuDNN is not asked for ") + name(s.dtype));
  check_shape(s);
  for (const auto& [sizes, strides] :
       {std::pair(&s.x, &s.x_strides), std::pair(&s.w, &s.w_strides), std::pair(&s.y, &s.y_strides)}) {
    const int64_t elements = reach(*sizes, *strides);
    if (elements == 0) return no("there is nothing to compute");
    if (elements >= int64_t{1} << 31) return no("cuDNN is not asked for memory of 2^31 elements");
    for (int d = 0; d < sizes->rank(); ++d)
      if ((*strides)[d] <= 0) return no("cuDNN is not asked for strides of 0");
  }
  if (!complete(s)) return no("cuDNN is not asked for fewer outputs than there are places for");
  if (!cuda::cudnn()) return no(cuda::why_no_cudnn());
  return true;
}

#ifdef TANDEM_TEST_SWITCHES
bool cudnn_off = false;
#endif

const CudnnConvolution* cudnn_convolution(Runtime& device, const CudnnShape& shape, std::string* why) {
  std::string reason;
  if (!why) why = &reason;
#ifdef TANDEM_TEST_SWITCHES
  if (cudnn_off) return nullptr;
#endif
  if (!cudnn_can(shape, why)) return nullptr;
  Library& library = library_of(device);
  const std::lock_guard lock(library.mutex);
  auto at = library.found.find(key_of(shape));
  if (at == library.found.end()) {
    Library::Found made;
    try {
      made.convolution = make(device, library, shape, &made.why);
    } catch (const Error& e) {
      made.why = e.what();
    }
    const std::string who = "cuDNN, " + to_string(shape) + ": ";
    if (const CudnnConvolution* const c = made.convolution.get())
      core::log(core::LogArea::jit, core::LogLevel::debug,
                who + "engines " + std::to_string(c->aligned.engine()) + " and " +
                    std::to_string(c->loose.engine()) + ", " + std::to_string(workspace_bytes(*c)) +
                    " bytes of workspace");
    else
      core::log(core::LogArea::jit, core::LogLevel::info, who + "not taken: " + made.why);
    at = library.found.emplace(key_of(shape), std::move(made)).first;
  }
  const Library::Found& found = at->second;
  if (!found.convolution) *why = found.why;
  return found.convolution.get();
}

int64_t workspace_bytes(const CudnnConvolution& c) {
  return std::max(c.aligned.workspace_bytes(), c.loose.workspace_bytes());
}

void run_convolution(Runtime& device, const CudnnConvolution& c, Pointer x, Pointer w, Pointer y,
                     Pointer workspace, cuda::StreamHandle stream) {
  TANDEM_INTERNAL((x | w | y) % static_cast<Pointer>(c.element) == 0, "an element at an odd address");
  const Cudnn& api = *cuda::cudnn();
  const auto memory = [](Pointer p) { return reinterpret_cast<void*>(p); };
  const CudnnPlan& plan = (x | w | y) % kAligned == 0 ? c.aligned : c.loose;
  Library& library = library_of(device);
  device.use();
  const std::lock_guard lock(library.mutex);
  if (const int status = api.set_stream(library.handle, stream); status != Cudnn::kSuccess)
    fail(std::string("cudnnSetStream: ") + api.error_string(status));
  plan.run(library.handle, memory(x), memory(w), memory(y), memory(workspace));
}

}  // namespace tandem::jit
