// An execution plan of cuDNN: the choice among the engines that the library proposes for a graph, and its
// execution; and convolutions as graphs. No state; a plan belongs to its maker. Planning is for any thread; a
// handle is used by one thread at a time.
//
// An engine is taken if it is deterministic, multiplies what it is given (float32 stays float32 unless tf32
// is allowed, and is neither transformed nor rounded before), adds up in float32, within a limit of
// workspace, and is not compiled first unless that is allowed.
// The first such one in the library's own order is taken: a function of the shape, the library and the
// device.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "tandem/jit/cudnn_graph.h"

namespace tandem::jit {

/// Bytes of workspace that a plan may ask for, unless it says otherwise.
inline constexpr int64_t kCudnnWorkspace = int64_t{256} << 20;

/// Which of y, x and w is computed of the other two.
enum class CudnnDirection : uint8_t { forward, input, weight };

/// y (N, O, *out) = the cross-correlation of x (N, C, *in) with w (O, C / groups, *kernel), or what it is for
/// the other two. One to three axes behind the channels; out = (in + 2 pads - dilations (kernel - 1) - 1) /
/// strides + 1, rounded down. Products are added up in float32.
struct CudnnShape {
  CudnnDirection direction = CudnnDirection::forward;
  DType dtype = DType::float32;  // of x, w, y and bias
  bool tf32 = false;             // float32 operands may be rounded to TF32
  bool biased = false;           // a value a channel of the result is added in float32, before it is rounded
  int64_t groups = 1;
  Dims x, w, y;                          // sizes
  Dims x_strides, w_strides, y_strides;  // in elements; where elements lie is the caller's choice
  Dims pads, strides, dilations;         // one an axis

  friend bool operator==(const CudnnShape&, const CudnnShape&) = default;
};

/// "input float16 x (2, 8, 9, 9) w (4, 4, 3, 3) y (2, 4, 9, 9) groups 2 ...", for logs.
std::string to_string(const CudnnShape& shape);

/// What an engine may do.
struct CudnnTerms {
  bool exact = false;     // operands are float32 and must not be rounded to TF32
  bool compiled = false;  // it may be compiled first
  int64_t workspace_bytes = kCudnnWorkspace;
};

class CudnnPlan {
 public:
  /// Nothing, and the reason, if no engine is taken; throws Error if the library refuses the graph itself.
  static std::optional<CudnnPlan> make(const CudnnTarget& target, CudnnGraph graph, const CudnnTerms& terms,
                                       std::string* why);
  /// Of a convolution, whose tensors are called kX, kW, kY and kBias and lie at multiples of `alignment`
  /// bytes.
  static std::optional<CudnnPlan> make(const CudnnTarget& target, const CudnnShape& shape, int64_t alignment,
                                       std::string* why);
  static constexpr CudnnGraph::Tensor kX = 1, kW = 2, kY = 3, kBias = 4;

  int64_t workspace_bytes() const { return workspace_bytes_; }
  /// Which engine it is, and the numerical notes on it.
  int64_t engine() const { return engine_; }
  const std::vector<int>& notes() const { return notes_; }

  /// What a run brings: a tensor of the graph's and where it lies.
  struct Operand {
    CudnnGraph::Tensor tensor;
    const void* memory;
  };
  /// Queues it on the handle's stream. At most kMostOperands.
  void run(cuda::Cudnn::Handle handle, std::span<const Operand> operands, void* workspace) const;
  static constexpr size_t kMostOperands = 16;

 private:
  explicit CudnnPlan(CudnnGraph graph) : graph_(std::move(graph)) {}
  const cuda::Cudnn& api() const { return graph_.api(); }
  /// Whether this configuration makes a plan that is taken; else `why` says why not.
  bool take(const CudnnTarget& target, const CudnnTerms& terms, CudnnDescriptor config, std::string* why);

  CudnnGraph graph_;
  CudnnDescriptor whole_, config_, plan_;
  int64_t workspace_bytes_ = 0, engine_ = -1;
  std::vector<int> notes_;
};

}  // namespace tandem::jit
