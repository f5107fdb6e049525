// Copies that are not made: parts of a joined tensor, products in another order, what is known before the
// first run, zeros that a scatter begins with, indices that were checked before.
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

TEST_CASE("kernels put their results into the joined tensor", "[jit]") {
  for (const int64_t axis : {0, 1, 2}) {
    INFO(axis);
    const Program p{{{DType::float32, {3, 4, 5}}, {DType::float32, {3, 4, 5}}},
                    {},
                    [axis](Emitter& e, const Values& in, const Values&) {
                      const Value x = e.exp(in[0]), y = e.tanh(in[1]);
                      return Values{e.call(OpId::cat, {x, y}, {axis})};
                    },
                    {}};
    const RunResult r = check_program(p);
    CHECK(r.stats.natives == 0);
    CHECK(r.stats.entries <= 2);
    CHECK(r.stats.arena_bytes == 0);
  }
}

TEST_CASE("a reshaped operand and one of other rank lie in the joined tensor", "[jit]") {
  const Program p{{{DType::float32, {2, 3, 2, 2}}, {DType::float32, {2, 4}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.reshape(e.exp(in[0]), {2, 3, 4});
                    const Value z = e.call(OpId::cat, {x, e.reshape(e.tanh(in[1]), {2, 1, 4})}, {1});
                    return Values{z};
                  },
                  {}};
  const RunResult r = check_program(p);
  CHECK(r.stats.natives == 0);
}

TEST_CASE("what leaves the plan or lies elsewhere is joined by a copy", "[jit]") {
  const auto natives = [](auto body) {
    const Program p{{{DType::float32, {3, 4}}, {DType::float32, {3, 4}}}, {}, body, {}};
    return check_program(p).stats.natives;
  };
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          const Value x = e.exp(in[0]);
          return Values{e.call(OpId::cat, {x, x}, {0})};
        }) == 0);
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          const Value x = e.sum(in[0], {0}, false);
          return Values{e.call(OpId::cat, {x, x}, {0})};
        }) == 1);
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          const Value x = e.exp(in[0]), y = e.exp(in[1]);
          return Values{e.call(OpId::cat, {x, y}, {0}), x};
        }) == 1);
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          const Value x = e.exp(in[0]), y = e.exp(in[1]);
          return Values{e.call(OpId::cat, {x, y}, {1}), e.matmul(x, e.permute(in[0], {1, 0}))};
        }) == 0);
  // In one piece, but begun where no value of its own would begin: libraries see that.
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          const Value x = e.exp(in[0]), y = e.exp(in[1]);
          return Values{e.call(OpId::cat, {x, y}, {0}), e.matmul(y, e.permute(in[0], {1, 0}))};
        }) == 1);
  CHECK(natives([](Emitter& e, const Values& in, const Values&) {
          return Values{e.call(OpId::cat, {in[0], e.exp(in[1])}, {0})};
        }) == 1);
}

TEST_CASE("others read a part that lies in one piece where it is", "[jit]") {
  const Program p{{{DType::float32, {4, 4}}, {DType::float32, {4, 4}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    Values steps;
                    Value h = in[0];
                    for (int i = 0; i < 3; ++i) steps.push_back(h = e.tanh(e.matmul(h, in[1])));
                    const Value all = e.call(OpId::cat, {steps[0], steps[1], steps[2]}, {0});
                    return Values{e.matmul(all, in[1]), e.sum(steps[1], {0}, false), e.neg(all)};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.natives == 0);
}

TEST_CASE("a result does not take the memory of a joined tensor whose parts are read beside it", "[jit]") {
  const Program p{{{DType::float32, {1, 4}}, {DType::float32, {3, 4}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value first = e.exp(in[0]), rest = e.tanh(in[1]);
                    const Value all = e.call(OpId::cat, {first, rest}, {0});
                    const Value scaled = e.mul(all, first);  // in place, row 0 would change under the others
                    return Values{e.matmul(scaled, e.permute(in[1], {1, 0}))};
                  },
                  {}};
  CHECK(check_program(p).stats.natives == 0);
}

TEST_CASE("joined parts of a joined tensor are in place, read or not", "[jit]") {
  const Program p{{{DType::float32, {4, 8}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    Values steps;
                    for (int i = 0; i < 3; ++i) {
                      const Value x = e.mul(in[0], i + 1.0);
                      const Value step = e.call(OpId::cat, {e.exp(x), e.tanh(x)}, {1});
                      steps.push_back(e.unsqueeze(step, 0));
                    }
                    const Value all = e.call(OpId::cat, {steps[0], steps[1], steps[2]}, {0});
                    const Value one = e.reshape(steps[1], {4, 16});
                    return Values{e.sum(all, {0}, false), e.matmul(one, e.permute(one, {1, 0}))};
                  },
                  {}};
  CHECK(check_program(p).stats.natives == 0);
}

TEST_CASE("what two joins need is stored twice by its kernel", "[jit]") {
  const Program p{{{DType::float32, {4, 6}}, {DType::float32, {12, 5}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.exp(in[0]), y = e.tanh(in[0]), z = e.mul(x, y);
                    const Value a = e.call(OpId::cat, {x, y}, {1}), b = e.call(OpId::cat, {x, z}, {1});
                    return Values{e.matmul(a, in[1]), e.matmul(b, in[1])};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.natives == 0);
  CHECK(r.stats.kernels == 1);
}

TEST_CASE("a joined tensor that is written to an input is made by a copy", "[jit]") {
  const Program p{{{DType::float32, {6, 4}}, {DType::float32, {3, 4}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.exp(in[1]), y = e.tanh(in[1]);
                    return Values{e.sum(in[0], {}, false), e.call(OpId::cat, {x, y}, {0})};
                  },
                  {{0, 1}}};
  CHECK(check_program(p).stats.natives == 1);
}

TEST_CASE("joined tensors may be read and joined again", "[jit]") {
  const Program p{{{DType::float32, {6, 4}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.call(OpId::cat, {e.exp(in[0]), e.tanh(in[0])}, {1});
                    const Value b = e.call(OpId::cat, {e.neg(a), e.matmul(a, e.permute(a, {1, 0}))}, {1});
                    return Values{b, e.sum(b, {0}, false)};
                  },
                  {}};
  CHECK(check_program(p, 1e-4).stats.natives == 0);
}

TEST_CASE("a product writes its result in another order", "[jit]") {
  const Program p{
      {{DType::float32, {2, 3, 9, 8}}, {DType::float32, {2, 3, 8, 10}}, {DType::float32, {5, 30}}},
      {},
      [](Emitter& e, const Values& in, const Values&) {
        const Value y = e.matmul(in[0], in[1]);  // (2, 3, 9, 10): heads before rows
        const Value rows = e.call(OpId::clone, {e.permute(y, {0, 2, 1, 3})}, {});
        return Values{e.call(OpId::linear, {e.reshape(rows, {2, 9, 30}), in[2], Value{}}, {0})};
      },
      {}};
  const RunResult r = check_program(p, 1e-4);
  CHECK(r.stats.kernels == 0);
  CHECK(r.stats.entries == 2);
}

TEST_CASE("a product's result that is repeated is repeated by a copy", "[jit]") {
  const Program p{{{DType::float32, {1, 4}}, {DType::float32, {4, 1}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value one = e.reshape(e.matmul(in[0], in[1]), {1, 1});
                    return Values{e.call(OpId::pad, {e.expand(one, {1, 3})}, {0, 0, 3})};
                  },
                  {}};
  check_program(p);
}

TEST_CASE("products are parts of a joined tensor", "[jit]") {
  const Program p{{{DType::float32, {2, 3, 9, 8}}, {DType::float32, {2, 3, 8, 10}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const auto rows = [&](Value y) {
                      return e.reshape(e.call(OpId::clone, {e.permute(y, {0, 2, 1, 3})}, {}), {2, 9, 30});
                    };
                    const Value first = rows(e.matmul(in[0], in[1]));
                    const Value second = rows(e.matmul(e.neg(in[0]), in[1]));
                    const Value all = e.call(OpId::cat, {first, second}, {2});
                    return Values{e.matmul(all, e.permute(all, {0, 2, 1}))};
                  },
                  {}};
  const RunResult r = check_program(p, 1e-3);
  CHECK(r.stats.products == 3);
  CHECK(r.stats.natives == 0);
  CHECK(r.stats.entries == 4);  // and the negation
}

TEST_CASE("masks of constants are computed when the plan is made", "[jit]") {
  const Program p{{{DType::float32, {4, 9, 9}}, {DType::float32, {9, 9}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value i = e.call(OpId::arange, {e.number(0), e.number(1)},
                                           {static_cast<int64_t>(DType::int64), 9});
                    const Value seen = e.ge(e.reshape(i, {9, 1}), i);
                    const Value m = e.matmul(in[1], in[1]);
                    return Values{e.where(seen, in[0], -1.0), e.where(seen, m, 0.5)};
                  },
                  {}};
  const RunResult r = check_program(p);
  CHECK(r.plan.find("constant+") != std::string::npos);
  CHECK(r.plan.find(" ge") == std::string::npos);
}

TEST_CASE("a scatter begins with zeros by itself", "[jit]") {
  for (const OpId op : {OpId::scatter_add, OpId::scatter, OpId::index_add, OpId::index_copy}) {
    const bool whole_rows = op == OpId::index_add || op == OpId::index_copy;
    const Dims index = whole_rows ? Dims{3} : Dims{3, 4};
    const Program p{{{DType::int64, index, 0, 6}, {DType::float32, {3, 4}}},
                    {},
                    [op](Emitter& e, const Values& in, const Values&) {
                      return Values{e.call(op, {e.full({6, 4}, DType::float32, 0), in[0], in[1]}, {0})};
                    },
                    {}};
    const RunResult r = check_program(p);
    CHECK(r.stats.entries == 1);
    CHECK(r.plan.find(" -, in0") != std::string::npos);
    const Program ones{p.inputs,
                       {},
                       [op](Emitter& e, const Values& in, const Values&) {
                         return Values{e.call(op, {e.full({6, 4}, DType::float32, 1), in[0], in[1]}, {0})};
                       },
                       {}};
    CHECK(check_program(ones).plan.find(" -, in0") == std::string::npos);
  }
}

TEST_CASE("an index that a lookup has checked does not hold writes up", "[jit]") {
  // The table's gradient is put back by the same indices; the bias is written in place by the group that
  // makes what the scatter needs.
  const auto program = [](bool same) {
    return Program{{{DType::float32, {7, 8}},
                    {DType::int64, {5}, 0, 7},
                    {DType::int64, {5}, 0, 7},
                    {DType::float32, {8}},
                    {DType::float32, {8, 8}}},
                   {},
                   [same](Emitter& e, const Values& in, const Values&) {
                     const Value x = e.call(OpId::index_select, {in[0], in[1]}, {0});
                     const Value y = e.mul(e.exp(e.matmul(x, in[4])), 2.0);
                     const Value g = e.call(OpId::index_add,
                                            {e.full({7, 8}, DType::float32, 0), in[same ? 1 : 2], y}, {0});
                     return Values{g, e.sub(in[3], e.sum(y, {0}, false))};
                   },
                   {{3, 1}}};
  };
  const RunResult checked = check_program(program(true)), other = check_program(program(false));
  CHECK(checked.plan.find("copy") == std::string::npos);
  CHECK(other.plan.find("copy") != std::string::npos);
  // Out of range: told all the same, and nothing is written.
  Program bad = program(true);
  bad.inputs[1].low = 7, bad.inputs[1].high = 8;
  const RunResult r = run(bad, kCompiled);
  CHECK(r.failed > 0);
  CHECK(r.inputs[3] == input_bytes(bad.inputs[3], 1 + 3));
}
