// Gradients of products, which are rounded as the product itself is (tf32). Vectors become matrices, batches
// of rows that meet one matrix are flattened into one product.
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// (..., N) as (rows, N).
Value as_rows(Emitter& e, Value v) {
  const Dims& sizes = e.type(v).sizes;
  const int64_t width = sizes.back();
  int64_t rows = 1;
  for (int i = 0; i + 1 < sizes.rank(); ++i) rows *= sizes[i];
  return e.reshape(v, {rows, width});
}

Value transposed(Emitter& e, Value v) {
  const int rank = e.type(v).sizes.rank();
  return e.transpose(v, rank - 2, rank - 1);
}

Dims with_axis(Dims sizes, int at) {
  sizes.insert(at, 1);
  return sizes;
}

}  // namespace

void gradient::matmul(Gradient& r) {
  Emitter& e = r.e;
  const bool tf32 = r.integer(0) != 0;
  const Dims& a_sizes = r.in_type(0).sizes;
  const Dims& b_sizes = r.in_type(1).sizes;
  const bool a_vector = a_sizes.rank() == 1, b_vector = b_sizes.rank() == 1;
  const Dims a_matrix = a_vector ? with_axis(a_sizes, 0) : a_sizes;
  const Dims b_matrix = b_vector ? with_axis(b_sizes, 1) : b_sizes;
  Dims g_sizes = e.type(r.grad()).sizes;
  if (b_vector) g_sizes.push_back(1);
  if (a_vector) g_sizes.insert(g_sizes.rank() - 1, 1);
  const Value g = e.reshape(r.grad(), g_sizes);
  if (r.needs(0)) {
    const Value b = transposed(e, e.reshape(r.in(1), b_matrix));
    const bool rows = a_matrix.rank() > 2 && b_matrix.rank() == 2;
    const Value product = e.matmul(rows ? as_rows(e, g) : g, b, tf32);
    r.set(0, e.reshape(rows ? product : e.sum_to(product, a_matrix), a_sizes));
  }
  if (r.needs(1)) {
    const Value a = e.reshape(r.in(0), a_matrix);
    Value product;
    if (a_matrix.rank() > 2 && b_matrix.rank() == 2) {
      const Value rows = as_rows(e, a);
      const Value g_rows = as_rows(e, g);
      product = e.matmul(transposed(e, rows), g_rows, tf32);
    } else {
      product = e.matmul(transposed(e, a), g, tf32);
    }
    r.set(1, e.reshape(e.sum_to(product, b_matrix), b_sizes));
  }
}

void gradient::linear(Gradient& r) {
  Emitter& e = r.e;
  const bool tf32 = r.integer(0) != 0;
  if (r.needs(0)) r.set(0, e.reshape(e.matmul(as_rows(e, r.grad()), r.in(1), tf32), r.in_type(0).sizes));
  if (r.needs(1)) {
    const Value g = as_rows(e, r.grad());
    const Value x = as_rows(e, r.in(0));
    r.set(1, e.matmul(transposed(e, g), x, tf32));
  }
  if (r.needs(2)) r.set(2, e.sum_to(r.grad(), r.in_type(2).sizes));
}

}  // namespace tandem::ops
