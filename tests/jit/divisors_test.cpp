// Division of many vectors by one number (td_divisor of jit/prelude_vectors.inc) against `/`, bit for bit: at
// the quotients that lie nearest to the middle between two floats, where rounding goes wrong first, and at
// what the short way leaves to division.
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "tandem/jit/compiler.h"
#include "tandem/jit/kernel.h"
#include "tandem/jit/kernel_cache.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::jit;

namespace {

using Divide = void (*)(float b, const float* x, float* y, int64_t n);

struct Divider {
  std::shared_ptr<const Module> module;
  Divide divide = nullptr;
};

Divider divider() {
  KernelCache::Settings settings;
  settings.compiler = HostCompiler::of_process();
  KernelCache cache(settings);
  std::string error;
  Divider d;
  d.module = cache.get(c_prelude() + R"(
extern "C" void divide(td_f32 b, const td_f32* x, td_f32* y, td_i64 n) {
  const td_divisor d = td_divide_by(b);
  for (td_i64 i = 0; i < n; i += 16) td_store_f32(y + i, td_load_f32(x + i, n - i) / d, n - i);
})",
                       &error);
  CAPTURE(error);
  REQUIRE(d.module != nullptr);
  d.divide = std::bit_cast<Divide>(d.module->symbol("divide"));
  return d;
}

/// Of x / b: the first that differs, if any.
std::string difference(Divide divide, float b, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  divide(b, x.data(), y.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const float want = x[i] / b;
    if (std::bit_cast<uint32_t>(y[i]) == std::bit_cast<uint32_t>(want)) continue;
    char text[120];
    std::snprintf(text, sizeof text, "%a / %a: %a, got %a", static_cast<double>(x[i]), static_cast<double>(b),
                  static_cast<double>(want), static_cast<double>(y[i]));
    return text;
  }
  return "";
}

constexpr int64_t kOne = int64_t{1} << 23;  // mantissas are whole numbers from here to twice as much

/// Mantissas x whose quotient by `b` lies off a middle (2 q + 1) / 2 of 24 bits by up to kNear / b / 2^24 of
/// its size: x 2^s = (2 q + 1) b + d, with s one more where x < b. One solution of a congruence for each d.
void add_near_middles(int64_t b, std::vector<int64_t>& found) {
  constexpr int kNear = 16;
  const int zeros = std::countr_zero(static_cast<uint64_t>(b));
  const auto odd = static_cast<uint32_t>(b >> zeros);
  uint32_t inverse = odd;  // modulo 2^32
  for (int i = 0; i < 5; ++i) inverse *= 2 - odd * inverse;
  for (int s = 24; s <= 25; ++s)
    for (int64_t d = -kNear; d <= kNear; ++d) {
      if (d == 0 || std::countr_zero(static_cast<uint64_t>(d)) != zeros) continue;
      const int64_t modulus = int64_t{1} << (s - zeros);
      const int64_t least = static_cast<uint32_t>(-(d >> zeros)) * inverse & (modulus - 1);
      for (int64_t middle = least + (2 * kOne - least + modulus - 1) / modulus * modulus; middle < 4 * kOne;
           middle += modulus) {
        const int64_t x = (middle * b + d) >> s;
        if (x >= kOne && x < 2 * kOne && (s == 24) == (x >= b)) found.push_back(x);
      }
    }
}

int64_t check_divisors(int64_t step) {
  const Divider d = divider();
  std::mt19937_64 random(1);
  int64_t tried = 0;
  std::string wrong;
  std::vector<int64_t> mantissas;
  std::vector<float> x;
  for (int64_t b = kOne; b < 2 * kOne && wrong.empty(); b += step) {
    mantissas.clear();
    add_near_middles(b, mantissas);
    x.clear();
    const int power = static_cast<int>(random() % 60) - 30, other = static_cast<int>(random() % 140) - 55;
    for (const int64_t m : mantissas)
      x.push_back(std::ldexp(static_cast<float>(random() % 2 ? m : -m), other - 23));
    tried += static_cast<int64_t>(x.size());
    wrong = difference(d.divide, std::ldexp(static_cast<float>(random() % 2 ? b : -b), power - 23), x);
  }
  CHECK(wrong == "");
  return tried;
}

}  // namespace

TEST_CASE("divisions by one number are rounded as each by itself", "[jit]") {
  if (HostCompiler::of_process() == nullptr) return;
  CHECK(check_divisors(211) > 400'000);
}

TEST_CASE("the same of all divisors", "[jit][full]") {
  if (HostCompiler::of_process() == nullptr) return;
  CHECK(check_divisors(1) > 80'000'000);
}

TEST_CASE("what is not among the numbers of the short way is divided", "[jit]") {
  if (HostCompiler::of_process() == nullptr) return;
  const Divider d = divider();
  constexpr float kInf = std::numeric_limits<float>::infinity(),
                  kNan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> values{0,
                            kInf,
                            kNan,
                            std::numeric_limits<float>::denorm_min(),
                            std::numeric_limits<float>::min(),
                            std::numeric_limits<float>::max(),
                            1,
                            3};
  for (int power = -149; power < 128; ++power)
    for (const float m : {1.0f, 1.3333334f, std::nextafter(2.0f, 1.0f)})
      values.push_back(std::ldexp(m, power));
  for (size_t i = values.size(); i-- > 0;) values.push_back(-values[i]);
  std::string wrong;
  for (const float b : values) {
    if (std::isnan(b) || !wrong.empty()) continue;
    wrong = difference(d.divide, b, values);  // vectors of many kinds of lanes
    for (const float x : values)
      if (wrong.empty() && !std::isnan(x)) wrong = difference(d.divide, b, std::vector<float>(16, x));
  }
  CHECK(wrong == "");
}
