// Choice of a provider, and what all of them share: checks, empty products, half precision.
#include "tandem/ops/products/products.h"

#include <algorithm>
#include <string>

#include "tandem/core/bfloat.h"
#include "tandem/core/error.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/providers.h"

namespace tandem::ops {
namespace {

constexpr int64_t kHalfChunk = int64_t{1} << 24;  // elements that are converted to float32 at a time

bool is_half(DType t) { return t == DType::float16 || t == DType::bfloat16; }

/// Strides of sizes below 2 never move a pointer; they get values that no arithmetic overflows on.
ProductCall normalised(ProductCall call) {
  if (call.batch < 2) call.a_batch = call.b_batch = call.c_batch = 0;
  if (call.m < 2) call.a_row = call.c_row = 1;
  if (call.n < 2) call.b_col = call.c_col = call.bias_stride = 1;
  if (call.k < 2) call.a_col = call.b_row = 1;
  return call;
}

/// k == 0: the sums are zero.
void fill_without_terms(const ProductCall& call) {
  const int64_t size = itemsize(call.dtype);
  auto* c = static_cast<char*>(call.c);
  const auto* bias = static_cast<const char*>(call.bias);
  for (int64_t q = 0; q < call.batch; ++q)
    for (int64_t i = 0; i < call.m; ++i)
      for (int64_t j = 0; j < call.n; ++j) {
        char* to = c + (q * call.c_batch + i * call.c_row + j * call.c_col) * size;
        if (bias)
          std::copy_n(bias + j * call.bias_stride * size, size, to);
        else
          std::fill_n(to, size, char{0});
      }
}

/// Calls f(offset in the strided matrices, offset in packed ones) for each row of `batch` matrices (rows,
/// columns).
template <class F>
void for_rows(int64_t batch, int64_t rows, int64_t columns, int64_t batch_stride, int64_t row_stride, F&& f) {
  core::parallel(batch * rows, std::max<int64_t>(1, 65536 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r / rows * batch_stride + r % rows * row_stride, r * columns);
  });
}

void widen(DType dtype, float* to, const uint16_t* from, int64_t batch, int64_t rows, int64_t columns,
           int64_t batch_stride, int64_t row, int64_t col) {
  for_rows(batch, rows, columns, batch_stride, row, [&](int64_t strided, int64_t packed) {
    if (dtype == DType::bfloat16 && col == 1)
      for (int64_t j = 0; j < columns; ++j) to[packed + j] = core::widened_bfloat(from[strided + j]);
    else if (dtype == DType::bfloat16)
      for (int64_t j = 0; j < columns; ++j) to[packed + j] = core::widened_bfloat(from[strided + j * col]);
    else
      for (int64_t j = 0; j < columns; ++j) to[packed + j] = half_to_float(from[strided + j * col]);
  });
}

/// An operand (rows, columns) in float32, packed in the order in which it lies.
struct Packed {
  Packed(int64_t rows, int64_t columns, int64_t row, int64_t col)
      : turned(col != 1 && row == 1), row_stride(turned ? 1 : columns), col_stride(turned ? rows : 1) {}
  bool turned;
  int64_t row_stride, col_stride;
};
void widen(const Packed& layout, DType dtype, float* to, const uint16_t* from, int64_t batch, int64_t rows,
           int64_t columns, int64_t batch_stride, int64_t row, int64_t col) {
  if (layout.turned)
    widen(dtype, to, from, batch, columns, rows, batch_stride, col, row);
  else
    widen(dtype, to, from, batch, rows, columns, batch_stride, row, col);
}

/// Operands become float32, the product stays float32 to the end, bias included, and is rounded once.
void product_half(const ProductCall& call) {
  const int64_t m = call.m, n = call.n, k = call.k;
  const bool shared_a = call.a_batch == 0, shared_b = call.b_batch == 0;
  const int64_t per_matrix = (shared_a ? 0 : m * k) + (shared_b ? 0 : k * n) + m * n;
  const int64_t chunk = std::clamp<int64_t>(kHalfChunk / per_matrix, 1, call.batch);
  const Packed a(m, k, call.a_row, call.a_col), b(k, n, call.b_row, call.b_col);
  constexpr int64_t kSize = sizeof(float);
  const Scratch a_space((shared_a ? 1 : chunk) * m * k * kSize),
      b_space((shared_b ? 1 : chunk) * k * n * kSize);
  const Scratch c_space(chunk * m * n * kSize), bias_space(call.bias ? n * kSize : 0);
  if (call.bias)
    widen(call.dtype, bias_space.as<float>(), static_cast<const uint16_t*>(call.bias), 1, 1, n, 0, 0,
          call.bias_stride);
  for (int64_t first = 0; first < call.batch; first += chunk) {
    const int64_t batch = std::min(chunk, call.batch - first);
    if (first == 0 || !shared_a)
      widen(a, call.dtype, a_space.as<float>(), static_cast<const uint16_t*>(call.a) + first * call.a_batch,
            shared_a ? 1 : batch, m, k, call.a_batch, call.a_row, call.a_col);
    if (first == 0 || !shared_b)
      widen(b, call.dtype, b_space.as<float>(), static_cast<const uint16_t*>(call.b) + first * call.b_batch,
            shared_b ? 1 : batch, k, n, call.b_batch, call.b_row, call.b_col);
    product_tiles(normalised({.batch = batch,
                              .m = m,
                              .n = n,
                              .k = k,
                              .dtype = DType::float32,
                              .a = a_space.as<float>(),
                              .a_batch = shared_a ? 0 : m * k,
                              .a_row = a.row_stride,
                              .a_col = a.col_stride,
                              .b = b_space.as<float>(),
                              .b_batch = shared_b ? 0 : k * n,
                              .b_row = b.row_stride,
                              .b_col = b.col_stride,
                              .bias = call.bias ? bias_space.as<float>() : nullptr,
                              .bias_stride = 1,
                              .c = c_space.as<float>(),
                              .c_batch = m * n,
                              .c_row = n,
                              .c_col = 1}));
    const float* from = c_space.as<float>();
    auto* to = static_cast<uint16_t*>(call.c) + first * call.c_batch;
    for_rows(batch, m, n, call.c_batch, call.c_row, [&](int64_t strided, int64_t packed) {
      if (call.dtype == DType::bfloat16 && call.c_col == 1)
        for (int64_t j = 0; j < n; ++j) to[strided + j] = core::rounded_to_bfloat(from[packed + j]);
      else
        for (int64_t j = 0; j < n; ++j)
          to[strided + j * call.c_col] = call.dtype == DType::bfloat16 ? float_to_bfloat(from[packed + j])
                                                                       : float_to_half(from[packed + j]);
    });
  }
}

}  // namespace

const char* name(Provider provider) {
  switch (provider) {
    case Provider::tiles:
      return "tiles";
    case Provider::onednn:
      return "onednn";
    case Provider::eigen:
      return "eigen";
    case Provider::loops:
      return "loops";
  }
  internal_error("name of an unknown provider");
}

bool provider_available(Provider provider) {
  switch (provider) {
    case Provider::onednn:
      return onednn_available();
    case Provider::eigen:
      return eigen_available();
    case Provider::tiles:
    case Provider::loops:
      return true;
  }
  internal_error("availability of an unknown provider");
}

bool provider_takes(Provider provider, DType dtype) {
  switch (provider) {
    case Provider::tiles:
      return is_floating(dtype);
    case Provider::onednn:
      return dtype == DType::float32;
    case Provider::eigen:
      return dtype == DType::float32 || dtype == DType::float64;
    case Provider::loops:
      return dtype != DType::bool_;
  }
  internal_error("dtypes of an unknown provider");
}

Provider choose_provider(const ProductCall& call) {
  if (!is_floating(call.dtype)) return Provider::loops;
  // Measured: oneDNN wins 5 to 7 % on what outgrows the second-level cache on every side, and nothing below.
  const bool large = std::min({call.m, call.n, call.k}) >= 1536;
  if (large && call.dtype == DType::float32 && onednn_available()) return Provider::onednn;
  return Provider::tiles;
}

void product(const ProductCall& call) { product(call, choose_provider(call)); }

void product(const ProductCall& call, Provider provider) {
  if (!provider_takes(provider, call.dtype))
    fail(std::string("matmul: ") + name(provider) + " does not multiply " + name(call.dtype) +
         (call.dtype == DType::bool_ ? "; cast to an integer or floating type" : ""));
  if (!provider_available(provider)) fail(std::string("matmul: this build has no ") + name(provider));
  TANDEM_INTERNAL(call.batch >= 0 && call.m >= 0 && call.n >= 0 && call.k >= 0, "product of negative sizes");
  if (call.batch == 0 || call.m == 0 || call.n == 0) return;
  const ProductCall known = normalised(call);
  if (call.k == 0) return fill_without_terms(known);
  switch (provider) {
    case Provider::tiles:
      return is_half(call.dtype) ? product_half(known) : product_tiles(known);
    case Provider::onednn:
      return product_onednn(known);
    case Provider::eigen:
      return product_eigen(known);
    case Provider::loops:
      return product_loops(known);
  }
}

}  // namespace tandem::ops
