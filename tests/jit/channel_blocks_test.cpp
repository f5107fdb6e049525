// Channels in blocks: where they begin and end in a graph, and the same bits as in row-major order.
#include "tandem/jit/channel_blocks.h"

#include <algorithm>
#include <limits>

#include "tandem/core/error.h"
#include "tandem/jit/rewrite.h"
#include "tandem/ops/convolutions/convolutions.h"
#include "tests/error_message.h"
#include "tests/jit/convolution_words.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using namespace tandem::jit;
using ops::OpId;

namespace {

Graph in_blocks(const std::string& body) {
  const Graph g = with_channel_blocks(parse_graph("graph {" + body + "}"));
  check(g, "with_channel_blocks");
  return g;
}
int64_t count(const Graph& g, OpId op) {
  return std::count_if(g.nodes.begin(), g.nodes.end(), [&](const Node& n) { return is_op(n, op); });
}
int64_t copies(const Graph& g, int64_t block) { return count(g, from_blocks()) + count(g, to_blocks(block)); }

const std::string kHead = R"(
  %x = input float32(3, 1, 28, 28) strides (784, 784, 28, 1)
  %v = input float32(32, 1, 3, 3) strides (9, 9, 3, 1)
  %b = input float32(32,) strides (1)
  %w = input float32(32, 32, 3, 3) strides (288, 9, 3, 1)
  %g = input float32(3, 32, 7, 7) strides (1568, 49, 7, 1)
  %y = convolution(%x, %v, %b, groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1]) : float32(3, 32, 28, 28)
)";
const std::string kStep = kHead + R"(
  %p, %i = max_pool(%y, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : float32(3, 32, 14, 14), uint8(3, 32, 14, 14)
  %r = relu(%p) : float32(3, 32, 14, 14)
  %z = convolution(%r, %w, _, groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1]) : float32(3, 32, 14, 14)
  %q, %j = max_pool(%z, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : float32(3, 32, 7, 7), uint8(3, 32, 7, 7)
  %dz = max_pool_backward(%g, %j, windows=[2, 2, 0, 1, 2, 2, 0, 1], sizes=[14, 14]) : float32(3, 32, 14, 14)
  %dw = convolution_weight(%r, %dz, groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1], kernel=[3, 3]) : float32(32, 32, 3, 3)
  %dr = convolution_input(%dz, %w, _, groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1], output_padding=[0, 0]) : float32(3, 32, 14, 14)
  %dy = max_pool_backward(%dr, %i, windows=[2, 2, 0, 1, 2, 2, 0, 1], sizes=[28, 28]) : float32(3, 32, 28, 28)
  %dv = convolution_weight(%x, %dy, groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1], kernel=[3, 3]) : float32(32, 1, 3, 3)
  %s = sum(%dy, axes=[2, 3]) : float32(3, 32)
  return %q, %dw, %dv, %s)";

/// What a plan says of a kernel that sums the positions of a block of channels.
std::string rows_of_blocks() { return ", " + std::to_string(block_here()) + " | "; }

}  // namespace

TEST_CASE("a step's activations lie in blocks from the first convolution to the last pooling", "[passes]") {
  const int64_t block = block_here();
  if (block == 0) return;
  const Graph g = in_blocks(kStep);
  CHECK(count(g, from_blocks()) == 1);  // of the last pooling's values
  CHECK(count(g, to_blocks(block)) == 1);
  const Dims blocked = {3, 32 / block, 28, 28, block}, rows = {3, 32 / block, block, 28, 28};
  CHECK(std::count_if(g.nodes.begin(), g.nodes.end(), [&](const Node& n) {
          return is_op(n, OpId::sum) && g.type(n.in[0]).sizes == rows;
        }) == 1);
  CHECK(std::count_if(g.values.begin(), g.values.end(),
                      [&](const ValueInfo& v) { return v.type.sizes == blocked; }) == 2);
}

TEST_CASE("a convolution's result that something reads in row-major order lies so", "[passes]") {
  const int64_t block = block_here();
  if (block == 0) return;
  for (const char* reader :
       {"return %y", "%r = relu(%y) : float32(3, 32, 28, 28)\n return %r",
        "%r = permute(%y, axes=[1, 0, 2, 3]) : float32(32, 3, 28, 28)\n return %r",
        "%r = sum(%y, axes=[3]) : float32(3, 32, 28)\n return %r",
        "%c = input float32(32, 28, 1) strides (28, 1, 1)\n %r = mul(%y, %c) : float32(3, 32, 28, 28)\n %s = "
        "sum(%r, axes=[2, 3]) : float32(3, 32)\n return %s",
        "%p, %i = max_pool(%y, positions=1, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : float32(3, 32, 14, 14), "
        "int64(3, 32, 14, 14)\n return %p",
        "%p, %i = max_pool(%y, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : float32(3, 32, 14, 14), "
        "uint8(3, 32, 14, 14)\n return %p, %i"}) {
    CAPTURE(reader);
    const Graph g = in_blocks(kHead + reader);
    CHECK(copies(g, block) == 0);
    CHECK(g.type(g.node_of(g.outputs[0]).out[0]).sizes.rank() <= 4);
  }
}

TEST_CASE("a pooling over channels and positions takes no blocks", "[passes]") {
  const int64_t block = block_here();
  if (block == 0) return;
  // (N, C, L) as one plane of each image, (C, L).
  const Graph g = in_blocks(R"(
    %x = input float32(4, 32, 16) strides (512, 16, 1)
    %w = input float32(32, 32, 3) strides (96, 3, 1)
    %y = convolution(%x, %w, _, groups=1, stride=[1], padding=[1], dilation=[1]) : float32(4, 32, 16)
    %p, %i = max_pool(%y, windows=[3, 1, 1, 1, 3, 1, 1, 1]) : float32(4, 32, 16), uint8(4, 32, 16)
    %d = max_pool_backward(%p, %i, windows=[3, 1, 1, 1, 3, 1, 1, 1], sizes=[32, 16]) : float32(4, 32, 16)
    %v = convolution_weight(%x, %d, groups=1, stride=[1], padding=[1], dilation=[1], kernel=[3]) : float32(32, 32, 3)
    return %p, %v)");
  CHECK(count(g, from_blocks()) == 0);
  CHECK(count(g, OpId::max_pool) + count(g, OpId::max_pool_backward) == 2);
  for (const Node& n : g.nodes)
    if (is_op(n, OpId::max_pool) || is_op(n, OpId::max_pool_backward))
      CHECK(g.type(n.out[0]).sizes == Dims{4, 32, 16});
}

TEST_CASE("blocks change no bit", "[passes]") {
  struct Windows {
    Dims list, pooled, again;  // of both axes, and the sizes that come of 12 x 11, and of these
  };
  const Windows all[] = {{{2, 2, 0, 1, 2, 2, 0, 1}, {6, 5}, {3, 2}},
                         {{3, 2, 1, 1, 3, 1, 1, 1}, {6, 11}, {3, 11}},
                         {{2, 1, 0, 2, 3, 2, 0, 1}, {10, 5}, {8, 2}}};
  for (const Windows& windows : all) {
    const Dims pooled = {3, 32, windows.pooled[0], windows.pooled[1]},
               last = {3, 32, windows.again[0], windows.again[1]};
    CAPTURE(windows.list);
    Program p;
    p.inputs = {
        {DType::float32, {3, 1, 12, 11}, -2, 2}, {DType::float32, {32, 1, 3, 3}}, {DType::float32, {32}},
        {DType::float32, {32, 32, 3, 3}},        {DType::float32, last, -3, 3},   {DType::float32, pooled}};
    p.body = [&](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
      const Dims one = {1, 1};
      const std::vector<int64_t> same = words_of({1, 0}, {one, one, one}),
                                 window = words_of({0, 0, 0}, {windows.list});
      // Ties, zeros of both signs and NaN meet in the windows.
      const Value whole = e.floor(in[0]), kernel = e.floor(in[1]);
      const Value first = e.where(e.eq(in[4], in[4]), e.floor(in[4]), 0.0);
      const Value y = e.call(OpId::convolution, {whole, kernel, in[2]}, same);
      Value top[2], next[2];
      e.emit(OpId::max_pool, std::vector<Value>{y}, window, top);
      const Value r = e.add(e.relu(top[0]), in[5]);
      const Value z = e.call(OpId::convolution, {r, in[3], Value{}}, same);
      e.emit(OpId::max_pool, std::vector<Value>{z}, window, next);
      const auto back = [&](Value g, Value places, const Dims& sizes) {
        return e.call(OpId::max_pool_backward, {g, places}, words_of({0, 0}, {windows.list, sizes}));
      };
      const Value dz = back(first, next[1], windows.pooled);
      const Value dr =
          e.call(OpId::convolution_input, {dz, in[3], Value{}}, words_of({1, 0}, {one, one, one, {0, 0}}));
      const Value dy = back(e.where(e.gt(r, 0.0), dr, -0.0), top[1], {12, 11});
      const Dims size = {3, 3};
      return std::vector<Value>{
          next[0], e.call(OpId::convolution_weight, {r, dz}, words_of({1, 0}, {one, one, one, size})),
          e.call(OpId::convolution_weight, {whole, dy}, words_of({1, 0}, {one, one, one, size})),
          e.sum(dy, {2, 3}, false), e.sum(dz, {2, 3}, false)};
    };
    const RunResult with = run(p, kFused);
    CHECK(with.outputs == run(p, kUnfused).outputs);
    if (block_here() != 0) CHECK(with.plan.find("to_blocks") != std::string::npos);
  }
}

TEST_CASE("copies to and from blocks are each other's inverse", "[passes]") {
  for (const int64_t block : {8, 16})
    for (const Dims& sizes : {Dims{2, 2 * block, 150, 131}, Dims{3, block, 5, 7}, Dims{1, block, 64},
                              Dims{2, block, 1, 2}, Dims{2, block, 1, 1}, Dims{0, block, 3}}) {
      CAPTURE(block, sizes);
      Program p;
      p.inputs = {{DType::float32, sizes, -3, 3}};
      p.body = [&](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
        const Value x = e.where(e.gt(in[0], 0.0), -0.0, in[0]);
        const Value b = e.call(to_blocks(block), {x});
        const Value mask = e.call(to_blocks(block), {e.gt(in[0], 0.0)});
        return std::vector<Value>{e.call(from_blocks(), {b}), e.call(from_blocks(), {mask}), x,
                                  e.gt(in[0], 0.0)};
      };
      const RunResult r = run(p, kFused);
      for (size_t i = 0; i < 2; ++i) CHECK(r.outputs[i] == r.outputs[i + 2]);
    }
}

TEST_CASE("normalised, scaled and summed by channel, values stay in blocks and change no bit", "[passes]") {
  const std::vector<int64_t> same = words_of({1, 0}, {{1, 1}, {1, 1}, {1, 1}});
  for (const Dims& plane : {Dims{12, 11}, Dims{1, 1}, Dims{150, 131}})
    for (const int64_t images : {1, 3}) {
      CAPTURE(plane, images);
      const Dims sizes = {images, 32, plane[0], plane[1]};
      Program p;
      p.inputs = {{DType::float32, sizes, -2, 2},
                  {DType::float32, {32, 32, 3, 3}},
                  {DType::float32, {32}, 0.5, 2},
                  {DType::float32, {images, 32, 1, 1}, -1, 1},
                  {DType::float32, {images, 1, 1, 1}, -1, 1},
                  {DType::float32, {1, 1}, -1, 1},
                  {DType::float32, sizes, -1, 1}};
      p.body = [&](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
        const auto positions = [&](Value x) {
          return e.sum(e.sum(e.reshape(x, {images, 32, plane[0] * plane[1]}), {2}, false), {0}, false);
        };
        const auto of_channels = [&](Value x) { return e.reshape(x, {32, 1, 1}); };
        const auto convolve = [&](Value x) {
          return e.call(OpId::convolution, {e.floor(x), e.floor(e.mul(in[1], 3.0)), Value{}}, same);
        };
        const Value y = convolve(in[0]);
        const Value n = e.count(y, {0, 2, 3});
        const Value centered = e.sub(y, of_channels(e.div(positions(y), n)));
        const Value scale = e.rsqrt(e.add(e.div(positions(e.square(centered)), n), 1e-5));
        const Value gate = e.expand(in[3], sizes);
        Value z = e.mul(e.mul(centered, of_channels(scale)), of_channels(in[2]));
        z = e.relu(e.add(e.mul(z, gate), e.mul(e.add(z, in[4]), in[5])));
        const Value back =
            e.call(OpId::convolution_input, {e.floor(e.add(convolve(z), in[6])), in[1], Value{}},
                   words_of({1, 0}, {{1, 1}, {1, 1}, {1, 1}, {0, 0}}));
        const Value g = e.where(e.gt(z, 0.0), e.floor(back), 0.0);
        const Value means = e.mean(g, {2, 3}, true);
        return std::vector<Value>{
            positions(g), positions(e.mul(g, centered)), e.sum(means, {0}, false),
            e.call(OpId::convolution_weight, {in[0], g}, words_of({1, 0}, {{1, 1}, {1, 1}, {1, 1}, {3, 3}}))};
      };
      const RunResult with = run(p, kFused);
      CHECK(with.outputs == run(p, kUnfused).outputs);
      const bool large = plane[0] > 100;  // compiled, too
      if (large) CHECK(run(p, {.compile = true}).outputs == with.outputs);
      if (block_here() == 0) continue;
      CHECK(with.plan.find("from_blocks") == std::string::npos);
      CHECK((with.plan.find(rows_of_blocks()) != std::string::npos) == (plane[0] > 1));
    }
}

TEST_CASE("joined positions of a row-major value meet those of one in blocks", "[passes]") {
  Program p;
  p.inputs = {
      {DType::float32, {2, 32, 6, 7}}, {DType::float32, {32, 32, 3, 3}}, {DType::float32, {2, 32, 6, 7}}};
  p.body = [](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
    const std::vector<int64_t> words = words_of({1, 0}, {{1, 1}, {1, 1}, {1, 1}});
    const Value y = e.call(OpId::convolution, {in[0], in[1], Value{}}, words);
    const Value rows = e.reshape(y, {2, 32, 42}), others = e.reshape(in[2], {2, 32, 42});
    return std::vector<Value>{e.sum(e.add(rows, others), {2}, false), e.sum(others, {2}, true)};
  };
  const RunResult with = run(p, kFused);
  CHECK(with.outputs == run(p, kUnfused).outputs);
  if (block_here() != 0) CHECK(with.plan.find("to_blocks") != std::string::npos);
}

TEST_CASE("the sum of one position keeps the sign of a zero", "[passes]") {
  Program p;
  p.inputs = {{DType::float32, {64, 64, 1, 1}, -2, 2}, {DType::float32, {64, 64, 1, 1}}};
  p.body = [](ops::Emitter& e, const std::vector<Value>& in, const std::vector<Value>&) {
    const std::vector<int64_t> words = words_of({1, 0}, {{1, 1}, {0, 0}, {1, 1}});
    const Value y = e.call(OpId::convolution, {in[0], in[1], Value{}}, words);
    return std::vector<Value>{e.sum(e.neg(e.relu(y)), {2, 3}, false)};
  };
  const RunResult with = run(p, kFused);
  CHECK(with.outputs == run(p, kUnfused).outputs);
}

TEST_CASE("an executable of a step computes in blocks", "[passes]") {
  if (block_here() == 0) return;
  const auto made = Executable::make(parse_graph("graph {" + kStep + "}"), kFused);
  CHECK(made->plan_text().find("to_blocks") != std::string::npos);
  CHECK(made->plan_text().find(rows_of_blocks()) != std::string::npos);
  CHECK(Executable::make(parse_graph("graph {" + kStep + "}"), kUnfused)->plan_text().find("to_blocks") ==
        std::string::npos);
}

TEST_CASE("what convolutions and pooling do not take in blocks", "[passes]") {
  const auto infer = [](const std::string& line) {
    return
        [line] {
          parse_graph(R"(graph {
        %y = input float32(2, 4, 6, 6, 8) strides (1152, 288, 48, 8, 1)
        %w = input float32(32, 12, 3, 3) strides (108, 9, 3, 1)
        %v = input float32(32, 16, 3, 3) strides (144, 9, 3, 1)
        %b = input float32(16,) strides (1)
        )" + line + "\n return %r }");
        };
  };
  const std::string words =
      ", groups=1, stride=[1, 1], padding=[1, 1], dilation=[1, 1], output_padding=[0, 0])";
  CHECK_NOTHROW(infer("%r = convolution_input(%y, %v, _" + words + " : float32(2, 2, 6, 6, 8)")());
  CHECK_THROWS_AS(infer("%r = convolution_input(%y, %w, _" + words + " : float32(2, 12, 6, 6)")(), Error);
  CHECK_THROWS_AS(infer("%r = convolution_input(%y, %v, %b" + words + " : float32(2, 2, 6, 6, 8)")(), Error);
  CHECK_THROWS_AS(infer("%r, %i = max_pool(%y, positions=1, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : "
                        "float32(2, 4, 3, 3, 8), int64(2, 4, 3, 3, 8)")(),
                  Error);
  CHECK_THROWS_AS(infer("%r = avg_pool(%y, windows=[2, 2, 0, 2, 2, 0]) : float32(2, 4, 3, 3, 8)")(), Error);
}

TEST_CASE("blocks that cannot be computed are refused when the executable is made", "[passes]") {
  const auto error = [](const std::string& body, Device device) {
    const Graph g = parse_graph("graph {" + body + "}");
    return message([&] { Executable::make(g, {.compile = false, .device = device}); });
  };
  const std::string words = ", groups=1, stride=[1, 1], padding=[0, 0], dilation=[1, 1])";
  // Too small for oneDNN, where there is one.
  const std::string small = R"(
      %x = input float32(1, 1, 2, 2, 8) strides (32, 32, 16, 8, 1)
      %w = input float32(1, 8, 8, 1, 1) strides (64, 8, 1, 1, 1)
      %y = convolution(%x, %w, _)" +
                            words + " : float32(1, 1, 2, 2, 8)\n return %y\n";
  CHECK_THAT(error(small, cpu), Contains("convolution: operands with their channels in blocks, as "
                                         "float32(1, 1, 2, 2, 8), are for shapes that oneDNN computes"));
  const Device cuda{DeviceType::cuda, 0};
  CHECK_THAT(error(small, cuda), Contains("are for the CPU, not for cuda"));
  const std::string pool = R"(
      %x = input float32(2, 4, 6, 6, 8) strides (1152, 288, 48, 8, 1)
      %y, %i = max_pool(%x, windows=[2, 2, 0, 1, 2, 2, 0, 1]) : float32(2, 4, 3, 3, 8), uint8(2, 4, 3, 3, 8)
      return %y
  )";
  CHECK(error(pool, cpu) == "no error");
  CHECK_THAT(error(pool, cuda), Contains("max_pool: operands with their channels in blocks"));
  if (block_here() == 0) return;
  CHECK(error(R"(
      %x = input float32(2, 4, 14, 14, 8) strides (6272, 1568, 112, 8, 1)
      %w = input float32(32, 32, 3, 3) strides (288, 9, 3, 1)
      %y = convolution(%x, %w, _)" +
                  words + " : float32(2, 32, 12, 12)\n return %y\n",
              cpu) == "no error");
}
