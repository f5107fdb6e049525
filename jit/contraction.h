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

/// The result is contiguous. Returns -1, or the operand that must be copied to contiguous memory first (its
/// rows have no common stride).
int plan_contraction(OpId op, ops::Words words, const ops::Layout& a, const ops::Layout& b,
                     const ops::Layout* bias, DType dtype, Contraction& result);

}  // namespace tandem::jit
