// Gradients of every differentiable op against central differences along a random direction, in double
// precision, and the gradients of those gradients; what each rule reads; results that are known by hand.
#include <cmath>

#include "tests/catch.h"
#include "tests/op_samples.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

void check_against_differences(const OpDef& op, const Sample& s, DType floating) {
  CAPTURE(op.name, s.text, name(floating));
  const Lists values = operand_values(s, 11);
  const Direction direction(s, values);
  const Evaluation here = evaluate(op, s, floating, values, true);
  CHECK(here.types_fit);
  constexpr double kStep = 1e-5;
  const Evaluation ahead = evaluate(op, s, floating, direction.moved(values, kStep), false);
  const Evaluation behind = evaluate(op, s, floating, direction.moved(values, -kStep), false);
  const double first = direction.along(s, here.gradients);
  const double second = direction.along(s, here.second);
  CHECK(first == Approx((ahead.loss - behind.loss) / (2 * kStep)).epsilon(1e-6).margin(1e-7));
  CHECK(second == Approx((ahead.slope - behind.slope) / (2 * kStep)).epsilon(1e-6).margin(1e-7));
}

}  // namespace

TEST_CASE("gradients of first and second order agree with differences", "[ops]") {
  int checked = 0;
  for_each_op([&](const OpDef& op) {
    if (!op.differentiable) return;
    bool any = false;
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      bool floating = false;
      for (const SampleOperand& o : s.operands) floating = floating || takes_gradient(o);
      if (!floating) continue;
      any = true;
      check_against_differences(op, s, DType::float64);
      check_against_differences(op, s, DType::float16);  // the way through wider types
    }
    CAPTURE(op.name);
    CHECK(any);
    checked += any;
  });
  CHECK(checked > 50);
}

TEST_CASE("a wrong gradient would be noticed", "[ops]") {
  OpDef op = def(OpId::mul);
  const Sample s = samples(op)[0];
  const Lists values = operand_values(s, 11);
  const Direction direction(s, values);
  Evaluation here = evaluate(op, s, DType::float64, values, false);
  here.gradients[1][0] *= 1.001;
  const Evaluation ahead = evaluate(op, s, DType::float64, direction.moved(values, 1e-5), false);
  const Evaluation behind = evaluate(op, s, DType::float64, direction.moved(values, -1e-5), false);
  CHECK(direction.along(s, here.gradients) !=
        Approx((ahead.loss - behind.loss) / 2e-5).epsilon(1e-6).margin(1e-7));
}

TEST_CASE("each gradient reads exactly what its row declares", "[ops]") {
  for_each_op([](const OpDef& op) {
    if (!op.gradient) return;
    const size_t n_rules = op.n_in < 0 ? 1 : static_cast<size_t>(op.n_in);
    std::vector<Saves> used(n_rules);
    std::vector<bool> met(n_rules);
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      for (size_t i = 0; i < s.operands.size(); ++i) {
        if (!takes_gradient(s.operands[i])) continue;
        CAPTURE(op.name, s.text, i);
        ReferenceEmitter e;
        const SampleCall call = make_call(e, op, s, DType::float64, operand_values(s, 11));
        Value out[kMaxOutputs];
        e.emit(op.id, call.in, call.words, out);
        const size_t rule = std::min(i, n_rules - 1);
        const Saves kept = saves(op, 1u << i);
        std::vector<Value> operands = call.in, outputs(out, out + op.n_out), grads;
        std::vector<TensorType> types;
        for (size_t k = 0; k < call.n_in; ++k) {
          types.push_back(call.in[k] ? e.type(call.in[k]) : TensorType{});
          if (!(kept.in >> k & 1)) operands[k] = {};
        }
        for (size_t j = 0; j < outputs.size(); ++j) {
          grads.push_back(e.add(e.type(out[j]), noise(e.values(out[j]).size(), 5)));
          if (!(kept.out >> j & 1)) outputs[j] = {};
        }
        bool needed[8] = {};
        needed[i] = true;
        std::vector<Value> results(call.n_in);
        LogEmitter log(e);
        Gradient g{log, op, operands, types, outputs, grads, call.words, {needed, call.n_in}, results.data()};
        REQUIRE_NOTHROW(emit_gradient(g));
        CHECK(results[i]);
        for (const LoggedCall& c : log.calls()) {
          for (const Value v : c.in) {
            for (size_t k = 0; k < call.n_in; ++k)
              if (v && v == operands[k]) used[rule].in |= 1u << k;
            for (size_t j = 0; j < outputs.size(); ++j)
              if (v && v == outputs[j]) used[rule].out |= 1u << j;
          }
        }
        // An absent optional operand is not read; a number operand may be absorbed by arithmetic on numbers.
        for (size_t k = 0; k < call.n_in; ++k)
          if (!s.operands[k].is_tensor()) used[rule].in |= kept.in & 1u << k;
        met[rule] = true;
      }
    }
    for (size_t i = 0; i < n_rules; ++i) {
      if (!met[i]) continue;
      CAPTURE(op.name, i);
      const Saves declared = saves(op, 1u << i);
      CHECK(declared.in == used[i].in);
      CHECK(declared.out == used[i].out);
    }
  });
}

namespace {

struct Known {
  ReferenceEmitter e;
  Value tensor(const Dims& sizes, std::vector<double> v, DType t = DType::float64) {
    TensorType type;
    type.dtype = t;
    type.sizes = sizes;
    return e.add(type, std::move(v));
  }
  /// Gradients of sum(result) for `wanted`.
  template <class F>
  Lists gradients(std::vector<Value> wanted, F&& f) {
    LogEmitter log(e);
    const Value y = f(log);
    const Value ones = e.full_like(y, 1);
    std::vector<Value> grads(wanted.size());
    reverse(e, log.calls(), {&y, 1}, {&ones, 1}, wanted, grads.data());
    Lists result;
    for (const Value g : grads) result.push_back(g ? e.values(g) : std::vector<double>{});
    return result;
  }
};

}  // namespace

TEST_CASE("ties and edges share gradients as PyTorch does", "[ops]") {
  Known k;
  const Value x = k.tensor({4}, {1, 3, 3, 2});
  CHECK(k.gradients({x}, [&](Emitter& e) { return e.amax(x, {}, false); })[0] ==
        std::vector<double>{0, 0.5, 0.5, 0});
  const Value y = k.tensor({4}, {1, 2, 4, 2});
  const Lists both = k.gradients({x, y}, [&](Emitter& e) { return e.maximum(x, y); });
  CHECK(both[0] == std::vector<double>{0.5, 1, 0, 0.5});
  CHECK(both[1] == std::vector<double>{0.5, 0, 1, 0.5});
  const Value z = k.tensor({3}, {-1, 0, 2});
  CHECK(k.gradients({z}, [&](Emitter& e) { return e.relu(z); })[0] == std::vector<double>{0, 0, 1});
  CHECK(k.gradients({z}, [&](Emitter& e) { return e.abs(z); })[0] == std::vector<double>{-1, 0, 1});
  CHECK(k.gradients({z}, [&](Emitter& e) {
    const Value low = e.number(-1);
    const Value high = e.number(1);
    return e.call(OpId::clamp, {z, low, high});
  })[0] == std::vector<double>{1, 1, 0});
  CHECK(k.gradients({z}, [&](Emitter& e) { return e.pow(z, 0.0); })[0] == std::vector<double>{0, 0, 0});
  CHECK(k.gradients({z}, [&](Emitter& e) { return e.pow(z, 2.0); })[0] == std::vector<double>{-2, 0, 4});
  CHECK(k.gradients({z}, [&](Emitter& e) { return e.floor(z); })[0] == std::vector<double>{0, 0, 0});
}

TEST_CASE("prod has exact gradients at zeros, to the second order", "[ops]") {
  Known k;
  const auto prod = [](Value x) { return [x](Emitter& e) { return e.call(OpId::prod, {x}, {0, 0}); }; };
  const Value one = k.tensor({3}, {2, 0, 5});
  CHECK(k.gradients({one}, prod(one))[0] == std::vector<double>{0, 10, 0});
  const Value two = k.tensor({3}, {0, 0, 5});
  CHECK(k.gradients({two}, prod(two))[0] == std::vector<double>{0, 0, 0});
  // The sum of the gradients of x0 x1 x2 is x1 x2 + x0 x2 + x0 x1: its gradient at (2, 0, 5) is (5, 7, 2).
  CHECK(k.gradients({one}, [&](Emitter& e) {
    LogEmitter log(e);
    const Value y = prod(one)(log);
    const Value ones = e.full_like(y, 1);
    Value g;
    reverse(e, log.calls(), {&y, 1}, {&ones, 1}, {&one, 1}, &g);
    return g;
  })[0] == std::vector<double>{5, 7, 2});
}

TEST_CASE("a value used twice collects both gradients, an unused one none", "[ops]") {
  Known k;
  const Value x = k.tensor({2}, {3, 4});
  const Value unused = k.tensor({2}, {1, 1});
  const Lists g = k.gradients({x, unused}, [&](Emitter& e) { return e.mul(e.mul(x, x), x); });
  CHECK(g[0] == std::vector<double>{27, 48});
  CHECK(g[1].empty());
}

TEST_CASE("a composite called with one value twice counts its gradient once", "[ops]") {
  Known k;
  const Value x = k.tensor({3}, {1, 2, 3});
  // (x - x)^2 is flat; a contribution counted twice, or lost, would show.
  CHECK(k.gradients({x}, [&](Emitter& e) {
    return e.call(OpId::mse_loss, {x, x}, {0});
  })[0] == std::vector<double>{0, 0, 0});
  const Value weight = k.tensor({3}, {2, 3, 4});
  const auto product = [](Body& b) { b.set(b.e.mul(b.in(0), b.in(1))); };
  OpDef op = def(OpId::mse_loss);
  op.body = product;
  const Value operands[] = {weight, weight}, grads[] = {k.tensor({3}, {1, 1, 1})};
  const TensorType types[] = {k.e.type(weight), k.e.type(weight)};
  const Value outputs[] = {Value{}};
  const bool needed[] = {true, true};
  Value results[2];
  Gradient g{k.e, op, operands, types, outputs, grads, {}, needed, results};
  emit_gradient(g);
  REQUIRE(results[0]);
  CHECK(k.e.values(results[0]) == std::vector<double>{4, 6, 8});
  CHECK_FALSE(results[1]);
}
