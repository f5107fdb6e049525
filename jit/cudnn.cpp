#include "tandem/jit/cudnn.h"

#include <algorithm>
#include <array>
#include <limits>
#include <list>
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
  using Key = std::vector<int64_t>;
  struct Found {
    std::shared_ptr<const CudnnConvolution> convolution;
    std::shared_ptr<const CudnnPlan> attention;
    std::string why;  // there is none
    std::list<Key>::iterator use;
  };
  std::mutex mutex;
  Cudnn::Handle handle = nullptr;
  cuda::StreamHandle stream = nullptr;  // the handle's
  std::string broken;                   // why there is no handle, for good
  std::map<Key, Found> found;
  std::list<Key> uses;  // the last first
};

Library& library_of(const Runtime& device) {
  static auto* const all = new std::array<Library, cuda::kMostDevices>;
  return (*all)[static_cast<size_t>(device.index())];
}

enum : int64_t { kConvolution, kAttention };

Library::Key key_of(const CudnnShape& s) {
  Library::Key key = {kConvolution,
                      static_cast<int64_t>(s.direction),
                      static_cast<int64_t>(s.dtype),
                      s.tf32,
                      s.biased,
                      s.groups,
                      s.x.rank()};
  for (const Dims* const list :
       {&s.x, &s.w, &s.y, &s.x_strides, &s.w_strides, &s.y_strides, &s.pads, &s.strides, &s.dilations})
    key.insert(key.end(), list->begin(), list->end());
  return key;
}

Library::Key key_of(const CudnnAttention& s) {
  Library::Key key = {kAttention, static_cast<int64_t>(s.dtype),
                      s.backward, s.causal,
                      s.batch,    s.heads,
                      s.shared,   s.rows,
                      s.columns,  s.width,
                      s.out_width};
  for (const Dims* const list : {&s.q_strides, &s.k_strides, &s.v_strides, &s.grad_strides})
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

/// Under the library's lock. False, and the reason, if there is no handle.
bool open(Runtime& device, Library& library, std::string* why) {
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
                library.broken +
                    "; convolutions and attention are done by kernels of Tandem's own, which are slower");
    }
  }
  *why = library.broken;
  return library.handle != nullptr;
}

/// What is kept under `key`, or what `make(found)` makes, which says why if it is nothing. Under the lock.
template <class Make>
Library::Found& find(Library& library, const Library::Key& key, Make&& make) {
  auto at = library.found.find(key);
  if (at != library.found.end()) {
    library.uses.splice(library.uses.begin(), library.uses, at->second.use);
    return at->second;
  }
  Library::Found made;
  try {
    make(made);
  } catch (const Error& e) {
    made.why = e.what();
  }
  library.uses.push_front(key);
  made.use = library.uses.begin();
  at = library.found.emplace(key, std::move(made)).first;
  if (library.found.size() > kCudnnKept) {
    library.found.erase(library.uses.back());
    library.uses.pop_back();
  }
  return at->second;
}

template <class Shape>
void tell(const Shape& shape, const std::string& engines, int64_t bytes) {
  core::log(
      core::LogArea::jit, core::LogLevel::debug,
      "cuDNN, " + to_string(shape) + ": " + engines + ", " + std::to_string(bytes) + " bytes of workspace");
}

/// What the library makes of a call: found, or made once by make(library, why), which gives null where there
/// is none.
template <class Shape, class Made, class Make>
Made ask(Runtime& device, const Shape& shape, std::string* why, Made Library::Found::*kind, Make make) {
  std::string reason;
  if (!why) why = &reason;
#ifdef TANDEM_TEST_SWITCHES
  if (cudnn_off) return nullptr;
#endif
  if (!cudnn_can(shape, why)) return nullptr;
  Library& library = library_of(device);
  const std::lock_guard lock(library.mutex);
  const Library::Found& found = find(library, key_of(shape), [&](Library::Found& answer) {
    if (!open(device, library, &answer.why)) return;
    answer.*kind = make(library, answer.why);
    if (answer.*kind)
      answer.why.clear();
    else
      core::log(core::LogArea::jit, core::LogLevel::info,
                "cuDNN, " + to_string(shape) + ": not taken: " + answer.why);
  });
  if (!(found.*kind)) *why = found.why;
  return found.*kind;
}

}  // namespace

CudnnShape cudnn_shape(const ops::ConvolutionShape& s, bool biased) {
  CudnnShape out;
  out.biased = biased;
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

bool cudnn_can(const CudnnAttention& s, std::string* why) {
  const auto no = [&](std::string reason) {
    if (why) *why = std::move(reason);
    return false;
  };
  if (s.dtype != DType::float16 && s.dtype != DType::bfloat16)
    return no(std::string("cuDNN is not asked for attention of ") + name(s.dtype));
  for (const auto& [sizes, strides] : {std::pair(s.q(), s.q_strides), std::pair(s.k(), s.k_strides),
                                       std::pair(s.v(), s.v_strides), std::pair(s.y(), s.grad_strides)}) {
    const int64_t elements = reach(sizes, strides);
    if (elements == 0) return no("there is nothing to compute");
    if (elements >= int64_t{1} << 31) return no("cuDNN is not asked for memory of 2^31 elements");
  }
  if (!cuda::cudnn()) return no(cuda::why_no_cudnn());
  return true;
}

#ifdef TANDEM_TEST_SWITCHES
bool cudnn_off = false;

size_t cudnn_kept(Runtime& device) {
  Library& library = library_of(device);
  const std::lock_guard lock(library.mutex);
  return library.found.size();
}
#endif

std::shared_ptr<const CudnnConvolution> cudnn_convolution(Runtime& device, const CudnnShape& shape,
                                                          std::string* why) {
  return ask(device, shape, why, &Library::Found::convolution, [&](Library& library, std::string& reason) {
    const CudnnTarget target{cuda::cudnn(), library.handle, nullptr};
    const int64_t element = itemsize(shape.dtype);
    std::optional<CudnnPlan> aligned = CudnnPlan::make(target, shape, kAligned, &reason), loose;
    if (aligned) loose = CudnnPlan::make(target, shape, element, &reason);
    if (!loose) return std::shared_ptr<const CudnnConvolution>();
    const auto made = std::make_shared<const CudnnConvolution>(
        CudnnConvolution{std::move(*aligned), std::move(*loose), element});
    const std::string engines =
        std::to_string(made->aligned.engine()) + " and " + std::to_string(made->loose.engine());
    tell(shape, "engines " + engines, workspace_bytes(*made));
    return made;
  });
}

std::shared_ptr<const CudnnPlan> cudnn_attention(Runtime& device, const CudnnAttention& shape,
                                                 std::string* why) {
  return ask(device, shape, why, &Library::Found::attention, [&](Library& library, std::string& reason) {
    const Cudnn& api = *cuda::cudnn();
    std::optional<CudnnPlan> plan = CudnnPlan::make(
        {&api, library.handle, nullptr}, attention_graph(api, shape), attention_terms(shape), &reason);
    if (!plan) return std::shared_ptr<const CudnnPlan>();
    tell(shape, "engine " + std::to_string(plan->engine()), plan->workspace_bytes());
    return std::make_shared<const CudnnPlan>(std::move(*plan));
  });
}

int64_t workspace_bytes(const CudnnConvolution& c) {
  return std::max(c.aligned.workspace_bytes(), c.loose.workspace_bytes());
}

void run_convolution(Runtime& device, const CudnnConvolution& c, Pointer x, Pointer w, Pointer y,
                     Pointer bias, Pointer workspace, cuda::StreamHandle stream) {
  const Pointer all = x | w | y | bias;
  TANDEM_INTERNAL(all % static_cast<Pointer>(c.element) == 0, "an element at an odd address");
  const auto memory = [](Pointer p) { return reinterpret_cast<const void*>(p); };
  const CudnnPlan::Operand operands[] = {{CudnnPlan::kX, memory(x)},
                                         {CudnnPlan::kW, memory(w)},
                                         {CudnnPlan::kY, memory(y)},
                                         {CudnnPlan::kBias, memory(bias)}};
  run_plan(device, all % kAligned == 0 ? c.aligned : c.loose, {operands, bias ? size_t{4} : size_t{3}},
           workspace, stream);
}

void run_plan(Runtime& device, const CudnnPlan& plan, std::span<const CudnnPlan::Operand> operands,
              Pointer workspace, cuda::StreamHandle stream) {
  const Cudnn& api = *cuda::cudnn();
  Library& library = library_of(device);
  device.use();
  const std::lock_guard lock(library.mutex);
  if (const int status = api.set_stream(library.handle, stream); status != Cudnn::kSuccess)
    fail(std::string("cudnnSetStream: ") + api.error_string(status));
  library.stream = stream;
  plan.run(library.handle, operands, reinterpret_cast<void*>(workspace));
}

void leave_stream(Runtime& device, cuda::StreamHandle stream) noexcept {
  Library& library = library_of(device);
  const std::lock_guard lock(library.mutex);
  if (!library.handle || library.stream != stream) return;
  try {
    device.use();
    cuda::cudnn()->set_stream(library.handle, nullptr);
  } catch (const Error&) {
  }
  library.stream = nullptr;
}

float cudnn_lowest() {
  constexpr size_t kFirst = 91000;  // that takes an infinity
  return cuda::cudnn()->version() < kFirst ? std::numeric_limits<float>::lowest()
                                           : -std::numeric_limits<float>::infinity();
}

}  // namespace tandem::jit
