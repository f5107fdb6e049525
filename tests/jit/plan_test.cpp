// Planning: groups never wait for each other in a circle, blocks of the arena that live at the same time
// never overlap, and what is planned in place is in place.
#include <random>

#include "tandem/jit/expand.h"
#include "tandem/jit/group_order.h"
#include "tandem/jit/lower.h"
#include "tandem/jit/plan.h"
#include "tandem/jit/rewrite.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using Values = std::vector<Value>;

TEST_CASE("arena blocks that live at the same time do not overlap", "[jit]") {
  std::mt19937 random(5);
  for (int round = 0; round < 50; ++round) {
    std::vector<jit::ArenaBlock> blocks;
    int64_t total = 0;
    for (int32_t first = 0; first < 60; ++first) {
      if (random() % 4 == 0) continue;
      blocks.push_back(
          {static_cast<int64_t>(random() % 5000), first, first + static_cast<int32_t>(random() % 9), -1, 0});
      total += blocks.back().bytes + 64;
    }
    const int64_t bytes = jit::place_blocks(blocks);
    CHECK(bytes <= total);
    for (size_t i = 0; i < blocks.size(); ++i) {
      CHECK(blocks[i].offset % 64 == 0);
      CHECK(blocks[i].offset + blocks[i].bytes <= bytes);
      for (size_t k = 0; k < i; ++k) {
        const bool together = blocks[i].first <= blocks[k].last && blocks[k].first <= blocks[i].last;
        const bool apart = blocks[i].offset + blocks[i].bytes <= blocks[k].offset ||
                           blocks[k].offset + blocks[k].bytes <= blocks[i].offset || blocks[i].bytes == 0 ||
                           blocks[k].bytes == 0;
        CHECK((!together || apart));
      }
    }
  }
}

TEST_CASE("arena blocks that go on in one another share their memory", "[jit]") {
  std::mt19937 random(6);
  for (int round = 0; round < 50; ++round) {
    std::vector<jit::ArenaBlock> blocks;
    std::vector<char> taken(60, 0);
    std::vector<size_t> chain;
    for (int32_t first = 0; first < 60; ++first) {
      jit::ArenaBlock b{static_cast<int64_t>(1 + random() % 5000), first,
                        first + static_cast<int32_t>(random() % 9), -1, 0};
      chain.push_back(blocks.size());
      for (size_t k = 0; k < blocks.size() && b.takes_over < 0; ++k)
        if (blocks[k].last == first && !taken[k]) {
          b.takes_over = static_cast<int32_t>(k);
          b.bytes = blocks[k].bytes;
          chain.back() = chain[k];
          taken[k] = 1;
        }
      blocks.push_back(b);
    }
    const int64_t bytes = jit::place_blocks(blocks);
    for (size_t i = 0; i < blocks.size(); ++i) {
      CHECK(blocks[i].offset + blocks[i].bytes <= bytes);
      for (size_t k = 0; k < i; ++k) {
        if (chain[i] == chain[k]) {
          CHECK(blocks[i].offset == blocks[k].offset);
          continue;
        }
        const bool together = blocks[i].first <= blocks[k].last && blocks[k].first <= blocks[i].last;
        const bool apart = blocks[i].offset + blocks[i].bytes <= blocks[k].offset ||
                           blocks[k].offset + blocks[k].bytes <= blocks[i].offset;
        CHECK((!together || apart));
      }
    }
  }
}

TEST_CASE("a small early block does not part what a large one needs", "[jit]") {
  const int64_t large = int64_t{1} << 20;
  std::vector<jit::ArenaBlock> blocks = {
      {large, 0, 1, -1, 0}, {64, 1, 3, -1, 0}, {large + 64, 2, 3, -1, 0}, {64, 4, 4, -1, 0}};
  CHECK(jit::place_blocks(blocks) == large + 128);
}

TEST_CASE("the order of groups follows merges and closes old groups", "[jit]") {
  jit::GroupOrder order;
  const int a = order.add(), b = order.add(), c = order.add(), d = order.add();
  order.depend(b, a);
  order.depend(c, b);
  CHECK(order.after(c, a));
  CHECK(!order.after(a, c));
  CHECK(order.would_wait(a, c));  // through b
  CHECK(!order.would_wait(a, b));
  CHECK(!order.would_wait(d, a));
  order.merge(b, d);
  order.depend(a, order.add());
  CHECK(order.after(c, 4));  // what a waits for, c waits for
  CHECK(!order.open(d));
  while (order.first_open() == 0) order.add();
  CHECK(!order.open(a));
}

TEST_CASE("a value that goes around through a product stays out of its producer's group", "[jit]") {
  const Program p{{{DType::float32, {6, 6}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.exp(in[0]);
                    const Value m = e.matmul(a, a);
                    const Value b = e.add(a, m);  // needs a and, through the product, a again
                    const Value c = e.mul(e.tanh(b), e.sum(b, {1}, true));
                    return Values{e.sub(c, a), e.sum(e.mul(a, in[0]), {0}, false)};
                  },
                  {}};
  const RunResult r = check_program(p);
  CHECK(r.stats.products == 1);
  CHECK(r.stats.kernels == 2);
}

TEST_CASE("long programs are planned in pieces", "[jit]") {
  Program p{{{DType::float32, {4, 4}, -0.2, 0.2}},
            {},
            [](Emitter& e, const Values& in, const Values&) {
              Value v = in[0];
              Values kept;
              for (int i = 0; i < 1500; ++i) {
                v = e.tanh(e.add(e.matmul(v, in[0]), in[0]));
                if (i % 500 == 0) kept.push_back(v);
              }
              kept.push_back(e.add(v, kept[0]));
              return kept;
            },
            {}};
  const RunResult r = check_program(p, 1e-4, false);
  CHECK(r.stats.products == 1500);
  CHECK(r.stats.kernels <= 1502);
  CHECK(r.stats.arena_bytes <= 1024);
}

TEST_CASE("a chain of dying values works in place", "[jit]") {
  const Program p{{{DType::float32, {64, 64}, -0.2, 0.2}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.relu(e.matmul(in[0], in[0]));
                    const Value b = e.call(ops::OpId::softmax, {e.matmul(a, in[0])}, {1});
                    return Values{e.matmul(b, in[0])};
                  },
                  {}};
  const RunResult r = check_program(p);
  CHECK(r.stats.arena_bytes == 64 * 64 * 4);  // and the result's memory
}

TEST_CASE("masks of values that are kept anyway are made where they are needed", "[jit]") {
  constexpr int kLayers = 40, kSide = 64;
  const Program p{{{DType::float32, {kSide, kSide}, -0.2, 0.2}, {DType::float32, {kSide, kSide}, -0.2, 0.2}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    Values kept = {in[0]};
                    for (int i = 0; i < kLayers; ++i) kept.push_back(e.relu(e.matmul(kept.back(), in[1])));
                    Value g = kept.back(), sum = in[1];
                    for (int i = kLayers; i > 0; --i) {
                      const Value gradient = e.matmul(kept[static_cast<size_t>(i)], g);
                      sum = e.add(sum, gradient);
                      const Value mask = e.gt(kept[static_cast<size_t>(i)], e.number(0));
                      const Value before = e.matmul(g, in[1]);
                      g = e.where(mask, before, e.number(0));
                    }
                    return Values{g, sum};
                  },
                  {}};
  constexpr int64_t kValue = kSide * kSide * 4;
  CHECK(check_program(p, 1e-4, false).stats.arena_bytes <= (kLayers + 6) * kValue);
}

TEST_CASE("blocks in the memory of outputs leave it in time", "[jit]") {
  std::mt19937 random(7);
  size_t lent_to = 0;
  for (int round = 0; round < 50; ++round) {
    const auto large = [&] { return static_cast<int64_t>(40'000 + random() % 400'000); };
    std::vector<jit::LentMemory> lent;
    for (int32_t k = 0; k < 6; ++k) lent.push_back({large(), static_cast<int32_t>(random() % 60), k});
    std::vector<jit::ArenaBlock> blocks;
    for (int32_t first = 0; first < 60; ++first)
      blocks.push_back({large(), first, first + static_cast<int32_t>(random() % 30), -1, 0});
    blocks[20].output = 3;  // given
    lent[3].until = std::min(lent[3].until, 20);
    const int64_t bytes = jit::place_blocks(blocks, lent);
    CHECK(blocks[20].output == 3);
    CHECK(blocks[20].offset == 0);
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (i == 20) continue;
      const int32_t output = blocks[i].output;
      lent_to += output >= 0;
      if (output >= 0) CHECK(blocks[i].last < lent[static_cast<size_t>(output)].until);
      CHECK(blocks[i].offset % 64 == 0);
      CHECK(blocks[i].offset + blocks[i].bytes <=
            (output >= 0 ? lent[static_cast<size_t>(output)].bytes : bytes));
      for (size_t k = 0; k < i; ++k) {
        const bool together = blocks[i].first <= blocks[k].last && blocks[k].first <= blocks[i].last;
        const bool apart = blocks[i].offset + blocks[i].bytes <= blocks[k].offset ||
                           blocks[k].offset + blocks[k].bytes <= blocks[i].offset;
        CHECK((!together || apart || output != blocks[k].output));
      }
    }
  }
  CHECK(lent_to > 100);
}

TEST_CASE("a large arena does with the memory of outputs", "[jit]") {
  // Three values of 24 MiB die before two outputs as large are made.
  const int64_t rows = 3072, columns = 2048, one = rows * columns * 4;
  const Program p{{{DType::float32, {rows, 4}}, {DType::float32, {4, columns}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.matmul(in[0], in[1]), more = e.exp(in[0]);
                    const Value b = e.matmul(more, in[1]), c = e.matmul(e.tanh(in[0]), in[1]);
                    const Value ab = e.mul(a, b);
                    const Value y = e.mul(in[1], e.sum(e.mul(ab, c), {0}, true));
                    const Value first = e.matmul(in[0], y);
                    return Values{first, e.matmul(more, y)};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-3);
  INFO(r.plan);
  const int64_t arena = r.stats.arena_bytes;
  CHECK(arena >= one);
  CHECK(arena < one + (int64_t{1} << 20));
}

TEST_CASE("what ends in an output is made there", "[jit]") {
  const auto arena_of = [](auto body) {
    const Program p{
        {{DType::float32, {64, 64}, -0.2, 0.2}, {DType::float32, {64, 64}, -0.2, 0.2}}, {}, body, {}};
    return check_program(p).stats.arena_bytes;
  };
  constexpr int64_t kOne = 64 * 64 * 4;
  // Of two products that are added one lies in the output from the start: the one that waits.
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value first = e.matmul(in[0], in[1]);
          const Value second = e.matmul(e.relu(first), in[1]);
          return Values{e.add(e.tanh(first), second)};
        }) == 2 * kOne);
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value a = e.matmul(in[0], in[1]);
          return Values{e.add(a, in[0])};
        }) == 0);
  // So does what the one that dies had taken over.
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value a = e.relu(e.matmul(in[0], in[0]));
          const Value b = e.call(ops::OpId::softmax, {e.matmul(a, in[0])}, {1});
          const Value columns = e.sum(e.matmul(b, in[0]), {0}, true);
          return Values{e.add(columns, b)};
        }) == kOne + 64 * 4);
  // Not what a product reads whose tail makes the output: other rows are still read.
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value b = e.call(ops::OpId::softmax, {in[0]}, {1});
          return Values{e.add(e.matmul(b, in[0]), b)};
        }) == kOne);
  // Not what is read in another order, nor what lives on.
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value a = e.matmul(in[0], in[1]);
          return Values{e.add(e.permute(a, {1, 0}), in[0])};
        }) == kOne);
  CHECK(arena_of([](Emitter& e, const Values& in, const Values&) {
          const Value a = e.matmul(in[0], in[1]);
          const Value y = e.add(a, in[0]);
          return Values{y, e.matmul(a, y)};
        }) == kOne);
}

TEST_CASE("for measuring, compiled executables may be made to run no entry", "[jit]") {
  const Program p{{{DType::float32, {4, 3}}, {DType::int64, {2}, 7, 8}},  // positions that do not exist
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    return Values{e.call(ops::OpId::index_select, {in[0], in[1]}, {0})};
                  },
                  {}};
  {
    const jit::WithoutEntries scope;
    CHECK(run(p, kCompiled).failed == 0);
    CHECK(run(p, kCompiled).stats.entries == 1);
    CHECK(run(p, kFused).failed == 1);  // interpreted: eager ops made meanwhile work
  }
  CHECK(run(p, kCompiled).failed == 1);
}

TEST_CASE("a step of more groups than are looked at together has a plan", "[jit]") {
  // What a network keeps for its gradients is read far behind where it was made.
  constexpr size_t kLayers = 600;
  const Program p{{{DType::float32, {16, 8}}, {DType::float32, {8, 8}}, {DType::float32, {16, 8}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    Values made;
                    Value x = in[0], gradient = in[2];
                    for (size_t i = 0; i < kLayers; ++i) {
                      made.push_back(e.matmul(x, in[1]));
                      x = e.tanh(made.back());
                    }
                    for (size_t i = kLayers; i-- > 0;) {
                      const Value d = e.mul(e.tanh(gradient), made[i]);
                      gradient = e.matmul(d, in[1]);
                    }
                    return Values{gradient};
                  },
                  {}};
  const RunResult fused = run(p, kFused);
  CHECK(fused.stats.entries >= static_cast<int>(kLayers));
  CHECK(fused.outputs == run(p, kUnfused).outputs);
}

TEST_CASE("rows of more elements than can be multiplied are none where there are no rows", "[jit]") {
  const int64_t n = int64_t{1} << 62;
  const std::vector<jit::SpaceStrides> of_rows(3, {1}), elements(1, {n, 1});
  CHECK(jit::has_numbers_of_rows({1024, 128}, 1, of_rows, {{128, 1}}));
  CHECK_FALSE(jit::has_numbers_of_rows({1023, 128}, 1, of_rows, {{128, 1}}));
  CHECK_FALSE(jit::has_numbers_of_rows({0, n}, 1, of_rows, elements));
}

TEST_CASE("costs of values that no memory holds can be added", "[jit]") {
  const jit::TensorType t{.dtype = DType::float64, .sizes = {int64_t{1} << 62}};
  const int64_t bytes = jit::bytes_in_costs(t);
  CHECK(bytes > int64_t{1} << 50);
  CHECK(checked_mul(bytes, 512) > 0);
  CHECK(jit::bytes_in_costs({.dtype = DType::float16, .sizes = {3, 5}}) == 30);
}
