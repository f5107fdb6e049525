// Graphs that once gave wrong results, most of them found among random graphs.
#include "tests/catch.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using namespace tandem::test;

namespace {

void check_graph(const std::string& body) {
  const Graph g = parse_graph("graph {" + body + "}");
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    Tally tally;
    CAPTURE(seed, body);
    CHECK(judge(g, some_arguments(g, seed), seed == 1, seed, tally) == "");
  }
}

}  // namespace

TEST_CASE("an input is replaced in the kernel that sums its old values", "[jit]") {
  for (const char* n : {"54", "5000"})
    check_graph(std::string("%x = input float32(3, ") + n + ") strides (" + n + ", 1)\n" + R"(
      %c = constant -2
      %s = sum(%x, keepdim=0, axes=[]) : float32()
      %t = sum(%x, keepdim=0, axes=[1]) : float32(3,)
      %m = argmax(%x, keepdim=0, axes=[1]) : int64(3,)
      %y = mul(%x, %c) : float32(3, )" +
                n + R"()
      return %s, %t, %m
      write %x <- %y)");
}

TEST_CASE("products with an empty side write all of their result and nothing else", "[jit]") {
  check_graph(R"(%x = input float16(3, 3, 0) strides (8, 2, 2)
    %w = input float16(12, 0) strides (1, 12)
    %b = input float16(12) strides (1)
    %v = input float16(0, 2) strides (2, 1)
    %y = linear(%x, %w, %b) : float16(3, 3, 12)
    %z = matmul(%x, %v) : float16(3, 3, 2)
    return %y, %z)");
  check_graph(R"(%x = input float32(3, 2, 0, 5) strides (2, 1, 30, 6)
    %p = permute(%x, axes=[0, 2, 3, 1]) : float32(3, 0, 5, 2)
    %w = input float32(7, 2) strides (2, 1)
    %y = linear(%p, %w, _) : float32(3, 0, 5, 7)
    return %y)");
}

TEST_CASE("softmax and its like take an axis of size 0", "[jit]") {
  check_graph(R"(%x = input float32(0, 7) strides (7, 1)
    %a = softmax(%x, axis=0) : float32(0, 7)
    %b = log_softmax(%x, axis=0) : float32(0, 7)
    %s = sum(%a, keepdim=0, axes=[0]) : float32(7,)
    return %a, %b, %s)");
}

TEST_CASE("a copy to an input waits for what may fail before it, and what may fail later waits for the copy",
          "[jit]") {
  check_graph(R"(%x = input bfloat16(3) strides (1)
    %index = input int64(1) strides (1)
    %base = input float32(1, 5) strides (5, 1)
    %i = input int64(1, 7) strides (7, 1)
    %source = input float32(1, 7) strides (7, 1)
    %gap = input float32(1) strides (2)
    %y = softmax(%x, axis=-1) : bfloat16(3)
    %z = mean(%y, keepdim=1, axes=[]) : bfloat16(1)
    %f = cast(%z, dtype=float32) : float32(1)
    %b = add(%base, %f) : float32(1, 5)
    %s = scatter_add(%b, %i, %source, axis=1) : float32(1, 5)
    %a = input float32(1) strides (1)
    %w = input float32(1, 1) strides (1, 1)
    %l = linear(%a, %w, _) : float32(1)
    %g = index_select(%y, %index, axis=0) : bfloat16(1)
    return %s, %g
    write %gap <- %l)");
}

TEST_CASE("a value is looked up behind a reduction that reduces nothing", "[jit]") {
  check_graph(R"(%x = input float32(1, 32) strides (32, 1)
    %i = input int64(1, 1) strides (1, 1)
    %e = exp(%x) : float32(1, 32)
    %n = sum(%e, keepdim=1, axes=[0]) : float32(1, 32)
    %d = div(%e, %n) : float32(1, 32)
    %m = amax(%d, keepdim=1, axes=[1]) : float32(1, 1)
    %s = sub(%d, %m) : float32(1, 32)
    %g = gather(%s, %i, axis=1) : float32(1, 1)
    return %g)");
}
