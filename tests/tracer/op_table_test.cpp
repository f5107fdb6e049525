// Every op of the table with each of its samples inside traced calls: results, gradients of first and second
// order, in-place changes and errors are those of the same program without the trace, bit for bit, while
// values, run-time numbers and tensors change from call to call. Loops over the table: a new op is tested
// when it has samples.
#include "tests/catch.h"
#include "tests/tracer/op_programs.h"
#include "tests/tracer/programs.h"

using namespace tandem::test;
using tandem::DType;
using tandem::Tensor;
using tandem::TensorList;
using tandem::ops::OpDef;
using tandem::ops::OpKind;
using tandem::ops::Sample;

namespace {

template <class Program>
tandem::TraceReport check_same(Program&& program) {
  const Ran eager = program(false);
  const Ran traced = program(true);
  CHECK(eager.notes.difference(traced.notes) == "");
  return traced.report;
}

}  // namespace

TEST_CASE("every op in a traced call gives eager results and gradients, whatever changes between the calls",
          "[tracer]") {
  int ops = 0, programs = 0, differentiated = 0;
  int64_t compared = 0;
  for_each_op([&](const OpDef& op) {
    int runs = 0;
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      const auto check = [&](DType type, OperandLayout layout) {
        CAPTURE(op.name, s.text, tandem::name(type), name(layout));
        const tandem::TraceReport report =
            check_same([&](bool traced) { return run_backward(traced, op, s, type, layout); });
        CHECK(report.recorded == 1);  // the other calls are compared alone
        CHECK(report.eager_calls == 0);
        compared += report.calls - report.recorded;
        differentiated += report.backward_skipped > 0;
        ++runs;
      };
      check(DType::float32, OperandLayout::contiguous);
      check(DType::float32, OperandLayout::transposed);
      check(DType::float32, OperandLayout::stepped);
      check(DType::float32, OperandLayout::expanded);
      if (!has_floating(s)) continue;
      check(DType::float64, OperandLayout::contiguous);
      check(DType::bfloat16, OperandLayout::contiguous);
    }
    CAPTURE(op.name);
    CHECK(runs >= 8);
    ++ops, programs += runs;
  });
  CHECK(ops == tandem::ops::kOpCount);
  CHECK(compared == (kCalls - 1) * programs);
  CHECK(differentiated > programs / 2);
  std::printf("op table, traced: %d ops, %d programs, backward skipped in %d\n", ops, programs,
              differentiated);
}

TEST_CASE("a number that a trace kept from an earlier call would be noticed", "[tracer]") {
  const OpDef& op = tandem::ops::def(tandem::ops::OpId::leaky_relu);
  const auto run = [&](bool traced) {
    return run_backward(traced, op, samples(op)[0], DType::float32, OperandLayout::contiguous);
  };
  const Ran eager = run(false);
  CHECK(eager.notes.difference(run(true).notes) == "");
  const programs::Off off(tandem::tracer::Mechanism::store_scalars);
  CHECK(eager.notes.difference(run(true).notes) != "");
}

TEST_CASE("a result whose history a backward in the call used up is no leaf outside, and throws",
          "[tracer]") {
  for_each_op([](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      if (s.must_throw || !op.differentiable || floating_operands(s).empty()) continue;
      CAPTURE(op.name, s.text);
      check_same([&](bool traced) {
        return run_backward(traced, op, s, DType::float32, OperandLayout::contiguous, true);
      });
      break;  // one sample each
    }
  });
}

TEST_CASE("gradients of gradients of every op in a traced call are those of eager mode", "[tracer]") {
  int programs = 0, second = 0;
  std::vector<const char*> without;
  for_each_op([&](const OpDef& op) {
    bool any = false;
    for (const Sample& s : samples(op)) {
      if (s.must_throw || floating_operands(s).empty() || !op.differentiable) continue;
      for (const DType type : {DType::float32, DType::float64}) {
        CAPTURE(op.name, s.text, tandem::name(type));
        size_t notes = 0;
        const tandem::TraceReport report = check_same([&](bool traced) {
          Ran r = run_grad_of_grad(traced, op, s, type);
          notes = r.notes.size();
          return r;
        });
        CHECK(report.eager_calls == 0);
        any = any || notes > kCalls;  // more than results
        ++programs;
      }
    }
    second += any;
    if (!any) without.push_back(op.name);
    CAPTURE(op.name);
    CHECK((any || !op.differentiable));
  });
  CHECK(second > 50);
  std::printf("op table, traced, gradients of gradients: %d programs of %d ops; without:", programs, second);
  for (const char* n : without) std::printf(" %s", n);
  std::printf("\n");
}

TEST_CASE("every op in place in a traced call changes what eager mode changes, with the same history",
          "[tracer]") {
  int programs = 0;
  for_each_op([&](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      if (s.must_throw || written_operand(op, s, 0) < 0) continue;
      for (const OperandLayout layout :
           {OperandLayout::contiguous, OperandLayout::transposed, OperandLayout::stepped})
        for (const Written written : {Written::argument, Written::with_history, Written::backward_inside})
          for (const bool grad : {false, true}) {
            CAPTURE(op.name, s.text, name(layout), static_cast<int>(written), grad);
            check_same([&](bool traced) {
              return run_in_place(traced, op, s, DType::float32, layout, written, grad);
            });
            ++programs;
          }
    }
  });
  CHECK(programs > 1000);
  std::printf("op table, traced in place: %d programs\n", programs);
}

TEST_CASE("every wrong sample throws in a traced call as in eager mode, and the trace goes on", "[tracer]") {
  int programs = 0;
  for_each_op([&](const OpDef& op) {
    const std::vector<Sample> all = samples(op);
    const Sample* good = nullptr;
    for (const Sample& s : all)
      if (!s.must_throw && !good) good = &s;
    REQUIRE(good);
    for (const Sample& bad : all) {
      if (!bad.must_throw) continue;
      for (const bool bad_first : {true, false}) {
        CAPTURE(op.name, bad.text, bad_first);
        const tandem::TraceReport report =
            check_same([&](bool traced) { return run_error(traced, op, *good, bad, bad_first); });
        CHECK(report.eager_calls == 0);
        ++programs;
      }
    }
  });
  CHECK(programs > 60);
}

TEST_CASE("an index out of range throws in a traced call as in eager mode, and the trace goes on",
          "[tracer]") {
  std::set<std::string> refusing;
  for_each_op([&](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      for (const double index : {-1.0, 1000.0}) {
        CAPTURE(op.name, s.text, index);
        int thrown = 0;
        const tandem::TraceReport report =
            check_same([&](bool traced) { return run_bad_index(traced, op, s, index, &thrown); });
        CHECK(report.recorded == 1);
        CHECK((thrown == 0 || thrown == 4));
        if (thrown) refusing.insert(op.name);
      }
    }
  });
  CHECK(refusing == std::set<std::string>{"cross_entropy", "embedding", "gather", "index", "index_add",
                                          "index_copy", "index_fill", "index_put", "index_select", "nll_loss",
                                          "one_hot", "scatter", "scatter_add"});
}

TEST_CASE("one op of each kind in a compiled trace is bit-equal to eager mode", "[tracer]") {
  std::vector<std::pair<const OpDef*, Sample>> chosen;
  std::set<OpKind> kinds;
  for_each_op([&](const OpDef& op) {
    for (const Sample& s : samples(op))
      if (!s.must_throw && (op.differentiable || op.n_in == 0) && kinds.insert(op.kind).second)
        chosen.push_back({&op, s});
  });
  CHECK(kinds.size() == 12);
  const auto program = [&](bool traced) {
    Ran r{Notes(false), {}};
    Weights known;
    std::vector<TensorList> in(chosen.size());
    int call = 0;
    Function f(
        traced,
        [&](const TensorList&) {
          TensorList all;
          Tensor loss;
          for (size_t c = 0; c < chosen.size(); ++c) {
            const TensorList out =
                call_sample(*chosen[c].first, varied(*chosen[c].first, chosen[c].second, call), in[c]);
            TensorList roots, weights;
            roots_of(out, known, roots, weights, 100);
            for (size_t j = 0; j < roots.size(); ++j) {
              const Tensor weighted = roots[j] * weights[j];
              const Tensor sum = weighted.sum();
              loss = loss.defined() ? loss + sum : sum;
            }
            all.insert(all.end(), out.begin(), out.end());
          }
          loss.backward();
          all.push_back(loss);
          return all;
        },
        true);
    for (; call < kCalls; ++call) {
      for (size_t c = 0; c < chosen.size(); ++c) {
        const Sample& s = chosen[c].second;
        in[c] = operand_tensors(s, DType::float32,
                                values_of_call(s, DType::float32, OperandLayout::contiguous, call));
        for (const size_t i : floating_operands(s)) in[c][i].requires_grad_();
      }
      r.notes.tensors("result", f({}));
      for (const TensorList& operands : in)
        for (const Tensor& t : operands) r.notes.tensor("gradient", t.defined() ? t.grad() : Tensor());
    }
    r.report = f.report();
    return r;
  };
  const tandem::TraceReport report = check_same(program);
  CHECK(report.recorded == 1);
  CHECK(report.compiled > 0);
}

TEST_CASE("random functions draw the same numbers in a traced call", "[tracer]") {
  const auto program = [&](bool traced) {
    tandem::manual_seed(5);
    Ran r;
    Function f(traced, [](const TensorList& in) {
      TensorList out;
      out.push_back(tandem::rand({3, 5}));
      out.push_back(tandem::randn({7}));
      out.push_back(tandem::randint(0, 10, {6}));
      out.push_back(tandem::dropout(in[0], 0.3));
      for (int k = 0; k < 3; ++k) out.push_back(tandem::empty({5}));
      out[4].normal_(1, 2);
      out[5].uniform_(-1, 1);
      out[6].bernoulli_(0.25);
      return out;
    });
    for (int call = 0; call < kCalls; ++call) r.notes.tensors("draw", f({tandem::ones({4, 9})}));
    r.notes.tensor("after", tandem::rand({3}));
    r.report = f.report();
    return r;
  };
  CHECK(check_same(program).recorded == 1);
}
