// Planning: groups never wait for each other in a circle, blocks of the arena that live at the same time
// never overlap, and what is planned in place is in place.
#include <random>

#include "tandem/jit/expand.h"
#include "tandem/jit/group_order.h"
#include "tandem/jit/plan.h"
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
  CHECK(r.stats.arena_bytes == 2 * 64 * 64 * 4);
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
