// Composites against formulas written out by hand, and their edges.
#include <cmath>
#include <limits>

#include "tests/catch.h"
#include "tests/ops/sample_call.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

struct Run : ReferenceEmitter {
  Value tensor(const Dims& sizes, std::vector<double> v, DType t = DType::float64) {
    return add(TensorType{t, cpu, false, sizes}, std::move(v));
  }
  Value integer(int64_t v) {
    TensorType t;
    t.dtype = DType::int64;
    t.number = true;
    return add(t, {static_cast<double>(v)});
  }
  std::vector<std::vector<double>> run(OpId op, std::vector<Value> in, std::vector<int64_t> words = {}) {
    Value out[kMaxOutputs];
    emit(op, in, words, out);
    std::vector<std::vector<double>> result;
    for (int j = 0; j < def(op).n_out; ++j) result.push_back(values(out[j]));
    return result;
  }
};

void check_close(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i] == Approx(b[i]).epsilon(1e-12));
}

}  // namespace

TEST_CASE("softmax and log_softmax do not overflow", "[ops]") {
  Run r;
  const Value x = r.tensor({3}, {1000, 1001, -1000});
  const double low = 1 / (1 + std::exp(1.0));
  check_close(r.run(OpId::softmax, {x}, {0})[0], {low, 1 - low, 0});
  check_close(r.run(OpId::log_softmax, {x}, {0})[0],
              {std::log(low), std::log(1 - low), -2001 + std::log(1 - low)});
}

TEST_CASE("cross_entropy: ignored rows, reductions, labels", "[ops]") {
  Run r;
  const Value x = r.tensor({3, 2}, {0, 0, 1, 3, kInf, 0});
  const Value labels = r.tensor({3}, {0, 1, -100}, DType::int64);
  const double a = std::log(2.0), b = std::log1p(std::exp(-2.0));
  check_close(r.run(OpId::cross_entropy, {x, labels, r.integer(-100)}, {0})[0], {a, b, 0});
  check_close(r.run(OpId::cross_entropy, {x, labels, r.integer(-100)}, {1})[0], {(a + b) / 2});
  check_close(r.run(OpId::cross_entropy, {x, labels, r.integer(-100)}, {2})[0], {a + b});
  const Value tall = r.tensor({2, 2}, {0, 0, 1001, 1003});
  const Value either = r.tensor({2}, {0, 1}, DType::int64);
  const auto kept = r.run(OpId::cross_entropy, {tall, either, r.integer(-100)}, {1});
  check_close(kept[1], {0, 1003});
  check_close(kept[2], {0.5, 1 / (1 + std::exp(-2.0))});
  CHECK_THROWS_WITH(r.run(OpId::cross_entropy, {x, labels, r.integer(5)}, {1}), Contains("out of range"));
  const Value high = r.tensor({3}, {0, 2, 1}, DType::int64);
  CHECK_THROWS_WITH(r.run(OpId::cross_entropy, {x, high, r.integer(-100)}, {1}), Contains("out of range"));
  const Value none = r.tensor({3}, {1, 1, 1}, DType::int64);
  CHECK(std::isnan(r.run(OpId::cross_entropy, {x, none, r.integer(1)}, {1})[0][0]));  // as PyTorch: 0 / 0
}

TEST_CASE("layer_norm, var and gelu", "[ops]") {
  Run r;
  const Value x = r.tensor({2, 3}, {1, 2, 6, -1, -1, -1});
  const Value w = r.tensor({3}, {1, 2, 3});
  const Value b = r.tensor({3}, {0, 0, 10});
  const double s = 1 / std::sqrt(14.0 / 3 + 0.5);
  const auto normal = r.run(OpId::layer_norm, {x, w, b, r.number(0.5)}, {1});
  check_close(normal[0], {-2 * s, -2 * s, 10 + 9 * s, 0, 0, 10});
  check_close(normal[1], {3, -1});
  check_close(normal[2], {s, 1 / std::sqrt(0.5)});
  check_close(r.run(OpId::var, {x}, {1, 0, 1, 1})[0], {7, 0});
  check_close(r.run(OpId::var, {x}, {0, 0, 1, 1})[0], {14.0 / 3, 0});
  CHECK(r.run(OpId::var, {r.tensor({1}, {3})}, {1, 0, 0})[0][0] != 0);  // 0 / 0
  const Value g = r.tensor({2}, {1, -2});
  check_close(r.run(OpId::gelu, {g}, {0})[0], {0.8413447460685429, -2 * 0.022750131948179207});
  check_close(r.run(OpId::gelu, {g}, {1})[0], {0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * 1.044715)),
                                               -(1 + std::tanh(std::sqrt(2 / M_PI) * (-2 - 0.044715 * 8)))});
}

TEST_CASE("dropout keeps what the mask keeps, and all or nothing at the ends", "[ops]") {
  Run r;
  const Value x = r.tensor({1000}, std::vector<double>(1000, 3));
  const auto at = [&](double p) {
    return r.run(OpId::dropout, {x, r.number(p), r.integer(5), r.integer(9)})[0];
  };
  const std::vector<double> mask =
      r.run(OpId::bernoulli_mask, {r.number(0.25), r.integer(5), r.integer(9)}, {1, 1000})[0];
  const std::vector<double> y = at(0.25);
  double kept = 0;
  for (size_t i = 0; i < 1000; ++i) {
    CHECK(y[i] == Approx(mask[i] * 4));
    kept += mask[i];
  }
  CHECK((kept > 680 && kept < 820));
  CHECK(at(1) == std::vector<double>(1000, 0));
  CHECK(at(0) == std::vector<double>(1000, 3));
}

TEST_CASE("copies and fills take sizes and type of their target", "[ops]") {
  Run r;
  const Value to = r.tensor({2, 2}, {9, 9, 9, 9}, DType::int64);
  CHECK(r.run(OpId::copy, {to, r.tensor({2}, {1.7, -2.2})})[0] == std::vector<double>{1, -2, 1, -2});
  CHECK(r.run(OpId::copy, {to, r.number(3.5)})[0] == std::vector<double>{3, 3, 3, 3});
  CHECK(r.run(OpId::full_like, {to, r.number(2)})[0] == std::vector<double>{2, 2, 2, 2});
  CHECK(r.run(OpId::masked_fill, {r.tensor({3}, {1, 2, 3}), r.tensor({3}, {0, 1, 0}, DType::bool_),
                                  r.number(-kInf)})[0] == std::vector<double>{1, -kInf, 3});
  CHECK(r.run(OpId::masked_fill, {to, r.tensor({2}, {0, 1}, DType::bool_), r.integer(5)})[0] ==
        std::vector<double>{9, 5, 9, 5});
}

TEST_CASE("any and all of nothing, and of NaN", "[ops]") {
  Run r;
  const Value nothing = r.tensor({0}, {});
  CHECK(r.run(OpId::any, {nothing}, {0, 0})[0][0] == 0);
  CHECK(r.run(OpId::all, {nothing}, {0, 0})[0][0] == 1);
  const Value odd = r.tensor({2}, {NAN, 0});
  CHECK(r.run(OpId::any, {odd}, {0, 0})[0][0] == 1);
  CHECK(r.run(OpId::all, {odd}, {0, 0})[0][0] == 0);
}

TEST_CASE("AdamW, Adam and SGD step as PyTorch's single-tensor loops", "[ops]") {
  const double lr = 0.1, b1 = 0.9, b2 = 0.99, eps = 1e-3, wd = 0.2, momentum = 0.8, dampening = 0.3;
  double p = 1.5, g = -0.7, m = 0.2, v = 0.05;
  for (const bool decoupled : {true, false}) {
    Run r;
    const auto t = [&](double x) { return r.tensor({1}, {x}); };
    double expected_p = p, expected_m = m, expected_v = v, d = g;
    const double bias1 = 1 - std::pow(b1, 3), bias2 = 1 - std::pow(b2, 3);
    if (decoupled) {
      expected_p *= 1 - lr * wd;
    } else {
      d += wd * p;
    }
    expected_m = expected_m * b1 + (1 - b1) * d;
    expected_v = expected_v * b2 + (1 - b2) * d * d;
    expected_p -= lr / bias1 * expected_m / (std::sqrt(expected_v) / std::sqrt(bias2) + eps);
    std::vector<Value> in = {t(p), t(g), t(m), t(v), {}};
    for (const double a : {lr, b1, b2, eps, wd, bias1, bias2}) in.push_back(r.number(a));
    const auto out = r.run(decoupled ? OpId::adamw_update : OpId::adam_update, in);
    check_close({out[0][0], out[1][0], out[2][0]}, {expected_p, expected_m, expected_v});
  }
  for (const bool nesterov : {false, true}) {
    for (const bool first : {false, true}) {
      Run r;
      const auto t = [&](double x) { return r.tensor({1}, {x}); };
      double d = g + wd * p;
      const double buffer = first ? d : momentum * m + (1 - dampening) * d;
      d = nesterov ? d + momentum * buffer : buffer;
      std::vector<Value> in = {t(p), t(g), t(m), {}};
      for (const double a : {lr, momentum, dampening, wd}) in.push_back(r.number(a));
      const auto out = r.run(OpId::sgd_momentum_update, in, {nesterov, first});
      check_close({out[0][0], out[1][0]}, {p - lr * d, buffer});
    }
  }
  Run r;
  check_close(
      r.run(OpId::sgd_update, {r.tensor({1}, {p}), r.tensor({1}, {g}), {}, r.number(lr), r.number(wd)})[0],
      {p - lr * (g + wd * p)});
}

TEST_CASE("reductions keep the rules of PyTorch", "[ops]") {
  Run r;
  const Value x = r.tensor({5}, {1, NAN, 7, 7, NAN});
  CHECK(r.run(OpId::argmax, {x}, {0, 0})[0][0] == 1);
  CHECK(std::isnan(r.run(OpId::amax, {x}, {0, 0})[0][0]));
  const Value y = r.tensor({4}, {1, 7, 7, 0});
  CHECK(r.run(OpId::argmax, {y}, {0, 0})[0][0] == 1);
  CHECK(r.run(OpId::argmin, {y}, {0, 0})[0][0] == 3);
  CHECK(r.run(OpId::sum, {r.tensor({0}, {})}, {0, 0})[0][0] == 0);
  CHECK(r.run(OpId::prod, {r.tensor({0}, {})}, {0, 0})[0][0] == 1);
}
