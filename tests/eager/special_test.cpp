// Special functions against values computed to 20 digits, in units of the last place, and what they give at
// poles and infinities.
#include <cmath>
#include <limits>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using tandem::test::message;
using td::Tensor;

namespace {

struct Known {
  double x, y;
};
constexpr Known kLgamma[] = {
    {1e-08, 18.420680738180208884},  {0.0625, 2.7396316219462034186},   {0.25, 1.2880225246980774574},
    {0.75, 0.20328095143129537148},  {1.25, -0.098271836421813161464},  {1.75, -0.084401121020485555958},
    {2.5, 0.28468287047291915963},   {3.25, 0.93580193110872535826},    {5.5, 3.9578139676187162939},
    {8.25, 9.0331869196051228533},   {8.75, 10.073151239681239498},     {20.5, 40.83150097453079811},
    {100.25, 360.28455963776423497}, {100000.0, 1051287.7089736568949}, {-0.25, 1.5895753125511859903},
    {-1.5, 0.86004701537648101451},  {-3.75, -1.3172679424463636739},   {-20.125, -40.608285145280576781},
};
constexpr Known kDigamma[] = {
    {1e-08, -100000000.57721564636}, {0.0625, -16.478853490060104367},  {0.25, -4.2274535333762654081},
    {0.75, -1.0858608797864721696},  {1.25, -0.22745353337626540809},   {1.75, 0.24747245354686116371},
    {2.5, 0.70315664064524318723},   {3.25, 1.0169909110681790364},     {5.5, 1.6110931485817511237},
    {8.25, 2.0483845613664946491},   {8.75, 2.1108238207588617263},     {20.5, 2.9958363947076465821},
    {100.25, 4.6026712432747125591}, {100000.0, 11.512920464961895087}, {-0.25, 2.9141391202135278304},
    {-1.5, 0.70315664064524318723},  {-3.75, -1.6923885983113303432},   {-20.125, 10.611077432912593498},
};
constexpr Known kTrigamma[] = {
    {0.0625, 257.50642004291541426},        {0.25, 17.197329154507110739},
    {0.75, 2.5418796476716064984},          {1.25, 1.1973291545071107393},
    {1.75, 0.76410186989382872062},         {2.5, 0.49035775610023486497},
    {3.25, 0.35979829030957987507},         {5.5, 0.19934238698962765913},
    {8.25, 0.12885426288544822197},         {8.75, 0.12106446782642777293},
    {20.5, 0.049989592429960992799},        {100.25, 0.010024978698123366186},
    {100000.0, 0.000010000050000166666667}, {-0.25, 18.541879647671606498},
    {-1.5, 9.3792466449891237539},          {-3.75, 19.504980060599575273},
    {-20.125, 67.345399044730960793},
};
constexpr Known kZeta35[] = {
    {0.25, 128.54695896428434578},    {1.0, 1.1267338673170566464},       {2.5, 0.065171251589659707199},
    {9.75, 0.0015306173022455155488}, {30.0, 0.000084590797675475909313}, {1000.5, 1.2649106029021925283e-8},
};
constexpr Known kI0[] = {
    {0.0, 1.0},
    {0.5, 1.0634833707413235193},
    {3.75, 9.1189458608445666907},
    {10.0, 2815.7166284662544715},
    {19.75, 34140102.060101444318},
    {20.25, 55579102.84093864899},
    {50.0, 2.9325537838493363267e+20},
    {600.0, 6.1463054039368448035e+258},
    {-3.75, 9.1189458608445666907},
};
constexpr Known kI1[] = {
    {0.0, 0.0},
    {0.5, 0.25789430539089631636},
    {3.75, 7.780015229824415865},
    {10.0, 2670.9883037012546543},
    {19.75, 33264251.978947733136},
    {20.25, 54188928.204248739713},
    {50.0, 2.9030785901035567968e+20},
    {600.0, 6.1411813450668919369e+258},
    {-3.75, -7.780015229824415865},
};
constexpr Known kI0e[] = {
    {0.0, 1.0},
    {0.5, 0.64503527044915006811},
    {19.75, 0.090354294141931321326},
    {20.25, 0.089217135162321048578},
    {600.0, 0.016290146656305981691},
    {10000.0, 0.0039894726746047321064},
    {-3.75, 0.21445705123004871846},
};
constexpr Known kI1e[] = {
    {0.0, 0.0},
    {0.5, 0.15642080318487169714},
    {19.75, 0.088036292405513498487},
    {20.25, 0.086985587833898941321},
    {600.0, 0.016276565868339667449},
    {10000.0, 0.0039892731959836622645},
    {-3.75, -0.18296842093089090603},
};
constexpr Known kSinc[] = {
    {0.0, 1.0},
    {0.125, 0.97449535840443264512},
    {0.5, 0.63661977236758134308},
    {1.25, -0.18006326323142121391},
    {-2.75, 0.081846937832464188141},
    {100.375, 0.0029298130893270378158},
};

/// The distance from the number of type T that is next to `exact`, in units of its last place.
template <class T>
double ulps(T got, double exact) {
  const T near = static_cast<T>(exact);
  if (got == near) return 0;
  const double unit =
      static_cast<double>(std::nextafter(std::fabs(near), std::numeric_limits<T>::infinity())) -
      std::fabs(static_cast<double>(near));
  return std::fabs(static_cast<double>(got) - exact) / unit;
}

struct Row {
  const char* name;
  std::span<const Known> known;
  Tensor (*function)(const Tensor&);
  double single, wide;  // ulp allowed in float32 and float64
};

}  // namespace

TEST_CASE("special functions: errors in units of the last place", "[eager]") {
  const Row rows[] = {
      {"lgamma", kLgamma, [](const Tensor& t) { return td::lgamma(t); }, 1, 8},
      {"digamma", kDigamma, [](const Tensor& t) { return td::digamma(t); }, 1, 8},
      {"trigamma", kTrigamma, [](const Tensor& t) { return td::polygamma(1, t); }, 1, 8},
      {"zeta", kZeta35, [](const Tensor& t) { return td::zeta(3.5, t); }, 1, 8},
      {"i0", kI0, [](const Tensor& t) { return td::i0(t); }, 1, 8},
      {"i1", kI1, [](const Tensor& t) { return td::i1(t); }, 1, 8},
      {"i0e", kI0e, [](const Tensor& t) { return td::i0e(t); }, 1, 8},
      {"i1e", kI1e, [](const Tensor& t) { return td::i1e(t); }, 1, 8},
      {"sinc", kSinc, [](const Tensor& t) { return td::sinc(t); }, 4, 4},
  };
  for (const Row& row : rows)
    for (const Known& k : row.known) {
      INFO(row.name << "(" << k.x << ")");
      const double wide = row.function(td::full({}, k.x, {.dtype = td::float64})).item<double>();
      CHECK(ulps(wide, k.y) <= row.wide);
      if (static_cast<double>(static_cast<float>(k.x)) != k.x || std::fabs(k.y) > 3e38) continue;
      CHECK(ulps(row.function(td::full({}, k.x)).item<float>(), k.y) <= row.single);
    }
}

TEST_CASE("special functions: lgamma is the C library's, near its zeros to 2e-15", "[eager]") {
  const Tensor x = td::linspace(-9.97, 40, 2311, {.dtype = td::float64});
  const std::vector<double> at = x.to_vector<double>(), found = td::lgamma(x).to_vector<double>();
  double worst = 0, worst_near = 0;
  for (size_t i = 0; i < at.size(); ++i) {
    const auto exact = static_cast<double>(lgammal(static_cast<long double>(at[i])));
    const double error = std::fabs(found[i] - exact);
    if (at[i] > 0) worst = std::max(worst, error / std::max(std::fabs(exact), 1e-3));
    worst_near = std::max(worst_near, error / std::max(std::fabs(exact), 1.0));
  }
  CHECK(worst < 4e-15);
  CHECK(worst_near < 2e-14);
}

TEST_CASE("special functions at poles, infinities and NaN", "[eager]") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto at = [](Tensor (*f)(const Tensor&), double x) {
    return f(td::full({}, x, {.dtype = td::float64})).item<double>();
  };
  const auto lgamma = [](const Tensor& t) { return td::lgamma(t); };
  const auto digamma = [](const Tensor& t) { return td::digamma(t); };
  const auto trigamma = [](const Tensor& t) { return td::polygamma(1, t); };
  const auto i0 = [](const Tensor& t) { return td::i0(t); };
  for (const double pole : {0.0, -1.0, -7.0, inf, -inf}) CHECK(at(lgamma, pole) == inf);
  CHECK(at(lgamma, 1) == 0);
  CHECK(at(lgamma, 2) == 0);
  CHECK(at(lgamma, 1e300) == Approx(std::lgamma(1e300)).epsilon(1e-14));
  CHECK(at(digamma, 0.0) == -inf);
  CHECK(at(digamma, -0.0) == inf);
  CHECK(std::isnan(at(digamma, -3)));
  CHECK(at(digamma, inf) == inf);
  CHECK(at(trigamma, 0) == inf);
  CHECK(at(trigamma, -2) == inf);
  CHECK(at(i0, -inf) == inf);
  CHECK(at(i0, 712) == Approx(std::cyl_bessel_i(0, 712)).epsilon(1e-12));
  for (const auto f : {+lgamma, +digamma, +trigamma, +i0}) CHECK(std::isnan(at(f, std::nan(""))));
  CHECK(td::zeta(1.0, td::ones({})).item<float>() == inf);
  CHECK(std::isnan(td::zeta(0.5, td::ones({})).item<float>()));
  CHECK(td::zeta(3.0, td::zeros({})).item<float>() == inf);
  CHECK(td::sinc(td::zeros({})).item<float>() == 1);
  CHECK(td::special::log_ndtr(td::full({}, -30.0)).item<float>() == Approx(-454.3212439));
  CHECK(td::lgamma(td::full({}, 5, {.dtype = td::int64})).dtype() == td::float32);
}

// PyTorch's values and slopes.
TEST_CASE("xlog1py where the first operand is 0", "[eager]") {
  const auto run = [](double a, double b) {
    const Tensor x = td::full({}, a, {.dtype = td::float64}).requires_grad_();
    const Tensor y = td::special::xlog1py(x, td::full({}, b, {.dtype = td::float64}));
    y.backward();
    return std::pair(y.item<double>(), x.grad().item<double>());
  };
  constexpr double inf = std::numeric_limits<double>::infinity();
  CHECK(run(0, 0.5) == std::pair(0.0, std::log1p(0.5)));
  CHECK(run(0, -1) == std::pair(0.0, 0.0));
  CHECK(run(0, -2) == std::pair(0.0, 0.0));
  CHECK(run(0, inf).first == 0);
  CHECK(std::isnan(run(0, std::nan("")).first));
  CHECK(run(2, 0) == std::pair(0.0, 0.0));
  CHECK(run(1, -1) == std::pair(-inf, -inf));
}

// PyTorch's values and slopes, its slope NaN below 0 among them.
TEST_CASE("entr at 0, beside it and below it", "[eager]") {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const Tensor x =
      td::tensor(std::vector<double>{0, -0.0, 0.25, 1, std::numeric_limits<double>::denorm_min(), -1})
          .requires_grad_();
  const Tensor y = td::special::entr(x);
  const Tensor slope = td::autograd::grad(std::vector{y.sum()}, std::vector{x}, {}, true, true)[0];
  const std::vector<double> values = y.to_vector<double>(), slopes = slope.to_vector<double>();
  CHECK(values[0] == 0);
  CHECK(values[1] == 0);
  CHECK(values[2] == Approx(0.25 * std::log(4.0)));
  CHECK(values[3] == 0);
  CHECK(values[5] == -inf);
  CHECK(slopes[0] == inf);
  CHECK(slopes[1] == inf);
  CHECK(slopes[2] == Approx(std::log(4.0) - 1));
  CHECK(slopes[3] == -1);
  CHECK(slopes[4] == Approx(1074 * std::log(2.0) - 1));
  CHECK(std::isnan(slopes[5]));
  slope[2].backward();
  CHECK(x.grad()[2].item<double>() == Approx(-4));
}

TEST_CASE("special functions: what is refused", "[eager]") {
  CHECK_THAT(message([] { td::polygamma(-1, td::ones({2})); }), Contains("n must not be negative, found -1"));
  CHECK_THAT(message([] { td::mvlgamma(td::ones({2}), 0); }), Contains("p must be at least 1, found 0"));
  const Tensor s = td::full({2}, 3.0).requires_grad_();
  CHECK_THAT(message([&] { td::zeta(s, td::ones({2})).sum().backward(); }),
             Contains("zeta: there is no gradient with respect to the first operand"));
}
