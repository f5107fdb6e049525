// float32 products by oneDNN's sgemm, on one thread per row block: Tandem's pool does the spreading.
//
// oneDNN built on OpenMP would start a region of its own inside each block. The number of threads it asks for
// belongs to the calling thread in OpenMP, so it is set to 1 around each call and put back. The two functions
// are looked up at run time: a oneDNN built on another runtime brings no OpenMP along, and Tandem does not
// link to one.
#include <string>

#include "tandem/core/error.h"
#include "tandem/ops/products/providers.h"

#if defined(TANDEM_HAVE_DNNL) && TANDEM_HAVE_DNNL
#include <dlfcn.h>

#include <oneapi/dnnl/dnnl.h>

namespace tandem::ops {
namespace {

struct OpenMp {
  using Set = void (*)(int);
  using Get = int (*)();
  Set set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  Get get = reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
};

class OneThread {
 public:
  OneThread() : before_(open_mp().set && open_mp().get ? open_mp().get() : 1) {
    if (before_ != 1) open_mp().set(1);
  }
  ~OneThread() {
    if (before_ != 1) open_mp().set(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  static const OpenMp& open_mp() {
    static const OpenMp found;
    return found;
  }
  int before_;
};

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
