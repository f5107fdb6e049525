// Executables: each kind of group against one kernel per op, bit for bit, and against the float64 reference.
#include "tandem/jit/compiler.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

TEST_CASE("one pointwise op with broadcasting", "[jit]") {
  for (const DType t : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
    const Program p{{{t, {3, 1, 5}}, {t, {4, 1}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) { return Values{e.add(in[0], in[1])}; },
                    {}};
    const RunResult r = check_program(p, t == DType::float16 || t == DType::bfloat16 ? 1e-2 : 1e-6);
    CHECK(r.stats.entries == 1);
  }
}

TEST_CASE("a chain of pointwise ops over strided inputs is one kernel", "[jit]") {
  const Program p{{{DType::float32, {6, 7}, -1, 1, {1, 6}},
                   {DType::float32, {6, 7}, 0.5, 2, {14, 2}},
                   {DType::float32, {7}}},
                  {0.75},
                  [](Emitter& e, const Values& in, const Values& n) {
                    const Value a = e.mul(in[0], n[0]);
                    const Value b = e.div(a, in[1]);
                    const Value c = e.where(e.gt(b, in[2]), e.exp(b), in[2]);
                    return Values{c, b};
                  },
                  {}};
  CHECK(check_program(p).stats.entries == 1);
}

TEST_CASE("integers, bools and casts", "[jit]") {
  const Program p{{{DType::int64, {3, 5}, -9, 9},
                   {DType::int32, {5}, 1, 4},
                   {DType::uint8, {3, 1}, 0, 200},
                   {DType::bool_, {5}, 0, 2}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value q = e.floor_divide(in[0], in[1]);
                    const Value m = e.remainder(in[0], in[1]);
                    const Value s = e.add(q, in[2]);
                    const Value f = e.mul(s, 0.5);
                    return Values{q,
                                  m,
                                  s,
                                  f,
                                  e.where(in[3], q, m),
                                  e.cast(e.cast(f, DType::float16), DType::int32),
                                  e.sum(in[3], {}, false),
                                  e.sum(in[1], {0}, true)};
                  },
                  {}};
  check_program(p, 1e-3);
}

TEST_CASE("views are never executed", "[jit]") {
  const Program p{
      {{DType::float32, {4, 6}}},
      {},
      [](Emitter& e, const Values& in, const Values&) {
        const Value t = e.transpose(in[0], 0, 1);
        const Value s = e.slice(t, 0, 1, 6, 2);                                     // (3, 4)
        const Value r = e.reshape(e.expand(e.unsqueeze(s, 0), {2, 3, 4}), {6, 4});  // needs a copy
        return Values{e.neg(s), e.mul(r, 2.0), s, in[0], e.reshape(in[0], {24})};
      },
      {}};
  check_program(p);
}

TEST_CASE("an output may stand twice, be an input, and be used inside", "[jit]") {
  const Program p{{{DType::float32, {5}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value a = e.exp(in[0]);
                    const Value b = e.add(a, 1.0);
                    return Values{a, a, b, in[0], in[0]};
                  },
                  {}};
  check_program(p);
}

TEST_CASE("row reductions with pointwise ops before and after are one kernel", "[jit]") {
  SECTION("softmax") {
    for (const int64_t columns : {1, 10, 64, 1000}) {
      const Program p{{{DType::float32, {6, columns}, -5, 5}},
                      {},
                      [](Emitter& e, const Values& in, const Values&) {
                        return Values{e.call(OpId::softmax, {in[0]}, {1})};
                      },
                      {}};
      CHECK(check_program(p).stats.entries == 1);
    }
  }
  SECTION("layer norm in halves") {
    for (const DType t : {DType::float32, DType::bfloat16}) {
      const Program p{{{t, {2, 3, 40}}, {t, {40}}, {t, {40}}},
                      {1e-5},
                      [](Emitter& e, const Values& in, const Values& n) {
                        return Values{e.call(OpId::layer_norm, {in[0], in[1], in[2], n[0]}, {1})};
                      },
                      {}};
      CHECK(check_program(p, t == DType::float32 ? 1e-5 : 3e-2).stats.kernels ==
            (t == DType::float32 ? 1 : 2));  // the weights' casts come first
    }
  }
  SECTION("statistics of all elements") {
    const Program p{{{DType::float32, {30, 1200}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value m = e.mean(in[0], {}, false);
                      const Value d = e.sub(in[0], m);
                      return Values{m, e.mean(e.square(d), {0, 1}, false), e.amax(in[0], {}, false),
                                    e.call(OpId::argmax, {in[0]}, {0, 0})};
                    },
                    {}};
    check_program(p);
  }
}

TEST_CASE("column reductions keep the full-level results of their producers", "[jit]") {
  for (const DType t : {DType::float32, DType::float64}) {
    const Program p{{{t, {700, 33}}, {t, {700, 33}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value g = e.where(e.gt(in[0], 0.0), in[1], 0.0);
                      return Values{g, e.sum(g, {0}, false), e.amax(in[0], {0}, true)};
                    },
                    {}};
    const RunResult r = check_program(p);
    CHECK(r.stats.entries == 1);
  }
}

TEST_CASE("reductions over any axes", "[jit]") {
  for (const Dims& axes : {Dims{0}, Dims{1}, Dims{2}, Dims{0, 2}, Dims{0, 1}, Dims{1, 2}, Dims{0, 1, 2},
                           Dims{1, 3}, Dims{0, 2, 3}}) {
    const Program p{{{DType::float32, {3, 4, 5, 2}}, {DType::float32, {3, 4, 5, 2}, 0.5, 1, {1, 3, 12, 60}}},
                    {},
                    [&](Emitter& e, const Values& in, const Values&) {
                      const Value x = e.mul(in[0], in[1]);
                      return Values{e.sum(x, axes, true), e.amax(x, axes, false)};
                    },
                    {}};
    CHECK(check_program(p).stats.entries == 1);
  }
}

TEST_CASE("empty tensors and empty reductions", "[jit]") {
  const Program p{{{DType::float32, {0, 3}}, {DType::float32, {3}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value x = e.add(in[0], in[1]);
                    return Values{x, e.sum(x, {0}, false), e.sum(x, {1}, false), e.sum(x, {}, false)};
                  },
                  {}};
  check_program(p);
}

TEST_CASE("products take views as strides, bias inside", "[jit]") {
  const Program p{{{DType::float32, {6, 5}},
                   {DType::float32, {7, 5}},
                   {DType::float32, {7}},
                   {DType::float32, {2, 3, 4, 5}},
                   {DType::float32, {3, 6, 5}}},
                  {},
                  [](Emitter& e, const Values& in, const Values&) {
                    const Value y = e.call(OpId::linear, {in[0], in[1], in[2]}, {0});  // (6, 7)
                    const Value g = e.matmul(e.transpose(y, 0, 1), in[0]);             // (7, 5)
                    const Value b = e.matmul(in[3], e.transpose(in[4], 1, 2));         // (2, 3, 4, 6)
                    const Value f = e.matmul(e.permute(in[3], {1, 0, 2, 3}),
                                             e.transpose(in[1], 0, 1));  // rows without a common stride
                    const Value v = e.matmul(in[0], e.slice(in[2], 0, 1, 6));
                    return Values{y, g, b, f, v, e.call(OpId::linear, {in[3], in[1], Value{}}, {0})};
                  },
                  {}};
  const RunResult r = check_program(p);
  CHECK(r.stats.products == 6);
  CHECK(r.stats.kernels == 1);  // the copy for the rows without a common stride
}

TEST_CASE("natives and gathers", "[jit]") {
  const Program p{
      {{DType::float32, {5, 4}},
       {DType::int64, {7}, 0, 5},
       {DType::int32, {5, 1}, 0, 4},
       {DType::float32, {7, 4}}},
      {},
      [](Emitter& e, const Values& in, const Values&) {
        const Value rows = e.call(OpId::index_select, {in[0], in[1]}, {0});
        const Value picked = e.call(OpId::gather, {in[0], in[2]}, {1});
        const Value back = e.call(OpId::index_add, {in[0], in[1], e.mul(rows, in[3])}, {0});
        const Value joined = e.call(OpId::cat, {rows, e.transpose(e.transpose(in[3], 0, 1), 0, 1)}, {0});
        const Value sums = e.call(OpId::cumsum, {e.transpose(joined, 0, 1)}, {1, 0});
        return Values{rows, picked, back, joined, sums, e.pad(picked, 0, 1, 2)};
      },
      {}};
  check_program(p);
}

TEST_CASE("an index out of range stops the run at its entry", "[jit]") {
  const Program p{
      {{DType::float32, {5, 4}}, {DType::int64, {3}, 5, 6}, {DType::float32, {2}}},
      {},
      [](Emitter& e, const Values& in, const Values&) {
        e.location = {"embedding.cpp", 7};
        const Value rows = e.call(OpId::index_select, {in[0], in[1]}, {0});
        e.location = {"after.cpp", 8};
        return Values{rows, e.matmul(e.sum(rows, {1}, false), e.sum(rows, {1}, false)), e.add(in[2], 1.0)};
      },
      {{2, 2}}};
  for (const auto& options : {kUnfused, kFused, kCompiled}) {
    const jit::Graph g = graph_of(p);
    const auto x = Executable::make(g, options);
    const RunResult r = run(p, options);
    REQUIRE(r.failed > 0);
    CHECK(std::string(x->entry_where(r.failed - 1).file) == "embedding.cpp");
    CHECK(x->entry_where(r.failed - 1).line == 7);
    CHECK(x->entry_name(r.failed - 1) == "index_select");
    CHECK(r.inputs[2] == input_bytes(p.inputs[2], 3));  // a write after the failing op is not made
  }
}

TEST_CASE("fills and random ops number their elements in logical order", "[jit]") {
  const Program p{
      {{DType::float32, {6, 9}}},
      {0.25},
      [](Emitter& e, const Values& in, const Values& n) {
        const Value steps =
            e.call(OpId::arange, {e.number(2), e.number(0.5)}, {static_cast<int64_t>(DType::float32), 9});
        const Value hot = e.eq(in[0], steps);
        const Value full = e.full({6, 9}, DType::float32, 0.5);
        return Values{
            e.add(in[0], steps), steps, hot, full, e.mul(full, n[0]), e.sum(e.add(full, in[0]), {1}, false)};
      },
      {}};
  check_program(p);
}

TEST_CASE("random ops", "[jit]") {
  const Program p{{{DType::float32, {7, 9}}},
                  {0.3},
                  [](Emitter& e, const Values& in, const Values& n) {
                    const Value seed = e.number(3), offset = e.number(5);
                    const Value noise =
                        e.call(OpId::rand, {seed, offset}, {static_cast<int64_t>(DType::float32), 2, 7, 9});
                    const Value normal =
                        e.call(OpId::randn, {seed, offset}, {static_cast<int64_t>(DType::float64), 1, 9});
                    const Value dropped = e.call(OpId::dropout, {e.mul(in[0], 2.0), n[0], seed, offset});
                    const Value turned = e.add(e.transpose(noise, 0, 1), 1.0);
                    return Values{e.add(noise, in[0]),
                                  normal,
                                  dropped,
                                  turned,
                                  e.sum(e.add(noise, in[0]), {0}, false),
                                  e.sum(dropped, {1}, false),
                                  e.sum(dropped, {0}, false)};
                  },
                  {}};
  check_program(p);
}

TEST_CASE("writes go to the input at once where no reader of the old value is harmed", "[jit]") {
  SECTION("an update in place") {
    const Program p{{{DType::float32, {8, 4}}, {DType::float32, {8, 4}}, {DType::float32, {4, 3}}},
                    {0.1},
                    [](Emitter& e, const Values& in, const Values& n) {
                      const Value y = e.matmul(in[0], in[2]);
                      const Value updated = e.sub(in[0], e.mul(in[1], n[0]));
                      return Values{y, updated};
                    },
                    {{0, 1}}};
    const RunResult r = check_program(p);
    CHECK(r.stats.entries == 2);
  }
  SECTION("a swap needs copies") {
    const Program p{{{DType::float32, {5}}, {DType::float32, {5}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      return Values{e.add(in[0], in[1]), in[1], in[0]};
                    },
                    {{0, 1}, {1, 2}}};
    const RunResult r = check_program(p);
    CHECK(r.inputs[0] == input_bytes(p.inputs[1], 2));
    CHECK(r.inputs[1] == input_bytes(p.inputs[0], 1));
  }
  SECTION("a value that its own kernel reads elsewhere") {
    const Program p{{{DType::float32, {6, 6}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      return Values{e.add(in[0], e.transpose(in[0], 0, 1))};
                    },
                    {{0, 0}}};
    check_program(p);
  }
  SECTION("into strided memory, with later readers of the old value") {
    const Program p{{{DType::float32, {4, 3}, -1, 1, {1, 4}}, {DType::float32, {3}}},
                    {},
                    [](Emitter& e, const Values& in, const Values&) {
                      const Value updated = e.mul(in[0], 2.0);
                      const Value later = e.matmul(updated, in[1]);
                      const Value old = e.matmul(in[0], in[1]);
                      return Values{later, old, updated};
                    },
                    {{0, 2}}};
    check_program(p);
  }
}

TEST_CASE("alike independent kernels are one entry", "[jit]") {
  const Program p{{{DType::float32, {8, 4}},
                   {DType::float32, {8, 4}},
                   {DType::float32, {4}},
                   {DType::float32, {4}},
                   {DType::float32, {3, 5}},
                   {DType::float32, {3, 5}}},
                  {0.1, 0.2},
                  [](Emitter& e, const Values& in, const Values& n) {
                    Values updated;
                    for (size_t i = 0; i < 6; i += 2)
                      updated.push_back(e.sub(in[i], e.mul(in[i + 1], n[i == 2])));
                    return updated;
                  },
                  {{0, 0}, {2, 1}, {4, 2}}};
  CHECK(check_program(p).stats.entries == 1);
}

TEST_CASE("run-time numbers, counts and arithmetic on numbers", "[jit]") {
  const Program p{{{DType::float32, {4, 6}}},
                  {0.9},
                  [](Emitter& e, const Values& in, const Values& n) {
                    const Value power = e.number_op(ops::ScalarOp::mul, n[0], n[0]);
                    const Value correction = e.number_op(ops::ScalarOp::sub, e.number(1), power);
                    const Value scaled = e.div(in[0], correction);
                    return Values{scaled,
                                  e.mul(e.sum(scaled, {1}, false),
                                        e.number_op(ops::ScalarOp::div, e.number(1), e.count(in[0], {1})))};
                  },
                  {}};
  CHECK(check_program(p).stats.entries == 1);
}

namespace {
/// Forward, backward and update of an MLP, as a traced step emits them.
Values mlp_step(Emitter& e, const Values& in, const Values& n) {
  const Value x = in[0], labels = in[1];
  Values w, b, sums, activations = {x};
  for (size_t l = 0; l < 3; ++l) {
    w.push_back(in[2 + l * 6]);
    b.push_back(in[5 + l * 6]);
    const Value z = e.call(OpId::linear, {activations.back(), w[l], b[l]}, {0});
    sums.push_back(z);
    activations.push_back(l < 2 ? e.relu(z) : z);
  }
  const Value ignore = n[7];
  Values losses(3);  // and what its gradient reads
  e.emit(OpId::cross_entropy, Values{activations[3], labels, ignore}, std::vector<int64_t>{1}, losses.data());
  const Value one = e.full_like(losses[0], 1);
  const auto gradients = [&](OpId op, Values operands, Values outputs, Value g, std::vector<int64_t> words) {
    Values results(operands.size());
    std::vector<ops::TensorType> types;
    std::vector<char> needed(operands.size(), 1);
    for (const Value v : operands) types.push_back(v ? e.type(v) : ops::TensorType{});
    const auto flags = std::make_unique<bool[]>(operands.size());
    for (size_t i = 0; i < operands.size(); ++i) flags[i] = is_floating(types[i].dtype) && !types[i].number;
    const ops::OpDef& d = ops::def(op);
    types.resize(operands.size() - static_cast<size_t>(d.n_numbers()));
    Values grads = {g};
    grads.resize(static_cast<size_t>(d.n_out));
    ops::Gradient gradient{
        e, d, operands, types, outputs, grads, words, {flags.get(), types.size()}, results.data()};
    ops::emit_gradient(gradient);
    return results;
  };
  Value g = gradients(OpId::cross_entropy, {activations[3], labels, ignore}, losses, one, {1})[0];
  Values grads(6);
  for (size_t l = 3; l-- > 0;) {
    const Values d = gradients(OpId::linear, {activations[l], w[l], b[l]}, {{}}, g, {0});
    grads[2 * l] = d[1];
    grads[2 * l + 1] = d[2];
    if (l > 0) g = gradients(OpId::relu, {sums[l - 1]}, {activations[l]}, d[0], {})[0];
  }
  Values results = {losses[0]};
  for (size_t l = 0; l < 3; ++l)
    for (size_t k = 0; k < 2; ++k) {
      const size_t at = 2 + l * 6 + k * 3;
      const Value operands[] = {
          in[at], grads[2 * l + k], in[at + 1], in[at + 2], {}, n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
      Value updated[ops::kMaxOutputs];
      e.emit(OpId::adamw_update, operands, {}, updated);
      results.insert(results.end(), updated, updated + 3);
    }
  return results;
}
}  // namespace

TEST_CASE("a training step of an MLP", "[jit]") {
  constexpr int64_t kBatch = 64, kSizes[] = {64, 256, 128, 10};
  Program p;
  p.inputs = {{DType::float32, {kBatch, kSizes[0]}}, {DType::int64, {kBatch}, 0, kSizes[3]}};
  for (int l = 0; l < 3; ++l)
    for (const bool bias : {false, true}) {
      const Dims sizes = bias ? Dims{kSizes[l + 1]} : Dims{kSizes[l + 1], kSizes[l]};
      p.inputs.push_back({DType::float32, sizes, -0.1, 0.1});
      p.inputs.push_back({DType::float32, sizes, -0.1, 0.1});
      p.inputs.push_back({DType::float32, sizes, 0, 0.1});
    }
  p.numbers = {1e-3, 0.9, 0.999, 1e-8, 0.01, 0.1, 0.001, -100};
  p.body = mlp_step;
  for (int i = 0; i < 18; ++i) p.writes.emplace_back(2 + i, 1 + i);
  const RunResult r = check_program(p, 1e-4);
  INFO(r.plan);
  CHECK(r.stats.entries <= 16);
  CHECK(r.stats.products == 8);
}

TEST_CASE("a new batch size needs no new code", "[jit]") {
  const auto program = [](int64_t batch) {
    return Program{
        {{DType::float32, {batch, 40}}, {DType::int64, {batch}, 0, 40}, {DType::float32, {40}}},
        {},
        [](Emitter& e, const Values& in, const Values&) {
          const Value x = e.mul(in[0], in[2]);
          return Values{e.call(OpId::cross_entropy, {x, in[1], e.number(-100)}, {1}), e.mean(x, {0}, false)};
        },
        {}};
  };
  if (!jit::HostCompiler::of_process()) return;
  CHECK(run(program(8), kCompiled).stats.interpreted == 0);
  CHECK(run(program(24), kCompiled).stats.compile_ms == 0);
}

TEST_CASE("cross entropy looks its label up inside the row's kernel and checks it", "[jit]") {
  Program p{{{DType::float32, {6, 5}, -3, 3}, {DType::int64, {6}, 0, 5}},
            {-100},
            [](Emitter& e, const Values& in, const Values& n) {
              return Values{e.call(OpId::cross_entropy, {e.mul(in[0], 2.0), in[1], n[0]}, {0})};
            },
            {}};
  CHECK(check_program(p).stats.entries == 1);
  p.inputs[1].low = 5, p.inputs[1].high = 6;
  CHECK(run(p, kFused).failed == 1);
  CHECK(run(p, kUnfused).failed > 0);
  CHECK(run(p, kCompiled).failed == 1);
}
