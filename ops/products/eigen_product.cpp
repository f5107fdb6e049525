// float32 and float64 products by Eigen: the tests' second opinion and a peer in measurements.
#include "tandem/core/error.h"
#include "tandem/ops/products/providers.h"

#if defined(TANDEM_HAVE_EIGEN) && TANDEM_HAVE_EIGEN
#include <Eigen/Core>

namespace tandem::ops {
namespace {

template <class T>
void rows_by_eigen(int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const Matrix> left(a, m, k), right(b, k, n);
  Eigen::Map<Matrix>(c, m, n).noalias() = left * right;
}

}  // namespace

bool eigen_available() { return true; }
void product_eigen(const ProductCall& call) {
  if (call.dtype == DType::float32)
    product_by_rows<float>(call, rows_by_eigen<float>);
  else
    product_by_rows<double>(call, rows_by_eigen<double>);
}

}  // namespace tandem::ops

#else

namespace tandem::ops {

bool eigen_available() { return false; }
void product_eigen(const ProductCall&) { internal_error("this build has no Eigen"); }

}  // namespace tandem::ops

#endif
