// A relu that goes behind its pooling, and its mask before the pooling's gradient: graph text in, graph text
// out; and every bit of what comes out of it, with ties, both zeros and NaN.
#include <limits>

#include "tandem/jit/rewrite.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using namespace tandem::jit;
using ops::OpId;

namespace {

std::string behind(const std::string& body) {
  const Graph g = relu_behind_pooling(parse_graph("graph {" + body + "}"));
  check(g, "relu_behind_pooling");
  return to_string(g);
}
bool unchanged(const std::string& body) {
  return behind(body) == to_string(parse_graph("graph {" + body + "}"));
}
int count(const std::string& text, const std::string& what) {
  int n = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

const std::string kHead = R"(
  %x = input float32(2, 3, 6) strides (18, 6, 1)
  %w = input float32(4, 3, 3) strides (9, 3, 1)
  %g = input float32(2, 4, 2) strides (8, 2, 1)
  %y = convolution(%x, %w, _, groups=1, stride=[1], padding=[0], dilation=[1]) : float32(2, 4, 4)
  %r = relu(%y) : float32(2, 4, 4)
  %p, %at = max_pool(%r, windows=[2, 2, 0, 1]) : float32(2, 4, 2), uint8(2, 4, 2)
)";
const std::string kBack = R"(
  %b = max_pool_backward(%g, %at, windows=[2, 2, 0, 1], sizes=[4]) : float32(2, 4, 4)
  %z = constant 0x0p+0
  %c = gt(%r, %z) : bool(2, 4, 4)
  %d = where(%c, %b, %z) : float32(2, 4, 4)
)";

}  // namespace

TEST_CASE("a relu goes behind the pooling, its mask before the gradient", "[passes]") {
  CHECK(behind(kHead + kBack + "return %p, %d") == R"(graph {
  %0 = input float32(2, 3, 6) strides (18, 6, 1)
  %1 = input float32(4, 3, 3) strides (9, 3, 1)
  %2 = input float32(2, 4, 2) strides (8, 2, 1)
  %3 = convolution(%0, %1, _, groups=1, stride=[1], padding=[0], dilation=[1]) : float32(2, 4, 4)
  %4, %5 = max_pool(%3, windows=[2, 2, 0, 1]) : float32(2, 4, 2), uint8(2, 4, 2)
  %6 = relu(%4) : float32(2, 4, 2)
  %7 = constant 0x0p+0
  %8 = gt(%6, %7) : bool(2, 4, 2)
  %9 = constant 0x0p+0
  %10 = where(%8, %2, %9) : float32(2, 4, 2)
  %11 = max_pool_backward(%10, %5, windows=[2, 2, 0, 1], sizes=[4]) : float32(2, 4, 4)
  return %6, %11
}
)");
  // Without a gradient, too.
  const std::string alone = behind(kHead + "return %p");
  CHECK(alone.find("max_pool(%3") != std::string::npos);
  CHECK(alone.find("relu(%4)") != std::string::npos);
}

TEST_CASE("what else reads a relu or the places of its maxima keeps the relu before them", "[passes]") {
  // The mask goes before the gradient all the same.
  for (const char* more : {"return %p, %d, %r", "%s = sum(%r, axes=[2]) : float32(2, 4)\n return %p, %d, %s",
                           "return %p, %d, %at", "write %v <- %r\n return %p, %d"}) {
    CAPTURE(more);
    const std::string text =
        behind("%v = input float32(2, 4, 4) strides (16, 4, 1)\n" + kHead + kBack + more);
    const bool kept = text.find("max_pool(%5") != std::string::npos;  // %5 = relu
    CHECK(kept);
    CHECK(count(text, "bool(2, 4, 2)") == 1);
  }
  // A gradient that is not masked so, or whose own value is wanted.
  for (const char* more : {"return %p, %b, %d", "%e = exp(%b) : float32(2, 4, 4)\n return %p, %d, %e"}) {
    CAPTURE(more);
    CHECK(unchanged(kHead + kBack + more));
  }
  for (const char* back :
       {"%z = constant 0x1p+0\n %c = gt(%r, %z) : bool(2, 4, 4)\n %d = where(%c, %b, %z) : float32(2, 4, 4)",
        "%z = constant 0x0p+0\n %c = ge(%r, %z) : bool(2, 4, 4)\n %d = where(%c, %b, %z) : float32(2, 4, 4)",
        "%z = constant 0x0p+0\n %c = gt(%y, %z) : bool(2, 4, 4)\n %d = where(%c, %b, %z) : float32(2, 4, 4)",
        "%z = constant 0x0p+0\n %c = gt(%r, %z) : bool(2, 4, 4)\n %d = where(%c, %z, %b) : float32(2, 4, 4)",
        "%d = tanh(%b) : float32(2, 4, 4)"}) {
    CAPTURE(back);
    CHECK(unchanged(kHead +
                    "%b = max_pool_backward(%g, %at, windows=[2, 2, 0, 1], sizes=[4]) : float32(2, 4, 4)\n" +
                    back + "\n return %p, %d"));
  }
  // What a kernel makes, relu is part of: it costs nothing where it is.
  CHECK(unchanged(R"(
    %x = input float32(2, 4) strides (4, 1)
    %y = exp(%x) : float32(2, 4)
    %r = relu(%y) : float32(2, 4)
    %p, %at = max_pool(%r, windows=[2, 2, 0, 1]) : float32(2, 2), uint8(2, 2)
    return %p)"));
}

TEST_CASE("a relu behind its pooling changes no bit", "[passes]") {
  for (const DType type : {DType::float32, DType::float64, DType::float16, DType::bfloat16})
    for (const std::vector<int64_t>& windows :
         {std::vector<int64_t>{2, 2, 0, 1, 2, 2, 0, 1}, {3, 2, 1, 1, 3, 1, 1, 1}, {3, 1, 1, 2, 2, 3, 0, 1}}) {
      CAPTURE(type, windows);
      const auto after = [&](int axis, int64_t size) {
        const int64_t* w = windows.data() + 4 * axis;
        return (size + 2 * w[2] - w[3] * (w[0] - 1) - 1) / w[1] + 1;
      };
      const Dims sizes = {2, 3, 9, 8}, pooled = {2, 3, after(0, 9), after(1, 8)};
      Program p;
      p.inputs = {{type, sizes, -3, 3}, {type, pooled, -2, 2}};
      p.body = [&](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
        std::vector<int64_t> words = {0, 0, 0, 8};
        words.insert(words.end(), windows.begin(), windows.end());
        // Whole numbers, some of which become -0 and NaN; made by a native kernel.
        Value t = e.floor(in[0]);
        const Value one = e.eq(t, 1.0), two = e.eq(t, -2.0);
        const Value minus = e.mul(t, -0.0);
        t = e.where(one, minus, t);
        t = e.where(two, e.number(std::numeric_limits<double>::quiet_NaN()), t);
        Value y[2], top[2];
        e.emit(OpId::max_pool, std::vector<Value>{t},
               std::vector<int64_t>{0, 0, 0, 8, 1, 1, 0, 1, 1, 1, 0, 1}, y);
        const Value r = e.relu(y[0]);
        e.emit(OpId::max_pool, std::vector<Value>{r}, words, top);
        std::vector<int64_t> back = {0, 0, 8};
        back.insert(back.end(), windows.begin(), windows.end());
        back.insert(back.end(), {2, sizes[2], sizes[3]});
        const Value g = e.call(OpId::max_pool_backward, {in[1], top[1]}, back);
        const Value above = e.gt(r, 0.0);
        return std::vector<Value>{top[0], e.where(above, g, 0.0)};
      };
      const RunResult with = run(p, kFused);
      ExecutableOptions without = kFused;
      without.disabled_passes = {"relu_behind_pooling"};
      CHECK(with.outputs == run(p, without).outputs);
      CHECK(with.outputs == run(p, kUnfused).outputs);
      CHECK(with.stats.bytes_moved < run(p, without).stats.bytes_moved);
    }
}
