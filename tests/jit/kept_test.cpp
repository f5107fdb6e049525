// What a graph makes of lasting inputs, parted from the rest: both parts together have the whole's bits, what
// is parted is what was meant, and matrices in panels are read by products alone.
#include <random>

#include "tandem/jit/kept.h"
#include "tests/catch.h"
#include "tests/jit/convolution_words.h"
#include "tests/jit/program.h"
#include "tests/jit/random_graphs.h"

using namespace tandem;
using namespace tandem::jit;
using namespace tandem::test;
using ops::Emitter;
using Values = std::vector<Value>;

namespace {

const ExecutableOptions kInterpreted{.compile = false};

/// The first part's results, made once, and the rest run with them.
GraphRun run_parts(const KeptPart& part, const GraphArguments& arguments, bool compile) {
  GraphArguments given;
  for (const int32_t i : part.inputs) given.inputs.push_back(arguments.inputs[static_cast<size_t>(i)]);
  const GraphRun made = run_graph(*Executable::make(part.makes, kInterpreted), part.makes, given);
  CHECK(made.failed == 0);
  CHECK(made.guards_hold());
  GraphArguments all = arguments;
  for (size_t i = 0; i < part.values.size(); ++i) {
    all.inputs.push_back(GuardedBytes(static_cast<size_t>(part.values[i].nbytes)));
    if (part.values[i].form != Form::strides) {
      part.values[i].lay(made.outputs[i].data(), all.inputs.back().data());
    } else {
      REQUIRE(made.outputs[i].size() == all.inputs.back().size());
      std::copy_n(made.outputs[i].data(), made.outputs[i].size(), all.inputs.back().data());
    }
  }
  GraphRun r = run_graph(*Executable::make(part.rest, {.compile = compile}), part.rest, all);
  CHECK(r.guards_hold());
  while (r.inputs.size() > arguments.inputs.size()) r.inputs.pop_back();
  return r;
}

Value linear(Emitter& e, Value x, Value w, Value bias = {}) {
  return e.call(OpId::linear, {x, w, bias}, {0});
}

/// Of a 3 x 3 convolution that keeps the sizes.
std::vector<int64_t> same_words(int64_t groups) { return words_of({groups, 0}, {{1, 1}, {1, 1}, {1, 1}}); }

int ops_in(const Graph& g, OpId op) {
  return static_cast<int>(std::count_if(g.nodes.begin(), g.nodes.end(),
                                        [&](const Node& n) { return n.leaf == Leaf::op && n.op == op; }));
}

std::optional<KeptPart> part(const Program& p, const std::vector<char>& lasting) {
  std::vector<std::optional<int64_t>> known;
  for (const double v : p.numbers) known.push_back(std::bit_cast<int64_t>(v));
  return part_kept(graph_of(p), lasting, known, cpu);
}

/// Runs the parts, on one thread and on two, and compares them with the whole.
void check_bits(const Program& p, const KeptPart& part) {
  const Graph g = graph_of(p);
  GraphArguments arguments;
  for (size_t i = 0; i < p.inputs.size(); ++i) {
    const std::string bytes = input_bytes(p.inputs[i], 1 + i);
    arguments.inputs.push_back(GuardedBytes(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), arguments.inputs.back().data());
  }
  for (const double v : p.numbers) arguments.numbers.push_back(std::bit_cast<int64_t>(v));
  const GraphRun whole = run_graph(*Executable::make(g, kInterpreted), g, arguments);
  const int before = num_threads();
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    CHECK(difference(g, whole, run_parts(part, arguments, true)) == "");
  }
  set_num_threads(before);
}

}  // namespace

TEST_CASE("random graphs: what is kept, and the rest, have the whole's bits", "[jit]") {
  int parted = 0, values = 0, panels = 0;
  for (uint64_t seed = 1; seed <= 600; ++seed) {
    const RandomGraph r = random_graph(seed);
    std::mt19937_64 random(seed);
    std::vector<char> lasting;
    std::vector<std::optional<int64_t>> known;
    for (size_t i = 0; i < r.graph.inputs.size(); ++i) lasting.push_back(random() % 3 != 0);
    for (const Write& w : r.graph.writes) lasting[static_cast<size_t>(w.input)] = 0;
    for (size_t i = 0; i < r.graph.number_types.size(); ++i)
      known.push_back(r.graph.number_types[i] == DType::float64 && random() % 2
                          ? std::optional(r.arguments.numbers[i])
                          : std::nullopt);
    const std::optional<KeptPart> part = part_kept(r.graph, lasting, known, cpu);
    if (!part) continue;
    ++parted;
    CAPTURE(seed);
    for (const KeptValue& v : part->values) ++values, panels += v.form == Form::panels;
    const GraphRun whole = run_graph(*Executable::make(r.graph, kInterpreted), r.graph, r.arguments);
    const GraphRun parts = run_parts(*part, r.arguments, seed % 40 == 0);
    CHECK(whole.failed == parts.failed);
    if (whole.failed == 0 && parts.failed == 0) CHECK(difference(r.graph, whole, parts) == "");
  }
  CAPTURE(parted, values, panels);
  CHECK(parted > 225);
  CHECK(values > 600);
  CHECK(panels > 5);
}

TEST_CASE("a weight's cast is made once, what joins it and an argument is not", "[jit]") {
  const Program p{{{DType::float32, {4, 8}}, {DType::float32, {16, 8}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value w = e.cast(in[1], DType::bfloat16);
                    return Values{linear(e, e.cast(in[0], DType::bfloat16), w)};
                  },
                  {}};
  const auto parts = part(p, {0, 1});
  REQUIRE(parts);
  REQUIRE(parts->values.size() == 1);
  CHECK(parts->inputs == std::vector<int32_t>{1});
  CHECK(ops_in(parts->makes, OpId::cast) == 1);
  CHECK(ops_in(parts->rest, OpId::cast) == 1);
  CHECK(parts->nbytes() == 16 * 8 * 2);
  check_bits(p, *parts);
  CHECK(!part(p, {0, 0}));
  const auto other = part(p, {1, 0});
  REQUIRE(other);
  CHECK(other->inputs == std::vector<int32_t>{0});
}

TEST_CASE("statistics become a factor, of a number that is known", "[jit]") {
  const Program p{{{DType::float32, {2, 6, 5, 5}}, {DType::float32, {6}}, {DType::float32, {6}}},
                  {1e-5},
                  [](Emitter& e, const Values& in, const Values& numbers) {
                    const auto channels = [&](Value v) { return e.reshape(v, {6, 1, 1}); };
                    const Value factor = e.mul(in[2], e.rsqrt(e.add(in[1], numbers[0])));
                    return Values{e.mul(in[0], channels(factor))};
                  },
                  {}};
  const auto parts = part(p, {0, 1, 1});
  REQUIRE(parts);
  REQUIRE(parts->values.size() == 1);
  CHECK(ops_in(parts->makes, OpId::rsqrt) == 1);
  CHECK(ops_in(parts->rest, OpId::rsqrt) == 0);
  check_bits(p, *parts);
  const auto unknown = part_kept(graph_of(p), {0, 1, 1}, {std::nullopt}, cpu);
  CHECK(!unknown);
}

TEST_CASE("a matrix that products alone read lies in panels, for more than four rows and few", "[jit]") {
  for (const int64_t rows : {1, 4, 5, 64, 326, 511, 512})  // of 200 columns, a block of 324 rows and one of 2
    for (const int64_t n : {8, 16, 65, 200})
      for (const bool transposed : {false, true}) {
        const int64_t k = 300;
        const Program p{{{DType::float32, {rows, k}},
                         {DType::float32, transposed ? Dims{k, n} : Dims{n, k}},
                         {DType::float32, {n}}},
                        {},
                        [&](Emitter& e, const Values& in, const Values&) {
                          if (transposed) return Values{e.relu(e.matmul(in[0], in[1]))};
                          const Value y = linear(e, in[0], in[1], in[2]);
                          return Values{e.relu(y), e.sum(y, {1}, false)};
                        },
                        {}};
        const auto parts = part(p, {0, 1, 1});
        CAPTURE(rows, n, transposed);
        CHECK(parts.has_value() == (rows > 4 && rows < 512 && n >= 16));
        if (!parts) continue;
        REQUIRE(parts->values.size() == 1);
        CHECK(parts->values[0].form == Form::panels);
        CHECK(parts->nbytes() == (n + 15) / 16 * 16 * k * 4);
        const std::string text = to_string(parts->rest);
        CHECK(text.find(" panels \"kept0\"") != std::string::npos);
        CHECK(to_string(parse_graph(text)) == text);
        check_bits(p, *parts);
      }
}

TEST_CASE("a matrix that is read otherwise, too, is kept beside, and a table of indices is not", "[jit]") {
  const Program p{{{DType::float32, {5, 64}}, {DType::float32, {32, 64}}, {DType::int64, {6}, 0, 32}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value rows = e.call(OpId::index_select, {in[1], in[2]},
                                              {0});  // a table shared with the last layer
                    return Values{linear(e, in[0], in[1]), linear(e, rows, in[1]),
                                  e.matmul(rows, e.permute(in[1], {1, 0}))};
                  },
                  {}};
  const auto parts = part(p, {0, 1, 1});
  REQUIRE(parts);
  CHECK(parts->values.size() == 2);  // as linear's and as matmul's
  CHECK(ops_in(parts->makes, OpId::index_select) == 0);
  check_bits(p, *parts);
}

TEST_CASE("of one matrix's products only those that read panels get them", "[jit]") {
  for (const int64_t few : {1, 4, 512}) {  // by dot products, or by a copy of their own
    const Program p{{{DType::float32, {16, 64}}, {DType::float32, {64, 64}}, {DType::float32, {512, 64}}},
                    {},
                    [&](Emitter& e, const Values& in, const Values&) {
                      const Value x = e.matmul(in[0], in[1]);
                      const Value y = few == 512 ? in[2] : e.slice(x, 0, 0, few);
                      return Values{x, e.matmul(y, in[1])};
                    },
                    {}};
    const auto parts = part(p, {0, 1, 0});
    CAPTURE(few);
    REQUIRE(parts);
    CHECK(parts->values.size() == 1);
    check_bits(p, *parts);
  }
}

TEST_CASE("a matrix that is multiplied by itself is read as it lies and as panels", "[jit]") {
  const Program p{{{DType::float32, {64, 64}}, {DType::float32, {64}}, {DType::float32, {64, 64}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    return Values{linear(e, in[0], in[0], in[1]), e.matmul(in[2], in[0])};
                  },
                  {}};
  const auto parts = part(p, {1, 0, 0});
  REQUIRE(parts);
  CHECK(parts->values.size() == 2);
  check_bits(p, *parts);
}

TEST_CASE("what grows is not kept, nor the inputs themselves", "[jit]") {
  const Program p{{{DType::float32, {40, 64, 64}}, {DType::float32, {64}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value wide = e.mul(e.expand(in[1], {40, 64, 64}), 2.0);
                    return Values{e.add(in[0], wide), e.add(in[0], in[1])};
                  },
                  {}};
  CHECK(!part(p, {0, 1}));
}

TEST_CASE("a convolution's weight lies as the library computes with it, for each shape by itself", "[jit]") {
  if (block_here() == 0) return;  // this machine's library computes in rows
  for (const bool grouped : {false, true})
    for (const int64_t images : {1, 3}) {
      const int64_t inner = grouped ? 1 : 32;
      const Program p{{{DType::float32, {images, 32, 20, 20}},
                       {DType::float32, {32, inner, 3, 3}},
                       {DType::float32, {32}},
                       {DType::float32, {images, 32, 9, 9}}},
                      {},
                      [&](Emitter& e, const Values& in, const Values&) {
                        const auto convolve = [&](Value x, Value bias) {
                          return e.call(OpId::convolution, {x, in[1], bias}, same_words(grouped ? 32 : 1));
                        };
                        const Value y = e.relu(convolve(in[0], in[2]));
                        return Values{convolve(y, {}), convolve(in[3], in[2])};
                      },
                      {}};
      const auto parts = part(p, {0, 1, 1, 0});
      CAPTURE(grouped, images);
      REQUIRE(parts);
      CHECK(parts->values.size() == (grouped ? 2u : 3u));  // small ones of one channel each are for own tiles
      for (const KeptValue& v : parts->values) CHECK(v.form == Form::weight);
      check_bits(p, *parts);
    }
}

TEST_CASE("a weight that the library computes in parts is laid in parts", "[jit]") {
  if (block_here() == 0) return;
  const Program p{
      {{DType::float32, {1, 64, 14, 14}}, {DType::float32, {128, 64, 3, 3}}, {DType::float32, {128}}},
      {},
      [&](Emitter& e, const Values& in, const Values&) {
        const auto convolve = [&](Value bias) {
          return e.call(OpId::convolution, {in[0], in[1], bias}, same_words(1));
        };
        return Values{convolve(in[2]), e.relu(convolve({}))};
      },
      {}};
  const auto parts = part(p, {0, 1, 1});
  REQUIRE(parts);
  CHECK(parts->values.size() == 2);
  check_bits(p, *parts);
}

TEST_CASE("panels have no other readers", "[jit]") {
  const std::string head =
      "graph {\n  %0 = input float32(4, 64) strides (64, 1)\n"
      "  %1 = input float32(32, 64) strides (64, 1) panels\n";
  CHECK_NOTHROW(
      check(parse_graph(head + "  %2 = linear(%0, %1, _) : float32(4, 32)\n  return %2\n}\n"), "test"));
  CHECK_THROWS(check(parse_graph(head + "  %2 = relu(%1) : float32(32, 64)\n  return %2\n}\n"), "test"));
  CHECK_THROWS(check(parse_graph(head + "  return %1\n}\n"), "test"));
}
