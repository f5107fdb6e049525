// Running programs. A kernel is walked in chunks of a few hundred to a few thousand elements, each step of
// its program over the whole chunk, so that what passes between steps stays in the first-level cache.
//   pointwise: chunks of the linear index.
//   row: several short rows at once, a row at once, or a long one in chunks (later passes compute again).
//   column: chunks of columns, with as many reduced positions at once as fit.
#include <algorithm>
#include <cstring>

#include "tandem/core/dtype.h"
#include "tandem/core/error.h"
#include "tandem/core/non_temporal.h"
#include "tandem/jit/evaluator_access.h"
#include "tandem/jit/evaluator_program.h"
#include "tandem/jit/evaluator_scratch.h"
#include "tandem/jit/kernel.h"

namespace tandem::jit {
namespace {

constexpr int64_t kWholeRow = 4096;  // elements: longer rows are walked in pieces
constexpr int64_t kSkew = 192;       // between slots, so that equal positions do not share cache sets

/// Of one run at a time.
thread_local Scratch scratch;

struct Access {
  int32_t buffer;
  uint8_t itemsize;
  bool row_level;
  int32_t strides;  // where they begin
};

}  // namespace

struct Evaluator::Program {
  KernelKind kind;
  int kept_rank, reduced_rank;
  bool in_order;
  bool non_temporal = false;  // any store of it
  size_t reductions;
  const ChunkFunctions* functions;
  std::vector<Access> accesses;  // loads, then stores
  size_t loads = 0;
  jit::Program whole;   // pointwise; row: one row at a time; column: all reduced positions in one chunk
  jit::Program pieces;  // row and column: in pieces
  jit::Program group;   // row: several rows at a time
  int64_t chunk = 0, whole_chunk = 0, group_chunk = 0;

  class Run;
};

/// One call of a kernel.
class Evaluator::Program::Run {
 public:
  Run(const Program& e, const KernelArgs& args) : e_(e), args_(args) {}

  void pointwise() {
    if (e_.whole.passes.empty()) return;
    start(e_.whole, e_.whole_chunk);
    linear_walks(e_.kept_rank);
    execute(p_->once);
    for (at_ = args_.begin; at_ < args_.end; at_ += count_[2]) {
      count_[2] = std::min(capacity_, args_.end - at_);
      execute(p_->passes[0].full);
    }
  }

  void row() {
    reduced_ = elements_of(args_.dims + e_.kept_rank, e_.reduced_rank);
    const int64_t rows = args_.end - args_.begin;
    if (reduced_ > 0 && rows > 1 && 2 * reduced_ <= e_.group_chunk) {
      start(e_.group, e_.group_chunk);
      row_groups(capacity_ / reduced_);
    } else if (reduced_ > 0 && reduced_ <= kWholeRow) {
      start(e_.whole, std::max(e_.whole_chunk, (reduced_ + 63) / 64 * 64));
      row_groups(1);
    } else {
      start(e_.pieces, e_.chunk);
      row_pieces();
    }
  }

  void column() {
    reduced_ = elements_of(args_.dims + e_.kept_rank, e_.reduced_rank);
    const int64_t columns = args_.end - args_.begin;
    block_ = e_.in_order ? std::max<int64_t>(reduced_, 1) : kColumnBlock;
    const bool whole = reduced_ <= e_.whole_chunk / std::min(columns, e_.whole_chunk);
    start(whole ? e_.whole : e_.pieces, whole ? e_.whole_chunk : e_.chunk);
    column_walks();
    execute(p_->once);
    for (at_ = args_.begin; at_ < args_.end; at_ += count_[1]) {
      count_[1] = std::min(capacity_, args_.end - at_);
      column_chunk(capacity_ / count_[1]);
    }
  }

 private:
  // --- Memory ---

  void start(const jit::Program& p, int64_t capacity) {
    p_ = &p;
    capacity_ = capacity;
    const size_t registers = p.registers.size(), slots = p.slot_offsets.size(), accesses = e_.accesses.size();
    size_t bytes = 0;
    const auto part = [&](size_t n) {
      const size_t at = bytes;
      bytes += (n + 63) / 64 * 64;
      return at;
    };
    const size_t ptr = part(registers * sizeof(void*)), cells = part(static_cast<size_t>(p.cells) * 8);
    const size_t walks = part(accesses * sizeof(Walk) * (e_.kind == KernelKind::column ? 2 : 1));
    const size_t chunks =
        part(static_cast<size_t>(p.slot_bytes * capacity + kSkew * static_cast<int64_t>(slots)) + 64);
    // Of each reduction: lanes and a total, or values and indices of this block and values of all.
    state_bytes_ = e_.kind == KernelKind::row      ? kLaneState + 64
                   : e_.kind == KernelKind::column ? capacity * 24
                                                   : 0;
    const size_t states = part(e_.reductions * static_cast<size_t>(state_bytes_));
    char* const base = scratch.get(bytes);
    ptr_ = reinterpret_cast<char**>(base + ptr);
    walks_ = reinterpret_cast<Walk*>(base + walks);
    chunks_ = base + chunks;
    states_ = base + states;
    for (size_t r = 0; r < registers; ++r) ptr_[r] = begin_of(p.registers[r], base + cells);
  }
  char* begin_of(const Register& r, char* cells) const {
    switch (r.place) {
      case Place::constant:
        return reinterpret_cast<char*>(const_cast<int64_t*>(p_->constants.data() + r.slot));
      case Place::number:
        return reinterpret_cast<char*>(const_cast<int64_t*>(args_.numbers + r.slot));
      case Place::cell:
        return cells + static_cast<size_t>(r.slot) * 8;
      case Place::chunk:
        break;
    }
    return slot(r);
  }
  char* slot(const Register& r) const {
    return chunks_ + p_->slot_offsets[static_cast<size_t>(r.slot)] * capacity_ + r.slot * kSkew;
  }
  char* slot(int32_t reg) const { return slot(p_->registers[static_cast<size_t>(reg)]); }
  char*& ptr(int32_t reg) const { return ptr_[reg]; }

  const int64_t* strides(const Access& a) const { return args_.strides + a.strides; }
  void set_base(Walk& w, const Access& a) const {
    w.base = static_cast<char*>(args_.buffers[a.buffer]);
    w.itemsize = a.itemsize;
  }
  void linear_walks(int full_rank) {
    for (size_t i = 0; i < e_.accesses.size(); ++i) {
      const Access& a = e_.accesses[i];
      set_base(walks_[i], a);
      set_walk(walks_[i], args_.dims, strides(a), a.row_level ? e_.kept_rank : full_rank);
    }
  }
  // Two walks for each access: over the kept dimensions, then over the reduced ones.
  void column_walks() {
    for (size_t i = 0; i < e_.accesses.size(); ++i) {
      const Access& a = e_.accesses[i];
      set_base(walks_[2 * i], a);
      set_base(walks_[2 * i + 1], a);
      set_walk(walks_[2 * i], args_.dims, strides(a), e_.kept_rank);
      set_walk(walks_[2 * i + 1], args_.dims + e_.kept_rank, strides(a) + e_.kept_rank,
               a.row_level ? 0 : e_.reduced_rank);
    }
  }

  // --- Walking ---

  void row_groups(int64_t group) {
    linear_walks(e_.kept_rank + e_.reduced_rank);
    execute(p_->once);
    for (row_ = args_.begin; row_ < args_.end; row_ += count_[1]) {
      count_[1] = std::min(group, args_.end - row_);
      if (across()) count_[1] = std::min(count_[1], kColumnBlock - row_ % kColumnBlock);
      count_[2] = count_[1] * reduced_;
      at_ = row_ * reduced_;
      for (const Section& s : p_->passes) {
        execute(s.before);
        execute(s.full);
        for (const ReduceStep& r : s.reductions)
          r.reducer->rows(ptr(r.result), ptr(r.input), count_[1], reduced_);
        for (const AcrossStep& c : s.across) add_across(c, count_[1], 0, reduced_);
      }
      execute(p_->finish);
    }
  }

  void row_pieces() {
    linear_walks(e_.kept_rank + e_.reduced_rank);
    execute(p_->once);
    for (row_ = args_.begin; row_ < args_.end; ++row_) {
      for (const Section& s : p_->passes) {
        execute(s.before);
        int64_t block = 0;
        do {
          const int64_t end = std::min(block + kRowBlock, reduced_);
          for (const ReduceStep& r : s.reductions) r.reducer->lanes_begin(state(r));
          for (int64_t i = block; i < end; i += capacity_) {
            at_ = row_ * reduced_ + i;
            count_[2] = std::min(capacity_, end - i);
            execute(s.full);
            for (const ReduceStep& r : s.reductions)
              r.reducer->lanes_add(state(r), ptr(r.input), count_[2], i);
            for (const AcrossStep& c : s.across) add_across(c, 1, i, count_[2]);
          }
          for (const ReduceStep& r : s.reductions) {
            char* const total = state(r) + kLaneState;
            if (r.index)
              r.reducer->lanes_end(total, reinterpret_cast<int64_t*>(ptr(r.result)), state(r), block == 0);
            else
              r.reducer->lanes_end(ptr(r.result), nullptr, state(r), block == 0);
          }
          block = end;
        } while (block < reduced_);
      }
      execute(p_->finish);
    }
  }

  bool across() const { return !p_->passes.empty() && !p_->passes.back().across.empty(); }
  /// Elements `first` and on of `rows` rows, all of one block, join the block's results.
  void add_across(const AcrossStep& c, int64_t rows, int64_t first, int64_t n) const {
    const int64_t size = p_->registers[static_cast<size_t>(c.input)].itemsize;
    char* const results =
        static_cast<char*>(args_.buffers[c.buffer]) + (row_ / kColumnBlock * reduced_ + first) * size;
    if (row_ % kColumnBlock == 0) c.reducer->columns_begin(results, nullptr, n);
    c.reducer->columns_add(results, nullptr, ptr(c.input), rows, n, 0);
  }

  void column_chunk(int64_t most) {
    const int64_t columns = count_[1];
    for (const Section& s : p_->passes) {
      execute(s.before);
      for (const ReduceStep& r : s.reductions)
        r.reducer->columns_begin(total_values(r), total_indices(r), columns);
      for (row_ = 0; row_ < reduced_; row_ += rows_) {
        rows_ = std::min(most, reduced_ - row_);
        count_[2] = rows_ * columns;
        execute(s.full);
        for (const ReduceStep& r : s.reductions) add_rows(r, columns);
      }
    }
    execute(p_->finish);
  }

  /// The chunk's rows join the totals, block by block: the first is accumulated there.
  void add_rows(const ReduceStep& r, int64_t columns) const {
    const int64_t row_bytes = columns * p_->registers[static_cast<size_t>(r.input)].itemsize;
    for (int64_t i = row_, end = 0; i < row_ + rows_; i = end) {
      const int64_t first = i / block_ * block_, last = std::min(first + block_, reduced_);
      end = std::min(last, row_ + rows_);
      const char* const rows = ptr(r.input) + (i - row_) * row_bytes;
      char* const values = first == 0 ? total_values(r) : state(r);
      int64_t* const indices = first == 0 ? total_indices(r) : block_indices(r);
      if (first > 0 && i == first) r.reducer->columns_begin(values, indices, columns);
      r.reducer->columns_add(values, indices, rows, end - i, columns, i);
      if (first > 0 && end == last)
        r.reducer->columns_join(total_values(r), total_indices(r), values, indices, columns);
    }
  }

  char* state(const ReduceStep& r) const { return states_ + r.reduction * state_bytes_; }
  int64_t* block_indices(const ReduceStep& r) const {
    return reinterpret_cast<int64_t*>(state(r) + 8 * capacity_);
  }
  char* total_values(const ReduceStep& r) const {
    return r.index ? state(r) + 16 * capacity_ : ptr_[r.result];
  }
  int64_t* total_indices(const ReduceStep& r) const {
    return r.index ? reinterpret_cast<int64_t*>(ptr_[r.result]) : nullptr;
  }

  // --- Steps ---

  void execute(const std::vector<Step>& steps) {
    for (const Step& s : steps) {
      const int64_t n = count_[static_cast<int>(s.level)];
      switch (s.kind) {
        case StepKind::unary:
          s.unary(ptr(s.out), ptr(s.a), n);
          break;
        case StepKind::binary:
          s.binary(ptr(s.out), ptr(s.a), ptr(s.b), n);
          break;
        case StepKind::ternary:
          s.ternary(ptr(s.out), ptr(s.a), ptr(s.b), ptr(s.c), n);
          break;
        case StepKind::iota:
          iota(reinterpret_cast<int64_t*>(ptr(s.out)), n);
          break;
        case StepKind::load:
          load(s, n);
          break;
        case StepKind::pick:
          pick(s, n);
          break;
        case StepKind::expand:
          expand(s);
          break;
        case StepKind::aim:
          ptr(s.out) = direct(s, n);
          if (ptr(s.out) == nullptr) ptr(s.out) = slot(s.out);
          break;
        case StepKind::store:
          store(s, n);
          break;
      }
    }
  }

  bool blocks(const Step& s) const { return e_.kind == KernelKind::column && s.level == Level::full; }
  const Walk& walk(const Step& s) const {
    return walks_[e_.kind == KernelKind::column ? 2 * s.access : s.access];
  }
  const Walk& outer(const Step& s) const { return walks_[2 * s.access + 1]; }
  /// First position of the step's range in its walk.
  int64_t first(const Step& s) const {
    if (s.level == Level::uniform) return 0;
    return e_.kind == KernelKind::row && s.level == Level::row ? row_ : at_;
  }
  /// The elements of an access where they lie, if they are contiguous there.
  char* direct(const Step& s, int64_t n) const {
    const Walk& w = walk(s);
    if (!blocks(s)) return walk_direct(w, first(s), n);
    const Walk& o = outer(s);
    if (rows_ > 1 && (o.rank != 1 || o.strides[0] != count_[1])) return nullptr;
    char* const p = walk_direct(w, at_, count_[1]);
    return p == nullptr ? nullptr : p + walk_offset(o, row_) * o.itemsize;
  }
  /// f(walk shifted to a reduced position, elements before it in the chunk) for each position in the chunk.
  template <class F>
  void for_rows(const Step& s, const F& f) const {
    Walk w = walk(s);
    for (int64_t r = 0; r < rows_; ++r) {
      w.base = walk(s).base + walk_offset(outer(s), row_ + r) * w.itemsize;
      f(w, r * count_[1]);
    }
  }

  void load(const Step& s, int64_t n) {
    char*& p = ptr(s.out);
    const bool chunk = p_->registers[static_cast<size_t>(s.out)].place == Place::chunk;
    if (chunk && !s.copy) {
      p = direct(s, n);
      if (p != nullptr) return;
      p = slot(s.out);
    }
    if (!blocks(s)) return walk_read(walk(s), first(s), n, p);
    for_rows(s, [&](const Walk& w, int64_t i) { walk_read(w, at_, count_[1], p + i * w.itemsize); });
  }

  void pick(const Step& s, int64_t n) {
    const Access& a = e_.accesses[static_cast<size_t>(s.access)];
    const int64_t* more = strides(a) + e_.kept_rank + e_.reduced_rank;
    const Pick pick{more[0], more[1], args_.error, s.access + 1};
    const auto* index = reinterpret_cast<const int64_t*>(ptr(s.a));
    char* const to = ptr(s.out);
    const auto read = [&](const Walk& w, int64_t at, int64_t i, int64_t count) {
      if (!s.uniform) return walk_pick(w, at, count, index + i, pick, to + i * w.itemsize);
      Walk shifted = w;
      shifted.base += pick.offset(*index) * w.itemsize;
      if (pick.extent > 0)
        walk_read(shifted, at, count, to + i * w.itemsize);
      else
        std::memset(to + i * w.itemsize, 0, static_cast<size_t>(count * w.itemsize));
    };
    if (!blocks(s)) return read(walk(s), first(s), 0, n);
    for_rows(s, [&](const Walk& w, int64_t i) { read(w, at_, i, count_[1]); });
  }

  /// Whether the kernel loads what begins where this store does.
  bool is_loaded(int32_t store) const {
    const auto buffer = [&](size_t a) { return args_.buffers[e_.accesses[a].buffer]; };
    size_t l = 0;
    while (l < e_.loads && buffer(l) != buffer(static_cast<size_t>(store))) ++l;
    return l < e_.loads;
  }

  void store(const Step& s, int64_t n) {
    const char* from = ptr(s.a);
    char* const to = direct(s, n);
    if (to == from) return;
    if (to != nullptr && s.non_temporal && !is_loaded(s.access)) {
      core::copy_non_temporal(to, from, n * walk(s).itemsize);
    } else if (to != nullptr) {
      std::memcpy(to, from, static_cast<size_t>(n * walk(s).itemsize));
    } else if (!blocks(s)) {
      walk_write(walk(s), first(s), n, from);
    } else {
      for_rows(s, [&](const Walk& w, int64_t i) { walk_write(w, at_, count_[1], from + i * w.itemsize); });
    }
  }

  void expand(const Step& s) {
    const int64_t size = p_->registers[static_cast<size_t>(s.out)].itemsize, rows = count_[1];
    char* to = slot(s.out);
    const char* from = ptr(s.a);
    ptr(s.out) = to;
    if (e_.kind == KernelKind::row) {
      const Unary fill = e_.functions->fill(size);
      for (int64_t r = 0; r < rows; ++r) fill(to + r * reduced_ * size, from + r * size, reduced_);
    } else if (rows_ == 1) {
      ptr(s.out) = const_cast<char*>(from);
    } else {
      for (int64_t r = 0; r < rows_; ++r)
        std::memcpy(to + r * rows * size, from, static_cast<size_t>(rows * size));
    }
  }

  // Row-major over the kept dimensions, then the reduced ones; in a column kernel the last kept dimension
  // comes last.
  void iota(int64_t* to, int64_t n) const {
    if (e_.kind != KernelKind::column) return e_.functions->iota(to, at_, n);
    const int64_t inner = args_.dims[e_.kept_rank - 1];
    for (int64_t r = row_; r < row_ + rows_; ++r)
      for (int64_t c = at_; c < at_ + count_[1];) {
        const int64_t run = std::min(at_ + count_[1] - c, inner - c % inner);
        e_.functions->iota(to, (c / inner * reduced_ + r) * inner + c % inner, run);
        to += run;
        c += run;
      }
  }

  const Program& e_;
  const KernelArgs& args_;
  const jit::Program* p_ = nullptr;
  int64_t capacity_ = 0, reduced_ = 1, block_ = 1, state_bytes_ = 0;
  int64_t at_ = 0;                // position of the chunk: linear index; of a column kernel: the first column
  int64_t row_ = 0, rows_ = 1;    // row kernel: the row; column kernel: reduced positions in the chunk
  int64_t count_[3] = {1, 1, 0};  // elements at each level
  char** ptr_ = nullptr;
  Walk* walks_ = nullptr;
  char *chunks_ = nullptr, *states_ = nullptr;
};

Evaluator::Evaluator(const Kernel& k, const ChunkFunctions* functions)
    : program_(std::make_unique<Program>()) {
  Program& e = *program_;
  TANDEM_INTERNAL(k.kept_rank + k.reduced_rank <= kMaxWalkRank, "a kernel of too many dimensions");
  TANDEM_INTERNAL(k.kind != KernelKind::column || k.kept_rank > 0, "a column kernel without columns");
  TANDEM_INTERNAL(k.kind != KernelKind::pointwise || k.reduced_rank == 0,
                  "a pointwise kernel with reduced dimensions");
  e.kind = k.kind;
  e.kept_rank = k.kept_rank, e.reduced_rank = k.reduced_rank;
  e.in_order = k.in_order, e.reductions = k.reductions.size(), e.loads = k.loads.size();
  e.functions = functions != nullptr ? functions : &chunk_functions();
  int32_t at = 0;
  const auto access = [&](int32_t buffer, DType type, bool row_level, bool indexed) {
    e.accesses.push_back(
        {buffer, static_cast<uint8_t>(itemsize(type)), row_level && k.kind != KernelKind::pointwise, at});
    at += k.kept_rank + k.reduced_rank + (indexed ? 2 : 0);
  };
  for (const Load& l : k.loads) access(l.buffer, l.dtype, l.row_level, l.index >= 0);
  for (const Store& s : k.stores) {
    access(s.buffer, s.dtype, s.row_level, false);
    e.non_temporal = e.non_temporal || s.non_temporal;
  }
  switch (k.kind) {
    case KernelKind::pointwise:
      e.whole = make_program(k, *e.functions, {true, true});
      break;
    case KernelKind::row:
      e.whole = make_program(k, *e.functions, {true, true});
      e.pieces = make_program(k, *e.functions, {true, false});
      e.group = make_program(k, *e.functions, {false, true});
      e.group_chunk = chunk_of(e.group);
      break;
    case KernelKind::column:
      e.whole = make_program(k, *e.functions, {false, true});
      e.pieces = make_program(k, *e.functions, {false, false});
      break;
  }
  e.whole_chunk = chunk_of(e.whole);
  e.chunk = chunk_of(e.pieces);
}

Evaluator::~Evaluator() = default;
Evaluator::Evaluator(Evaluator&&) noexcept = default;

void Evaluator::run(const KernelArgs& args) const {
  if (args.begin >= args.end) return;
  Program::Run run(*program_, args);
  switch (program_->kind) {
    case KernelKind::pointwise:
      run.pointwise();
      break;
    case KernelKind::row:
      run.row();
      break;
    case KernelKind::column:
      run.column();
      break;
  }
  if (program_->non_temporal) core::order_non_temporal();
}

}  // namespace tandem::jit
