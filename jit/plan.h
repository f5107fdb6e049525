// What an executable runs: entries in order, with every address reduced to a base and an offset. Flat
// vectors; a value, immutable once built.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tandem/jit/contraction.h"
#include "tandem/jit/lower.h"

namespace tandem::jit {

/// Memory that a plan works on: given by the caller, the arena, or constants of its own.
enum class Base : uint8_t { none, arena, input, output, constant };
struct Address {
  Base base = Base::none;
  int32_t index = 0;   // of the input or output
  int64_t offset = 0;  // bytes
  friend bool operator==(const Address&, const Address&) = default;
};

/// A word of a kernel's numbers: the run-time number `index`, or (index < 0) `bits`.
struct NumberWord {
  int32_t index = -1;
  int64_t bits = 0;
};

/// One set of arguments of a kernel. Positions index Plan's flat vectors.
struct KernelCall {
  int32_t buffers = 0, numbers = 0;  // first of Kernel::buffers, Kernel::numbers
  int32_t dims = 0, strides = 0;
  int64_t range = 0, work = 1;  // of the kept dimensions; elements per index
  int64_t start = 0;            // elements of the entry's calls before this one
};

struct ProductCallPlan {
  Contraction shape;
  Address a, b, bias, c;
};

/// A kernel that runs behind a product, rows by rows.
struct Tail {
  int32_t kernel = 0, call = 0;
  int64_t per_row = 1;  // indices of its range per row of the product
};

/// A kernel that runs when its entry's others have run: it joins what they left of blocks of rows, or goes on
/// in their thread block (Entry::chain).
struct Join {
  int32_t kernel = 0, call = 0;
};

struct NativeCallPlan {
  const ops::OpDef* op = nullptr;
  std::vector<Address> in, out;
  std::vector<TensorType> in_types, out_types;
  std::vector<int64_t> words;
  bool own_layout = false;     // NativeCall::own_layout
  std::vector<int64_t> steps;  // NativeCall::steps
  // Of what a library may do: how operands lie in memory, and its run-time numbers.
  std::vector<Dims> in_strides;
  std::vector<NumberWord> numbers;
};

enum class EntryKind : uint8_t { kernel, product, native };

struct Entry {
  EntryKind kind = EntryKind::kernel;
  bool may_fail = false;
  int32_t index = 0;             // of the kernel, product or native
  int32_t first = 0, count = 0;  // kernel: its calls (several in a horizontal group); product: its tails
  int32_t first_join = 0, joins = 0;
  bool chain = false;    // CUDA: its call and its joins are one launch of one thread block
  int64_t work = 0;      // elements over all calls
  std::string name, op;  // the kernel's name; the op that may fail, or the first
  Location where;        // of that op
};

/// What people ask of an entry, beside what runs.
struct EntryNote {
  std::vector<int32_t> nodes;                           // of the prepared graph
  std::vector<std::pair<int32_t, Destination>> copies;  // of copies: the value, and where it goes
  int64_t bytes_read = 0, bytes_written = 0;
};

struct alignas(64) Line {
  char bytes[64];
};

struct Plan {
  std::vector<Entry> entries;
  std::vector<EntryNote> notes;  // one an entry
  int32_t groups = 0;            // before alike ones became one entry
  std::vector<Kernel> kernels;   // distinct ones
  std::vector<std::string> kernel_texts;
  std::vector<KernelCall> calls;
  std::vector<ProductCallPlan> products;
  std::vector<Tail> tails;
  std::vector<Join> joins;
  std::vector<NativeCallPlan> natives;
  std::vector<Address> buffers;
  std::vector<NumberWord> numbers;
  std::vector<int64_t> words;  // dims and strides
  std::vector<Line> constants;
  int64_t arena_bytes = 0;
  int64_t bytes_moved = 0, bytes_unfused = 0;

  std::span<const Join> joins_of(const Entry& e) const {
    return std::span(joins).subspan(static_cast<size_t>(e.first_join), static_cast<size_t>(e.joins));
  }
};

/// `join`: kernels that are alike and independent become one entry. `host`: for the CPU, where kernels may
/// run behind products, and intermediate values lie in the memory of outputs that are not made yet (a CUDA
/// graph would have to follow each output that moves wherever such a value is used). `non_temporal_nbytes`:
/// bytes of a result from which on stores go past the caches; 0: never.
Plan build_plan(const Prepared& p, const Grouping& grouping, bool join, bool host = false,
                int64_t non_temporal_nbytes = 0);
/// Entries with their ops and addresses, for people.
std::string to_string(const Plan& plan);

/// A value's time in the arena. `takes_over`: a block of equal size that dies where this one begins, or -1.
struct ArenaBlock {
  int64_t bytes = 0;
  int32_t first = 0, last = 0;  // entries
  int32_t takes_over = -1;
  int64_t offset = 0;   // the result: in the arena, or
  int32_t output = -1;  // in this output's memory; if given, at its start (of all that go on in one another)
};
/// Memory of an output, which nothing uses before entry `until`.
struct LentMemory {
  int64_t bytes = 0;
  int32_t until = 0, output = 0;
};
/// Gives every block an offset, a multiple of 64; returns the bytes needed of the arena. `blocks` ascend by
/// `first`. Large ones lie in `lent` memory where they fit and are done with it in time.
int64_t place_blocks(std::vector<ArenaBlock>& blocks, const std::vector<LentMemory>& lent = {});

/// The first index of a call of `e` that thread `part` of `parts` has; those of the next begin at that of
/// part + 1. A thread has its part of each call, as of the products that made its operands: their memory
/// stays in its processor's cache; if an index is an element and there are many, it is a multiple of kLanes,
/// where lines of results begin, too. Of a call of few indices it has those that begin in its part of the
/// entry.
int64_t first_index(const Entry& e, const KernelCall& c, int64_t part, int64_t parts);

/// More buffers or numbers than this in one kernel are an internal error; groups stay well below.
inline constexpr int kMaxKernelBuffers = 256;
inline constexpr int kMaxKernelNumbers = 128;

}  // namespace tandem::jit
