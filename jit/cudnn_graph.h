// A graph of cuDNN's operations in the making, and what it is made of: descriptors, and the target that it is
// planned for. Who makes a descriptor owns it; a graph keeps all that its operations name. Nothing is shared;
// a descriptor or graph is used by one thread at a time.
#pragma once

#include <deque>
#include <utility>
#include <vector>

#include "tandem/core/cuda/cudnn_api.h"
#include "tandem/core/dims.h"
#include "tandem/core/dtype.h"

namespace tandem::jit {

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

/// What the library says of a status; and an Error that says so unless it is success.
std::string cudnn_said(const cuda::Cudnn& api, int status);
void cudnn_check(const cuda::Cudnn& api, int status, const char* call);

/// Where a plan shall run: a handle, or, where there is none, a device described in the library's own words.
struct CudnnTarget {
  const cuda::Cudnn* api = nullptr;
  cuda::Cudnn::Handle handle = nullptr;
  const CudnnDescriptor* device = nullptr;
};

/// cudnnDataType_t of float16, bfloat16, float32 and float64.
int cudnn_type(DType t);

/// Operations over tensors, in order. All throw Error with what the library says. Pointwise operations and
/// sums are computed in float32 unless their result is of another type than halves and float32.
class CudnnGraph {
 public:
  /// A tensor of the graph's; in a pack it is called by this number, which counts from 1.
  using Tensor = int64_t;

  explicit CudnnGraph(const cuda::Cudnn& api) : api_(&api) {}

  /// Memory that a run brings; `type` as cudnnDataType_t, strides in elements, alignment in bytes.
  Tensor memory(int type, const Dims& sizes, const Dims& strides, int64_t alignment);
  /// A value between operations, which the library need not store.
  Tensor between(int type, const Dims& sizes, const Dims& strides);
  Tensor between(int type, const Dims& sizes) { return between(type, sizes, contiguous_strides(sizes)); }
  /// A number of the given rank that a run brings, from the host's memory: float32.
  Tensor number(int rank);

  /// y = mode(x, b), where one of two operands may be broadcast; `t` chooses: y = t ? x : b. 0: none.
  void pointwise(int mode, Tensor x, Tensor b, Tensor y, Tensor t = 0);
  /// y (int32) = the coordinate along an axis, of a tensor like x.
  void index(Tensor x, int64_t axis, Tensor y);
  /// c (..., m, n) = a (..., m, k) b (..., k, n)
  void product(Tensor a, Tensor b, Tensor c);
  /// Over the axes that y has in size 1.
  void reduce(int mode, Tensor x, Tensor y);
  /// The same elements, found by y's strides.
  void reshape(Tensor x, Tensor y);
  /// An operation that somebody else described.
  void add(CudnnDescriptor operation) { operations_.push_back(std::move(operation)); }
  /// What an operation names must live as long.
  CudnnDescriptor& keep(CudnnDescriptor part) { return parts_.emplace_back(std::move(part)); }

  const CudnnDescriptor& descriptor(Tensor t) const { return tensors_[static_cast<size_t>(t) - 1].made; }
  const cuda::Cudnn& api() const { return *api_; }
  /// The whole, for planning. `handle` may be null.
  CudnnDescriptor finish(cuda::Cudnn::Handle handle) const;

 private:
  struct Made {
    CudnnDescriptor made;
    int type;
  };
  using Named = std::pair<int, Tensor>;  // an operand's attribute and the operand; 0: left out
  Tensor tensor(int type, const Dims& sizes, const Dims& strides, int64_t alignment, int flag);
  /// What an operation does, computed in `compute`; to be described further.
  CudnnDescriptor& does(int kind, int type_attribute, int compute);
  /// Adds an operation; what it does, if that is described apart, is finished by this.
  void operation(int kind, std::initializer_list<Named> operands, int does_attribute = 0,
                 CudnnDescriptor* does = nullptr);
  int type(Tensor t) const { return tensors_[static_cast<size_t>(t) - 1].type; }

  const cuda::Cudnn* api_;
  std::deque<Made> tensors_;
  std::deque<CudnnDescriptor> parts_;
  std::vector<CudnnDescriptor> operations_;
};

}  // namespace tandem::jit
