// A contraction node as calls of ops::product: operands enter by their strides, so transposes and broadcast
// batches cost nothing. Values, any thread.
#pragma once

#include "tandem/jit/graph.h"
#include "tandem/ops/products/products.h"

namespace tandem::jit {

struct Contraction {
  ops::ProductCall call;           // without addresses; its batch is the innermost run of batch axes
  ops::Provider provider{};        // chosen for the whole product
  Dims outer;                      // batch axes outside it: one call each
  Dims a_outer, b_outer, c_outer;  // their strides
};

/// Where one of the matrices outside the call's batch begins, in elements.
struct MatrixPlace {
  int64_t a = 0, b = 0, c = 0;
};
MatrixPlace matrix_place(const Contraction& c, int64_t outer_index);

/// The product cut into blocks of rows, each of one matrix. `block(i)` is block i as a call, its addresses
/// taken from those of the whole; its rows begin at `first_row(i)`, counted over all matrices.
struct RowBlocks {
  RowBlocks(const Contraction& c, int threads);
  int64_t first_row(int64_t i) const { return i / per_matrix * c->call.m + i % per_matrix * rows; }
  int64_t rows_in(int64_t i) const;
  ops::ProductCall block(int64_t i, const ops::ProductCall& whole) const {
    return part(i / per_matrix, i % per_matrix * rows, rows_in(i), whole);
  }
  /// Rows `row` to `row` + `n` of one matrix.
  ops::ProductCall part(int64_t matrix, int64_t row, int64_t n, ops::ProductCall whole) const;

  const Contraction* c;
  int64_t rows = 0, per_matrix = 0, count = 0;
};

/// The result is contiguous, or lies as `to` says (then both operands are matrices at least). Returns -1, or
/// the operand that must be copied to contiguous memory first (its rows have no common stride), 2 for the
/// result.
int plan_contraction(OpId op, ops::Words words, const ops::Layout& a, const ops::Layout& b,
                     const ops::Layout* bias, DType dtype, Contraction& result,
                     const ops::Layout* to = nullptr);

}  // namespace tandem::jit
