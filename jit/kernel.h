// The kernel IR: one loop nest over an iteration space with loads, scalar expressions, reductions and stores.
// A Kernel is generic in sizes and strides and specialised in structure; equal kernels share one compiled
// function. Immutable once built; shared between plans; any thread.
//
// The space is `kept` dimensions followed by `reduced` ones (none for a pointwise kernel). Every access says
// how it moves along each dimension of the space. A *row* kernel iterates the reduced dimensions innermost; a
// *column* kernel keeps the last dimension innermost, in logical order, and walks the reduced ones outside
// it. The linear index of an element (ScalarOp::index) is row-major in that order: kept, reduced; or, column:
// other kept, reduced, last kept.
//
// Reduction trees are part of the language (evaluator and printers follow them bit for bit), n = product of
// the reduced extents:
//   row:    r = kRowBlock * b + kLanes * i + lane. Each lane accumulates over i in order, starting from the
//   identity;
//           lanes join by halves (lane l with l + 32, then + 16, ... + 1); block results join in order of b.
//   column: r = kColumnBlock * b + i. Accumulates over i in order from the identity; block results join in
//   order of b. A kernel that joins what others left of blocks (Kernel::in_order) has one block.
// Joining starts with the first block's result. argmax and argmin keep the lowest index among equals; NaN
// wins.
// A row kernel may also reduce *across* its rows, in the tree of columns: it leaves the results of the blocks
// of rows, and another kernel joins them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tandem/ops/scalar.h"

namespace tandem::jit {

inline constexpr int kLanes = 64;
inline constexpr int64_t kRowBlock = 16384;
inline constexpr int64_t kColumnBlock = 32;

enum class KernelKind : uint8_t { pointwise, row, column };
using ops::ReduceOp;

/// How an access moves along the innermost dimension of the space: structure, while the exact strides are
/// run-time.
enum class Inner : uint8_t { constant, contiguous, strided };

/// Of Load::index: none, and none, where element i of the buffer is i (lower.h, `counts`): it need not be
/// read.
inline constexpr int32_t kNoIndex = -1, kCounts = -2;

struct Load {
  int32_t buffer;  // index into KernelArgs::buffers
  DType dtype;
  Inner inner;
  bool row_level = false;  // does not depend on the reduced dimensions (row and column kernels)
  // >= 0: scalar node (int64) whose value selects along an extra axis: address += value * stride, where 0 <=
  // value < extent, else the error word is set and element 0 is read
  int32_t index = kNoIndex;
  bool large = false;  // comes from memory (non_temporal.h)
  friend bool operator==(const Load&, const Load&) = default;
};

struct Reduction {
  ReduceOp op;
  int32_t input;  // scalar node
  DType type;     // accumulator and result: float32, float64 or int64 (argmax, argmin: int64 result)
  friend bool operator==(const Reduction&, const Reduction&) = default;
};

struct Store {
  int32_t buffer;
  DType dtype;
  Inner inner;
  bool row_level = false;
  int32_t value;              // scalar node, of type `dtype`
  bool non_temporal = false;  // past the caches (non_temporal.h), unless a load begins where it does
  friend bool operator==(const Store&, const Store&) = default;
};

/// A reduction over the rows of a row kernel, of each of their n elements: the rows kColumnBlock * b + i are
/// combined over i in order, from the identity, and the result for element r lies at b * n + r. A call that
/// begins within a block goes on from what lies there. Of float32, float64 or int64; no argmax or argmin.
struct Across {
  ReduceOp op;
  int32_t input;   // scalar node
  int32_t buffer;  // index into KernelArgs::buffers; contiguous, of the input's type
  friend bool operator==(const Across&, const Across&) = default;
};

/// Level of a scalar node: `full` nodes depend on the reduced dimensions, `row` nodes do not.
struct Kernel {
  std::string name;  // for people: the ops in it
  KernelKind kind = KernelKind::pointwise;
  int kept_rank = 0, reduced_rank = 0;
  int numbers = 0;  // run-time numbers read (index space of ScalarOp::number)
  int buffers = 0;
  ops::ScalarGraph scalars;
  std::vector<Load> loads;
  std::vector<Reduction> reductions;
  std::vector<Store> stores;
  std::vector<Across> across;  // row kernels of one reduced dimension
  bool in_order = false;       // column kernels: the whole walk is one block of the tree
  /// Row kernels: C is printed for neighbouring rows at a time, and `inner` of an access is how it moves
  /// along the last kept dimension, not the last of all (side_by_side.h).
  bool side_by_side = false;
};

/// Whether vectors go along the last kept dimension, from row to row or column to column.
inline bool vectors_of_kept(const Kernel& k) { return k.kind == KernelKind::column || k.side_by_side; }

inline int64_t elements_of(const int64_t* dims, int rank) {
  int64_t n = 1;
  for (int d = 0; d < rank; ++d) n *= dims[d];
  return n;
}
/// Reduced elements, given kept sizes, then reduced sizes.
inline int64_t reduced_elements(const Kernel& k, const int64_t* dims) {
  return elements_of(dims + k.kept_rank, k.reduced_rank);
}

/// Elements of a block of the tree of a kernel whose n reduced ones are given.
inline int64_t reduction_block(const Kernel& k, int64_t n) {
  return k.kind == KernelKind::row ? kRowBlock : k.in_order ? std::max<int64_t>(n, 1) : kColumnBlock;
}

/// Calls `f` with each node that node `i` reads: its operands, then the index of an indexed load.
template <class F>
void for_inputs(const Kernel& k, int32_t i, F&& f) {
  const ops::ScalarNode& n = k.scalars[i];
  for (int j = 0; j < ops::arity(n.op); ++j) f(n.in[j]);
  if (n.op != ops::ScalarOp::load) return;
  if (const int32_t index = k.loads[static_cast<size_t>(n.bits)].index; index >= 0) f(index);
}

/// What a call of a kernel is given. All sizes and strides in elements.
struct KernelArgs {
  void* const* buffers;
  const int64_t* dims;     // kept sizes, then reduced sizes
  const int64_t* strides;  // for each load, then each store: kept_rank + reduced_rank strides; an indexed
                           // load has two more: (extent, stride)
  const int64_t* numbers;  // bits of float64 or int64 values
  int64_t begin, end;      // pointwise and row: a range of the linear index over the kept dimensions;
                           // column: likewise (ranges of kept columns)
  int64_t* error;          // set to 1 + index of the load that met an index out of range; never cleared here
};
using KernelFunction = void (*)(const KernelArgs*);

/// Text of the kernel IR, one line per load, node, reduction and store; equal text means equal structure
/// (without the name).
std::string to_string(const Kernel& k);

/// C++ text that defines `extern "C" void <symbol>(const KernelArgs*)`, without the prelude. Empty when the
/// printer does not cover the kernel (the evaluator runs it then); `why` says the reason.
std::string print_c(const Kernel& k, const std::string& symbol, std::string* why = nullptr);
/// The prelude that printed kernels need, once per translation unit: types, scalar functions. No includes.
const std::string& c_prelude();

struct ChunkFunctions;

/// The chunk evaluator: a kernel prepared for interpretation over blocks that stay in L1. Immutable, any
/// thread.
class Evaluator {
 public:
  /// `functions`: loops for one instruction set (evaluator_chunks.h); null: the best that this processor
  /// runs.
  explicit Evaluator(const Kernel& k, const ChunkFunctions* functions = nullptr);
  ~Evaluator();
  Evaluator(Evaluator&&) noexcept;
  void run(const KernelArgs& args) const;

 private:
  struct Program;
  std::unique_ptr<Program> program_;
};

}  // namespace tandem::jit
