// Kernels that run behind a product, block of rows by block of rows: when they may, and that nothing is
// overwritten which another block still reads. Results are compared with one kernel per op, bit for bit, with
// one thread and with several.
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

Value layer_norm(Emitter& e, Value x) {
  const Value mean = e.mean(x, {-1}, true), centred = e.sub(x, mean);
  return e.div(centred, e.sqrt(e.add(e.mean(e.mul(centred, centred), {-1}, true), 1e-5)));
}

}  // namespace

TEST_CASE("what a product's rows go through is part of its entry", "[jit]") {
  for (const int64_t rows : {1, 12, 13, 300}) {
    INFO(rows);
    const Program p{{{DType::float32, {rows, 20}},
                     {DType::float32, {30, 20}},
                     {DType::float32, {30}},
                     {DType::float32, {rows, 30}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value y = e.call(OpId::linear, {in[0], in[1], in[2]}, {0});
                      const Value h = e.add(e.relu(y), in[3]);
                      return Values{layer_norm(e, h), h};
                    },
                    {}};
    const RunResult r = check_threads(p);
    CHECK(r.stats.entries == 1);
    CHECK(r.stats.products == 1);
    CHECK(r.stats.tails == 1);
    CHECK(r.stats.kernels == 1);
  }
}

TEST_CASE("scores of attention go through softmax matrix by matrix", "[jit]") {
  const Program p{{{DType::float32, {3, 2, 17, 8}}, {DType::float32, {3, 2, 19, 8}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value scores = e.matmul(in[0], e.permute(in[1], {0, 1, 3, 2}));
                    return Values{e.call(OpId::softmax, {scores}, {-1})};
                  },
                  {}};
  const RunResult r = check_threads(p);
  CHECK(r.stats.entries == 1);
  CHECK(r.stats.tails == 1);
}

TEST_CASE("a chain of kernels may follow a product", "[jit]") {
  // The norm's rows and the sums over rows of two do not fuse, but all need only rows of the product.
  const Program p{{{DType::float32, {40, 20}}, {DType::float32, {20, 32}}, {DType::float32, {40, 32}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value y = layer_norm(e, e.matmul(in[0], in[1]));
                    const Value z = e.sum(e.reshape(e.mul(y, in[2]), {40, 8, 4}), {2}, false);
                    return Values{e.matmul(y, e.permute(in[2], {1, 0})), z};
                  },
                  {}};
  const RunResult r = check_threads(p);
  CHECK(r.stats.products == 2);
  CHECK(r.stats.tails == 2);
  CHECK(r.stats.entries == 2);
}

TEST_CASE("kernels that need other rows of a product do not follow it", "[jit]") {
  const Program columns{{{DType::float32, {40, 20}}, {DType::float32, {20, 32}}},
                        {},
                        [](Emitter& e, const Values& in, const Values&) {
                          const Value y = e.matmul(in[0], in[1]);
                          return Values{e.call(OpId::softmax, {y}, {0}), e.permute(e.exp(y), {1, 0})};
                        },
                        {}};
  CHECK(check_threads(columns).stats.tails == 0);
  const Program transposed{{{DType::float32, {32, 20}}, {DType::float32, {20, 32}}},
                           {},
                           [](Emitter& e, const Values& in, const Values&) {
                             const Value y = e.matmul(in[0], in[1]);
                             return Values{e.add(y, e.permute(y, {1, 0}))};
                           },
                           {}};
  CHECK(check_threads(transposed).stats.tails == 0);
}

TEST_CASE("kernels follow products of few columns or rows", "[jit]") {
  for (const Dims& a : {Dims{130, 64}, Dims{130, 20}, Dims{3, 64}, Dims{1, 300}})
    for (const int64_t n : {1, 3, 70}) {
      const Program p{
          {{DType::float32, a}, {DType::float32, {a[1], n}}},
          {},
          [](Emitter& e, const Values& in, const Values&) { return Values{e.exp(e.matmul(in[0], in[1]))}; },
          {}};
      CAPTURE(a[0], a[1], n);
      CHECK(check_threads(p).stats.tails == 1);
    }
}

TEST_CASE("what goes around through another entry does not follow a product", "[jit]") {
  const Program p{{{DType::float32, {40, 40}, -0.2, 0.2}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value y = e.matmul(in[0], in[0]);
                    const Value z = e.matmul(y, in[0]);
                    return Values{e.add(e.exp(z), y)};  // follows the second, not the first
                  },
                  {}};
  const RunResult r = check_threads(p);
  CHECK(r.stats.entries == 2);
  CHECK(r.stats.tails == 1);
}

TEST_CASE("a product does not keep large operands waiting for another that is added", "[jit]") {
  // Behind the first product the sum would wait for the second, and both large operands would live at once.
  const Program p{
      {{DType::float32, {1200, 1024}}, {DType::float32, {1200, 1024}}, {DType::float32, {1200, 8}}},
      {},
      [](Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
        const Value a = e.matmul(e.permute(e.exp(in[0]), {1, 0}), in[2]);
        const Value b = e.matmul(e.permute(e.sin(in[1]), {1, 0}), in[2]);
        return Values{e.add(a, b)};
      },
      {}};
  const RunResult r = run(p, kFused);
  CHECK(r.stats.tails == 1);
  CHECK(r.stats.arena_bytes < 1200 * 1024 * 4 * 3 / 2);
}

TEST_CASE("of many products that are added few wait", "[jit]") {
  const Program p{{{DType::float32, {64, 64}, -0.1, 0.1}},
                  {},
                  [](Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
                    Value h = in[0], sum;
                    for (int i = 0; i < 12; ++i) {
                      h = e.tanh(e.matmul(h, in[0]));
                      const Value w = e.matmul(e.permute(h, {1, 0}), in[0]);
                      sum = i == 0 ? w : e.add(sum, w);
                    }
                    return Values{sum};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.entries == 24);
  CHECK(r.stats.arena_bytes <= 7 * 64 * 64 * 4);
}

TEST_CASE("a kernel may follow a product of which it reads slices of rows", "[jit]") {
  const Program p{{{DType::float32, {200, 20}}, {DType::float32, {20, 96}}, {DType::float32, {200, 32}}},
                  {},
                  [](Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
                    const Value y = e.matmul(in[0], in[1]);
                    const auto part = [&](int64_t k) { return e.slice(y, -1, k * 32, (k + 1) * 32); };
                    const Value i = e.sigmoid(part(0)), g = e.tanh(part(2));
                    return Values{e.add(e.mul(in[2], part(1)), e.mul(i, g))};
                  },
                  {}};
  const RunResult r = check_threads(p);
  CHECK(r.stats.entries == 1);
  // A slice of the rows is another row of the product.
  const Program rows{{{DType::float32, {200, 20}}, {DType::float32, {20, 96}}},
                     {},
                     [](Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
                       const Value y = e.matmul(in[0], in[1]);
                       const Value first = e.slice(y, 0, 0, 100);
                       return Values{e.mul(first, e.slice(y, 0, 100, 200))};
                     },
                     {}};
  CHECK(check_threads(rows).stats.tails == 0);
}

TEST_CASE("a kernel behind a product leaves the operands of other blocks alone", "[jit]") {
  // Both operands die in the entry and have the size of its result; only rows of the first could be reused.
  const Program p{{{DType::float32, {200, 200}, -0.1, 0.1}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value m = e.matmul(in[0], in[0]);  // products keep what follows apart
                    const Value a = e.matmul(m, in[0]), b = e.matmul(in[0], m);
                    const Value y = e.matmul(a, b);
                    const Value h = e.add(e.relu(y), e.add(e.mul(a, 0.5), e.mul(b, 0.25)));
                    return Values{e.matmul(h, in[0])};
                  },
                  {}};
  CHECK(check_threads(p).stats.tails == 1);
  // The weight is written in the end, but every block of the product reads all of it.
  const Program write{{{DType::float32, {200, 200}, -0.1, 0.1}, {DType::float32, {200, 200}, -0.1, 0.1}},
                      {},
                      [](Emitter& e, const Values& in, const Values&) {
                        const Value y = e.matmul(in[0], in[1]);
                        return Values{e.sub(in[1], e.mul(y, 0.1))};
                      },
                      {{1, 0}}};
  CHECK(check_threads(write).stats.tails == 0);
  // What the product does not read may be written behind it.
  const Program other{{{DType::float32, {200, 20}}, {DType::float32, {20, 30}}, {DType::float32, {200, 30}}},
                      {},
                      [](Emitter& e, const Values& in, const Values&) {
                        return Values{e.sub(in[2], e.mul(e.matmul(in[0], in[1]), 0.1))};
                      },
                      {{2, 0}}};
  const RunResult r = check_threads(other);
  CHECK(r.stats.entries == 1);
  CHECK(r.stats.tails == 1);
}

TEST_CASE("an index that is out of range behind a product is told", "[jit]") {
  for (const int64_t label : {4, 99}) {
    const Program p{{{DType::float32, {40, 20}},
                     {DType::float32, {20, 30}},
                     {DType::int64, {40, 1}, static_cast<double>(label), static_cast<double>(label) + 1}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value y = e.matmul(in[0], in[1]);
                      const Value m = e.sub(y, e.amax(y, {1}, true));
                      return Values{e.call(OpId::gather, {m, in[2]}, {1})};
                    },
                    {}};
    for (const ExecutableOptions& o : {kFused, kCompiled}) {
      const RunResult r = run(p, o);
      CHECK(r.stats.tails == 1);
      CHECK(r.failed == (label == 99));
    }
  }
}

TEST_CASE("sums over columns behind kernels that go on to products join", "[jit]") {
  const Program p{{{DType::float32, {64, 48}}, {DType::float32, {48, 32}}, {DType::float32, {32, 24}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.relu(e.matmul(in[0], in[1]));
                    const Value b = e.relu(e.matmul(a, in[2]));
                    return Values{e.sum(a, {0}, false), e.sum(b, {0}, false), e.matmul(in[0], in[1]),
                                  e.matmul(b, e.permute(in[2], {1, 0}))};
                  },
                  {}};
  const RunResult r = check_threads(p);
  CHECK(r.stats.products == 3);
  CHECK(r.stats.tails == 2);
  CHECK(r.stats.entries == 4);  // both sums are one
}

TEST_CASE("kernels follow products without rows, columns, terms or matrices", "[jit]") {
  for (const int64_t batch : {0, 1, 2})
    for (const int64_t rows : {0, 1, 5})
      for (const int64_t columns : {0, 3})
        for (const int64_t k : {0, 4}) {
          CAPTURE(batch, rows, columns, k);
          const Program p{{{DType::float32, {batch, rows, k}}, {DType::float32, {batch, k, columns}}},
                          {},
                          [](Emitter& e, const Values& in, const Values&) {
                            const Value y = e.mul(e.matmul(in[0], in[1]), 0.3);
                            return Values{e.call(OpId::softmax, {y}, {-1}), e.sum(e.exp(y), {-1}, false)};
                          },
                          {}};
          check_threads(p);
        }
}
