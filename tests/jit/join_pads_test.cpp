// Sums of padded tensors that together are all of one become a concatenation, bit for bit; others stay sums.
#include "tandem/jit/rewrite.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

/// The gradient of slices of the first axis, (before, operand) each, of `rows` rows.
Value padded_sum(Emitter& e, const std::vector<std::pair<int64_t, Value>>& parts, int64_t rows) {
  Value sum;
  for (const auto& [before, part] : parts) {
    const int64_t after = rows - before - e.type(part).sizes[0];
    const Value padded = e.call(OpId::pad, {part}, {0, before, after});
    sum = sum ? e.add(sum, padded) : padded;
  }
  return sum;
}

}  // namespace

TEST_CASE("padded parts of one tensor are put side by side, also negative zeros", "[jit]") {
  for (const DType type : {DType::float32, DType::bfloat16, DType::float64, DType::int64}) {
    CAPTURE(static_cast<int>(type));
    const Program p{{{type, {2, 5}, -9, 9}, {type, {3, 5}, -9, 9}, {type, {1, 5}, -9, 9}},
                    {},
                    [type](Emitter& e, const Values& in, const Values&) {
                      // Of both signs, if there are.
                      const Value zeros = is_floating(type) ? e.mul(in[1], 0.0) : e.sub(in[1], in[1]);
                      const Value a = e.mul(in[0], in[0]);
                      const Value b = e.neg(in[2]);
                      return Values{padded_sum(e, {{2, zeros}, {5, b}, {0, a}}, 6)};
                    },
                    {}};
    const RunResult r = check_program(p, type == DType::bfloat16 ? 1e-2 : 1e-5);
    CHECK(r.stats.natives == 0);
    CHECK(r.plan.find("pad") == std::string::npos);
  }
}

TEST_CASE("what leaves a gap, overlaps, or is used elsewhere stays a sum", "[jit]") {
  const auto natives = [](auto parts, bool other) {
    const Program p{{{DType::float32, {2, 5}}, {DType::float32, {3, 5}}},
                    {},
                    [&](Emitter& e, const Values& in, const Values&) {
                      const Value a = e.exp(in[0]), b = e.tanh(in[1]);
                      const Value sum = padded_sum(e, {{parts.first, a}, {parts.second, b}}, 5);
                      if (!other) return Values{sum};
                      const Value again = e.call(OpId::pad, {b}, {0, parts.second, 2 - parts.second});
                      return Values{sum, e.mul(again, 2.0)};
                    },
                    {}};
    return check_program(p).stats.natives;
  };
  CHECK(natives(std::pair{0, 2}, false) == 0);
  CHECK(natives(std::pair{3, 0}, false) == 0);
  CHECK(natives(std::pair{0, 1}, false) == 2);
  CHECK(natives(std::pair{3, 2}, false) == 2);
}

// What attention's gradients go through: three products, each a third of the packed projection's gradient,
// whose axes are brought into the projection's order for the product that follows.
TEST_CASE("gradients of a packed projection's parts are written in its order", "[jit]") {
  const Dims head = {2, 4, 8, 4};  // (B, H, T, d)
  const Program p{{{DType::float32, {2, 4, 8, 8}},
                   {DType::float32, head},
                   {DType::float32, head},
                   {DType::float32, head},
                   {DType::float32, {5, 48}}},
                  {},
                  [&](Emitter& e, const Values& in, const Values&) {
                    std::vector<std::pair<int64_t, Value>> parts;
                    for (int64_t i = 0; i < 3; ++i) {
                      const Value part = e.matmul(in[0], in[static_cast<size_t>(i) + 1]);
                      parts.push_back({i, e.reshape(part, {1, 2, 4, 8, 4})});
                    }
                    const Value all = padded_sum(e, parts, 3);
                    const Value rows = e.call(OpId::clone, {e.permute(all, {1, 3, 0, 2, 4})}, {});
                    const Value flat = e.reshape(rows, {16, 48});
                    const Value y = e.call(OpId::linear, {flat, in[4], Value{}}, {0});
                    return Values{y, e.sum(flat, {0}, false)};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.natives == 0);
  CHECK(r.plan.find("cast") == std::string::npos);
  CHECK(r.stats.kernels <= 2);  // the three parts in one launch, the sum
}

TEST_CASE("a long chain of additions is looked at once", "[jit]") {
  // Element by element of it again for each would be some 10^9 steps, and as deep on the stack.
  jit::Graph g;
  jit::GraphEmitter e(g, false);
  ops::TensorType type;
  type.dtype = DType::float32;
  type.sizes = {4};
  const Value x{g.add_input(type, contiguous_strides(type.sizes))};
  Value sum = x;
  for (int i = 0; i < 60'000; ++i) sum = e.add(sum, x);
  g.outputs.push_back(sum.id);
  CHECK(jit::join_pads(g).nodes.size() == g.nodes.size());
}
