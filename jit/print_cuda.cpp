// One function per kernel. Pointwise: an element a thread. Row: a warp for a row, whose thread l has lanes l
// and l + 32 of the tree, or all warps of a block for a long row, each with row-blocks of its own. Column: a
// thread for a column in each warp, the warps of a block with blocks of rows of their own.
#include "tandem/jit/print_cuda.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/print_c_text.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

extern const char kCudaPreludeText[];

namespace {

constexpr int kMaxTeam = 16;
constexpr int64_t kSharedBytes = 40 * 1024;
constexpr int kRowsPerBlock = 4;
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

int64_t blocks_of(int64_t n, int64_t size) { return n / size + (n % size != 0); }

unsigned grid_of(int64_t blocks) { return static_cast<unsigned>(std::min(blocks, kMaxGrid)); }

}  // namespace

// As many warps as have room for the results of their blocks.
int cuda_team(const Kernel& k) {
  int64_t bytes = 0;
  for (const Reduction& r : k.reductions) bytes += finds_index(r.op) ? 16 : 8;
  if (k.kind == KernelKind::column) bytes *= 32;
  int team = kMaxTeam;
  while (team > 1 && team * bytes > kSharedBytes) team /= 2;
  return team;
}

std::string CudaPrinter::print(const std::string& symbol) {
  out_ += kernel_comment(k_);
  parameter(symbol);
  const int threads = k_.kind == KernelKind::pointwise ? kCudaThreads : 32 * cuda_team(k_);
  line("extern \"C\" __global__ void __launch_bounds__(" + num(threads) + ", 1) " + symbol +
       "(const td_args_" + symbol + " a) {");
  start();
  switch (k_.kind) {
    case KernelKind::pointwise:
      pointwise();
      break;
    case KernelKind::row:
      row();
      break;
    case KernelKind::column:
      column();
      break;
  }
  line("}");
  return std::move(out_);
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

std::string print_cuda(const Kernel& k, const std::string& symbol) {
  TANDEM_INTERNAL(cuda_words(k) <= kMaxCudaWords, "a kernel of too many accesses for one launch");
  const CudaPlan plan = plan_cuda(k);
  return CudaPrinter(k, plan).print(symbol);
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

LaunchShape launch_shape(const Kernel& k, const int64_t* dims, int64_t count) {
  if (count <= 0) return {0, 0, 0};
  int64_t n = 1;
  for (int d = k.kept_rank; d < k.kept_rank + k.reduced_rank; ++d) n *= dims[d];
  const auto team = [&](int64_t blocks) {
    const int64_t most = cuda_team(k);
    return static_cast<unsigned>(32 * std::clamp<int64_t>(blocks, 1, most));
  };
  switch (k.kind) {
    case KernelKind::pointwise:
      return {grid_of(blocks_of(count, int64_t{kCudaThreads} * cuda_elements(k))), kCudaThreads, 0};
    case KernelKind::row:
      if (n <= kRowBlock) return {grid_of(blocks_of(count, kRowsPerBlock)), 32 * kRowsPerBlock, 0};
      return {grid_of(count), team(blocks_of(n, kRowBlock)), 0};
    case KernelKind::column:
      return {grid_of(blocks_of(count, 32)), team(blocks_of(n, kColumnBlock)), 0};
  }
  return {0, 0, 0};
}

}  // namespace tandem::jit
