// float32 products by oneDNN's sgemm, on one thread per row block: Tandem's pool does the spreading.
#include <string>

#include "tandem/core/error.h"
#include "tandem/ops/products/providers.h"

#if defined(TANDEM_HAVE_DNNL) && TANDEM_HAVE_DNNL
#include <oneapi/dnnl/dnnl.h>

#include "tandem/ops/openmp_thread.h"

namespace tandem::ops {
namespace {

void rows_by_sgemm(int64_t m, int64_t n, int64_t k, const float* a, const float* b, float* c) {
  const OneThread one;
  if (dnnl_sgemm('N', 'N', m, n, k, 1.0f, a, k, b, n, 0.0f, c, n) != dnnl_success)
    internal_error("dnnl_sgemm refused (" + std::to_string(m) + ", " + std::to_string(n) + ", " +
                   std::to_string(k) + ")");
}

}  // namespace

bool onednn_available() { return true; }
void product_onednn(const ProductCall& call) { product_by_rows<float>(call, rows_by_sgemm); }

}  // namespace tandem::ops

#else

namespace tandem::ops {

bool onednn_available() { return false; }
void product_onednn(const ProductCall&) { internal_error("this build has no oneDNN"); }

}  // namespace tandem::ops

#endif
