// pow and atan2, as each instruction set has them, against the C library in double; alike on all instruction
// sets.
#include "tests/catch.h"
#include "tests/jit/scalar_functions.h"

namespace {

using namespace tandem;
using namespace tandem::jit;
using namespace tandem::test;
using ops::ScalarOp;

TEST_CASE("pow is within 2 ulp, with the C library's special cases", "[scalar]") {
  std::vector<float> x, y;
  const float specials[] = {0,     -0.0f,  1,     -1,     2,    -2,    0.5f, -0.5f,       3,          -3,
                            1e30f, -1e30f, kTiny, -kTiny, kInf, -kInf, kNan, 16777216.0f, 33554431.0f};
  for (const float a : specials)
    for (const float b : specials) x.push_back(a), y.push_back(b);
  uint64_t draw = 1;
  for (int i = 0; i < 400000; ++i) {
    draw = draw * 6364136223846793005u + 1442695040888963407u;
    const auto a = std::bit_cast<float>(static_cast<uint32_t>(draw >> 33));  // positive, all magnitudes
    draw = draw * 6364136223846793005u + 1442695040888963407u;
    const double reach = 105 / std::max(1e-3, std::abs(std::log(static_cast<double>(a))));
    x.push_back(i % 4 == 0 ? -a : a);
    const double b = (static_cast<double>(draw >> 11) * 0x1p-52 - 1) * reach;
    y.push_back(static_cast<float>(i % 4 == 0 ? std::nearbyint(b) : b));
  }
  std::vector<float> z(x.size()), other(x.size());
  const auto n = static_cast<int64_t>(x.size());
  chunk_functions().binary(ScalarOp::pow, DType::float32, 0)(z.data(), x.data(), y.data(), n);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double error = ulp(z[i], std::pow(static_cast<double>(x[i]), static_cast<double>(y[i])));
    if (error > 2) {
      CAPTURE(x[i], y[i], z[i]);
      CHECK(error <= 2);
    }
    worst = std::max(worst, error);
  }
  CHECK(worst <= 1);
  for (const ChunkFunctions* c : runnable()) {
    c->binary(ScalarOp::pow, DType::float32, 0)(other.data(), x.data(), y.data(), n);
    int mismatches = 0;
    for (size_t i = 0; i < x.size(); ++i) mismatches += !same_bits(z[i], other[i]);
    CHECK(mismatches == 0);
  }
}

TEST_CASE("atan2 is within 0.75 ulp in every quadrant, with the C library's special cases", "[scalar]") {
  std::vector<float> y, x;
  const float specials[] = {0,      -0.0f, 1,      -1,   2,     -2,   0.5f,  -0.5f, 1e30f,
                            -1e30f, kTiny, -kTiny, kInf, -kInf, kNan, 3e38f, -3e38f};
  for (const float a : specials)
    for (const float b : specials) y.push_back(a), x.push_back(b);
  uint64_t draw = 1;
  for (int i = 0; i < 200000; ++i) {
    const auto next = [&] {
      draw = draw * 6364136223846793005u + 1442695040888963407u;
      return i % 2 ? std::bit_cast<float>(static_cast<uint32_t>(draw >> 32))
                   : static_cast<float>(static_cast<double>(draw >> 11) * 0x1p-52 - 1);
    };
    y.push_back(next());
    x.push_back(next());
  }
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> first;
  for (const ChunkFunctions* c : runnable()) {
    std::vector<float> z(x.size());
    c->binary(ScalarOp::atan2, DType::float32, 0)(z.data(), y.data(), x.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      CAPTURE(c->name, y[i], x[i], z[i]);
      const double exact = std::atan2(static_cast<double>(y[i]), static_cast<double>(x[i]));
      if (std::fpclassify(static_cast<float>(exact)) == FP_SUBNORMAL || !(ulp(z[i], exact) <= 0.75))
        REQUIRE(ulp(z[i], exact) <= 1);
    }
    if (first.empty()) first = z;
    int mismatches = 0;
    for (size_t i = 0; i < x.size(); ++i) mismatches += !same_bits(z[i], first[i]);
    CHECK(mismatches == 0);
  }
}

}  // namespace
