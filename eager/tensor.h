// Tensor: the handle that users hold. Copying shares the data; the last handle frees it. Handles may move
// between threads; concurrent reads of one tensor are safe, writes need the caller's ordering.
//
// Every function takes the caller's line as a defaulted argument; operators take it through their operand's
// conversion.
#pragma once

#include <bit>
#include <concepts>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/generator.h"
#include "tandem/core/modes.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {

class Tensor;
struct ValuesIndices;  // arrange.h
struct MinMax;

namespace eager {
void refresh_view(core::TensorImpl* t);  // views.h
}

template <class T>
concept Number = std::is_arithmetic_v<T>;

/// A number as it was given: an integer stays one, which a double may not hold. Unsigned ones beyond int64
/// are doubles.
struct AnyNumber {
  NumberKind kind = NumberKind::floating;
  int64_t bits = 0;
  constexpr AnyNumber(NumberKind kind, int64_t bits) : kind(kind), bits(bits) {}
  template <Number T>
  constexpr AnyNumber(T value)  // NOLINT: implicit by design
      : bits(std::bit_cast<int64_t>(static_cast<double>(value))) {
    if constexpr (std::is_same_v<T, bool>) {
      kind = NumberKind::bool_, bits = value;
    } else if constexpr (std::is_integral_v<T>) {
      if (std::is_signed_v<T> || sizeof(T) < 8 || static_cast<int64_t>(value) >= 0)
        kind = NumberKind::integer, bits = static_cast<int64_t>(value);
    }
  }
  /// Enumerators, references to bits and the like.
  template <class T>
  requires(!Number<T> && std::is_convertible_v<T, double>) constexpr AnyNumber(const T& value)  // NOLINT
      : AnyNumber([&] {
          if constexpr (std::is_enum_v<T>)
            return static_cast<std::underlying_type_t<T>>(value);
          else
            return static_cast<double>(value);
        }()) {}
  constexpr double to_double() const {
    return kind == NumberKind::floating ? std::bit_cast<double>(bits) : static_cast<double>(bits);
  }
  /// An integer beyond those that doubles hold without gaps.
  constexpr bool beyond_double() const {
    constexpr int64_t kExact = int64_t{1} << 53;
    return kind == NumberKind::integer && (bits > kExact || bits < -kExact);
  }
};

/// A tensor or a number where an op takes either; carries the caller's line. Lives no longer than the full
/// expression.
class Operand {
 public:
  Operand(const Tensor& t, Location where = Location::here());  // NOLINT: implicit by design
  Operand(AnyNumber n, Location where = Location::here())       // NOLINT
      : kind(n.kind), bits(n.bits), where(where) {}
  template <Number T>
  Operand(T value, Location where = Location::here())  // NOLINT
      : Operand(AnyNumber(value), where) {}
  /// Of an operand that is no tensor.
  AnyNumber number() const { return {kind, bits}; }
  core::TensorImpl* impl = nullptr;  // null: a number
  NumberKind kind = NumberKind::floating;
  int64_t bits = 0;
  Location where;
};

struct Index;  // indexing.h

/// The i of `x[i]`, with the caller's line: a position along the first axis, positions (of integers), or a
/// mask.
struct Position {
  int64_t index = 0;
  core::TensorImpl* tensor = nullptr;  // null: a number
  Location where;
  Position(std::integral auto i, Location where = Location::here())  // NOLINT: implicit by design
      : index(static_cast<int64_t>(i)), where(where) {}
  Position(const Tensor& t, Location where = Location::here());  // NOLINT
};

/// How creation functions make a tensor.
struct TensorOptions {
  std::optional<DType> dtype = {};    // default: that of the values if a function is given any, else float32
  std::optional<Device> device = {};  // default: default_device()
  bool requires_grad = false;
  bool pin_memory = false;  // on the host: as Tensor::pin_memory
};

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(core::Ref<core::TensorImpl> impl) : impl_(std::move(impl)) {}

  bool defined() const { return static_cast<bool>(impl_); }
  core::TensorImpl* impl() const { return impl_.get(); }
  /// The impl, or an Error "undefined tensor" naming the caller.
  core::TensorImpl& checked(Location where = Location::here()) const {
    if (!impl_) [[unlikely]]
      fail_undefined(where);
    return *impl_;
  }

  // What it is. Pending tensors of a traced call answer too.
  const Dims& sizes(Location where = Location::here()) const { return checked(where).sizes; }
  const Dims& strides(Location where = Location::here()) const { return checked(where).strides; }
  int64_t size(int64_t axis, Location where = Location::here()) const;
  int dim(Location where = Location::here()) const { return checked(where).sizes.rank(); }
  int64_t numel(Location where = Location::here()) const { return checked(where).numel; }
  DType dtype(Location where = Location::here()) const { return checked(where).dtype; }
  Device device(Location where = Location::here()) const { return checked(where).device; }
  bool is_contiguous(Location where = Location::here()) const {
    return checked(where).has(core::kContiguous);
  }

  // Reading values. Inside a traced call these run what is pending.
  /// The value of a tensor of one element.
  template <Number T>
  T item(Location where = Location::here()) const;
  /// All elements in row-major order, converted to T.
  template <Number T>
  std::vector<T> to_vector(Location where = Location::here()) const;
  /// Address of the first element, on its device; T must be the element type. In a traced call this counts as
  /// a read.
  template <class T>
  T* data(Location where = Location::here()) const {
    return static_cast<T*>(raw_data(dtype_of<T>, where));
  }
  explicit operator bool() const { return item<double>() != 0; }

  // Autograd.
  bool requires_grad() const {
    if (impl_ && impl_->has(core::kView)) eager::refresh_view(impl_.get());
    return impl_ && impl_->has(core::kRequiresGrad);
  }
  /// Leaves only; floating types only.
  const Tensor& requires_grad_(bool on = true, Location where = Location::here()) const;
  /// True unless the tensor is the result of an op that noted its gradient.
  bool is_leaf() const;
  /// The accumulated gradient; undefined if there is none.
  const Tensor& grad() const;
  void set_grad(const Tensor& grad, Location where = Location::here()) const;
  /// Drops the gradient.
  void zero_grad() const;
  /// Computes gradients of this tensor with respect to the leaves it came from and adds them to their grad().
  /// `gradient` may be left out for one element. The tape is freed unless `retain_graph`; `create_graph`
  /// makes the gradients differentiable. An Error if the tape was freed before or a value it needs was
  /// changed in place.
  void backward(const Tensor& gradient = {}, bool retain_graph = false, bool create_graph = false,
                Location where = Location::here()) const;
  /// The same data without history.
  Tensor detach(Location where = Location::here()) const;
  /// `hook(gradient)` runs when the gradient of this tensor is known; a defined result replaces it. Returns
  /// its number.
  template <class F>
  int register_hook(F&& hook, Location where = Location::here()) const {
    if constexpr (std::is_void_v<std::invoke_result_t<F&, const Tensor&>>) {
      return add_hook([f = std::forward<F>(hook)](const Tensor& g) mutable { return f(g), Tensor(); }, where);
    } else {
      return add_hook(std::forward<F>(hook), where);
    }
  }
  void remove_hook(int number, Location where = Location::here()) const;

  // Types and layout.
  Tensor to(DType dtype, Location where = Location::here()) const;
  /// A copy on another device; gradients go the other way. In a traced call this counts as a read.
  Tensor to(Device device, Location where = Location::here()) const { return to(device, false, where); }
  /// With `non_blocking` the host goes on while pinned memory is copied to a device, or a device's to the
  /// host, whose copy is pinned then; whoever reads or changes either of them waits by itself.
  Tensor to(Device device, bool non_blocking, Location where = Location::here()) const;
  /// A copy in pinned memory of the host, which non-blocking copies need; the tensor itself if it is pinned.
  /// An Error for a tensor of a device, or without CUDA. In a traced call this counts as a read.
  Tensor pin_memory(Location where = Location::here()) const;
  bool is_pinned(Location where = Location::here()) const;
  Tensor contiguous(Location where = Location::here()) const;
  Tensor clone(Location where = Location::here()) const;

  /// Part of the tensor, as in PyTorch: `x.index({0, Slice(1, 3), Ellipsis(), None, positions, mask})`
  /// (indexing.h).
  Tensor index(std::initializer_list<Index> indices, Location where = Location::here()) const;
  Tensor index(std::span<const Index> indices, Location where = Location::here()) const;
  /// With values (a number, or a tensor of this type that broadcasts to index(indices)) put there, or added.
  /// Of several for one place the last stays.
  Tensor index_put(std::initializer_list<Index> indices, const Operand& values, bool accumulate = false,
                   Location where = Location::here()) const;
  Tensor index_put(std::span<const Index> indices, const Operand& values, bool accumulate = false,
                   Location where = Location::here()) const;
  const Tensor& index_put_(std::initializer_list<Index> indices, const Operand& values,
                           bool accumulate = false, Location where = Location::here()) const;
  const Tensor& index_put_(std::span<const Index> indices, const Operand& values, bool accumulate = false,
                           Location where = Location::here()) const;
  Tensor operator[](const Position& i) const;

#define TANDEM_METHOD(result, name, arguments, ...) \
  result name(__VA_ARGS__ __VA_OPT__(, ) Location where = Location::here()) const;
#include "tandem/eager/both.inc"
#undef TANDEM_METHOD
#include "tandem/eager/methods.inc"

 private:
  [[noreturn, gnu::cold]] static void fail_undefined(Location where);
  void* raw_data(DType expected, Location where) const;
  int add_hook(std::function<Tensor(const Tensor&)> hook, Location where) const;
  double item_double(Location where) const;
  int64_t item_int(Location where) const;
  void copy_out(void* out, DType type, Location where) const;
  core::Ref<core::TensorImpl> impl_;
};

/// Tensors as an argument: `{a, b}`, a vector, an array, a span. Refers to them for the call alone.
class TensorSpan : public std::span<const Tensor> {
 public:
  using std::span<const Tensor>::span;
  TensorSpan(std::span<const Tensor> all) : span(all) {}  // NOLINT: implicit by design
  TensorSpan(std::initializer_list<Tensor> all) : span(all.begin(), all.size()) {}  // NOLINT
};

inline Operand::Operand(const Tensor& t, Location where) : impl(&t.checked(where)), where(where) {}
inline Position::Position(const Tensor& t, Location where) : tensor(&t.checked(where)), where(where) {}

template <Number T>
T Tensor::item(Location where) const {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(item_int(where));
  } else {
    return static_cast<T>(item_double(where));
  }
}

template <Number T>
std::vector<T> Tensor::to_vector(Location where) const {
  if constexpr (std::is_same_v<T, bool>) {
    const std::vector<uint8_t> bytes = to_vector<uint8_t>(where);
    return {bytes.begin(), bytes.end()};
  } else {
    std::vector<T> out(static_cast<size_t>(numel(where)));
    copy_out(out.data(), dtype_of<T>, where);
    return out;
  }
}

/// Prints values (at most a few hundred), shape and dtype.
std::ostream& operator<<(std::ostream& out, const Tensor& t);

}  // namespace tandem

#include "tandem/eager/indexing.h"
