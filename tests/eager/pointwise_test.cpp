// Pointwise functions whose formulas are made of several scalar functions, against the C library in double:
// over sweeps, and at the edges exactly. Gradients at edges are those that PyTorch documents or computes.
#include <cmath>
#include <limits>
#include <string_view>

#include "tandem/eager/functions.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Row {
  const char* name;
  Tensor (*function)(const Tensor&, td::Location);
  double (*exact)(double);
  double low, high;
  double units;  // of float32, relative; of float64 the same and 8 more, whose functions are the C library's
};

double worst(const Row& r, td::DType type) {
  constexpr int kPoints = 20000;
  std::vector<double> x;
  for (int i = 0; i <= kPoints; ++i) x.push_back(r.low + (r.high - r.low) * i / kPoints);
  for (const double tiny : {1e-30, -1e-30, 1e-6, -1e-6, 1e-3, -1e-3})
    if (tiny > r.low && tiny < r.high) x.push_back(tiny);
  const Tensor in = td::tensor<double>(x).to(type);
  const std::vector<double> rounded = in.to_vector<double>(),
                            y = r.function(in, td::Location::here()).to_vector<double>();
  const double unit = type == td::float32 ? 0x1p-23 : 0x1p-52,
               least = type == td::float32 ? 0x1p-126 : 0x1p-1000;
  double off = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double wanted = r.exact(rounded[i]);
    off = std::max(off, std::fabs(y[i] - wanted) / (unit * std::max(std::fabs(wanted), least)));
  }
  return off;
}

double logit_exact(double x) { return std::log(x / (1 - x)); }
double mish_exact(double x) { return x * std::tanh(std::log1p(std::exp(x))); }
double erfinv_round_trip(double x) { return x; }
Tensor erf_of_erfinv(const Tensor& x, td::Location where) { return td::erf(td::erfinv(x, where), where); }

}  // namespace

TEST_CASE("pointwise: functions made of several are close to the C library's", "[eager]") {
  const Row rows[] = {
      {"tan", td::tan, std::tan, -1.5, 1.5, 5},
      {"tan", td::tan, std::tan, 100, 101, 5},
      {"asin", td::asin, std::asin, -1, 1, 2},
      {"acos", td::acos, std::acos, -1, 1, 2},
      {"atan", td::atan, std::atan, -30, 30, 1},
      {"sinh", td::sinh, std::sinh, -89, 89, 5},
      {"sinh", td::sinh, std::sinh, -1, 1, 4},
      {"cosh", td::cosh, std::cosh, -89, 89, 4},
      {"asinh", td::asinh, std::asinh, -1e6, 1e6, 4},
      {"asinh", td::asinh, std::asinh, -2, 2, 4},
      {"acosh", td::acosh, std::acosh, 1, 3, 4},
      {"acosh", td::acosh, std::acosh, 3, 1e20, 4},
      {"atanh", td::atanh, std::atanh, -0.999, 0.999, 4},
      {"exp2", td::exp2, std::exp2, -120, 120, 1},
      {"log2", td::log2, std::log2, 0.01, 9, 2},
      {"log10", td::log10, std::log10, 0.01, 1e9, 3},
      {"erfc", td::erfc, std::erfc, -4, 9, 1},
      {"logit", td::logit, logit_exact, 0.01, 0.4, 6},
      {"mish", td::mish, mish_exact, 0.1, 30, 5},
      {"erfinv", erf_of_erfinv, erfinv_round_trip, -0.9, 0.9, 6},
  };
  for (const Row& r : rows) {
    CAPTURE(r.name, r.low, r.high);
    CHECK(worst(r, td::float32) <= r.units);
    CHECK(worst(r, td::float64) <= r.units + 8);
  }
}

TEST_CASE("pointwise: values at edges", "[eager]") {
  using Function = Tensor (*)(const Tensor&, td::Location);
  struct Edge {
    const char* name;
    Function f;
    double x, y;
  };
  const Edge edges[] = {
      {"asin", td::asin, 1, std::asin(1)},
      {"asin", td::asin, 1.5, kNan},
      {"acos", td::acos, -1, std::acos(-1)},
      {"acos", td::acos, 1, 0},
      {"atan", td::atan, kInf, std::atan(kInf)},
      {"sinh", td::sinh, 800, kInf},
      {"sinh", td::sinh, -kInf, -kInf},
      {"cosh", td::cosh, -kInf, kInf},
      {"asinh", td::asinh, -kInf, -kInf},
      {"acosh", td::acosh, 1, 0},
      {"acosh", td::acosh, 0.5, kNan},
      {"acosh", td::acosh, -1e10, kNan},
      {"acosh", td::acosh, kInf, kInf},
      {"atanh", td::atanh, 1, kInf},
      {"atanh", td::atanh, -2, kNan},
      {"log2", td::log2, 1024, 10},
      {"exp2", td::exp2, -3, 0.125},
      {"erfinv", td::erfinv, 1, kInf},
      {"erfinv", td::erfinv, -1, -kInf},
      {"erfinv", td::erfinv, 1.5, kNan},
      {"erfinv", td::erfinv, 0, 0},
      {"logit", td::logit, 1, kInf},
      {"frac", td::frac, -2.25, -0.25},
      {"logsigmoid", td::logsigmoid, -1000, -1000},
      {"logsigmoid", td::logsigmoid, 1000, 0},
      {"hardswish", td::hardswish, -5, 0},
      {"hardswish", td::hardswish, 5, 5},
      {"relu6", td::relu6, 7, 6},
      {"isinf", td::isinf, -kInf, 1},
      {"isposinf", td::isposinf, -kInf, 0},
      {"isneginf", td::isneginf, -kInf, 1},
      {"isfinite", td::isfinite, kNan, 0},
      {"isfinite", td::isfinite, 3, 1},
      {"signbit", td::signbit, -0.0, 1},
      {"mish", td::mish, -1000, 0},
  };
  for (const Edge& e : edges)
    for (const td::DType type : {td::float32, td::float64}) {
      const double y = e.f(td::full({1}, e.x, {.dtype = type}), td::Location::here()).item<double>();
      CAPTURE(e.name, e.x, y, td::name(type));
      CHECK(((std::isnan(y) && std::isnan(e.y)) || y == Approx(e.y).epsilon(1e-6)));
    }
  const auto two = [](Tensor (*f)(const td::Operand&, const td::Operand&), double a, double b) {
    return f(td::full({1}, a), td::full({1}, b)).item<double>();
  };
  CHECK(two(td::hypot, 3e30, 4e30) == Approx(5e30));
  CHECK(two(td::hypot, kNan, -kInf) == kInf);
  CHECK(two(td::hypot, 0, 0) == 0);
  CHECK(two(td::logaddexp, -kInf, -kInf) == -kInf);
  CHECK(two(td::logaddexp, 1000, 1000) == Approx(1000 + std::log(2.0)));
  CHECK(two(td::xlogy, 0, 0) == 0);
  CHECK(std::isnan(two(td::xlogy, 0, kNan)));
  CHECK(two(td::fmod, -7.5, 2) == -1.5);
  CHECK(two(td::fmod, 7.5, -2) == 1.5);
  CHECK(two(td::fmax, kNan, 2) == 2);
  CHECK(two(td::fmin, 2, kNan) == 2);
  CHECK(std::isnan(two(td::fmin, kNan, kNan)));
  CHECK(two(td::heaviside, 0, 0.5) == 0.5);
  CHECK(two(td::heaviside, -1, 0.5) == 0);
  CHECK(std::signbit(two(td::copysign, 3, -0.0)));
  CHECK(two(td::atan2, -0.0, -1) == Approx(-std::atan2(0.0, -1.0)));
  const Tensor i = td::tensor<int64_t>({-7, 7, -7, 7}), j = td::tensor<int64_t>({3, -3, -3, 3});
  CHECK(td::fmod(i, j).to_vector<int64_t>() == std::vector<int64_t>{-1, 1, -1, 1});
  CHECK(td::lerp(td::full({1}, 0.1), td::full({1}, 0.7), 1.0).item<float>() == 0.7f);
}

TEST_CASE("pointwise: a floating exponent makes integers floating, 2 as any other", "[eager]") {
  const Tensor i = td::tensor<int64_t>({-3, 4});
  for (const Tensor& y : {td::pow(i, 2.0), i.pow(2.f), td::pow(td::tensor<bool>({true, false}), 2.0)}) {
    CHECK(y.dtype() == td::float32);
    CHECK(y.to_vector<float>()[1] == (y.to_vector<float>()[0] == 1 ? 0 : 16));
  }
  CHECK(td::pow(i, 2).dtype() == td::int64);
  CHECK(td::pow(i, 2).to_vector<int64_t>() == std::vector<int64_t>{9, 16});
  CHECK(td::pow(td::ones({2}, {.dtype = td::float16}), 2.0).dtype() == td::float16);
}

TEST_CASE("pointwise: bits", "[eager]") {
  using V = std::vector<int64_t>;
  const Tensor a = td::tensor<int64_t>({12, -1, 5}), b = td::tensor<int64_t>({10, 3, -6});
  CHECK((a & b).to_vector<int64_t>() == V{8, 3, 0});
  CHECK((a | b).to_vector<int64_t>() == V{14, -1, -1});
  CHECK((a ^ b).to_vector<int64_t>() == V{6, -4, -1});
  CHECK((~a).to_vector<int64_t>() == V{-13, 0, -6});
  CHECK(td::bitwise_left_shift(a, td::tensor<int64_t>({2, 63, 64})).to_vector<int64_t>() ==
        V{48, INT64_MIN, 0});
  CHECK(td::bitwise_right_shift(a, td::tensor<int64_t>({2, 1, -1})).to_vector<int64_t>() == V{3, -1, 0});
  const Tensor u = td::tensor<uint8_t>({200, 1});
  CHECK((~u).to_vector<int64_t>() == V{55, 254});
  CHECK(td::bitwise_left_shift(u, 1).dtype() == td::uint8);
  CHECK(td::bitwise_left_shift(u, 1).to_vector<int64_t>() == V{144, 2});
  const Tensor yes = td::tensor<bool>({true, true, false}), no = td::tensor<bool>({true, false, false});
  CHECK((yes & no).to_vector<int64_t>() == V{1, 0, 0});
  CHECK((yes ^ ~no).to_vector<int64_t>() == V{1, 0, 1});
}

TEST_CASE("pointwise: softplus, threshold and clamps take their parameters", "[eager]") {
  const Tensor x = td::tensor<double>({-3, 0.5, 9, 11});
  const std::vector<double> y = td::softplus(x, 2).to_vector<double>();
  CHECK(y[1] == Approx(std::log1p(std::exp(1.0)) / 2));
  CHECK(y[3] == 11);  // 2 * 11 exceeds the threshold
  CHECK(td::softplus(x, 1, 5).to_vector<double>()[2] == 9);
  CHECK(td::threshold(x, 0.5, -1).to_vector<double>() == std::vector<double>{-1, -1, 9, 11});
  CHECK(td::hardtanh(x).to_vector<double>() == std::vector<double>{-1, 0.5, 1, 1});
  CHECK(td::softshrink(x).to_vector<double>() == std::vector<double>{-2.5, 0, 8.5, 10.5});
  CHECK(td::hardshrink(x).to_vector<double>() == std::vector<double>{-3, 0, 9, 11});
  CHECK(td::clamp(x, td::full({1}, 0.0), td::full({4}, 10.0)).to_vector<double>() ==
        std::vector<double>{0, 0.5, 9, 10});
  const Tensor whole = td::tensor<int64_t>({-3, 2, 9});
  CHECK(td::clamp(whole, 1.5).dtype() == td::float32);
  CHECK(td::clamp(whole, 1.5).to_vector<float>() == std::vector<float>{1.5, 2, 9});
  CHECK(whole.clamp(-1, 2.5).to_vector<float>() == std::vector<float>{-1, 2, 2.5});
  CHECK(whole.clamp(-1, 2).to_vector<int64_t>() == std::vector<int64_t>{-1, 2, 2});
  CHECK(td::clamp(whole.to(td::float16), 1.5).dtype() == td::float16);
  CHECK_THROWS_WITH(whole.clone().clamp_(1.5), Contains("clamp_: a floating bound") && Contains("int64"));
  CHECK(td::clamp_max(x, 1).to_vector<double>() == std::vector<double>{-3, 0.5, 1, 1});
  CHECK(td::rsub(x, 1, 2).to_vector<double>() == std::vector<double>{7, 0, -17, -21});
  const Tensor odd = td::tensor<float>({NAN, INFINITY, -INFINITY, 2});
  const float most = std::numeric_limits<float>::max();
  CHECK(td::nan_to_num(odd, 7).to_vector<float>() == std::vector<float>{7, most, -most, 2});
  CHECK(td::nan_to_num(odd, 0, 1, -1).to_vector<float>() == std::vector<float>{0, 1, -1, 2});
}

TEST_CASE("pointwise: every function has a form in place", "[eager]") {
  const Tensor number = td::tensor<float>({0.3f, 0.5f, 0.7f}), whole = td::tensor<int64_t>({5, 2, 9}),
               number2 = td::tensor<float>({0.6f, 0.2f, 0.9f}), whole2 = td::tensor<int64_t>({3, 1, 2});
  const auto check = [](const char* name, const Tensor& wanted, const Tensor& changed,
                        const Tensor& returned) {
    INFO(name);
    CHECK(returned.impl() == changed.impl());
    CHECK(td::allclose(changed, wanted.to(changed.dtype()), 0, 0, true));
  };
  const auto bitwise = [](std::string_view name) { return name.starts_with("bitwise"); };
#define TANDEM_POINTWISE1(name, ...)                                          \
  {                                                                           \
    const Tensor x = (bitwise(#name) ? whole : number).clone(), y = x.name(); \
    const Tensor& returned = x.name##_();                                     \
    check(#name, y, x, returned);                                             \
  }
#define TANDEM_POINTWISE2(name, ...)                                                   \
  {                                                                                    \
    const bool bits = bitwise(#name);                                                  \
    const Tensor x = (bits ? whole : number).clone(), other = bits ? whole2 : number2; \
    const Tensor y = x.name(other);                                                    \
    const Tensor& returned = x.name##_(other);                                         \
    check(#name, y, x, returned);                                                      \
  }
#define TANDEM_POINTWISE3(name, ...)
#include "tandem/ops/pointwise.def"
#undef TANDEM_POINTWISE1
#undef TANDEM_POINTWISE2
#undef TANDEM_POINTWISE3
  Tensor x = number.clone();
  CHECK(td::equal(x.lerp_(number2, 0.25), number.lerp(number2, 0.25)));
  CHECK(td::equal(x.addcmul_(number, number2, -2), number.lerp(number2, 0.25).addcmul(number, number2, -2)));
  x = number.clone();
  CHECK(td::equal(x.addcdiv_(number, number2, 3), number.addcdiv(number, number2, 3)));
  CHECK_THROWS_WITH(whole.clone().sqrt_(), Contains("sqrt_: a result of type float32") && Contains("int64"));
  CHECK_THROWS_WITH(number.clone().pow_(td::ones({2, 3})), Contains("pow_: the result of shape (2, 3)"));
}

TEST_CASE("pointwise: sums with a factor", "[eager]") {
  const Tensor a = td::tensor<float>({1, 2, 3}).requires_grad_(),
               b = td::tensor<float>({4, 5, 6}).requires_grad_();
  using Doubles = std::vector<double>;
  CHECK(a.add(b, 2).to_vector<double>() == Doubles{9, 12, 15});
  CHECK(a.sub(b, 0.5).to_vector<double>() == Doubles{-1, -0.5, 0});
  CHECK(td::add(1, a, 2).to_vector<double>() == Doubles{3, 5, 7});
  CHECK(td::sub(1, b, 2).to_vector<double>() == Doubles{-7, -9, -11});
  CHECK(td::rsub(a, b, 3).to_vector<double>() == Doubles{1, -1, -3});
  (a.add(b, 2) * a.sub(b, 0.5)).sum().backward();  // (a + 2 b) (a - b / 2)
  CHECK(a.grad().to_vector<double>() == Doubles{8, 11.5, 15});
  CHECK(b.grad().to_vector<double>() == Doubles{-6.5, -7, -7.5});
  const Tensor p = td::tensor<float>({1, 2, 3});
  CHECK(p.add_(b.detach(), -0.5).to_vector<double>() == Doubles{-1, -0.5, 0});
  CHECK(p.sub_(td::tensor<float>({1}), 2).to_vector<double>() == Doubles{-3, -2.5, -2});
  const Tensor whole = td::tensor<int64_t>({1, 2});
  CHECK(whole.add(whole, 3).to_vector<int64_t>() == std::vector<int64_t>{4, 8});
  CHECK(whole.add(whole, 0.5).dtype() == td::float32);
  CHECK(whole.add_(whole, 3).to_vector<int64_t>() == std::vector<int64_t>{4, 8});
  CHECK_THROWS_WITH(whole.clone().sub_(whole, 0.5), Contains("sub_: a result of type float32"));
}

TEST_CASE("pointwise: gradients at edges", "[eager]") {
  const auto slopes = [](auto f, const std::vector<double>& at) {
    const Tensor x = td::tensor<double>(at).requires_grad_();
    f(x).sum().backward();
    return x.grad().template to_vector<double>();
  };
  using V = std::vector<double>;
  CHECK(slopes([](const Tensor& x) { return td::relu6(x); }, {0, 3, 6}) == V{0, 1, 0});
  CHECK(slopes([](const Tensor& x) { return td::hardtanh(x); }, {-1, 0, 1}) == V{0, 1, 0});
  CHECK(slopes([](const Tensor& x) { return td::hardsigmoid(x); }, {-3, 0, 3}) == V{0, 1.0 / 6, 0});
  CHECK(slopes([](const Tensor& x) { return td::hardswish(x); }, {-3, 0, 3}) == V{0, 0.5, 1});
  CHECK(slopes([](const Tensor& x) { return td::threshold(x, 1, 0); }, {1, 1.5}) == V{0, 1});
  CHECK(slopes([](const Tensor& x) { return td::softshrink(x, 1); }, {-1, 0, 1, 2}) == V{0, 0, 0, 1});
  CHECK(slopes([](const Tensor& x) { return td::softplus(x, 1, 20); }, {-2000, 21, 2000}) == V{0, 1, 1});
  CHECK(slopes([](const Tensor& x) { return td::elu(x); }, {1000, 1}) == V{1, 1});
  CHECK(slopes([](const Tensor& x) { return td::copysign(x, -1.0); }, {0, 2, -3}) == V{0, -1, 1});
  CHECK(slopes([](const Tensor& x) { return td::fmax(x, x.detach()); }, {2}) == V{1});
  CHECK(slopes([](const Tensor& x) { return td::xlogy(x, 2.0); }, {0, 1}) == V{std::log(2.0), std::log(2.0)});
  CHECK(slopes([](const Tensor& x) { return td::xlogy(x, x.detach()); }, {0, 1}) == V{0, 0});
  CHECK(slopes([](const Tensor& x) { return td::xlogy(x, 0.0); }, {0}) == V{0});
  CHECK(slopes([](const Tensor& x) { return td::nan_to_num(x); }, {kNan, kInf, 1}) == V{0, 0, 1});
  CHECK(slopes([](const Tensor& x) { return x.norm(); }, {0, 0}) == V{0, 0});
  CHECK(slopes([](const Tensor& x) { return x.std(); }, {2, 2}) == V{0, 0});
  CHECK(slopes([](const Tensor& x) { return x.norm(3); }, {0, 2}) == V{0, 1});
  CHECK(slopes([](const Tensor& x) { return x.cumprod(0); }, {2, 0, 5}) == V{1, 12, 0});
}
