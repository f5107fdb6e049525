// How a product's operands become matrices: which axes are rows of one product, and which are batches.
#include "tandem/jit/contraction.h"

#include "tests/catch.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

struct Operand {
  Dims sizes, strides;
};

Contraction planned(const Operand& a, const Operand& b) {
  Contraction c;
  const int64_t words[] = {0};
  REQUIRE(plan_contraction(ops::OpId::matmul, words, {a.sizes, a.strides}, {b.sizes, b.strides}, nullptr,
                           DType::float32, c) == -1);
  return c;
}

Operand dense(const Dims& sizes) { return {sizes, contiguous_strides(sizes)}; }

}  // namespace

TEST_CASE("batches that share a matrix are rows of one product") {
  const Dims two{2, 30, 40};
  for (const Operand& b : {dense({1, 30, 40}), dense({1, 1, 30, 40}), Operand{two, Dims{0, 40, 1}}}) {
    const Contraction c = planned(dense({3, 2, 5, 30}), b);
    CHECK(c.call.m == 3 * 2 * 5);
    CHECK(c.call.batch == 1);
    CHECK(c.outer.rank() == 0);
    CHECK(c.call.a_row == 30);
    CHECK(c.call.c_row == 40);
  }
  const Contraction vectors = planned({Dims{4, 1, 30}, Dims{64, 64, 1}}, dense({1, 30, 40}));
  CHECK(vectors.call.m == 4);
  CHECK(vectors.call.a_row == 64);
  CHECK(vectors.call.c_row == 40);
}

TEST_CASE("batches stay where rows do not follow one another, or matrices differ") {
  const Contraction gaps = planned({Dims{2, 5, 30}, Dims{512, 30, 1}}, dense({1, 30, 40}));
  CHECK(gaps.call.m == 5);
  CHECK(gaps.call.batch == 2);
  CHECK(gaps.call.b_batch == 0);
  const Contraction outer = planned(dense({3, 2, 5, 30}), dense({3, 1, 30, 40}));
  CHECK(outer.call.m == 2 * 5);
  CHECK(outer.call.batch == 3);
  CHECK(outer.call.b_batch == 30 * 40);
  CHECK(outer.call.a_batch == 2 * 5 * 30);
  CHECK(outer.call.c_batch == 2 * 5 * 40);
  const Contraction inner = planned(dense({3, 2, 5, 30}), dense({2, 30, 40}));
  CHECK(inner.call.m == 5);
  CHECK(numel(inner.outer) * inner.call.batch == 6);
  const Contraction empty = planned(dense({0, 5, 30}), dense({1, 30, 40}));
  CHECK(empty.call.m * empty.call.batch == 0);
}
