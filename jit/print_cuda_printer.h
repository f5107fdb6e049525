// The printer of one CUDA kernel: names, values, and the walks of each kind. One printer, one thread.
//
// Names in the printed text: b: first elements of loads and stores; l: elements that are passed on, w: packs
// of them; p, o: where they stand in this row (or column); k: where rows are kept, f: where they
// are read; q: offsets of the element; s: strides; d: sizes; c, e:
// coordinates of the kept and the reduced dimensions; h, i: of pointwise kernels: tiles along a dimension,
// and which; v: values; u: packs of the next row; x: checked offsets of indexed loads, n and m their extents
// and strides; g: accumulators of a thread's lanes, a: of a column, or what the lanes join to; y: across
// rows; z: results of blocks, shared, or of parts; t: totals.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/print_cuda.h"
#include "tandem/jit/print_cuda_plan.h"
#include "tandem/jit/print_text.h"

namespace tandem::jit {

class CudaPrinter {
 public:
  CudaPrinter(const Kernel& k, const CudaPlan& plan) : k_(k), plan_(plan) {}
  std::string print(const std::string& symbol, CudaForm form);
  /// For a chain: the structure of its words, named by `symbol`, and what a block does with those in `args`.
  struct Part {
    std::string parameter, work;
  };
  Part print_part(const std::string& symbol, const std::string& args);
  /// Bytes that a thread keeps of a row of n elements with as many threads as the tree allows.
  int64_t kept_bytes(int64_t n) const { return kept_pack_bytes() * ((n + kLanes - 1) / kLanes); }

 private:
  // The frame: print_cuda.cpp.
  void parameter(const std::string& symbol);
  void start();
  void work();
  void coordinates();
  void pointers();

  // Pointwise kernels: print_cuda_pointwise.cpp.
  void pointwise();
  void pointwise_element(const CudaWalk& walk);
  void pointwise_packs(const CudaWalk& walk, int elements);
  void pointwise_tiles(const CudaWalk& walk);
  /// Whether several elements of it are moved at once.
  bool is_packed(size_t slot) const;

  // Walks over reduced dimensions: print_cuda_walks.cpp.
  void column();
  void rows_before(const CudaWalk& walk);
  void body(const CudaWalk& walk, const std::string& name, bool passed);
  void column_walk(const CudaWalk& walk, const std::string& name);
  void column_elements(const CudaWalk& walk, const std::string& name, const std::string& step_text,
                       const std::string& accumulators);
  void join_blocks(const CudaWalk& walk, const std::string& blocks, const std::string& width);
  void row_loads(const std::string& condition);
  void row_stores();
  using WalkPrinter = void (CudaPrinter::*)(const CudaWalk& walk, const std::string& name);
  void place(WalkPrinter print, const std::string& stores);
  std::string identity(const Reduction& r) const;
  std::string accumulator(const Reduction& r) const;
  std::string reduced_size() const;

  // Row kernels: print_cuda_rows.cpp.
  void row();
  void row_walk(const CudaWalk& walk, const std::string& name);
  void row_lanes(const CudaWalk& walk);
  void row_join(const CudaWalk& walk);
  void row_elements(const CudaWalk& walk, const std::string& name, const std::string& step);
  std::string row_arguments(const CudaWalk& walk, const std::string& r, const std::string& values) const;
  std::string lanes_of(const CudaWalk& walk) const;
  std::vector<size_t> element_slots(const CudaWalk& walk) const;
  bool has_packs(const CudaWalk& walk) const;
  std::string packed(const CudaWalk& walk) const;
  int under_way(const CudaWalk& walk) const;
  void packs_condition();
  void packed_if_aligned(const std::vector<size_t>& accesses);
  bool is_kept(size_t slot) const;
  int64_t kept_pack_bytes() const;
  void keep();
  void fetch_kept();

  // Rows and columns that are split over the grid: print_cuda_split.cpp.
  void split_row();
  void split_column();
  void parts_of(const CudaWalk& walk);
  void join_parts(const CudaWalk& walk, const std::string& first, const std::string& step);

  // Rows that are also reduced across: print_cuda_across.cpp.
  void across();
  void start_across();
  void across_packs();
  void fetch_row();
  void read_row(const std::string& packs_name);
  void across_walk(const CudaWalk& walk, const std::string& name);
  void across_elements(const CudaWalk& walk, const std::string& name);
  void across_lanes(const CudaWalk& walk);
  void leave_across(size_t c);
  void tiles();
  void tile_walk(const CudaWalk& walk, const std::string& name);
  Reduction across_reduction(const Across& c) const;
  std::vector<size_t> row_operands() const;

  // Values: print_cuda_text.cpp.
  /// `condition`: under which it reads memory; nothing: always.
  void node(int32_t id, const std::string& condition = {});
  std::string value(int32_t id) const;
  std::string load(int32_t id) const;
  std::string element(size_t slot, bool row_level) const;
  void offsets(const CudaWalk& walk);
  void store(int32_t s);
  void line(const std::string& text) { t_.line(text); }

  int rank() const { return k_.kept_rank + k_.reduced_rank; }
  size_t slots() const { return k_.loads.size() + k_.stores.size(); }
  bool is_load(size_t slot) const { return slot < k_.loads.size(); }
  const Load& load_of(size_t slot) const { return k_.loads[slot]; }
  const Store& store_of(size_t slot) const { return k_.stores[slot - k_.loads.size()]; }
  bool slot_used(size_t slot) const { return !is_load(slot) || plan_.load_used[slot]; }
  /// Whether an access is known by its offset where it is used, not read before.
  bool by_offset(size_t slot) const { return is_load(slot) && load_of(slot).index != kNoIndex; }
  /// Whether the reduced dimensions do not move it.
  bool slot_row_level(size_t slot) const;
  std::string slot_type(size_t slot) const;     // "const td_f32*"
  std::string element_type(size_t slot) const;  // "td_f32"
  std::string slot_name(size_t slot) const;     // "p2"
  /// coordinate * stride, or nothing where the access does not move along `dim`.
  std::string step(size_t slot, int dim, const std::string& coordinate) const;
  int inner_dim() const { return (k_.kind == KernelKind::row ? rank() : k_.kept_rank) - 1; }

  const Kernel& k_;
  const CudaPlan& plan_;
  CodeText t_;
  bool passed_ = false;  // operands and results of an element are parameters: "l2"
};

/// Threads of a block at most, and the warps that share a column's or a long row's blocks.
inline constexpr int kCudaThreads = 256;
int cuda_team(const Kernel& k);
/// Lanes of a row's tree that a thread has: as many elements as it moves at once, up to 16 bytes.
int cuda_lanes(const Kernel& k);
/// Threads at most of a block whose rows are reduced across, and its shape: rows of `n` elements.
inline constexpr int kCudaAcrossThreads = 512;
int cuda_across_threads(const Kernel& k);
LaunchShape across_shape(const Kernel& k, int64_t n, int64_t count);
/// Shared memory of a block at most for what walks over rows read again; with more, a block has one row.
inline constexpr int64_t kCudaKeptBytes = 40 * 1024;
/// Shared memory for the results of blocks.
int64_t cuda_team_bytes(const Kernel& k);
/// Bytes of what a part of a row or column that is split over the grid gives for a reduction.
int64_t cuda_part_bytes(const Kernel& k, const Reduction& r);
/// Columns side by side where there are few.
int cuda_few_columns(const Kernel& k);
/// Elements that a thread of a pointwise kernel takes at a time.
int cuda_elements(const Kernel& k);
/// Packs of so many elements that a thread reads before it uses the first.
int cuda_packs(const Kernel& k);
/// Whether a pointwise kernel may have a transposed operand, and a thread's elements of a tile then.
bool cuda_tiles(const Kernel& k);
inline constexpr int kCudaTileElements = 4;

}  // namespace tandem::jit
