// Column sums that are made in a walk over rows: when they are, and that no bit depends on it. Results are
// compared with one kernel per op, bit for bit, in the evaluator and in compiled code, with one thread and
// with several.
#include <cstring>

#include "tandem/jit/kernel.h"
#include "tests/jit/kernel_samples.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

Value wide(Emitter& e, Value x) { return e.cast(x, DType::float32); }

/// A norm's gradients from rows x, the result's gradient g and the weight: of x, weight and bias.
Values norm_backward(Emitter& e, Value x, Value g, Value weight) {
  const DType type = e.type(x).dtype;
  if (is_half(type)) x = wide(e, x), g = wide(e, g), weight = wide(e, weight);
  const Value centered = e.sub(x, e.mean(x, {-1}, true));
  const Value var = e.mean(e.square(centered), {-1}, true);
  const Value rstd = e.rsqrt(e.add(var, 1e-5));
  const Value xhat = e.mul(centered, rstd);
  const Value h = e.mul(g, weight);
  const Value mean = e.mean(h, {-1}, true);
  const Value along = e.mean(e.mul(h, xhat), {-1}, true);
  const Value projected = e.mul(xhat, along);
  const Value rest = e.sub(e.sub(h, mean), projected);
  const Value dx = e.mul(rest, rstd);
  const Value dweight = e.sum_to(e.mul(g, xhat), e.type(weight).sizes);
  const Value dbias = e.sum_to(g, e.type(weight).sizes);
  return {e.cast(dx, type), e.cast(dweight, type), e.cast(dbias, type)};
}

Program norm_program(DType type, const Dims& sizes) {
  return {{{type, sizes}, {type, sizes}, {type, {sizes[sizes.rank() - 1]}}},
          {},
          [](Emitter& e, const Values& in, const Values&) { return norm_backward(e, in[0], in[1], in[2]); },
          {}};
}

double tolerance(DType t) { return t == DType::float64 ? 1e-9 : t == DType::float32 ? 2e-3 : 1e-1; }

}  // namespace

TEST_CASE("a norm's gradients are one walk over its rows", "[jit]") {
  for (const auto& sizes : {Dims{512, 64}, Dims{513, 2}, Dims{767, 17}, Dims{1024, 128}, Dims{4, 200, 33},
                            Dims{3, 5, 40, 16}, Dims{2049, 5}}) {
    INFO(to_string(sizes));
    const RunResult r = check_threads(norm_program(DType::float32, sizes));
    INFO(r.plan);
    CHECK(r.stats.entries == 1);
    CHECK(r.stats.joins == 2);
    CHECK(r.stats.kernels == 3);
  }
  for (const DType type : {DType::float64, DType::bfloat16, DType::float16}) {
    INFO(name(type));
    const RunResult r = check_threads(norm_program(type, {600, 48}), tolerance(type));
    INFO(r.plan);
    const bool half = is_half(type);
    CHECK(r.stats.entries <= 2);             // a half weight is widened by itself
    CHECK(r.stats.joins == (half ? 1 : 2));  // sums of halves are cast, too, and share a kernel
  }
}

TEST_CASE("few rows, one column, or very many keep two walks", "[jit]") {
  const auto joins = [](const Dims& sizes) {
    return Executable::make(graph_of(norm_program(DType::float32, sizes)), kFused)->stats().joins;
  };
  CHECK(joins({512, 64}) == 2);
  CHECK(joins({511, 64}) == 0);
  CHECK(joins({1, 64}) == 0);
  CHECK(joins({600, 1}) == 0);
  CHECK(joins({600, 1000}) == 2);
  CHECK(joins({2048, 8200}) ==
        2);  // results of blocks beyond the caches: the second sum has a walk of its own
  CHECK(joins({520, 1600}) == 2);
  CHECK(joins({520, 8200}) == 2);
  CHECK(joins({70001, 2}) == 2);
}

TEST_CASE("sums of what a kernel without reductions makes behind a product are part of its walk", "[jit]") {
  // A gradient on its way from product to product, and that of a bias; three dimensions are rows and columns.
  const auto body = [](Emitter& e, const Values& in, const Values&) {
    const Value y = e.reshape(e.matmul(e.reshape(in[0], {600, 16}), in[1]), {3, 200, 24});
    const Value dx = e.mul(e.mul(y, e.tanh(in[2])), in[3]);
    return Values{e.sum_to(dx, {24}), e.matmul(e.reshape(dx, {600, 24}), in[4])};
  };
  const Program p{{{DType::float32, {3, 200, 16}},
                   {DType::float32, {16, 24}},
                   {DType::float32, {3, 200, 24}},
                   {DType::float32, {200, 24}},
                   {DType::float32, {24, 8}}},
                  {},
                  body,
                  {}};
  const RunResult r = check_threads(p);
  INFO(r.plan);
  CHECK(r.stats.joins == 1);
  CHECK(r.stats.tails == 1);
  CHECK(r.stats.entries == 2);
}

TEST_CASE("random functions draw the same in rows", "[jit]") {
  const Program p{{{DType::float32, {600, 37}}},
                  {0.5},
                  [](Emitter& e, const Values& in, const Values& numbers) {
                    const Value seed = e.number(7), offset = e.number(3);
                    const Value mask = e.call(OpId::bernoulli_mask, {numbers[0], seed, offset}, {2, 600, 37});
                    const Value y = e.where(mask, in[0], 0.0);
                    return Values{y, e.sum(y, {0}, false)};
                  },
                  {}};
  const RunResult r = check_threads(p, 1e-4);
  INFO(r.plan);
  CHECK(r.stats.joins == 1);
}

TEST_CASE("what a column kernel makes of its sums stays behind them", "[jit]") {
  // A step of descent on the weight, in place, and a second sum that needs the first one's result.
  const Program p{{{DType::float32, {700, 20}}, {DType::float32, {700, 20}}, {DType::float32, {20}}},
                  {0.1},
                  [](Emitter& e, const Values& in, const Values& numbers) {
                    const Value y = e.exp(e.mul(in[0], in[2]));
                    const Value g = e.sum(e.mul(y, in[1]), {0}, false);
                    const Value centered = e.sub(y, e.div(g, 700.0));
                    const Value var = e.sum(e.square(centered), {0}, false);
                    return Values{y, var, e.sub(in[2], e.mul(g, numbers[0]))};
                  },
                  {{2, 2}}};
  check_threads(p, 1e-3);
}

TEST_CASE("a large column kernel walks by rows for its own sake", "[jit]") {
  // A gradient through an activation, and that of the bias before it; in place of one operand if asked.
  const auto program = [](DType type, const Dims& sizes, bool in_place) {
    const Dims bias{sizes[sizes.rank() - 1]};
    const auto body = [=](Emitter& e, const Values& in, const Values&) {
      const Value y = e.tanh(e.add(in[0], in[2]));
      const Value dx = e.mul(in[1], e.sub(e.full_like(y, 1), e.square(y)));
      return Values{e.sum_to(dx, bias), dx};
    };
    Program p{{{type, sizes}, {type, sizes}, {type, bias}}, {}, body, {}};
    if (in_place) p.writes = {{1, 1}};
    return p;
  };
  for (const auto& sizes : {Dims{512, 2048}, Dims{1030, 1030}, Dims{3, 200, 1750}, Dims{350001, 3}})
    for (const bool in_place : {false, true}) {
      INFO(to_string(sizes) << (in_place ? " in place" : ""));
      const RunResult r = check_threads(program(DType::float32, sizes, in_place));
      INFO(r.plan);
      CHECK(r.stats.entries == 1);
      CHECK(r.stats.joins == 1);
    }
  for (const DType type : {DType::float64, DType::float16, DType::bfloat16}) {
    INFO(name(type));
    // Sums of up to 60, of which a bfloat16 keeps 8 bits.
    const RunResult r = check_threads(program(type, {600, 1750}, false), 2 * tolerance(type));
    CHECK(r.stats.joins == 1);
  }
  const auto joins = [&](const Dims& sizes) {
    return Executable::make(graph_of(program(DType::float32, sizes, false)), kFused)->stats().joins;
  };
  CHECK(joins({511, 3000}) == 0);
  CHECK(joins({1024, 1023}) == 0);
  CHECK(joins({1024, 17000}) == 0);  // results of blocks beyond the caches
}

TEST_CASE("a column kernel draws the same walked by rows", "[jit]") {
  const Program p{
      {{DType::float32, {600, 1750}}},
      {0.5},
      [](Emitter& e, const Values& in, const Values& numbers) {
        const Value seed = e.number(7), offset = e.number(3);
        const Value mask = e.call(OpId::bernoulli_mask, {numbers[0], seed, offset}, {2, 600, 1750});
        return Values{e.sum(e.where(mask, in[0], 0.0), {0}, false)};
      },
      {}};
  const RunResult r = check_threads(p, 1e-4);
  INFO(r.plan);
  CHECK(r.stats.joins == 1);
  CHECK(Executable::make(graph_of(p), ExecutableOptions{})->stats().interpreted == 0);
}

TEST_CASE("a column kernel that fills is compiled", "[jit]") {
  const Program p{{{DType::float32, {100, 64}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    return Values{e.sum(e.sub(e.full_like(in[0], 1), in[0]), {0}, false)};
                  },
                  {}};
  check_threads(p);
  CHECK(Executable::make(graph_of(p), ExecutableOptions{})->stats().interpreted == 0);
}

TEST_CASE("rows of several dimensions are compiled", "[jit]") {
  // The innermost dimension holds whole vectors, ends within them, or is shorter than one.
  for (const Dims& sizes : {Dims{7, 5, 32, 4}, {7, 5, 9, 7}, {70, 3, 2, 3}, {40, 2, 600, 1}}) {
    CAPTURE(sizes);
    const Program p{
        {{DType::float32, sizes}, {DType::float32, {sizes[1], 1, 1}}, {DType::float32, {sizes[2], 1}}},
        {0.5},
        [](Emitter& e, const Values& in, const Values& numbers) {
          const Value sum = e.sum(e.exp(in[0]), {0, 2, 3}, true);
          const Value far = e.amax(e.mul(in[0], in[2]), {0, 2, 3}, true);
          return Values{e.div(e.exp(in[0]), e.add(sum, in[1])), e.mul(far, numbers[0])};
        },
        {}};
    const RunResult r = check_threads(p, 1e-4);
    INFO(r.plan);
    CHECK(Executable::make(graph_of(p), ExecutableOptions{})->stats().interpreted == 0);
  }
}

TEST_CASE("rows of several dimensions: halves, masks, draws, operands in another order", "[jit]") {
  const Program p{
      {{DType::float16, {4, 9, 7}}, {DType::bool_, {4, 9, 7}}, {DType::float32, {4, 7, 9}}},
      {0.5},
      [](Emitter& e, const Values& in, const Values& numbers) {
        const Value mask = e.call(OpId::bernoulli_mask, {numbers[0], e.number(7), e.number(3)}, {3, 4, 9, 7});
        const Value x = e.mul(e.cast(in[0], DType::float32), e.permute(in[2], {0, 2, 1}));
        const Value chosen = e.where(mask, e.where(in[1], x, 0.0), 1.0);
        const Value sum = e.sum(chosen, {1, 2}, true);
        return Values{sum, e.sub(chosen, sum), e.amax(x, {1, 2}, true)};
      },
      {}};
  const RunResult r = check_threads(p, 1e-4);
  INFO(r.plan);
  CHECK(Executable::make(graph_of(p), ExecutableOptions{})->stats().interpreted == 0);
}

TEST_CASE("sums over a product's rows are part of its entry", "[jit]") {
  // Of 128 columns a block of the product's rows is no multiple of a block of the tree's.
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{512, 30}, {700, 128}, {3 * 1024 + 5, 130}}) {
    CAPTURE(rows, n);
    const Program p{{{DType::float32, {rows, 20}},
                     {DType::float32, {20, n}},
                     {DType::float32, {rows, n}},
                     {DType::float32, {n}}},
                    {0.1},
                    [](Emitter& e, const Values& in, const Values& numbers) {
                      const Value g = e.matmul(in[0], in[1]);
                      Values out = norm_backward(e, in[2], g, in[3]);
                      out.push_back(e.sum(out[0], {0}, false));
                      out.push_back(e.sub(in[3], e.mul(out[1], numbers[0])));
                      return Values{out[0], out[2], out[3], out[4]};
                    },
                    {{3, 3}}};
    const RunResult r = check_threads(p);
    INFO(r.plan);
    CHECK(r.stats.entries == 1);
    CHECK(r.stats.tails == 1);
    CHECK(r.stats.joins == 3);
    CHECK(r.stats.kernels == 4);
  }
}

namespace {

using jit::Inner;
using jit::Kernel;
using jit::KernelArgs;
using jit::KernelKind;
using jit::ReduceOp;

/// (rows; n): x * x, its sum, and across the rows the sum of x, the greatest x * x and the product of x.
Kernel across_kernel(DType type) {
  jit::samples::Builder b("across", KernelKind::row, 1, 1);
  const ops::S x = b.load(type, Inner::contiguous);
  const ops::S square = x * x;
  const ops::S total = b.reduce(ReduceOp::sum, square);
  b.store(square, Inner::contiguous);
  b.store(total, Inner::constant, true);
  b.k.across = {{ReduceOp::sum, x.id, 3}, {ReduceOp::max, square.id, 4}, {ReduceOp::prod, x.id, 5}};
  b.k.buffers = 6;
  return b.k;
}

/// The trees of kernel.h, plainly.
template <class T>
std::vector<std::vector<T>> blocks_of(const std::vector<T>& x, int64_t rows, int64_t n) {
  const auto size = static_cast<size_t>((rows + jit::kColumnBlock - 1) / jit::kColumnBlock * n);
  std::vector<std::vector<T>> out = {std::vector<T>(size, T{0}), std::vector<T>(size, -INFINITY),
                                     std::vector<T>(size, T{1})};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) {
      const auto to = static_cast<size_t>(r / jit::kColumnBlock * n + c);
      const T v = x[static_cast<size_t>(r * n + c)];
      out[0][to] = out[0][to] + v;
      out[1][to] = std::max(out[1][to], v * v);
      out[2][to] = out[2][to] * v;
    }
  return out;
}

template <class T>
void check_kernel(DType type, int64_t rows, int64_t n, std::vector<int64_t> cuts) {
  CAPTURE(name(type), rows, n);
  const Kernel k = across_kernel(type);
  std::string why;
  CHECK(!print_c(k, "k", &why).empty());
  std::vector<T> x;
  std::mt19937_64 random(7);
  for (int64_t i = 0; i < rows * n; ++i)
    x.push_back(static_cast<T>(static_cast<double>(random() >> 11) * 0x1p-52 - 1));
  const auto expected = blocks_of(x, rows, n);
  std::vector<T> squares(x.size()), totals(static_cast<size_t>(rows));
  std::vector<std::vector<T>> blocks;
  for (const auto& e : expected) blocks.emplace_back(e.size(), T{99});
  void* buffers[] = {x.data(),         squares.data(),   totals.data(),
                     blocks[0].data(), blocks[1].data(), blocks[2].data()};
  const int64_t dims[] = {rows, n}, strides[] = {n, 1, n, 1, 1, 0};
  int64_t error = 0;
  const jit::Evaluator evaluator(k);
  cuts.push_back(rows);
  int64_t begin = 0;
  for (const int64_t end : cuts) {  // later calls go on where earlier ones stopped
    evaluator.run({buffers, dims, strides, nullptr, begin, end, &error});
    begin = end;
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    CAPTURE(i);
    CHECK(std::memcmp(blocks[i].data(), expected[i].data(), expected[i].size() * sizeof(T)) == 0);
  }
}

}  // namespace

TEST_CASE("the evaluator reduces across rows in the tree of columns", "[jit]") {
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{1, 1},
                                {255, 7},
                                {256, 16},
                                {257, 1},
                                {700, 33},
                                {530, 300},
                                {300, 4100},
                                {3, 20000}}) {
    check_kernel<float>(DType::float32, rows, n, {});
    check_kernel<double>(DType::float64, rows, n, {});
  }
  check_kernel<float>(DType::float32, 700, 20, {5, 252, 504});
  check_kernel<float>(DType::float32, 300, 4100, {200});
}

TEST_CASE("what is read in another order is not written in that walk", "[jit]") {
  // The row kernel reads the first row, or the transposed weight, before the sum's own kernel adds to it.
  for (const bool transposed : {false, true}) {
    CAPTURE(transposed);
    const Dims sizes = transposed ? Dims{1024, 1024} : Dims{1024, 64};
    const Program p{{{DType::float32, sizes}, {DType::float32, sizes}},
                    {},
                    [=](Emitter& e, const Values& in, const Values&) {
                      const Value read = transposed ? e.permute(in[0], {1, 0}) : e.slice(in[0], 0, 0, 1, 1);
                      const Value t = e.sum(e.mul(read, in[1]), {1}, false);
                      const Value w = e.add(in[0], in[1]);
                      return Values{t, e.sum(w, {0}, false), w};
                    },
                    {{0, 2}}};
    check_threads(p, 1e-3);
  }
}

TEST_CASE("a walk takes no more sums than a kernel has operands", "[jit]") {
  constexpr int kEach = 38, kSums = 5;
  Program p{{{DType::float32, {1024, 16}}},
            {},
            [](Emitter& e, const Values& in, const Values& numbers) {
              Values out = {e.sum(e.mul(in[0], in[0]), {1}, false)};
              for (size_t c = 0; c < kSums; ++c) {
                Value y = in[0];
                for (size_t i = 0; i < kEach; ++i) y = e.mul(y, numbers[c * kEach + i]);
                out.push_back(e.sum(y, {0}, false));
              }
              return out;
            },
            {}};
  for (int i = 0; i < kEach * kSums; ++i) p.numbers.push_back(1 + 0.001 * i);
  const RunResult r = check_threads(p, 1e-3, false);
  INFO(r.plan);
  CHECK(r.stats.joins > 0);
  CHECK(r.stats.joins < kSums);
}
