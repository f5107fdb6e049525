// What kernels compute again instead of loading it: small programs, of which the fused plan is counted and
// compared bit for bit with one kernel an op.
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {
constexpr int64_t kB = 2, kQ = 24, kK = 32, kH = 32, kAll = kB * kQ * kK * kH * 4;
}

TEST_CASE("what is made of small operands is made again by each of its readers", "[jit]") {
  // A function of q + k, weighted, is summed over its last axis; and, times what depends on that, over
  // others.
  const Program p{
      {{DType::float32, {kB, kQ, 1, kH}}, {DType::float32, {kB, 1, kK, kH}}, {DType::float32, {kH}}},
      {},
      [](Emitter& e, const Values& in, const Values&) {
        const Value t = e.relu(e.add(in[0], in[1]));
        const Value scores = e.sum(e.mul(t, in[2]), {3}, false);
        const Value w = e.matmul(scores, e.permute(scores, {0, 2, 1}));
        const Value g = e.unsqueeze(e.matmul(w, scores), 3);
        const Value slope = e.mul(e.mul(g, in[2]), e.sub(1.0, e.square(t)));
        return Values{e.sum(slope, {2}, false), e.sum(slope, {1}, false),
                      e.sum(e.mul(t, g), {0, 1, 2}, false)};
      },
      {}};
  const RunResult r = check_program(p, 1e-3);
  CHECK(r.stats.arena_bytes < kAll / 4);
  CHECK(r.stats.bytes_moved < kAll);
}

TEST_CASE("a difference from a mean is not stored beside what it is made of", "[jit]") {
  // A batch norm: planes of x are summed, centred ones squared and summed, then scaled.
  const Program norm{{{DType::float32, {4, 3, 8, 8}}, {DType::float32, {4, 3, 8, 8}}},
                     {},
                     [](Emitter& e, const Values& in, const Values&) {
                       const auto planes = [&](Value v) {
                         return e.sum(e.sum(e.reshape(v, {4, 3, 64}), {2}, false), {0}, false);
                       };
                       const auto channels = [&](Value v) { return e.reshape(v, {3, 1, 1}); };
                       const Value x = e.matmul(in[0], in[1]);
                       const Value mean = e.mul(planes(x), 1.0 / 256);
                       const Value centred = e.sub(x, channels(mean));
                       const Value squares = planes(e.square(centred));
                       return Values{e.mul(centred, channels(e.rsqrt(squares)))};
                     },
                     {}};
  const RunResult r = check_program(norm, 1e-4);
  constexpr int64_t kPass = 4 * 3 * 64 * 4;
  // The product reads two and writes one; three reads and a write for the norm.
  CHECK(r.stats.bytes_moved <= 7 * kPass + kPass / 4);
  CHECK(r.stats.arena_bytes <= kPass + kPass / 4);
}

TEST_CASE("what would load more, or keep more, is stored", "[jit]") {
  // Two operands of its size for one value with two readers, each of which reads nothing else of them.
  const Program two{{{DType::float32, {32, 32}}, {DType::float32, {32, 32}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value v = e.mul(e.matmul(in[0], in[1]), e.matmul(in[1], in[0]));
                      return Values{e.sum(v, {0}, false), e.amax(v, {1}, false), e.matmul(v, in[0])};
                    },
                    {}};
  CHECK(check_program(two, 1e-4).stats.bytes_moved <= 14 * 32 * 32 * 4);
  // Dear functions of one operand of its size.
  const Program dear{{{DType::float32, {32, 32}, -0.1, 0.1}},
                     {},
                     [](Emitter& e, const Values& in, const Values&) {
                       const Value u = e.matmul(in[0], in[0]);
                       const Value v = e.tanh(e.sin(e.exp(u)));
                       const Value s = e.sum(v, {0}, true);
                       const Value w = e.matmul(s, in[0]);
                       return Values{e.mul(v, e.sum(w, {}, false))};
                     },
                     {}};
  const RunResult r = check_program(dear, 1e-4);
  CHECK(r.plan.find("mul+exp") == std::string::npos);
  CHECK(r.plan.find("exp+sin+tanh+mul") == std::string::npos);
}

TEST_CASE("an input that is written is not read later than it was", "[jit]") {
  const Program p{{{DType::float32, {32, 32}}, {DType::float32, {32}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.matmul(in[0], in[0]);
                    const Value y = e.mul(x, in[1]);
                    const Value s = e.sum(y, {0}, false);
                    const Value t = e.sum(e.matmul(e.unsqueeze(s, 0), x), {}, false);
                    return Values{e.mul(y, t), e.sub(in[1], s)};
                  },
                  {{1, 1}}};
  check_program(p, 1e-3);
}
