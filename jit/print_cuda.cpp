// One function per kernel. Pointwise: an element a thread, or a pack. Row: 8, 16 or 32 threads for a row,
// fewer for short ones, or all threads of a block; those too for rows that are also reduced across. Column: a
// thread for a column in each warp, the warps of a block with blocks of rows of their own; where there are
// few columns, 8 or 16 side by side.
#include "tandem/jit/print_cuda.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

extern const char kCudaPreludeText[];

namespace {

constexpr int kMaxTeam = 16, kMaxRowTeam = 8;
constexpr int64_t kSharedBytes = 40 * 1024;
constexpr int kRowWarps = 4;
constexpr int64_t kManyBlocks = 288;  // twice the multiprocessors of a large card: they keep it busy
constexpr int64_t kMaxGrid = 1 << 30;

template <class I>
std::string num(I v) {
  return std::to_string(v);
}

int64_t stride_words(const Kernel& k) {
  int64_t n = static_cast<int64_t>(k.loads.size() + k.stores.size()) * (k.kept_rank + k.reduced_rank);
  for (const Load& l : k.loads) n += l.index >= 0 ? 2 : 0;
  return n;
}

// As prelude_threads.inc has them.
int64_t row_width(int64_t n, int64_t lanes) {
  int64_t width = 1;
  while (width * lanes < kLanes && width * lanes < n) width *= 2;
  return width;
}
int64_t column_width(int64_t columns, int64_t n, int64_t few) {
  return columns <= 4096 && n > 1024 ? few : 32;
}

int64_t blocks_of(int64_t n, int64_t size) { return n / size + (n % size != 0); }

unsigned grid_of(int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMaxGrid)); }

// Of shared memory for the results of a warp's blocks.
int64_t warp_bytes(const Kernel& k) {
  int64_t bytes = 0;
  for (const Reduction& r : k.reductions) bytes += finds_index(r.op) ? 16 : 8;
  return bytes * (k.kind == KernelKind::column ? 32 : 32 / (kLanes / cuda_lanes(k)));
}

}  // namespace

// As many warps as have room for the results of their blocks.
int cuda_team(const Kernel& k) {
  const int64_t bytes = warp_bytes(k);
  int team = k.kind == KernelKind::row ? kMaxRowTeam : kMaxTeam;
  while (team > 1 && team * bytes > kSharedBytes) team /= 2;
  return team;
}

int64_t cuda_team_bytes(const Kernel& k) { return warp_bytes(k) * cuda_team(k); }

int cuda_lanes(const Kernel& k) {
  constexpr int kFewest = 2, kMost = 8, kManyNodes = 64;
  if (k.kind != KernelKind::row || k.reduced_rank != 1) return kFewest;
  const bool many =
      k.scalars.size() > kManyNodes || std::any_of(k.scalars.nodes().begin(), k.scalars.nodes().end(),
                                                   [](const ops::ScalarNode& n) { return is_random(n.op); });
  if (many && k.across.empty()) return kFewest;
  int64_t widest = 16 / kMost;
  for (const Load& l : k.loads)
    if (!l.row_level && l.inner == Inner::contiguous && l.index != kCounts)
      widest = std::max<int64_t>(widest, itemsize(l.dtype));
  for (const Store& s : k.stores)
    if (!s.row_level && s.inner == Inner::contiguous) widest = std::max<int64_t>(widest, itemsize(s.dtype));
  return static_cast<int>(16 / widest);
}

int64_t cuda_part_bytes(const Kernel& k, const Reduction& r) {
  return finds_index(r.op) ? 16 : itemsize(k.scalars[r.input].type);
}

// So many that a row of theirs fills the 32 bytes that memory gives at a time.
int cuda_few_columns(const Kernel& k) {
  for (const Load& l : k.loads)
    if (!l.row_level && itemsize(l.dtype) < 4) return 16;
  return 8;
}

std::string CudaPrinter::print(const std::string& symbol, CudaForm form) {
  t_.out += kernel_comment(k_);
  parameter(symbol);
  const std::string args = "td_args_" + symbol;
  std::string type = args, name = "a";
  if (form == CudaForm::several || form == CudaForm::many) {
    const std::string calls = num(cuda_calls(k_, form));
    type = "td_calls_" + symbol, name = "all";
    line("struct " + type + " { " + args + " call[" + calls + "]; td_i64 end[" + calls + "]; };");
  } else if (form == CudaForm::split) {
    type = "td_split_" + symbol, name = "all";
    line("struct " + type + " { " + args + " call; td_u32* counters; char* parts; };");
  }
  int threads = k_.kind == KernelKind::pointwise ? kCudaThreads : 32 * cuda_team(k_);
  if (form == CudaForm::split) threads = 32;
  if (!k_.across.empty()) threads = cuda_across_threads(k_);
  line("extern \"C\" __global__ void __launch_bounds__(" + num(threads) + ", 1) " + symbol +
       "(const __grid_constant__ " + type + " " + name + ") {");
  switch (form) {
    case CudaForm::one:
      line("const td_u32 block = blockIdx.x, blocks = gridDim.x;");
      break;
    case CudaForm::several:
    case CudaForm::many:
      line("int call = 0, above = " + num(cuda_calls(k_, form) - 1) +
           ";  // the first that ends behind this block");
      line("while (call < above) {");
      line("const int middle = (call + above) / 2;");
      line("if (all.end[middle] > blockIdx.x) above = middle;");
      line("else call = middle + 1;");
      line("}");
      line("const td_i64 before = call > 0 ? all.end[call - 1] : 0;");
      line("const " + args + "& a = all.call[call];");
      line("const td_u32 block = blockIdx.x - (td_u32)before, blocks = (td_u32)(all.end[call] - before);");
      break;
    case CudaForm::split:
      line("const " + args + "& a = all.call;");
      start();
      k_.kind == KernelKind::row ? split_row() : split_column();
      line("}");
      return std::move(t_.out);
  }
  work();
  line("}");
  return std::move(t_.out);
}

void CudaPrinter::work() {
  start();
  switch (k_.kind) {
    case KernelKind::pointwise:
      return pointwise();
    case KernelKind::row:
      return k_.across.empty() ? row() : across();
    case KernelKind::column:
      return column();
  }
}

void CudaPrinter::parameter(const std::string& symbol) {
  line("struct td_args_" + symbol + " {");
  if (k_.buffers > 0) line("void* buffers[" + num(k_.buffers) + "];");
  if (rank() > 0) line("td_i64 dims[" + num(rank()) + "];");
  if (stride_words(k_) > 0) line("td_i64 strides[" + num(stride_words(k_)) + "];");
  if (k_.numbers > 0) line("td_i64 numbers[" + num(k_.numbers) + "];");
  line("td_i64 count;");
  line("td_i64* error;");
  line("};");
}

// First elements, sizes, strides and the values of the whole call.
void CudaPrinter::start() {
  for (int d = 0; d < rank(); ++d) line("const td_i64 d" + num(d) + " = a.dims[" + num(d) + "];");
  int64_t offset = 0;
  bool indexed = false;
  for (size_t s = 0; s < slots(); ++s) {
    const bool has_index = is_load(s) && load_of(s).index >= 0;
    if (slot_used(s)) {
      const std::string type = slot_type(s);
      const int32_t buffer = is_load(s) ? load_of(s).buffer : store_of(s).buffer;
      line(type + " const b" + slot_name(s) + " = (" + type + ")a.buffers[" + num(buffer) + "];");
      for (int d = 0; d < rank(); ++d) {
        if (d >= k_.kept_rank && slot_row_level(s)) continue;
        const std::string name = "s" + num(s) + "_" + num(d);
        if (step(s, d, "").find(name) != std::string::npos)
          line("const td_i64 " + name + " = a.strides[" + num(offset + d) + "];");
      }
      if (has_index)
        line("const td_i64 n" + num(s) + " = a.strides[" + num(offset + rank()) + "], m" + num(s) +
             " = a.strides[" + num(offset + rank() + 1) + "];");
      indexed = indexed || has_index;
    }
    offset += rank() + (has_index ? 2 : 0);
  }
  if (indexed) line("td_i64* const error = a.error;");
  line("const td_i64 count = a.count;");
  for (const int32_t i : plan_.call) node(i);
}

// Of the kept dimensions at linear index `at`.
void CudaPrinter::coordinates() {
  if (k_.kept_rank == 0) return;
  if (k_.kept_rank == 1) return line("const td_i64 c0 = at;");
  line("td_i64 rest = at;");
  for (int d = k_.kept_rank - 1; d > 0; --d) {
    line("const td_i64 c" + num(d) + " = td_split(rest, d" + num(d) + ");");
    if (k_.kind == KernelKind::column && plan_.uses_index && d == k_.kept_rank - 1)
      line("const td_i64 outer = rest;");
  }
  line("const td_i64 c0 = rest;");
}

// Where accesses stand in this row or column.
void CudaPrinter::pointers() {
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s)) continue;
    const std::string type = slot_type(s);
    std::string text = type + " const " + slot_name(s) + " = b" + slot_name(s);
    for (int d = 0; d < k_.kept_rank; ++d) {
      const std::string term = step(s, d, "c" + num(d));
      if (!term.empty()) text += " + " + term;
    }
    line(text + ";");
  }
}

std::string print_cuda(const Kernel& k, const std::string& symbol, CudaForm form) {
  TANDEM_INTERNAL(cuda_words(k) <= kMaxCudaWords, "a kernel of too many accesses for one launch");
  TANDEM_INTERNAL(form != CudaForm::split || cuda_splits(k), "rows that cannot be split");
  const CudaPlan plan = plan_cuda(k);
  return CudaPrinter(k, plan).print(symbol, form);
}

const std::string& cuda_prelude() {
  static const auto* const text = new std::string(kCudaPreludeText);
  return *text;
}

std::vector<std::string> cuda_options(int capability) {
  return {"--gpu-architecture=sm_" + num(capability),
          "--fmad=false",
          "-std=c++20",
          "--prec-div=true",
          "--prec-sqrt=true",
          "--ftz=false",
          "-default-device",
          "-diag-suppress=177"};
}

int cuda_words(const Kernel& k) {
  return k.buffers + k.kept_rank + k.reduced_rank + static_cast<int>(stride_words(k)) + k.numbers + 2;
}

int cuda_calls(const Kernel& k, CudaForm form) {
  const int words = form == CudaForm::many ? kManyCudaWords : kMaxCudaWords;
  return std::max(1, words / (cuda_words(k) + 1));
}

// Each element is read in one walk: a part of a row or column needs nothing of the others but at its end.
bool cuda_splits(const Kernel& k) {
  if (k.kind == KernelKind::pointwise || k.in_order || !k.across.empty()) return false;
  if (cuda_words(k) + 2 > kMaxCudaWords) return false;
  const CudaPlan plan = plan_cuda(k);
  return plan.walks.size() == 1 && !plan.walks[0].reductions.empty();
}

SplitShape split_shape(const Kernel& k, const int64_t* dims, int64_t count) {
  constexpr int64_t kFewRows = 128, kFewParts = 3, kFewColumnParts = 56;
  if (count <= 0) return {};
  const int64_t n = reduced_elements(k, dims);
  int64_t parts = 0, counters = 0, warps = 0;
  if (k.kind == KernelKind::row) {
    parts = blocks_of(n, kRowBlock), counters = count;
    if (count >= kFewRows || parts < kFewParts) return {};
    warps = count * blocks_of(parts, 32 / (kLanes / cuda_lanes(k)));
  } else {
    const int64_t width = column_width(count, n, cuda_few_columns(k));
    parts = blocks_of(n, kColumnBlock), counters = blocks_of(count, width);
    if (counters >= kManyBlocks || parts < kFewColumnParts) return {};
    warps = counters * blocks_of(parts, 32 / width);
  }
  int64_t bytes = 0;
  for (const Reduction& r : k.reductions) bytes += blocks_of(count * parts * cuda_part_bytes(k, r), 16) * 16;
  return {{grid_of(warps), 32, 0}, counters, bytes};
}

namespace {

// What a block keeps that has one row, or 0. Above kCudaKeptBytes a multiprocessor has two or three such
// blocks: worth it where there are no more anyway, or where the few threads that reduce have little to do.
int64_t kept_of_row(const Kernel& k, const CudaPlan& plan, int64_t n, int64_t count, int64_t shared) {
  const int64_t bytes = CudaPrinter(k, plan).kept_bytes(n) * (kLanes / cuda_lanes(k));
  if (bytes == 0 || bytes > most_shared(k, shared) || n % cuda_lanes(k) != 0) return 0;
  if (bytes <= kCudaKeptBytes) return kCudaKeptBytes + 16;  // so that the block has one row
  const bool costly = std::any_of(plan.walks.begin(), plan.walks.end(), [&](const CudaWalk& walk) {
    return !walk.reductions.empty() && std::any_of(walk.nodes.begin(), walk.nodes.end(),
                                                   [&](int32_t i) { return is_costly(k.scalars[i].op); });
  });
  return count <= kManyBlocks || !costly ? bytes : 0;
}

// Blocks of four warps; fewer where there are few rows, or where that leaves room for what they keep. Rows of
// which a warp cannot keep its own have a block each.
LaunchShape short_rows(const Kernel& k, int64_t n, int64_t count, int64_t shared) {
  const int64_t rows = 32 / row_width(n, cuda_lanes(k));  // of a warp
  int64_t warps = kRowWarps;
  while (warps > 1 && blocks_of(count, warps * rows) < kManyBlocks) warps /= 2;
  const CudaPlan plan = plan_cuda(k);
  const int64_t kept = CudaPrinter(k, plan).kept_bytes(n) * 32;
  const bool keeps = kept <= kCudaKeptBytes && n % cuda_lanes(k) == 0;  // else rows have no packs
  while (keeps && kept * warps > kCudaKeptBytes) warps /= 2;
  if (const int64_t bytes = keeps ? 0 : kept_of_row(k, plan, n, count, shared); bytes > 0)
    return {grid_of(count), 32u * static_cast<unsigned>(std::min(kRowWarps, cuda_team(k))),
            static_cast<unsigned>(bytes)};
  return {grid_of(blocks_of(count, warps * rows)), static_cast<unsigned>(32 * warps),
          static_cast<unsigned>(keeps ? kept * warps : 0)};
}

}  // namespace

int64_t most_shared(const Kernel& k, int64_t shared) {
  constexpr int64_t kMost = 96 * 1024;  // of a large card's multiprocessor, two blocks have so much
  return std::min(kMost, std::max(shared - cuda_team_bytes(k), kCudaKeptBytes));
}

LaunchShape launch_shape(const Kernel& k, const int64_t* dims, int64_t count, int64_t shared) {
  if (count <= 0) return {0, 0, 0};
  const int64_t n = reduced_elements(k, dims);
  const auto team = [&](int64_t blocks, int64_t width) {
    const int64_t threads = width * std::clamp<int64_t>(blocks, 1, 32 / width * cuda_team(k));
    return static_cast<unsigned>(32 * blocks_of(threads, 32));
  };
  const int64_t columns = column_width(count, n, cuda_few_columns(k));
  switch (k.kind) {
    case KernelKind::pointwise: {
      const int64_t blocks =
          blocks_of(count, int64_t{kCudaThreads} * (cuda_tiles(k) ? kCudaTileElements : cuda_elements(k)));
      const int64_t several = blocks_of(blocks, cuda_packs(k));  // blocks, whose threads have all their packs
      return {grid_of(several < kManyBlocks ? blocks : several), kCudaThreads, 0};
    }
    case KernelKind::row:
      if (!k.across.empty()) return across_shape(k, n, count);
      if (n <= kRowBlock) return short_rows(k, n, count, shared);
      return {grid_of(count), team(blocks_of(n, kRowBlock), kLanes / cuda_lanes(k)),
              static_cast<unsigned>(kept_of_row(k, plan_cuda(k), n, count, shared))};
    case KernelKind::column:
      return {grid_of(blocks_of(count, columns)), team(blocks_of(n, reduction_block(k, n)), columns), 0};
  }
  return {0, 0, 0};
}

}  // namespace tandem::jit
