// The simulated cuBLASLt: its C functions over product.h. Descriptions belong to their makers; products run
// on streams of the simulated driver, which must be loaded.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <iterator>

#include "tandem/core/cuda/api.h"
#include "tests/sim_gpu/cublaslt/product.h"
#include "tests/sim_gpu/driver_control.h"

namespace tandem::cuda {

struct HandleOfCublasLt {
  int unused = 0;
};
struct DescriptionOfCublasLt {
  int compute = 0, scale = 0;
  int transpose_a = 0, transpose_b = 0, epilogue = 1;
  const void* bias = nullptr;
};
struct LayoutOfCublasLt {
  sim_gpu::Matrix matrix;
};
struct PreferenceOfCublasLt {
  uint64_t max_workspace = 0;
  uint32_t reductions = 7;                        // all
  uint32_t alignments[4] = {256, 256, 256, 256};  // of A, B, C and D, at least
};

}  // namespace tandem::cuda

namespace sim_gpu {

using Lt = tandem::cuda::CublasLt;
using Handle = Lt::Handle;
using Description = Lt::Description;
using Layout = Lt::Layout;
using Preference = Lt::Preference;
using Algorithm = Lt::Algorithm;
using HeuristicResult = Lt::HeuristicResult;
using tandem::cuda::StreamHandle;

// cublasStatus_t
constexpr int kSuccess = 0, kNotInitialized = 1, kAllocFailed = 3, kInvalidValue = 7, kExecutionFailed = 13,
              kNotSupported = 15;

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/cublaslt.def"
#undef TANDEM_CUDA

namespace {

constexpr uint64_t kAlgorithmMark = 0x51d5'0001;
// In the order of the library's estimate, which may be wrong (SIM_GPU_SLOW_PRODUCTS). The second and the
// third add in descending order of the inner index, so that results tell which one ran.
constexpr int kAlgorithms = 3;
constexpr uint64_t kWorkspaceBytes = 4096;  // asked for where allowed, so that handing it over is exercised

int refuse(const char* what, int status = kInvalidValue) {
  std::fprintf(stderr, "sim_gpu: cublasLt: %s\n", what);
  return status;
}

template <class T>
int take(const void* value, size_t bytes, T* out) {
  if (value == nullptr || bytes != sizeof(T)) return refuse("an attribute of another size");
  std::memcpy(out, value, sizeof(T));
  return kSuccess;
}

bool known_type(int type) {
  return type == Lt::kReal32F || type == Lt::kReal64F || type == Lt::kReal16F || type == Lt::kReal16BF;
}

/// Whether such a product exists; what is wrong is told.
int check(Description p, Layout la, Layout lb, Layout lc, Layout ld) {
  if (p == nullptr || la == nullptr || lb == nullptr || lc == nullptr || ld == nullptr) return kInvalidValue;
  const Matrix &a = la->matrix, &b = lb->matrix, &c = lc->matrix, &d = ld->matrix;
  for (const Matrix* m : {&a, &b, &c, &d}) {
    if (m->leading < static_cast<int64_t>(m->order == 1 ? m->columns : m->rows))
      return refuse("a leading dimension smaller than the matrix");
    if (m->batch != d.batch) return refuse("batches of different counts");
    if (m->rows == 0 || m->columns == 0) return refuse("an empty matrix");
  }
  const uint64_t m = p->transpose_a != 0 ? a.columns : a.rows, k = p->transpose_a != 0 ? a.rows : a.columns;
  const uint64_t k2 = p->transpose_b != 0 ? b.columns : b.rows, n = p->transpose_b != 0 ? b.rows : b.columns;
  if (k != k2 || m != d.rows || n != d.columns || c.rows != d.rows || c.columns != d.columns)
    return refuse("sizes that do not fit");
  if (c.order != d.order) return refuse("C and D of different orders", kNotSupported);
  const bool doubles = p->compute == Lt::kCompute64F;
  if (p->scale != (doubles ? Lt::kReal64F : Lt::kReal32F))
    return refuse("this type of alpha and beta", kNotSupported);
  for (const Matrix* each : {&a, &b, &c, &d})
    if ((each->type == Lt::kReal64F) != doubles) return refuse("these types together", kNotSupported);
  if (a.type != b.type || c.type != d.type || (a.type == Lt::kReal32F && d.type != Lt::kReal32F))
    return refuse("these types together", kNotSupported);
  return kSuccess;
}

/// What an algorithm was found for: it may write its result anywhere.
uint64_t problem(Description p, Layout a, Layout b, Layout c, Layout d) {
  uint64_t h = 0xcbf29ce484222325;
  const auto mix = [&](uint64_t value) { h = (h ^ value) * 0x100000001b3; };
  for (const int v : {p->compute, p->scale, p->transpose_a, p->transpose_b, p->epilogue})
    mix(static_cast<uint64_t>(v));
  for (const Layout l : {a, b, c, d}) {
    const Matrix& m = l->matrix;
    const int64_t leading = l == a || l == b ? m.leading : 0;
    for (const uint64_t v : {static_cast<uint64_t>(m.type), static_cast<uint64_t>(m.order), m.rows, m.columns,
                             static_cast<uint64_t>(leading), static_cast<uint64_t>(m.batch)})
      mix(v);
  }
  return h;
}

/// Of an address that is never read here: that of no address is the best there is.
uint64_t alignment_of(const void* p) {
  const auto at = reinterpret_cast<uintptr_t>(p);
  return at == 0 ? 256 : std::min<uint64_t>(256, at & -at);
}

constexpr uint64_t kRoundsParts = 1;  // and from bit 8 on the alignment of the bias

bool is_algorithm(const Algorithm& a) {
  return a.data[0] >= kAlgorithmMark && a.data[0] < kAlgorithmMark + kAlgorithms;
}

}  // namespace

size_t cublasLtGetVersion() {
  Dl_info info{};
  return dladdr(reinterpret_cast<void*>(&cublasLtGetVersion), &info) != 0 &&
                 std::strstr(info.dli_fname, ".so.12") != nullptr
             ? 120400
             : 130000;
}

int cublasLtCreate(Handle* handle) {
  if (handle == nullptr) return kInvalidValue;
  if (SIM_GPU_CONTROL(sim_gpu_enqueue) == nullptr) return kNotInitialized;  // no driver
  if (made_to_fail("cublasLtCreate")) return kAllocFailed;
  *handle = new tandem::cuda::HandleOfCublasLt;
  return kSuccess;
}
int cublasLtDestroy(Handle handle) {
  delete handle;
  return kSuccess;
}

int cublasLtMatmulDescCreate(Description* product, int compute_type, int scale_type) {
  if (product == nullptr) return kInvalidValue;
  if (compute_type != Lt::kCompute32F && compute_type != Lt::kCompute64F &&
      compute_type != Lt::kComputeFastTf32)
    return refuse("this type of computation", kNotSupported);
  *product = new tandem::cuda::DescriptionOfCublasLt;
  (*product)->compute = compute_type;
  (*product)->scale = scale_type;
  return kSuccess;
}
int cublasLtMatmulDescDestroy(Description product) {
  delete product;
  return kSuccess;
}

int cublasLtMatmulDescSetAttribute(Description product, int attribute, const void* value, size_t bytes) {
  if (product == nullptr) return kInvalidValue;
  const auto transpose = [&](int* which) {
    int wanted = 0;
    const int status = take(value, bytes, &wanted);
    if (status != kSuccess) return status;
    if (wanted != Lt::kNoTranspose && wanted != Lt::kTranspose)
      return refuse("this transpose", kNotSupported);
    *which = wanted;
    return kSuccess;
  };
  switch (attribute) {
    case Lt::kTransposeA:
      return transpose(&product->transpose_a);
    case Lt::kTransposeB:
      return transpose(&product->transpose_b);
    case Lt::kEpilogue: {
      int wanted = 0;
      const int status = take(value, bytes, &wanted);
      if (status != kSuccess) return status;
      if (wanted != 1 && wanted != Lt::kEpilogueBias) return refuse("this epilogue", kNotSupported);
      product->epilogue = wanted;
      return kSuccess;
    }
    case Lt::kBiasPointer:
      return take(value, bytes, &product->bias);
    default:
      return refuse("an attribute of a product that is not simulated", kNotSupported);
  }
}

int cublasLtMatrixLayoutCreate(Layout* layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  if (layout == nullptr) return kInvalidValue;
  if (!known_type(type)) return refuse("this type of element", kNotSupported);
  *layout = new tandem::cuda::LayoutOfCublasLt{{type, 0, rows, columns, leading, 1, 0}};
  return kSuccess;
}
int cublasLtMatrixLayoutDestroy(Layout layout) {
  delete layout;
  return kSuccess;
}

int cublasLtMatrixLayoutSetAttribute(Layout layout, int attribute, const void* value, size_t bytes) {
  if (layout == nullptr) return kInvalidValue;
  Matrix& m = layout->matrix;
  switch (attribute) {
    case Lt::kOrder: {
      int wanted = 0;
      const int status = take(value, bytes, &wanted);
      if (status != kSuccess) return status;
      if (wanted != 0 && wanted != Lt::kRowMajor) return refuse("this order", kNotSupported);
      m.order = wanted;
      return kSuccess;
    }
    case Lt::kBatchCount: {
      int count = 0;
      const int status = take(value, bytes, &count);
      if (status != kSuccess) return status;
      if (count < 1) return refuse("a batch of none");
      m.batch = count;
      return kSuccess;
    }
    case Lt::kBatchStride:
      return take(value, bytes, &m.batch_stride);
    default:
      return refuse("an attribute of a layout that is not simulated", kNotSupported);
  }
}

int cublasLtMatmulPreferenceCreate(Preference* preference) {
  if (preference == nullptr) return kInvalidValue;
  *preference = new tandem::cuda::PreferenceOfCublasLt;
  return kSuccess;
}
int cublasLtMatmulPreferenceDestroy(Preference preference) {
  delete preference;
  return kSuccess;
}
int cublasLtMatmulPreferenceSetAttribute(Preference preference, int attribute, const void* value,
                                         size_t bytes) {
  if (preference == nullptr) return kInvalidValue;
  if (attribute == Lt::kMaxWorkspace) return take(value, bytes, &preference->max_workspace);
  if (attribute == Lt::kReductionMask) return take(value, bytes, &preference->reductions);
  if (attribute >= Lt::kMinAlignmentA && attribute < Lt::kMinAlignmentA + 4)
    return take(value, bytes, &preference->alignments[attribute - Lt::kMinAlignmentA]);
  return refuse("a preference that is not simulated", kNotSupported);
}

int cublasLtMatmulAlgoGetHeuristic(Handle handle, Description product, Layout a, Layout b, Layout c, Layout d,
                                   Preference preference, int wanted, HeuristicResult* results, int* found) {
  if (handle == nullptr || preference == nullptr || results == nullptr || found == nullptr || wanted < 1)
    return kInvalidValue;
  *found = 0;
  const int checked = check(product, a, b, c, d);
  if (checked != kSuccess) return checked;
  if (made_to_fail("cublasLtMatmulAlgoGetHeuristic")) return kNotSupported;
  auto* const offered = SIM_GPU_CONTROL(sim_gpu_products);
  const int products = offered == nullptr ? 2 : offered();
  if (products < 0) return kInvalidValue;
  const bool aligned = std::all_of(std::begin(preference->alignments), std::end(preference->alignments),
                                   [](uint32_t alignment) { return alignment >= 16; });
  if (products == 0 || (products == 1 && !aligned)) return kNotSupported;
  *found = wanted < kAlgorithms ? wanted : kAlgorithms;
  for (int n = 0; n < *found; ++n) {
    HeuristicResult& result = results[n];
    result = {};
    result.workspace_bytes = preference->max_workspace >= kWorkspaceBytes ? kWorkspaceBytes : 0;
    result.algorithm.data[0] = kAlgorithmMark + static_cast<uint64_t>(n);
    result.algorithm.data[1] = problem(product, a, b, c, d);
    result.algorithm.data[2] = result.workspace_bytes;
    for (int i = 0; i < 4; ++i) result.algorithm.data[3 + i] = preference->alignments[i];
    // As little as is allowed: parts of halves' sums that are halves.
    result.algorithm.data[7] = alignment_of(product->bias) << 8;
    if (d->matrix.element_bytes() == 2 && (preference->reductions & (Lt::kReduceInPlace | Lt::kReduceOutput)))
      result.algorithm.data[7] |= kRoundsParts;
    result.waves = 1.0f;
  }
  return kSuccess;
}

int cublasLtMatmulAlgoCheck(Handle handle, Description product, Layout a, Layout b, Layout c, Layout d,
                            const Algorithm* algorithm, HeuristicResult* result) {
  if (handle == nullptr || algorithm == nullptr || result == nullptr) return kInvalidValue;
  const int checked = check(product, a, b, c, d);
  if (checked != kSuccess) return checked;
  if (made_to_fail("cublasLtMatmulAlgoCheck")) return kNotSupported;
  if (!is_algorithm(*algorithm) || algorithm->data[1] != problem(product, a, b, c, d))
    return refuse("an algorithm that was found for another product");
  *result = {};
  result->algorithm = *algorithm;
  result->workspace_bytes = algorithm->data[2];
  return kSuccess;
}

int cublasLtMatmul(Handle handle, Description product, const void* alpha, const void* a, Layout a_layout,
                   const void* b, Layout b_layout, const void* beta, const void* c, Layout c_layout, void* d,
                   Layout d_layout, const Algorithm* algorithm, void* workspace, size_t workspace_bytes,
                   StreamHandle stream) {
  if (handle == nullptr || alpha == nullptr || beta == nullptr) return kInvalidValue;
  const int checked = check(product, a_layout, b_layout, c_layout, d_layout);
  if (checked != kSuccess) return checked;
  if (d_layout->matrix.batch > 65535) return refuse("more matrices than a grid has blocks", kNotSupported);
  auto* const holds = SIM_GPU_CONTROL(sim_gpu_holds);
  auto* const enqueue = SIM_GPU_CONTROL(sim_gpu_enqueue);
  auto* const add = SIM_GPU_CONTROL(sim_gpu_add);
  if (holds == nullptr || enqueue == nullptr || add == nullptr) return kNotInitialized;

  ProductData p{};
  p.a = a_layout->matrix;
  p.b = b_layout->matrix;
  p.c = c_layout->matrix;
  p.d = d_layout->matrix;
  p.a_data = a;
  p.b_data = b;
  p.c_data = c;
  p.d_data = d;
  p.transpose_a = product->transpose_a;
  p.transpose_b = product->transpose_b;
  p.tf32 = product->compute == Lt::kComputeFastTf32;
  p.alpha =
      product->scale == Lt::kReal64F ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
  p.beta =
      product->scale == Lt::kReal64F ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
  if (p.beta != 0 && c == d && p.c.leading != p.d.leading)
    return refuse("C in place of D with another layout");
  const struct {
    const void* data;
    const Matrix& matrix;
  } operands[] = {{a, p.a}, {b, p.b}, {p.beta != 0 ? c : d, p.beta != 0 ? p.c : p.d}, {d, p.d}};
  for (const auto& operand : operands) {
    if (reinterpret_cast<uintptr_t>(operand.data) % operand.matrix.element_bytes() != 0)
      return refuse("a misaligned matrix");
    if (holds(operand.data, operand.matrix.span_bytes()) == 0)
      return refuse("a matrix outside of its memory");
  }
  if (product->epilogue == Lt::kEpilogueBias) {
    p.bias = product->bias;
    if (p.bias == nullptr || holds(p.bias, p.d.rows * p.d.element_bytes()) == 0)
      return refuse("a bias outside of its memory");
  }
  if (algorithm != nullptr) {
    p.algorithm = static_cast<int>(algorithm->data[0] - kAlgorithmMark);
    p.rounds_parts = (algorithm->data[7] & kRoundsParts) != 0;
    if (!is_algorithm(*algorithm) ||
        algorithm->data[1] != problem(product, a_layout, b_layout, c_layout, d_layout))
      return refuse("an algorithm that was found for another product");
    const void* const memory[] = {a, b, p.beta != 0 ? c : d, d};
    for (int i = 0; i < 4; ++i)
      if (reinterpret_cast<uintptr_t>(memory[i]) % algorithm->data[3 + i] != 0)
        return refuse("an algorithm that was found for better aligned memory");
    if (p.bias != nullptr && reinterpret_cast<uintptr_t>(p.bias) % (algorithm->data[7] >> 8) != 0)
      return refuse("an algorithm that was found for a better aligned bias");
    if (algorithm->data[2] > workspace_bytes)
      return refuse("a smaller workspace than the algorithm asks for");
    if (algorithm->data[2] > 0) {
      if (reinterpret_cast<uintptr_t>(workspace) % 16 != 0 || holds(workspace, workspace_bytes) == 0)
        return refuse("a workspace outside of its memory, or misaligned");
      p.workspace = workspace;
      p.workspace_bytes = workspace_bytes;
    }
  }
  if (made_to_fail("cublasLtMatmul")) return kExecutionFailed;
  add("products", 1);
  const auto run = [](const void* data) {
    run_product(*static_cast<const ProductData*>(data));
    return 1;
  };
  return enqueue(stream, "cublasLtMatmul", run, &p, sizeof p) == 0 ? kSuccess : kExecutionFailed;
}

}  // namespace sim_gpu
