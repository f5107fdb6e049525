// What an op is: one `OpDef`, pure data and stateless functions, written once in a table file (ops/*.def) and
// looked up by `OpId`; a program's own ops (user_ops.h) join it while it runs. Eager execution, inference,
// gradients, printing, code generation and the generated tests follow from it. The table is constant from
// start to end; any thread.
//
// An op is called with operands and attribute words. Operands are tensors, or numbers where a pointwise op or
// a run-time attribute takes one. Attributes are 8-byte words in declared order; a list is a count and its
// values, and lists come last. `floating` and `dynamic` attributes are run-time: no pass and no key looks at
// their values (rule R8).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "tandem/core/device.h"
#include "tandem/core/dims.h"
#include "tandem/core/dtype.h"
#include "tandem/core/location.h"
#include "tandem/ops/scalar.h"

namespace tandem::ops {

enum class OpId : uint16_t {
#define TANDEM_OP(name, ...) name,
#include "tandem/ops/ops.def"
#undef TANDEM_OP
  count_
};

enum class OpKind : uint8_t {
  pointwise,  // a scalar formula over broadcast operands
  reduction,  // ReduceOp over the axes in the list attribute `axes`; the accumulator is cast to the result's
              // type
  view,       // an affine map from output index to input index
  piecewise,  // several such maps: cat, pad
  gather,     // operand 1 holds the coordinate along `axis` of operand 0: index_select (rank 1, it runs along
              // the axis of the result), gather (it has the result's sizes)
  scatter,    // the transposes, sums on collision: index_add, scatter_add
  scan,       // a running combine along an axis: cumsum; over windows: pooling
  random,     // a pointwise formula over Philox counters
  fill,       // a formula of the index alone: full, arange
  contraction,  // matrix products
  convolution,  // convolutions and their transposes: plain C++ on contiguous operands, or a library
  composite,    // an ordinary function over ops
  kernel,       // text of the user's own with a plain C++ twin (user_ops.h); none stands in the table
};

/// Kinds that run on contiguous operands by OpDef::native, or by a program's own kernel.
constexpr bool is_native(OpKind k) {
  return k == OpKind::piecewise || k == OpKind::scatter || k == OpKind::scan || k == OpKind::convolution ||
         k == OpKind::kernel;
}

enum class AttrType : uint8_t { integer, boolean, dtype, list, floating, dynamic };
struct Attr {
  const char* name = nullptr;
  AttrType type = AttrType::integer;
  constexpr bool run_time() const { return type == AttrType::floating || type == AttrType::dynamic; }
};
inline constexpr int kMaxAttrs = 8;
inline constexpr int kMaxOutputs = 4;

/// Dtype, sizes and device of a value. A *number* has rank 0 and type float64 (or int64, bool) and yields in
/// promotion.
struct TensorType {
  DType dtype = DType::float32;
  Device device;
  bool number = false;
  Dims sizes;
  friend bool operator==(const TensorType&, const TensorType&) = default;
};
/// "float32(64, 784)", "number:float64".
std::string to_string(const TensorType& t);

using Words = std::span<const int64_t>;

struct OpDef;

/// A call as inference and graph building see it: structural words only, run-time attributes apart.
struct InferCall {
  const OpDef& op;
  std::span<const TensorType> in;  // operands; an absent optional operand has `present` false
  std::span<const bool> present;
  Words words;  // structural, in declared order
  Location where;

  int64_t integer(int attr) const;  // declared index, types integer, boolean, dtype
  DType dtype(int attr) const { return static_cast<DType>(integer(attr)); }
  Dims list(int attr) const;
};

/// Sizes, strides (elements) and offset of a view, for the kind `view`.
struct Layout {
  Dims sizes, strides;
  int64_t offset = 0;
  bool possible =
      true;  // false: reshape of strides that allow no view (only the sizes are set); the caller copies
};

/// One value of an Emitter: a tensor or a number. Meaning and lifetime are the emitter's.
struct Value {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  friend bool operator==(Value, Value) = default;
};

class Emitter;
struct Body;
struct Gradient;

/// How the operands' common type and the result's follow from the operands (kind pointwise).
enum class TypeRule : uint8_t {
  same,        // promoted type in, the same out
  arithmetic,  // the same, bool refused
  bits,        // the same, floating types refused
  integers,    // the same, floating types and bool refused
  floating,    // integers and bool become float32
  compare,     // promoted type in, bool out
  logical,     // operands become bool, bool out
  select,      // operand 0 becomes bool, the others are promoted
  cast,        // to the dtype of attribute 0
};

struct OpDef {
  const char* name = nullptr;
  OpId id = OpId::count_;
  OpKind kind = OpKind::pointwise;
  int n_in = 1;        // -1: a list of tensors
  int n_optional = 0;  // the last operands that may be absent
  int n_out = 1;
  int n_attrs = 0;
  Attr attrs[kMaxAttrs] = {};

  TypeRule types = TypeRule::same;  // pointwise
  void (*formula)(ScalarGraph&, const S* in,
                  S* out) = nullptr;  // pointwise, fill, random: in = operands then run-time numbers;
                                      // fill, random: in[0] is the linear index
  ReduceOp reduce = ReduceOp::sum;    // reduction
  void (*infer)(const InferCall&, std::vector<TensorType>& out) = nullptr;  // null: by kind
  Layout (*view)(const InferCall&, const Layout& in) = nullptr;             // view
  void (*body)(Body&) = nullptr;                                            // composite
  void (*native)(const struct NativeCall&) =
      nullptr;  // scatter, scan, piecewise, convolution: plain C++ on contiguous operands
  void (*gradient)(Gradient&) = nullptr;  // null in a composite: the gradients of its body
  const char* reads[4] = {};  // per operand, what its gradient reads: "ab" operands 0 and 1, "y" the result,
                              // "1" to "3" further ones
  bool differentiable = true;
  bool update = false;                        // an optimizer's step of operand 0
  uint32_t saves_in = 0, saves_out = 0;       // the union of `reads` as bits, filled in by the table
  int writes[kMaxOutputs] = {0, -1, -1, -1};  // in-place form: result j replaces operand writes[j]
  int library = -1;  // composite: the boolean attribute that an executable sets, and nobody else, in calls
                     // that a library of its device does as a whole
  const char* samples = nullptr;  // see ops/samples.h
  const char* doc = "";

  /// Run-time attributes, in declared order, follow the operands of a node as numbers.
  int n_numbers() const;
  /// Position of attribute k among the structural words (of a list: if it is the first one), or among the
  /// numbers.
  int structural_index(int attr) const;
  int number_index(int attr) const;
};

/// Operands and results to keep, as bits, when the gradients of the operands `needed` (bits) are wanted.
struct Saves {
  uint32_t in = 0, out = 0;
};
Saves saves(const OpDef& op, uint32_t needed);

const OpDef& def(OpId id);
/// The operands that the in-place form replaces.
inline std::span<const int> written(const OpDef& op) {
  size_t n = 0;
  while (n < static_cast<size_t>(op.n_out) && op.writes[n] >= 0) ++n;
  return {op.writes, n};
}
/// By name, of the table's; null if there is none.
const OpDef* find_op(const char* name);
inline constexpr int kOpCount = static_cast<int>(OpId::count_);
/// True for ops that the program made itself (user_ops.h): their ids lie behind those of the table.
constexpr bool is_user(OpId id) { return id > OpId::count_; }

/// The type that a pointwise op computes in; `in` may hold numbers. Throws Error on impossible combinations.
DType compute_type(const InferCall& call);
/// Checks a call and appends the types of its results; throws Error naming op, shapes and line. Never changes
/// anything.
void infer(const InferCall& call, std::vector<TensorType>& out);

/// The axes of a reduction, ascending and not negative; an empty list means all. Errors name `op`.
Dims normalize_axes(const Dims& listed, int rank, const char* op, Location where = {});

/// Splits declared-order words into structural words and run-time ones (positions in `words`).
struct SplitWords {
  std::vector<int64_t> structural;  // of the attributes; the kinds of number operands are in their types
  std::vector<int>
      run_time;  // values of number operands, then run-time attributes: index into the declared words
};
/// `n_number_operands`: how many operands are numbers, whose (kind, value) pairs precede the attributes.
SplitWords split_words(const OpDef& op, Words words, int n_number_operands);
/// Bit i is set if word i is run-time. Calls with more than 64 words have run-time words only among the
/// first 64.
uint64_t run_time_mask(const OpDef& op, int n_number_operands);

/// A native kernel's view of its call: contiguous operands and results.
struct NativeCall {
  std::span<const void* const> in;
  std::span<void* const> out;
  std::span<const TensorType> in_types, out_types;
  Words words;     // structural
  int64_t* error;  // set to 1 + operand index when an index is out of range; nothing else is promised then
  bool own_layout = false;  // of a convolution: operand 1 is a weight as lay_weight() leaves it
  Words steps = {};         // of cat: elements between the runs of each operand; empty: they lie together

  /// Elements of operand i, and of result j; an Error naming both types if T is not the element type (halves
  /// are uint16_t).
  template <class T>
  const T* input(int i = 0) const {
    return static_cast<const T*>(in[checked(in_types, i, kind_of<T>(), "operand ")]);
  }
  template <class T>
  T* output(int j = 0) const {
    return static_cast<T*>(out[checked(out_types, j, kind_of<T>(), "result ")]);
  }
  const Dims& in_sizes(int i = 0) const { return in_types[static_cast<size_t>(i)].sizes; }
  const Dims& out_sizes(int j = 0) const { return out_types[static_cast<size_t>(j)].sizes; }

 private:
  static constexpr int kHalf = kDTypeCount;  // stands for both of them
  template <class T>
  static constexpr int kind_of() {
    if constexpr (std::is_same_v<T, uint16_t>)
      return kHalf;
    else
      return static_cast<int>(dtype_of<T>);
  }
  static size_t checked(std::span<const TensorType> types, int i, int kind, const char* what);
};

}  // namespace tandem::ops
