// Products of halves by tiles or dot products. Operands become float32, in the order in which they lie, or,
// where the processor multiplies bfloat16, pairs along k (tiles.h), which many operands are as they lie. The
// product stays float32 to the end, bias included, and is rounded once.
#include <algorithm>

#include "tandem/core/bfloat.h"
#include "tandem/core/thread_pool.h"
#include "tandem/ops/products/providers.h"
#include "tandem/ops/products/tiles.h"

namespace tandem::ops {
namespace {

constexpr int64_t kChunk = int64_t{1} << 24;  // elements that are converted at a time
constexpr int64_t kFloat = sizeof(float);

/// Matrices of k times `size` elements, by strides, from one k to the next and along the other axis.
template <class T>
struct Operand {
  const T* data;
  int64_t batch, k, other;
};
using Halves = Operand<uint16_t>;
using Floats = Operand<float>;

float widened(DType dtype, uint16_t bits) {
  return dtype == DType::bfloat16 ? core::widened_bfloat(bits) : half_to_float(bits);
}

/// Calls f(offset in the strided matrices, offset in packed ones) for each row of `batch` matrices (rows,
/// columns).
template <class F>
void for_rows(int64_t batch, int64_t rows, int64_t columns, int64_t batch_stride, int64_t row_stride, F&& f) {
  core::parallel(batch * rows, std::max<int64_t>(1, 65536 / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) f(r / rows * batch_stride + r % rows * row_stride, r * columns);
  });
}

/// Copies have k innermost, unless only the other axis lies so.
bool k_inner(const Halves& from) { return from.k == 1 || from.other != 1; }
Floats copy_of(const Halves& from, const float* to, int64_t matrices, int64_t k, int64_t size) {
  return {to, matrices > 1 ? k * size : 0, k_inner(from) ? 1 : size, k_inner(from) ? k : 1};
}

Floats widen(DType dtype, const Halves& from, float* to, int64_t matrices, int64_t k, int64_t size) {
  const bool inner = k_inner(from);
  const int64_t rows = inner ? size : k, columns = inner ? k : size;
  const int64_t along = inner ? from.other : from.k, step = inner ? from.k : from.other;
  for_rows(matrices, rows, columns, from.batch, along, [&](int64_t strided, int64_t at) {
    const uint16_t* const source = from.data + strided;
    if (dtype == DType::bfloat16 && step == 1)
      for (int64_t j = 0; j < columns; ++j) to[at + j] = core::widened_bfloat(source[j]);
    else
      for (int64_t j = 0; j < columns; ++j) to[at + j] = widened(dtype, source[j * step]);
  });
  return copy_of(from, to, matrices, k, size);
}

bool lies_in_pairs(const Halves& a, int64_t k, int64_t size) {
  return a.k == 1 && k % 2 == 0 && (size < 2 || a.other % 2 == 0) && a.batch % 2 == 0 &&
         reinterpret_cast<uintptr_t>(a.data) % kFloat == 0;
}

/// Pairs along k; an odd k ends with a zero.
Floats pair_up(const Halves& from, float* space, int64_t matrices, int64_t k, int64_t size) {
  if (lies_in_pairs(from, k, size))
    return {reinterpret_cast<const float*>(from.data), from.batch / 2, 1, size < 2 ? 1 : from.other / 2};
  const int64_t pairs = (k + 1) / 2;
  const Floats result = copy_of(from, space, matrices, pairs, size);
  auto* const to = reinterpret_cast<uint32_t*>(space);
  const auto pair = [](uint16_t first, uint16_t second) {
    return static_cast<uint32_t>(first) | static_cast<uint32_t>(second) << 16;
  };
  if (k_inner(from)) {
    for_rows(matrices, size, pairs, from.batch, from.other, [&](int64_t strided, int64_t at) {
      const uint16_t* const source = from.data + strided;
      for (int64_t p = 0; p < k / 2; ++p)
        to[at + p] = pair(source[2 * p * from.k], source[(2 * p + 1) * from.k]);
      if (k % 2 != 0) to[at + k / 2] = source[(k - 1) * from.k];
    });
    return result;
  }
  for_rows(matrices, pairs, size, from.batch, 2 * from.k, [&](int64_t strided, int64_t at) {
    const uint16_t* const first = from.data + strided;
    const uint16_t* const second = first + from.k;
    if (k % 2 != 0 && at / size % pairs == k / 2)
      for (int64_t j = 0; j < size; ++j) to[at + j] = first[j];
    else
      for (int64_t j = 0; j < size; ++j) to[at + j] = pair(first[j], second[j]);
  });
  return result;
}

}  // namespace

void product_half(const ProductCall& call, bool dots) {
  const tiles::TileSet* const pairs = call.dtype == DType::bfloat16 ? tiles::bfloat_set() : nullptr;
  const int64_t m = call.m, n = call.n, k = pairs ? (call.k + 1) / 2 : call.k;
  const bool shared_a = call.a_batch == 0, shared_b = call.b_batch == 0;
  const int64_t per_matrix = std::max<int64_t>(1, (shared_a ? 0 : m * k) + (shared_b ? 0 : k * n));
  const int64_t chunk = std::clamp<int64_t>(kChunk / per_matrix, 1, call.batch);
  const Halves a_halves{static_cast<const uint16_t*>(call.a), call.a_batch, call.a_col, call.a_row},
      b_halves{static_cast<const uint16_t*>(call.b), call.b_batch, call.b_row, call.b_col};
  const bool a_lies = pairs && lies_in_pairs(a_halves, call.k, m),
             b_lies = pairs && lies_in_pairs(b_halves, call.k, n);
  const Scratch a_space(a_lies ? 0 : (shared_a ? 1 : chunk) * m * k * kFloat),
      b_space(b_lies ? 0 : (shared_b ? 1 : chunk) * k * n * kFloat);
  const Scratch bias_space(call.bias ? n * kFloat : 0);
  if (call.bias)
    widen(call.dtype, {static_cast<const uint16_t*>(call.bias), 0, call.bias_stride, 0},
          bias_space.as<float>(), 1, n, 1);
  const auto floats = [&](Halves from, const Scratch& space, int64_t first, int64_t batch, int64_t size) {
    const bool shared = from.batch == 0;
    from.data += first * from.batch;
    return pairs ? pair_up(from, space.as<float>(), shared ? 1 : batch, call.k, size)
                 : widen(call.dtype, from, space.as<float>(), shared ? 1 : batch, k, size);
  };
  Floats a{}, b{};
  for (int64_t first = 0; first < call.batch; first += chunk) {
    const int64_t batch = std::min(chunk, call.batch - first);
    if (first == 0 || !shared_a) a = floats(a_halves, a_space, first, batch, m);
    if (first == 0 || !shared_b) b = floats(b_halves, b_space, first, batch, n);
    const ProductCall wide = normalised({.batch = batch,
                                         .m = m,
                                         .n = n,
                                         .k = k,
                                         .dtype = DType::float32,
                                         .a = a.data,
                                         .a_batch = a.batch,
                                         .a_row = a.other,
                                         .a_col = a.k,
                                         .b = b.data,
                                         .b_batch = b.batch,
                                         .b_row = b.k,
                                         .b_col = b.other,
                                         .bias = call.bias ? bias_space.as<float>() : nullptr,
                                         .bias_stride = 1,
                                         .c = static_cast<uint16_t*>(call.c) + first * call.c_batch,
                                         .c_batch = call.c_batch,
                                         .c_row = call.c_row,
                                         .c_col = call.c_col});
    const tiles::TileSet& set = pairs ? *pairs : tiles::best_set();
    dots ? tiles::dots_rounded(set, wide, call.dtype) : tiles::product_rounded(set, wide, call.dtype);
  }
}

}  // namespace tandem::ops
