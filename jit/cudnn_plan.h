// A convolution as an execution plan of cuDNN: the description of the operation, the choice among the engines
// that the library proposes for it, and its execution. No state; a plan belongs to its maker. Planning is for
// any thread; a handle is used by one thread at a time.
//
// An engine is taken if it is deterministic, multiplies what it is given (float32 stays float32 unless tf32
// is allowed, and is neither transformed nor rounded before), adds up in float32, within kCudnnWorkspace, and
// is not compiled first, which takes seconds a shape.
// The first such one in the library's own order is taken: a function of the shape, the library and the
// device.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/cuda/cudnn_api.h"
#include "tandem/core/dims.h"
#include "tandem/core/dtype.h"

namespace tandem::jit {

/// Bytes of workspace that a plan may ask for.
inline constexpr int64_t kCudnnWorkspace = int64_t{256} << 20;

/// Which of y, x and w is computed of the other two.
enum class CudnnDirection : uint8_t { forward, input, weight };

/// y (N, O, *out) = the cross-correlation of x (N, C, *in) with w (O, C / groups, *kernel), or what it is for
/// the other two. One to three axes behind the channels; out = (in + 2 pads - dilations (kernel - 1) - 1) /
/// strides + 1, rounded down. Products are added up in float32.
struct CudnnShape {
  CudnnDirection direction = CudnnDirection::forward;
  DType dtype = DType::float32;  // of x, w and y
  bool tf32 = false;             // float32 operands may be rounded to TF32
  int64_t groups = 1;
  Dims x, w, y;                          // sizes
  Dims x_strides, w_strides, y_strides;  // in elements; where elements lie is the caller's choice
  Dims pads, strides, dilations;         // one an axis

  friend bool operator==(const CudnnShape&, const CudnnShape&) = default;
};

/// "input float16 x (2, 8, 9, 9) w (4, 4, 3, 3) y (2, 4, 9, 9) groups 2 ...", for logs.
std::string to_string(const CudnnShape& shape);

/// A descriptor of the library's.
class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  CudnnDescriptor(const cuda::Cudnn& api, int kind);
  ~CudnnDescriptor() {
    if (made_) api_->descriptor_destroy(made_);
  }
  CudnnDescriptor(CudnnDescriptor&& other) noexcept
      : api_(other.api_), made_(std::exchange(other.made_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(made_, other.made_);
    return *this;
  }

  cuda::Cudnn::Descriptor get() const { return made_; }
  /// Throw Error, with what the library says.
  void set(int attribute, int type, int64_t count, const void* values);
  void set(int attribute, int64_t value);
  void set(int attribute, const Dims& values);
  void set(int attribute, const CudnnDescriptor& value);
  void finalize();
  /// The status.
  int try_finalize() { return api_->finalize(made_); }
  /// How many there are; of them at most `most` are written to `values`.
  int64_t read(int attribute, int type, int64_t most, void* values) const;

 private:
  const cuda::Cudnn* api_ = nullptr;
  cuda::Cudnn::Descriptor made_ = nullptr;
};

/// Where a plan shall run: a handle, or, where there is none, a device described in the library's own words.
struct CudnnTarget {
  const cuda::Cudnn* api = nullptr;
  cuda::Cudnn::Handle handle = nullptr;
  const CudnnDescriptor* device = nullptr;
};

class CudnnPlan {
 public:
  /// Operands lie at multiples of `alignment` bytes. Nothing, and the reason, if no engine is taken; throws
  /// Error if the library refuses the description itself.
  static std::optional<CudnnPlan> make(const CudnnTarget& target, const CudnnShape& shape, int64_t alignment,
                                       std::string* why);

  int64_t workspace_bytes() const { return workspace_bytes_; }
  /// Which engine it is, and the numerical notes on it.
  int64_t engine() const { return engine_; }
  const std::vector<int>& notes() const { return notes_; }
  /// Queues it on the handle's stream.
  void run(cuda::Cudnn::Handle handle, const void* x, const void* w, const void* y, void* workspace) const;

 private:
  explicit CudnnPlan(const cuda::Cudnn& api) : api_(&api) {}
  /// Whether this configuration makes a plan that is taken; else `why` says why not.
  bool take(const CudnnTarget& target, const CudnnShape& shape, CudnnDescriptor config, std::string* why);

  const cuda::Cudnn* api_;
  std::vector<CudnnDescriptor> parts_;  // what the plan is made of
  CudnnDescriptor plan_;
  int64_t workspace_bytes_ = 0, engine_ = -1;
  std::vector<int> notes_;
};

}  // namespace tandem::jit
