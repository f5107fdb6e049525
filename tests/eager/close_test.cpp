// Equality and closeness of tensors: values of PyTorch's documentation of isclose, allclose and equal, and
// its rules for infinities, NaN, integers and broadcasting.
#include <limits>

#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using namespace tandem::test;
namespace td = tandem;

namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity(),
                kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<bool> close(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8,
                        bool nan = false) {
  std::vector<bool> out;
  for (const auto v : td::isclose(a, b, rtol, atol, nan).to(td::int64).to_vector<int64_t>())
    out.push_back(v != 0);
  return out;
}
}  // namespace

TEST_CASE("isclose: relative to the second operand, absolute near zero", "[eager]") {
  using Bools = std::vector<bool>;
  CHECK(close(td::tensor({1.f, 2.f, 3.f}), td::tensor({1.f + 1e-10f, 3.f, 4.f})) ==
        Bools{true, false, false});
  CHECK(close(td::tensor({kInfinity, 4.f}), td::tensor({kInfinity, 6.f}), 0.5) == Bools{true, true});
  CHECK(close(td::tensor({kInfinity, 1.f, -kInfinity}), td::tensor({1.f, kInfinity, kInfinity})) ==
        Bools{false, false, false});
  CHECK(close(td::tensor({10.f}), td::tensor({8.f}), 0.24) == Bools{false});
  CHECK(close(td::tensor({8.f}), td::tensor({10.f}), 0.24) == Bools{true});
  CHECK(close(td::tensor({kNaN, kNaN}), td::tensor({kNaN, 1.f})) == Bools{false, false});
  CHECK(close(td::tensor({kNaN, kNaN}), td::tensor({kNaN, 1.f}), 1e-5, 1e-8, true) == Bools{true, false});
  CHECK(close(td::tensor({0.f, 0.f}), td::tensor({1e-9f, 1e-7f})) == Bools{true, false});
  CHECK(close(td::tensor({1.f, 2.f}), td::tensor({1.f}), 0, 0) == Bools{true, false});
  const int64_t large = (int64_t{1} << 53) + 1;
  CHECK(close(td::tensor({large, int64_t{5}}), td::tensor({large - 1, int64_t{6}})) == Bools{true, false});
}

TEST_CASE("allclose and equal read one answer", "[eager]") {
  const Tensor a = td::tensor({1.f, 2.f}), b = td::tensor({1.f, 2.00001f});
  CHECK(td::allclose(a, b));
  CHECK_FALSE(td::allclose(a, b, 0, 1e-8));
  CHECK(td::equal(a, a.clone()));
  CHECK_FALSE(td::equal(a, b));
  CHECK_FALSE(td::equal(a, td::tensor({1.f, 2.f, 3.f})));
  CHECK_FALSE(td::equal(td::tensor({kNaN}), td::tensor({kNaN})));
  CHECK(td::equal(td::zeros({0, 3}), td::ones({0, 3})));
  CHECK(td::allclose(td::zeros({0}), td::ones({0})));
}

TEST_CASE("isclose: bad operands are told", "[eager]") {
  const Tensor a = td::ones({2});
  CHECK_THAT(message([&] { td::isclose(a, td::ones({2}, {.dtype = td::float64})); }),
             Contains("float32 and float64"));
  CHECK_THAT(message([&] { td::equal(a, td::ones({2}, {.dtype = td::int64})); }),
             Contains("equal: operands of one"));
  CHECK_THAT(message([&] { td::allclose(a, a, -1); }), Contains("tolerances must not be negative"));
  CHECK_THAT(message([&] { td::allclose(a, td::ones({3})); }), Contains("(3,)"));
}
