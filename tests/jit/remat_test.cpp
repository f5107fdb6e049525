// What is computed again behind a product, graph text in, graph text out; and the arena's two ways.
#include "tandem/jit/plan.h"
#include "tandem/jit/rewrite.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using namespace tandem::jit;

namespace {

int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

std::string again(const std::string& body) {
  const Graph g = rematerialise(parse_graph("graph {" + body + "}"));
  check(g, "rematerialise");
  return to_string(g);
}
bool unchanged(const std::string& body) {
  return again(body) == to_string(parse_graph("graph {" + body + "}"));
}

const std::string kHead = R"(
  %x = input float32(8, 8) strides (8, 1)
  %w = input float32(8, 8) strides (8, 1)
  %g = input float32(8, 8) strides (8, 1)
  %u = matmul(%x, %w) : float32(8, 8)
)";

}  // namespace

TEST_CASE("an operand is kept instead of two values made of it", "[passes]") {
  // y goes to a product before and one behind; its slope to a kernel behind.
  const std::string text = again(kHead + R"(
    %e = exp(%u) : float32(8, 8)
    %y = tanh(%e) : float32(8, 8)
    %s = cos(%e) : float32(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = mul(%z, %s) : float32(8, 8)
    %q = matmul(%y, %z) : float32(8, 8)
    return %d, %q)");
  CHECK(text == R"(graph {
  %0 = input float32(8, 8) strides (8, 1)
  %1 = input float32(8, 8) strides (8, 1)
  %2 = input float32(8, 8) strides (8, 1)
  %3 = matmul(%0, %1) : float32(8, 8)
  %4 = exp(%3) : float32(8, 8)
  %5 = tanh(%4) : float32(8, 8)
  %6 = matmul(%5, %1) : float32(8, 8)
  %7 = exp(%3) : float32(8, 8)
  %8 = cos(%7) : float32(8, 8)
  %9 = mul(%6, %8) : float32(8, 8)
  %10 = tanh(%7) : float32(8, 8)
  %11 = matmul(%10, %6) : float32(8, 8)
  return %9, %11
}
)");
}

TEST_CASE("a draw is made again from its counter", "[passes]") {
  const std::string text = again(kHead + R"(
    %p = number float64
    %seed = number int64
    %offset = number int64
    %mask = bernoulli_mask(%p, %seed, %offset, sizes=[8, 8]) : bool(8, 8)
    %zero = constant 0
    %y = where(%mask, %u, %zero) : float32(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = where(%mask, %z, %zero) : float32(8, 8)
    return %d)");
  CHECK(count(text, "bernoulli_mask") == 2);
}

TEST_CASE("what would move more bytes, or free none, stays", "[passes]") {
  // A mask of bytes instead of the floats that it comes from, which something else keeps alive.
  CHECK(unchanged(kHead + R"(
    %y = relu(%u) : float32(8, 8)
    %zero = constant 0
    %m = gt(%y, %zero) : bool(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = where(%m, %z, %zero) : float32(8, 8)
    %q = matmul(%y, %z) : float32(8, 8)
    return %d, %q)"));
  // One value for one operand.
  CHECK(unchanged(kHead + R"(
    %s = cos(%u) : float32(8, 8)
    %y = exp(%u) : float32(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = mul(%z, %s) : float32(8, 8)
    return %d)"));
  // Reductions are not computed twice.
  CHECK(unchanged(kHead + R"(
    %m = sum(%u, keepdim=1, axes=[1]) : float32(8, 1)
    %y = sub(%u, %m) : float32(8, 8)
    %s = cos(%y) : float32(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = mul(%z, %s) : float32(8, 8)
    return %d, %y)"));
}

TEST_CASE("what changes in the end is not read again behind the product", "[passes]") {
  const std::string body = kHead + R"(
    %y = exp(%g) : float32(8, 8)
    %s = cos(%g) : float32(8, 8)
    %z = matmul(%y, %u) : float32(8, 8)
    %d = mul(%z, %s) : float32(8, 8)
    %q = mul(%d, %y) : float32(8, 8)
    return %q)";
  CHECK(!unchanged(body));
  CHECK(unchanged(body + "\n write %g <- %d"));
}

TEST_CASE("a view of what is computed again is one of the copy", "[passes]") {
  const std::string text = again(kHead + R"(
    %e = exp(%u) : float32(8, 8)
    %y = tanh(%e) : float32(8, 8)
    %s = cos(%e) : float32(8, 8)
    %t = permute(%s, axes=[1, 0]) : float32(8, 8)
    %z = matmul(%y, %w) : float32(8, 8)
    %d = mul(%z, %t) : float32(8, 8)
    %q = matmul(%y, %z) : float32(8, 8)
    return %d, %q)");
  CHECK(count(text, "permute") == 1);
  CHECK(count(text, "exp(") == 2);
}

TEST_CASE("the arena takes the best of several orders", "[jit]") {
  // In time: 3 bytes, then 1 that outlives it, then 4 beside the hole of 3. By size there is no hole.
  constexpr int64_t k = 64;
  std::vector<ArenaBlock> blocks = {{3 * k, 0, 1, -1, 0}, {k, 1, 4, -1, 0}, {4 * k, 2, 4, -1, 0}};
  CHECK(place_blocks(blocks) == 5 * k);
  // What takes a block over stays where it is.
  blocks = {{3 * k, 0, 1, -1, 0}, {3 * k, 1, 3, 0, 0}, {k, 1, 4, -1, 0}, {4 * k, 4, 4, -1, 0}};
  CHECK(place_blocks(blocks) == 5 * k);
  CHECK(blocks[0].offset == blocks[1].offset);
}

TEST_CASE("a late product's operand is computed again where a kernel reads what it is made of", "[passes]") {
  // A norm: c is kept for a kernel behind the product z, y for the product q.
  const std::string head = R"(
    %x = input float32(8, 64) strides (64, 1)
    %w = input float32(64, 64) strides (64, 1)
    %u = matmul(%x, %w) : float32(8, 64)
    %m = sum(%u, keepdim=1, axes=[1]) : float32(8, 1)
    %c = sub(%u, %m) : float32(8, 64)
    %y = tanh(%c) : float32(8, 64)
    %z = matmul(%y, %w) : float32(8, 64)
    %t = permute(%y, axes=[1, 0]) : float32(64, 8)
    %q = matmul(%t, %z) : float32(64, 64)
  )";
  const std::string text = again(head + R"(
    %d = mul(%z, %c) : float32(8, 64)
    return %d, %q)");
  CHECK(text == R"(graph {
  %0 = input float32(8, 64) strides (64, 1)
  %1 = input float32(64, 64) strides (64, 1)
  %2 = matmul(%0, %1) : float32(8, 64)
  %3 = sum(%2, keepdim=1, axes=[1]) : float32(8, 1)
  %4 = sub(%2, %3) : float32(8, 64)
  %5 = tanh(%4) : float32(8, 64)
  %6 = matmul(%5, %1) : float32(8, 64)
  %7 = tanh(%4) : float32(8, 64)
  %8 = permute(%7, axes=[1, 0]) : float32(64, 8)
  %9 = matmul(%8, %6) : float32(64, 64)
  %10 = mul(%6, %4) : float32(8, 64)
  return %10, %9
}
)");
  // Nothing else keeps c.
  CHECK(unchanged(head + "return %q"));
}

TEST_CASE("joined kernels do not keep the peak's memory waiting", "[jit]") {
  // Eight large values, each with a sum of its columns: these are alike, and the first could run long before
  // the last. All in one, all values would wait.
  const Program p{{{DType::float32, {64, 64}, -0.1, 0.1}},
                  {},
                  [](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
                    std::vector<Value> sums;
                    Value x = in[0];
                    for (int i = 0; i < 8; ++i) {
                      x = e.matmul(e.matmul(x, in[0]), in[0]);
                      sums.push_back(e.sum(x, {0}, false));
                    }
                    return sums;
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.products == 16);
  CHECK(r.stats.kernels > 1);
  CHECK(r.stats.kernels < 8);
  CHECK(r.stats.arena_bytes <= 6 * 64 * 64 * 4);
}

TEST_CASE("each of several joined kernels may store where its operand was", "[jit]") {
  // Products of several sizes, scaled by what they sum to: kernels in one entry, each in place.
  const Program p{{{DType::float32, {64, 64}, -0.1, 0.1}, {DType::float32, {64, 64}, -0.1, 0.1}},
                  {},
                  [](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
                    std::vector<Value> parts, results;
                    Value norm;
                    for (int i = 0; i < 6; ++i) {
                      parts.push_back(e.matmul(e.slice(in[0], 0, 0, 40 + 4 * i), in[1]));
                      const Value share = e.sum(e.square(parts.back()), {}, false);
                      norm = i == 0 ? share : e.add(norm, share);
                    }
                    for (const Value part : parts) results.push_back(e.mul(part, norm));
                    return results;
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CAPTURE(r.plan);
  CHECK(r.stats.arena_bytes <= 1024);
}
