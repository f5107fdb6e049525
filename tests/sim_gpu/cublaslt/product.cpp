#include "tests/sim_gpu/cublaslt/product.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "tandem/core/cuda/api.h"
#include "tests/sim_gpu/elements.h"

namespace sim_gpu {

namespace {

using tandem::cuda::CublasLt;

template <class T>
T load(const void* data, int type, size_t i) {
  switch (type) {
    case CublasLt::kReal64F:
      return static_cast<T>(static_cast<const double*>(data)[i]);
    case CublasLt::kReal16F:
      return from_half(static_cast<const uint16_t*>(data)[i]);
    case CublasLt::kReal16BF:
      return from_brain(static_cast<const uint16_t*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

template <class T>
void store(void* data, int type, size_t i, T value) {
  switch (type) {
    case CublasLt::kReal64F:
      static_cast<double*>(data)[i] = value;
      break;
    case CublasLt::kReal16F:
      static_cast<uint16_t*>(data)[i] = to_half(static_cast<float>(value));
      break;
    case CublasLt::kReal16BF:
      static_cast<uint16_t*>(data)[i] = to_brain(static_cast<float>(value));
      break;
    default:
      static_cast<float*>(data)[i] = static_cast<float>(value);
  }
}

template <class T>
T rounded(int type, T value) {
  T out = 0;
  store<T>(&out, type, 0, value);
  return load<T>(&out, type, 0);
}

size_t index(const Matrix& m, int batch, uint64_t row, uint64_t column) {
  const auto leading = static_cast<uint64_t>(m.leading);
  const uint64_t inside = m.order == 1 ? row * leading + column : column * leading + row;
  return static_cast<size_t>(static_cast<int64_t>(inside) + batch * m.batch_stride);
}

/// One matrix of a batch, transposed if asked, row after row.
template <class T>
std::vector<T> packed(const Matrix& m, const void* data, int batch, bool transpose) {
  const uint64_t rows = transpose ? m.columns : m.rows, columns = transpose ? m.rows : m.columns;
  std::vector<T> out(rows * columns);
  for (uint64_t i = 0; i < rows; ++i)
    for (uint64_t j = 0; j < columns; ++j)
      out[i * columns + j] = load<T>(data, m.type, transpose ? index(m, batch, j, i) : index(m, batch, i, j));
  return out;
}

template <class T>
void multiply(const ProductData& p) {
  const uint64_t inner = p.transpose_a != 0 ? p.a.rows : p.a.columns;
  const auto alpha = static_cast<T>(p.alpha), beta = static_cast<T>(p.beta);
  for (int batch = 0; batch < p.d.batch; ++batch) {
    std::vector<T> a = packed<T>(p.a, p.a_data, batch, p.transpose_a != 0);
    std::vector<T> b = packed<T>(p.b, p.b_data, batch, p.transpose_b != 0);
    if (p.tf32)
      for (std::vector<T>* all : {&a, &b})
        for (T& v : *all) v = to_tf32(static_cast<float>(v));
    const uint64_t columns = p.d.columns;
    std::vector<T> sums(columns), parts(columns);
    for (uint64_t i = 0; i < p.d.rows; ++i) {
      std::fill(sums.begin(), sums.end(), T{0});
      std::fill(parts.begin(), parts.end(), T{0});
      for (uint64_t step = 0; step < inner; ++step) {
        const uint64_t k = p.algorithm == 0 ? step : inner - 1 - step;
        const T left = a[i * inner + k];
        const T* right = b.data() + k * columns;
        for (uint64_t j = 0; j < columns; ++j) sums[j] += left * right[j];
        if (p.rounds_parts && (step + 1 == inner / 2 || step + 1 == inner)) {
          for (uint64_t j = 0; j < columns; ++j) {
            parts[j] = rounded<T>(p.d.type, parts[j] + rounded<T>(p.d.type, sums[j]));
            sums[j] = T{0};
          }
        }
      }
      for (uint64_t j = 0; j < columns; ++j) {
        T value = alpha * (sums[j] + parts[j]);
        if (p.beta != 0) value += beta * load<T>(p.c_data, p.c.type, index(p.c, batch, i, j));
        if (p.bias != nullptr) value += load<T>(p.bias, p.d.type, i);
        store<T>(p.d_data, p.d.type, index(p.d, batch, i, j), value);
      }
    }
  }
}

}  // namespace

size_t Matrix::element_bytes() const {
  return type == CublasLt::kReal64F ? 8 : type == CublasLt::kReal32F ? 4 : 2;
}

size_t Matrix::span_bytes() const {
  if (rows == 0 || columns == 0) return 0;
  return (index(*this, batch - 1, rows - 1, columns - 1) + 1) * element_bytes();
}

void run_product(const ProductData& p) {
  // What a real kernel leaves in its workspace is nobody's business.
  static const char* const slow_us = std::getenv("SIM_GPU_SLOW_PRODUCTS");
  if (slow_us != nullptr && p.algorithm == 0)
    std::this_thread::sleep_for(std::chrono::microseconds(std::atol(slow_us)));
  if (p.workspace != nullptr) std::memset(p.workspace, 0xFF, p.workspace_bytes);
  if (p.d.type == CublasLt::kReal64F)
    multiply<double>(p);
  else
    multiply<float>(p);
}

}  // namespace sim_gpu
