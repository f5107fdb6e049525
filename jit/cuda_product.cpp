#include "tandem/jit/cuda_product.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "tandem/core/log.h"
#include "tandem/jit/cuda_native.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/cuda_tuning.h"
#include "tandem/jit/type_names.h"

namespace tandem::jit {

using cuda::CublasLt;
using cuda::Pointer;
using cuda::Runtime;
using ops::ProductCall;

struct LibraryProduct {
  CublasLt::Handle handle = nullptr;
  CublasLt::Description product = nullptr;
  CublasLt::Layout a = nullptr, b = nullptr, c = nullptr;
  CublasLt::Algorithm algorithm{};
  size_t workspace = 0;
  // For operands that are only aligned to their elements: the library's way or, if it has none, our kernel.
  std::unique_ptr<const LibraryProduct> loose;
  cuda::Function own = nullptr;
  const LibraryProduct* rest = nullptr;  // what parts of kMostMatrices leave of a larger batch
};

namespace {

constexpr size_t kWorkspace = size_t{32} << 20;
constexpr int64_t kMostMatrices = 1 << 15;  // of one call: some kernels' grids end at 65,535 matrices
constexpr int kInvalidValue = 7, kNotSupported = 15;  // CUBLAS_STATUS_INVALID_VALUE, ..._NOT_SUPPORTED

/// How cuBLASLt sees a matrix of ours, transposed (its matrices are column-major).
struct Matrix {
  int64_t rows = 0, columns = 0, leading = 0, batch_stride = 0;
  bool transpose = false;
};

/// `rows` x `columns` by their strides, as the column-major `columns` x `rows`; nothing if no leading
/// dimension says it.
std::optional<Matrix> matrix(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                             int64_t batch_stride) {
  if (column_stride == 1 || columns == 1) {
    const int64_t leading = rows == 1 ? columns : row_stride;
    if (leading >= columns) return Matrix{columns, rows, leading, batch_stride, false};
  }
  if (row_stride == 1 || rows == 1) {
    const int64_t leading = columns == 1 ? rows : column_stride;
    if (leading >= rows) return Matrix{rows, columns, leading, batch_stride, true};
  }
  return std::nullopt;
}

struct Types {
  int data = 0, compute = 0, scale = 0;
};
std::optional<Types> types_of(const ProductCall& call) {
  switch (call.dtype) {
    case DType::float32:
      return Types{CublasLt::kReal32F, call.tf32 ? CublasLt::kComputeFastTf32 : CublasLt::kCompute32F,
                   CublasLt::kReal32F};
    case DType::float64:
      return Types{CublasLt::kReal64F, CublasLt::kCompute64F, CublasLt::kReal64F};
    case DType::float16:
      return Types{CublasLt::kReal16F, CublasLt::kCompute32F, CublasLt::kReal32F};
    case DType::bfloat16:
      return Types{CublasLt::kReal16BF, CublasLt::kCompute32F, CublasLt::kReal32F};
    default:
      return std::nullopt;
  }
}

void check(int status, const char* call) {
  if (status != 0) fail(std::string(call) + ": status " + std::to_string(status));
}

/// Alpha and beta, which the library reads by address.
struct Scalars {
  const void* one(DType t) const { return t == DType::float64 ? static_cast<const void*>(&one64) : &one32; }
  const void* zero(DType t) const {
    return t == DType::float64 ? static_cast<const void*>(&zero64) : &zero32;
  }
  float one32 = 1, zero32 = 0;
  double one64 = 1, zero64 = 0;
};

struct Key {
  int device;
  DType dtype;
  bool tf32, bias;
  int64_t batch, m, n, k;
  std::array<int64_t, 8> strides;
  friend auto operator<=>(const Key&, const Key&) = default;
};

struct Library {
  std::mutex mutex;
  std::map<int, CublasLt::Handle> handles;  // by device
  std::map<Key, LibraryProduct> planned;
};
Library& library() {
  static Library* const l = new Library;
  return *l;
}

CublasLt::Layout layout(const CublasLt& api, const Types& types, const Matrix& m, int64_t batch) {
  CublasLt::Layout out = nullptr;
  check(api.layout_create(&out, types.data, static_cast<uint64_t>(m.rows), static_cast<uint64_t>(m.columns),
                          m.leading),
        "cublasLtMatrixLayoutCreate");
  if (batch > 1) {
    const auto count = static_cast<int32_t>(batch);
    check(api.layout_set(out, CublasLt::kBatchCount, &count, sizeof count),
          "cublasLtMatrixLayoutSetAttribute");
    check(api.layout_set(out, CublasLt::kBatchStride, &m.batch_stride, sizeof m.batch_stride),
          "cublasLtMatrixLayoutSetAttribute");
  }
  return out;
}

/// Elements from the first of a matrix to the last of the last one of a batch.
int64_t reach(const Matrix& m, int64_t batch) {
  return (batch - 1) * m.batch_stride + (m.columns - 1) * m.leading + m.rows;
}

/// The candidate that is fastest on memory made for it; the first one if there is no such memory.
CublasLt::HeuristicResult fastest(Runtime& device, const LibraryProduct& p, const ProductCall& call,
                                  const Matrix& a, const Matrix& b, const Matrix& c, bool bias,
                                  uint32_t alignment,
                                  const std::vector<CublasLt::HeuristicResult>& candidates) {
  const CublasLt& api = *cuda::cublaslt();
  std::string key = std::string(c_suffix(call.dtype)) + (call.tf32 ? " tf32" : "") + (bias ? " bias" : "") +
                    (itemsize(call.dtype) == 2 ? " sums in float32" : "") + " alignment " +
                    std::to_string(alignment);
  for (const int64_t v : {call.batch, call.m, call.n, call.k, call.a_batch, call.a_row, call.a_col,
                          call.b_batch, call.b_row, call.b_col})
    key += ' ' + std::to_string(v);
  const auto works = [&](CublasLt::HeuristicResult& found) {
    const CublasLt::Algorithm algorithm = found.algorithm;
    if (api.algorithm_check(p.handle, p.product, p.a, p.b, p.c, p.c, &algorithm, &found) != 0) return false;
    found.algorithm = algorithm;
    return found.workspace_bytes <= kWorkspace;
  };
  size_t workspace = 0;
  for (const CublasLt::HeuristicResult& r : candidates) workspace = std::max(workspace, r.workspace_bytes);
  const int64_t size = itemsize(call.dtype);
  std::vector<std::unique_ptr<cuda::Block>> blocks;
  const auto memory = [&](int64_t bytes) {
    blocks.push_back(std::make_unique<cuda::Block>(device, std::max<int64_t>(bytes, 1)));
    device.fill(blocks.back()->memory(), 0x3c, std::max<int64_t>(bytes, 1));  // small numbers of any type
    return blocks.back()->memory();
  };
  const auto make = [&] {
    memory(reach(a, call.batch) * size), memory(reach(b, call.batch) * size);
    memory(reach(c, call.batch) * size), memory(call.n * size);
    memory(static_cast<int64_t>(workspace));
    const Pointer at = blocks[3]->memory();
    if (bias)
      check(api.product_set(p.product, CublasLt::kBiasPointer, &at, sizeof at),
            "cublasLtMatmulDescSetAttribute");
  };
  bool lacking = false;
  const auto queue = [&](size_t i) {
    try {
      if (blocks.empty()) make();
    } catch (const Error&) {
      lacking = true;
    }
    if (lacking) return false;
    const Scalars scalars;
    const auto at = [&](size_t block) { return reinterpret_cast<void*>(blocks[block]->memory()); };
    return api.product(p.handle, p.product, scalars.one(call.dtype), at(1), p.a, at(0), p.b,
                       scalars.zero(call.dtype), at(2), p.c, at(2), p.c, &candidates[i].algorithm, at(4),
                       candidates[i].workspace_bytes, device.stream()) == 0;
  };
  return tuned(device, key, candidates, works, queue);
}

/// The library has no algorithm for a shape.
void tell_none(const ProductCall& call, bool bias, bool aligned, int status) {
  const core::LogLevel level = aligned ? core::LogLevel::warn : core::LogLevel::info;
  if (!core::log_enabled(core::LogArea::jit, level)) return;
  const auto n = [](int64_t v) { return std::to_string(v); };
  core::log(core::LogArea::jit, level,
            "product " + n(call.batch) + " x (" + n(call.m) + ", " + n(call.k) + ") x (" + n(call.k) + ", " +
                n(call.n) + ") of " + name(call.dtype) + (bias ? " with a bias" : "") +
                ": cuBLASLt has no algorithm" +
                (aligned ? "" : " for memory that is not aligned to " + n(kProductAlignment) + " bytes") +
                " (status " + n(status) + "); a plain kernel, a thread an element, takes " +
                (aligned ? "it" : "that"));
}

/// What a bias will be aligned to: the library looks at the address, which it does not read, when it looks
/// for an algorithm, and takes none for the best aligned one.
void announce_bias(CublasLt::Description product, uint32_t alignment) {
  const Pointer like = alignment;
  check(cuda::cublaslt()->product_set(product, CublasLt::kBiasPointer, &like, sizeof like),
        "cublasLtMatmulDescSetAttribute");
}

/// C' = B' A': our row-major result is its column-major one, with the operands exchanged. Nothing if the
/// library has no algorithm for it.
std::optional<LibraryProduct> plan(Runtime& device, CublasLt::Handle handle, const ProductCall& call,
                                   const Types& types, const Matrix& a, const Matrix& b, const Matrix& c,
                                   bool bias, uint32_t alignment) {
  constexpr int kCandidates = 8;
  const CublasLt& api = *cuda::cublaslt();
  LibraryProduct p;
  p.handle = handle;
  check(api.product_create(&p.product, types.compute, types.scale), "cublasLtMatmulDescCreate");
  const int32_t first = b.transpose, second = a.transpose;
  check(api.product_set(p.product, CublasLt::kTransposeA, &first, sizeof first),
        "cublasLtMatmulDescSetAttribute");
  check(api.product_set(p.product, CublasLt::kTransposeB, &second, sizeof second),
        "cublasLtMatmulDescSetAttribute");
  if (bias) {
    const int32_t epilogue = CublasLt::kEpilogueBias;
    check(api.product_set(p.product, CublasLt::kEpilogue, &epilogue, sizeof epilogue),
          "cublasLtMatmulDescSetAttribute");
    announce_bias(p.product, alignment);
  }
  p.a = layout(api, types, b, call.batch);
  p.b = layout(api, types, a, call.batch);
  p.c = layout(api, types, c, call.batch);
  CublasLt::Preference preference = nullptr;
  check(api.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
  check(api.preference_set(preference, CublasLt::kMaxWorkspace, &kWorkspace, sizeof kWorkspace),
        "cublasLtMatmulPreferenceSetAttribute");
  for (int i = 0; i < 4; ++i)
    check(api.preference_set(preference, CublasLt::kMinAlignmentA + i, &alignment, sizeof alignment),
          "cublasLtMatmulPreferenceSetAttribute");
  if (itemsize(call.dtype) == 2) {  // parts of a sum would be rounded to halves
    constexpr uint32_t kSchemes = CublasLt::kReduceCompute;
    check(api.preference_set(preference, CublasLt::kReductionMask, &kSchemes, sizeof kSchemes),
          "cublasLtMatmulPreferenceSetAttribute");
  }
  const bool tunes = tunes_products();
  std::vector<CublasLt::HeuristicResult> results(tunes ? kCandidates : 1);
  int found = 0;
  const int status = api.heuristic(handle, p.product, p.a, p.b, p.c, p.c, preference,
                                   static_cast<int>(results.size()), results.data(), &found);
  api.preference_destroy(preference);
  // Either is said of shapes that it does not take.
  if (status != kNotSupported && status != kInvalidValue) check(status, "cublasLtMatmulAlgoGetHeuristic");
  results.resize(static_cast<size_t>(found));
  if (tunes)  // an entry that is none says so
    std::erase_if(results, [](const CublasLt::HeuristicResult& r) { return r.state != 0; });
  if (results.empty()) {
    tell_none(call, bias, alignment == kProductAlignment, status);
    for (const CublasLt::Layout l : {p.a, p.b, p.c}) api.layout_destroy(l);
    api.product_destroy(p.product);
    return std::nullopt;
  }
  const CublasLt::HeuristicResult chosen =
      tunes ? fastest(device, p, call, a, b, c, bias, alignment, results) : results[0];
  p.algorithm = chosen.algorithm;
  p.workspace = chosen.workspace_bytes;
  return p;
}

/// The same product with its result at other strides, by the same algorithm: so its bits are those that the
/// op gives by itself. Nothing if the library does not do that.
std::optional<LibraryProduct> moved(const LibraryProduct& from, const Types& types, const Matrix& c,
                                    int64_t batch, bool bias, uint32_t alignment) {
  const CublasLt& api = *cuda::cublaslt();
  LibraryProduct p;
  p.handle = from.handle, p.product = from.product, p.a = from.a, p.b = from.b;
  p.algorithm = from.algorithm;
  p.c = layout(api, types, c, batch);
  if (bias) announce_bias(p.product, alignment);
  CublasLt::HeuristicResult result{};
  const int status = api.algorithm_check(p.handle, p.product, p.a, p.b, p.c, p.c, &p.algorithm, &result);
  if (status != 0 || result.workspace_bytes > kWorkspace) {
    api.layout_destroy(p.c);
    return std::nullopt;
  }
  p.workspace = result.workspace_bytes;
  return p;
}

const LibraryProduct* planned(Runtime& device, const ProductCall& call, bool bias) {
  const std::optional<Types> types = types_of(call);
  if (!types || call.m * call.n * call.batch == 0 || call.k == 0) return nullptr;
  if (bias && call.bias_stride != 1 && call.n > 1) return nullptr;
  const auto a = matrix(call.m, call.k, call.a_row, call.a_col, call.a_batch);
  const auto b = matrix(call.k, call.n, call.b_row, call.b_col, call.b_batch);
  const auto c = matrix(call.m, call.n, call.c_row, call.c_col, call.c_batch);
  if (!a || !b || !c || c->transpose) return nullptr;
  ProductCall packed = call;
  packed.c_row = call.n, packed.c_batch = call.m * call.n;
  const bool moves =
      (call.m > 1 && call.c_row != packed.c_row) || (call.batch > 1 && call.c_batch != packed.c_batch);
  const LibraryProduct* const usual = moves ? planned(device, packed, bias) : nullptr;
  if (moves && !usual) return nullptr;
  ProductCall part = call, left = call;
  part.batch = std::min(call.batch, kMostMatrices);
  left.batch = call.batch > kMostMatrices ? call.batch % kMostMatrices : 0;
  const LibraryProduct* const rest = left.batch > 0 ? planned(device, left, bias) : nullptr;
  if (left.batch > 0 && !rest) return nullptr;
  Library& l = library();
  const std::lock_guard lock(l.mutex);
  const Key key{
      device.index(),
      call.dtype,
      call.tf32,
      bias,
      call.batch,
      call.m,
      call.n,
      call.k,
      {call.a_batch, call.a_row, call.a_col, call.b_batch, call.b_row, call.b_col, call.c_batch, call.c_row}};
  const auto known = l.planned.find(key);
  if (known != l.planned.end()) return known->second.handle ? &known->second : nullptr;
  CublasLt::Handle& handle = l.handles[device.index()];
  device.use();
  if (!handle) check(cuda::cublaslt()->create(&handle), "cublasLtCreate");
  const auto plan_for = [&](uint32_t alignment, const LibraryProduct* from) {
    return moves ? moved(*from, *types, *c, part.batch, bias, alignment)
                 : plan(device, handle, part, *types, *a, *b, *c, bias, alignment);
  };
  std::optional<LibraryProduct> found = plan_for(static_cast<uint32_t>(kProductAlignment), usual);
  if (found && (!moves || usual->loose)) {
    std::optional<LibraryProduct> loose =
        plan_for(static_cast<uint32_t>(itemsize(call.dtype)), moves ? usual->loose.get() : nullptr);
    if (loose)
      found->loose = std::make_unique<LibraryProduct>(std::move(*loose));
    else if (moves)
      found.reset();  // its bits would not be those of the packed result
  }
  if (found && !found->loose) {
    const auto [symbol, text] = product_kernel(call.dtype);
    found->own = cuda_function(device, symbol, text);
  }
  if (found) found->rest = rest;
  const LibraryProduct& entry =
      l.planned.emplace(key, found ? std::move(*found) : LibraryProduct()).first->second;
  return entry.handle ? &entry : nullptr;  // null for good: the kernel of our own takes it
}

}  // namespace

const LibraryProduct* library_product(Runtime& device, const ProductCallPlan& c) {
  return planned(device, c.shape.call, c.bias.base != Base::none);
}

// Pointers of the moved matrices must be aligned where those of the packed ones are: that decides about the
// algorithm, too.
bool library_writes(Runtime& device, const Contraction& packed, const Contraction& moved, int64_t offset,
                    bool bias) {
  const ProductCall &from = packed.call, &to = moved.call;
  if (!(packed.outer == moved.outer) || from.batch != to.batch || from.m != to.m || from.n != to.n)
    return false;
  const auto aligned = [&](int64_t elements) {
    return elements * itemsize(to.dtype) % kProductAlignment == 0;
  };
  bool all = aligned(offset) && (to.m == 1 || aligned(to.c_row)) && (to.batch == 1 || aligned(to.c_batch));
  for (int d = 0; d < moved.outer.rank(); ++d)
    all = all && aligned(moved.c_outer[d]) && aligned(packed.c_outer[d]);
  return all && planned(device, to, bias);
}

int64_t workspace_bytes(const LibraryProduct& product) {
  const size_t bytes = std::max(product.workspace, product.loose ? product.loose->workspace : 0);
  return std::max(static_cast<int64_t>(bytes), product.rest ? workspace_bytes(*product.rest) : 0);
}

int64_t library_calls(const ProductCallPlan& call) {
  return numel(call.shape.outer) * ((call.shape.call.batch + kMostMatrices - 1) / kMostMatrices);
}

// In order over k: for integers, and strides that are no matrix.
std::pair<std::string, std::string> product_kernel(DType t) {
  const DType sum = t == DType::float16 || t == DType::bfloat16 ? DType::float32 : t;
  const std::string type = c_scalar(t), symbol = std::string("tandem_product_") + c_suffix(t);
  const auto to = [](DType from, DType type, const std::string& v) {
    return from == type ? v : std::string("td_") + c_suffix(from) + "_to_" + c_suffix(type) + "(" + v + ")";
  };
  const std::string product =
      is_floating(sum) ? "sum = td_fma(x, y, sum);" : "sum = td_add(sum, td_mul(x, y));";
  return {
      symbol,
      "struct td_args_" + symbol + " { const " + type + " *a, *b, *bias; " + type +
          "* c; td_i64 m, n, k, a_batch, a_row, a_col, b_batch, b_row, b_col, bias_stride, c_batch, c_row, "
          "c_col, count; };\nextern \"C\" __global__ void " +
          symbol + "(td_args_" + symbol +
          " p) {\n"
          "  const td_i64 t = (td_i64)blockIdx.x * blockDim.x + threadIdx.x;\n"
          "  if (t >= p.count) return;\n"
          "  const td_i64 j = t % p.n, i = t / p.n % p.m, b = t / p.n / p.m;\n  " +
          c_scalar(sum) + " sum = 0;\n  for (td_i64 k = 0; k < p.k; ++k) {\n    const " + c_scalar(sum) +
          " x = " + to(t, sum, "p.a[b * p.a_batch + i * p.a_row + k * p.a_col]") +
          ", y = " + to(t, sum, "p.b[b * p.b_batch + k * p.b_row + j * p.b_col]") + ";\n    " + product +
          "\n  }\n  if (p.bias) sum = td_add(sum, " + to(t, sum, "p.bias[j * p.bias_stride]") +
          ");\n  p.c[b * p.c_batch + i * p.c_row + j * p.c_col] = " + to(sum, t, "sum") + ";\n}\n"};
}

std::vector<int64_t> product_words(const ProductCall& s) {
  return {s.m,     s.n,     s.k,           s.a_batch, s.a_row, s.a_col, s.b_batch,
          s.b_row, s.b_col, s.bias_stride, s.c_batch, s.c_row, s.c_col, s.batch * s.m * s.n};
}

void run_product(Runtime& device, const ProductCallPlan& call, const LibraryProduct& product, Pointer a,
                 Pointer b, Pointer bias, Pointer c, Pointer workspace, cuda::StreamHandle stream) {
  const CublasLt& api = *cuda::cublaslt();
  const Scalars scalars;
  const void *const alpha = scalars.one(call.shape.call.dtype), *const beta =
                                                                    scalars.zero(call.shape.call.dtype);
  device.use();
  // The description carries the address of the bias: one call at a time then.
  std::unique_lock lock(library().mutex, std::defer_lock);
  if (bias) lock.lock();
  const auto multiply = [&](const LibraryProduct& part, int64_t matrices, Pointer at_a, Pointer at_b,
                            Pointer at_c) {
    const bool aligned = (at_a | at_b | at_c | bias) % kProductAlignment == 0;
    if (!aligned && part.own) {
      ProductCall own = call.shape.call;
      own.batch = matrices;
      std::vector<int64_t> words = {static_cast<int64_t>(at_a), static_cast<int64_t>(at_b),
                                    static_cast<int64_t>(bias), static_cast<int64_t>(at_c)};
      const std::vector<int64_t> more = product_words(own);
      words.insert(words.end(), more.begin(), more.end());
      const LaunchShape shape = NativeLaunch{part.own, {}, more.back(), {}}.shape();
      void* parameters[] = {words.data()};
      device.check(device.api().launch(part.own, shape.grid, 1, 1, shape.block, 1, 1, shape.shared_bytes,
                                       stream, parameters, nullptr),
                   "cuLaunchKernel");
      return;
    }
    const LibraryProduct& p = aligned ? part : *part.loose;
    if (bias)
      check(api.product_set(p.product, CublasLt::kBiasPointer, &bias, sizeof bias),
            "cublasLtMatmulDescSetAttribute");
    const auto pointer = [](Pointer at) { return reinterpret_cast<void*>(at); };
    check(api.product(p.handle, p.product, alpha, pointer(at_b), p.a, pointer(at_a), p.b, beta, pointer(at_c),
                      p.c, pointer(at_c), p.c, &p.algorithm, pointer(workspace), p.workspace, stream),
          "cublasLtMatmul");
  };
  const ProductCall& shape = call.shape.call;
  for_products(call, [&](int64_t at_a, int64_t at_b, int64_t at_c) {
    for (int64_t first = 0; first < shape.batch; first += kMostMatrices) {
      const int64_t matrices = std::min(shape.batch - first, kMostMatrices);
      const auto place = [&](Pointer base, int64_t offset, int64_t stride) {
        return base + static_cast<Pointer>(offset + first * stride * itemsize(shape.dtype));
      };
      multiply(product.rest && matrices < kMostMatrices ? *product.rest : product, matrices,
               place(a, at_a, shape.a_batch), place(b, at_b, shape.b_batch), place(c, at_c, shape.c_batch));
    }
  });
}

}  // namespace tandem::jit
