// Stores past the caches: which ones are, how they are printed, and that the bits are those of other stores,
// wherever rows and threads' parts begin. Large rows are fetched ahead.
#include "tandem/jit/make_plan.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

/// Stores past the caches of the plan's kernels.
int non_temporal(const Program& p, int64_t nbytes) {
  jit::Graph g = jit::optimize(graph_of(p));
  int n = 0;
  for (const jit::Kernel& k : jit::make_plan(g, true, cpu, nbytes).plan.kernels)
    for (const jit::Store& s : k.stores) n += s.non_temporal;
  return n;
}

void check_bits(const Program& p) {
  const int before = num_threads();
  set_num_threads(1);
  const RunResult plain = run(p, kUnfused);
  for (const int threads : {1, 3}) {
    CAPTURE(threads);
    set_num_threads(threads);
    for (ExecutableOptions options : {kFused, kCompiled}) {
      options.non_temporal_nbytes = 1;
      const RunResult r = run(p, options);
      INFO(r.plan);
      CHECK(r.outputs == plain.outputs);
      CHECK(r.inputs == plain.inputs);
    }
  }
  set_num_threads(before);
}

}  // namespace

TEST_CASE("stores past the caches give the bits of other stores", "[jit]") {
  const auto check = [](DType dtype, int64_t rows, int64_t n) {
    CAPTURE(name(dtype), rows, n);
    const Program p{{{dtype, {rows, n}}, {dtype, {n}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value y = e.tanh(e.add(in[0], in[1]));
                      return Values{y, e.call(OpId::softmax, {in[0]}, {1}), e.sum(y, {0}, false),
                                    e.permute(e.mul(in[0], 2), {1, 0}), e.gt(in[0], 0)};
                    },
                    {}};
    CHECK(non_temporal(p, 1) > 0);
    check_bits(p);
  };
  for (const DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16})
    for (const int64_t n : {1, 15, 16, 33, 64, 200}) check(dtype, 41, n);
  check(DType::float32, 301, 703);
  check(DType::float32, 300, 704);
}

TEST_CASE("what is written in place keeps its bits and stays in the caches", "[jit]") {
  // Rows of 37 of 40: every row begins elsewhere in a line, and what lies between rows is left alone.
  const Program p{{{DType::float32, {50, 37}, -1, 1, {40, 1}},
                   {DType::float32, {50, 37}},
                   {DType::int64, {33}, 0, 9},
                   {DType::float32, {50, 37}, -1, 1, {40, 1}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    return Values{e.mul(in[1], in[0]), e.add(in[0], in[1]), e.mul(in[1], 3),
                                  e.add(in[2], in[2]), e.mul(in[0], in[0])};
                  },
                  {{0, 1}, {1, 2}, {2, 3}, {3, 4}}};
  CHECK(non_temporal(p, 1) == 2);  // the output, and the input that is not read
  check_bits(p);
}

TEST_CASE("only large results of elements go past the caches", "[jit]") {
  const Program p{{{DType::float32, {64, 100}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    return Values{e.tanh(in[0]), e.sum(in[0], {1}, false), e.gt(in[0], 0)};
                  },
                  {}};
  CHECK(non_temporal(p, 0) == 0);
  CHECK(non_temporal(p, 64 * 100 * 4 + 1) == 0);
  CHECK(non_temporal(p, 64 * 100 * 4) == 1);  // of the three, tanh's
  CHECK(non_temporal(p, 64 * 100) == 2);      // and the comparison's bytes
  CHECK(non_temporal(p, 1) == 2);             // never the rows' sums
}

TEST_CASE("what runs behind a product leaves its results in the caches", "[jit]") {
  const Program p{
      {{DType::float32, {96, 64}}, {DType::float32, {64, 64}}},
      {},
      [](Emitter& e, const Values& in, const Values&) { return Values{e.tanh(e.matmul(in[0], in[1]))}; },
      {}};
  CHECK(run(p, kFused).stats.tails == 1);
  CHECK(non_temporal(p, 1) == 0);
}

TEST_CASE("printed kernels ask where they store, and order their stores before they return", "[jit]") {
  const Program p{{{DType::float32, {64, 100}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) { return Values{e.tanh(in[0])}; },
                  {}};
  ExecutableOptions options = kCompiled;
  for (const bool past : {false, true}) {
    options.non_temporal_nbytes = past;
    const std::string code = Executable::make(graph_of(p), options)->code();
    CAPTURE(code);
    CHECK((code.find("const bool f0 = true && (const void*)bo0 != bp0;") != std::string::npos) == past);
    CHECK((code.find("td_non_temporal_f32(o0 + j, ") != std::string::npos) == past);
    CHECK((code.find("  td_order_non_temporal();\n}\n") != std::string::npos) == past);
  }
}

TEST_CASE("large rows are fetched ahead by a dear walk that reads them again", "[jit]") {
  const auto softmax = [](const Dims& sizes) {
    return Program{{{DType::float32, sizes}},
                   {},
                   [](Emitter& e, const Values& in, const Values&) {
                     return Values{e.call(OpId::softmax, {in[0]}, {-1})};
                   },
                   {}};
  };
  const std::string fetch = "__builtin_prefetch(p0 + s0_0 + r);";
  ExecutableOptions options = kCompiled;
  for (const bool large : {false, true}) {
    options.non_temporal_nbytes = large;
    const std::string code = Executable::make(graph_of(softmax({64, 100})), options)->code();
    CAPTURE(code);
    const size_t first = code.find(fetch);
    CHECK((first != std::string::npos) == large);
    if (large) CHECK(code.find(fetch, first + 1) == std::string::npos);  // the exps' alone
  }
  check_bits(softmax({100}));  // there is no next row
}

TEST_CASE("of what a walk reads, large rows alone are fetched ahead", "[jit]") {
  // A loss of rows: nothing large is stored. The weight is the same for each row.
  const Program p{{{DType::float32, {64, 100}}, {DType::float32, {100}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.mul(in[0], in[1]);
                    return Values{e.sum(e.exp(e.sub(x, e.amax(x, {-1}, true))), {-1}, false)};
                  },
                  {}};
  ExecutableOptions options = kCompiled;
  for (const int64_t nbytes : {0, 100, 500, 64 * 100 * 4, 64 * 100 * 4 + 1}) {
    CAPTURE(nbytes);
    options.non_temporal_nbytes = nbytes;
    const std::string code = Executable::make(graph_of(p), options)->code();
    CAPTURE(code);
    size_t fetches = 0;
    for (size_t at = 0; (at = code.find("__builtin_prefetch(", at)) != std::string::npos; ++at) ++fetches;
    CHECK(fetches == (nbytes == 0 || nbytes > 64 * 100 * 4 ? 0 : nbytes == 100 ? 2 : 1));
  }
  check_bits(p);
}
