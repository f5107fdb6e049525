// Errors planted in the gradient of every op, one call of its rule at a time: a wrong sign, a wrong factor,
// swapped operands, a transposed result. The comparison with differences, which every op goes through, must
// find them.
#include <algorithm>
#include <cmath>

#include "tests/catch.h"
#include "tests/op_samples.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

enum class Mistake : uint8_t { none, sign, factor, swapped, transposed };
constexpr const char* kNames[] = {"none", "sign", "factor", "swapped operands", "transposed result"};

/// Forwards to the reference and makes one mistake, in the call with number `at`.
class WrongEmitter final : public Emitter {
 public:
  WrongEmitter(ReferenceEmitter& inner, Mistake mistake, int at)
      : inner_(inner), mistake_(mistake), at_(at) {}

  void emit(OpId op, std::span<const Value> in, Words words, Value* out) override {
    const bool now = calls_++ == at_;
    std::vector<Value> given(in.begin(), in.end());
    if (now && mistake_ == Mistake::swapped && given.size() >= 2 && is_tensor(given[0]) &&
        is_tensor(given[1]) && !(given[0] == given[1]) && inner_.type(given[0]) == inner_.type(given[1])) {
      std::swap(given[0], given[1]);
    }
    inner_.emit(op, given, words, out);
    if (!now || !is_floating(inner_.type(out[0]).dtype)) return;
    if (mistake_ == Mistake::sign) out[0] = inner_.neg(out[0]);
    if (mistake_ == Mistake::factor) out[0] = inner_.mul(out[0], 1.5);
    const Dims sizes = inner_.type(out[0]).sizes;
    const int rank = sizes.rank();
    if (mistake_ == Mistake::transposed && rank >= 2 && sizes[rank - 1] > 1 && sizes[rank - 2] > 1) {
      out[0] = inner_.reshape(inner_.transpose(out[0], rank - 2, rank - 1), sizes);
    }
  }
  TensorType type(Value v) override { return inner_.type(v); }
  Value number(double value) override { return inner_.number(value); }
  Value count(Value v, const Dims& axes) override { return inner_.count(v, axes); }
  Value number_op(ScalarOp op, Value a, Value b) override { return inner_.number_op(op, a, b); }

  int calls() const { return calls_; }

 private:
  bool is_tensor(Value v) { return v && !inner_.type(v).number; }
  ReferenceEmitter& inner_;
  Mistake mistake_;
  int at_, calls_ = 0;
};

/// A sample with its slope along the direction that differences are taken in.
struct Probe {
  const OpDef& op;
  const Sample& sample;
  Lists values;
  Direction direction;
  double wanted = 0;
  Lists right;  // gradients without a mistake

  Probe(const OpDef& op, const Sample& s)
      : op(op), sample(s), values(operand_values(s, 11)), direction(s, values) {
    constexpr double kStep = 1e-5;
    const Evaluation ahead = evaluate(op, s, DType::float64, direction.moved(values, kStep), false);
    const Evaluation behind = evaluate(op, s, DType::float64, direction.moved(values, -kStep), false);
    wanted = (ahead.loss - behind.loss) / (2 * kStep);
  }

  /// By more than the comparison with differences allows.
  bool differs(const Lists& gradients) const {
    for (size_t i = 0; i < right.size(); ++i)
      for (size_t k = 0; k < right[i].size(); ++k)
        if (!(std::fabs(gradients[i][k] - right[i][k]) <= 1e-6 * (1 + std::fabs(wanted)))) return true;
    return false;
  }

  struct Outcome {
    bool found = false;
    bool changed = false;  // at least one gradient is another
    int calls = 0;
    Lists gradients;
  };
  Outcome with(Mistake mistake, int at) const {
    ReferenceEmitter e;
    const SampleCall call = make_call(e, op, sample, DType::float64, values);
    LogEmitter log(e);
    Value out[kMaxOutputs];
    log.emit(op.id, call.in, call.words, out);
    std::vector<Value> roots, weights;
    for (size_t j = 0; j < static_cast<size_t>(op.n_out); ++j) {
      if (!is_floating(e.type(out[j]).dtype)) continue;
      roots.push_back(out[j]);
      weights.push_back(e.add(e.type(out[j]), loss_weights(e.values(out[j]).size(), j)));
    }
    WrongEmitter wrong(e, mistake, at);
    std::vector<Value> grads(call.tensors.size());
    Outcome o;
    try {
      reverse(wrong, log.calls(), roots, weights, call.tensors, grads.data());
      for (size_t i = 0; i < grads.size(); ++i) {
        const size_t n = e.values(call.tensors[i]).size();
        o.gradients.push_back(grads[i] ? e.values(grads[i]) : std::vector<double>(n, 0));
        o.found = o.found || o.gradients.back().size() != n;
      }
      if (!o.found)
        o.found = !(direction.along(sample, o.gradients) == Approx(wanted).epsilon(1e-6).margin(1e-7));
      o.changed = o.found || differs(o.gradients);
    } catch (const std::exception&) {
      o.found = o.changed = true;
    }
    o.calls = wrong.calls();
    return o;
  }
};

}  // namespace

TEST_CASE("planted errors in gradients are found by differences", "[ops]") {
  constexpr Mistake kMistakes[] = {Mistake::sign, Mistake::factor, Mistake::swapped, Mistake::transposed};
  int planted[5] = {}, found[5] = {}, without_effect = 0;
  for_each_op([&](const OpDef& op) {
    if (!op.differentiable) return;
    const std::vector<Sample> all = samples(op);
    std::vector<Probe> probes;
    int calls = 0;
    for (const Sample& s : all) {
      if (s.must_throw || std::none_of(s.operands.begin(), s.operands.end(), takes_gradient)) continue;
      probes.emplace_back(op, s);
      const Probe::Outcome right = probes.back().with(Mistake::none, -1);
      CAPTURE(op.name, s.text);
      CHECK_FALSE(right.found);
      probes.back().right = right.gradients;
      calls = std::max(calls, right.calls);
    }
    for (int at = 0; at < calls; ++at)
      for (const Mistake mistake : kMistakes) {
        bool changed = false, seen = false;
        for (const Probe& p : probes) {
          const Probe::Outcome o = p.with(mistake, at);
          changed = changed || o.changed;
          seen = seen || o.found;
        }
        const auto m = static_cast<size_t>(mistake);
        planted[m] += changed, found[m] += changed && seen, without_effect += !changed;
        CAPTURE(op.name, at, kNames[m]);
        CHECK(seen == changed);
      }
  });
  for (size_t m = 1; m < 5; ++m) {
    std::printf("planted in gradients, %s: %d, found %d\n", kNames[m], planted[m], found[m]);
    CHECK(planted[m] >= 20);
  }
  std::printf("without effect on any sample: %d\n", without_effect);
}
