// Choice of a provider, and what all of them share: checks, empty products.
#include "tandem/ops/products/products.h"

#include <algorithm>
#include <string>

#include "tandem/core/error.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/products/tiles.h"

namespace tandem::ops {
namespace {

bool is_half(DType t) { return t == DType::float16 || t == DType::bfloat16; }

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

/// Also of a few rows of a product of more.
bool could_be_panels(const ProductCall& call) {
  return (call.dtype == DType::float32 || call.dtype == DType::float64) && call.n >= 16 && call.k > 0 &&
         call.batch == 1;
}

}  // namespace

ProductCall normalised(ProductCall call) {
  if (call.batch < 2) call.a_batch = call.b_batch = call.c_batch = 0;
  if (call.m < 2) call.a_row = call.c_row = 1;
  if (call.n < 2) call.b_col = call.c_col = call.bias_stride = 1;
  if (call.k < 2) call.a_col = call.b_row = 1;
  return call;
}

const char* name(Provider provider) {
  switch (provider) {
    case Provider::dots:
      return "dots";
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
    case Provider::dots:
    case Provider::tiles:
    case Provider::loops:
      return true;
  }
  internal_error("availability of an unknown provider");
}

bool provider_takes(Provider provider, DType dtype) {
  switch (provider) {
    case Provider::dots:
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
  // Few rows, or columns, of some length: memory sets the pace, and tiles would copy what lies along k.
  if (std::min(call.m, call.n) <= 4 && call.k >= 64) return Provider::dots;
  // Measured: oneDNN wins 5 to 7 % on what outgrows the second-level cache on every side, and nothing below.
  const bool large = std::min({call.m, call.n, call.k}) >= 1536;
  if (large && call.dtype == DType::float32 && onednn_available()) return Provider::onednn;
  return Provider::tiles;
}

bool takes_panels(const ProductCall& call) {
  return could_be_panels(call) && choose_provider(call) == Provider::tiles;
}

int64_t panels_nbytes(const ProductCall& call) {
  return (call.n + 15) / 16 * 16 * call.k * itemsize(call.dtype);
}

void pack_panels(const ProductCall& call, void* to) {
  TANDEM_INTERNAL(takes_panels(call), "panels for a product that does not take them");
  if (call.dtype == DType::float32)
    tiles::pack_panels(normalised(call), static_cast<float*>(to));
  else
    tiles::pack_panels(normalised(call), static_cast<double*>(to));
}

void product(const ProductCall& call) { product(call, choose_provider(call)); }

void product(const ProductCall& call, Provider provider) {
  if (!provider_takes(provider, call.dtype))
    fail(std::string("matmul: ") + name(provider) + " does not multiply " + name(call.dtype) +
         (call.dtype == DType::bool_ ? "; cast to an integer or floating type" : ""));
  if (!provider_available(provider)) fail(std::string("matmul: this build has no ") + name(provider));
  TANDEM_INTERNAL(call.batch >= 0 && call.m >= 0 && call.n >= 0 && call.k >= 0, "product of negative sizes");
  if (call.batch == 0 || call.m == 0 || call.n == 0) return;
  TANDEM_INTERNAL(!call.b_panels || (provider == Provider::tiles && could_be_panels(call)),
                  "a product of panels that own tiles do not compute");
  const ProductCall known = normalised(call);
  if (call.k == 0) return fill_without_terms(known);
  switch (provider) {
    case Provider::dots:
      return is_half(call.dtype) ? product_half(known, true) : product_dots(known);
    case Provider::tiles:
      return is_half(call.dtype) ? product_half(known, false) : product_tiles(known);
    case Provider::onednn:
      return product_onednn(known);
    case Provider::eigen:
      return product_eigen(known);
    case Provider::loops:
      return product_loops(known);
  }
}

}  // namespace tandem::ops
