// What is asked of cuBLASLt, and what is done where it has no answer.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"
#include "tests/log_capture.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

Tensor halves(const std::vector<float>& values, const td::Dims& sizes, td::DType type) {
  return td::tensor(std::span<const float>(values), sizes).to(type).to(kCuda);
}

}  // namespace

// 1 + u + u of a half's least places: in float32 exact, and a half; in parts that are halves, 1.
TEST_CASE("cuda products: halves are summed in float32, parts of a sum, too", "[cuda]") {
  need_device();
  for (const auto& [type, unit] : {std::pair(td::float16, 0x1p-11f), std::pair(td::bfloat16, 0x1p-8f)}) {
    const Tensor a = halves({1, unit, unit, 0}, {1, 4}, type), b = halves({1, 1, 1, 1}, {4, 1}, type);
    CHECK(td::matmul(a, b).to(td::float32).item<float>() == 1 + 2 * unit);
    const Tensor bias = halves({0}, {1}, type);
    CHECK(td::linear(a, b.t(), bias).to(td::float32).item<float>() == 1 + 2 * unit);
  }
  // Parts beyond float16's largest number.
  const Tensor a = halves({60000, 60000, -60000, -60000, 1}, {1, 5}, td::float16);
  CHECK(td::matmul(a, halves({1, 1, 1, 1, 1}, {5, 1}, td::float16)).to(td::float32).item<float>() == 1);
}

namespace {

/// What cuBLASLt finds algorithms for, while this lives (control.h).
struct Offered {
  explicit Offered(int products) { simulator().sim_gpu_set_products(products); }
  ~Offered() { simulator().sim_gpu_set_products(2); }
};

/// A product with a bias of a size that nothing else here has, its operand and its bias so many elements
/// behind aligned memory: eagerly and as a traced call's second run; against float64's. How many the library
/// made.
int products_of(int64_t m, int64_t skew, int64_t bias_skew = 0) {
  constexpr int64_t k = 24, n = 40;
  const Tensor x = td::randn({m * k + skew}), w = td::randn({n, k}), more = td::randn({n + bias_skew});
  const Tensor b = more.slice(0, bias_skew, bias_skew + n);
  const Tensor whole = x.to(kCuda), weight = w.to(kCuda),
               bias = more.to(kCuda).slice(0, bias_skew, bias_skew + n);
  const auto part = [&](const Tensor& t) { return t.slice(0, skew, skew + m * k).view({m, k}); };
  const long before = simulator().sim_gpu_count("products");
  const Tensor eager = td::linear(part(whole), weight, bias).to(td::cpu);
  auto traced =
      td::trace([&](const Tensor& t) { return td::linear(td::relu(part(t)) * 0.f + part(t), weight, bias); });
  auto direct = td::trace([&](const Tensor& t) { return td::linear(part(t), weight, bias); });
  for (int i = 0; i < 3; ++i) traced(whole), direct(whole);
  const long made = simulator().sim_gpu_count("products") - before;
  const Tensor expected =
      td::linear(part(x).to(td::float64), w.to(td::float64), b.to(td::float64)).to(td::float32);
  for (const Tensor& y : {eager, traced(whole).to(td::cpu), direct(whole).to(td::cpu)})
    CHECK(((y - expected) * (y - expected)).sum().item<float>() < 1e-6f);
  CHECK(bits_of(direct(whole)) == bits_of(eager));
  return static_cast<int>(made);
}

}  // namespace

TEST_CASE("cuda products: aligned memory keeps the library where other memory has no algorithm", "[cuda]") {
  need_device();
  if (!simulator().there) return;  // a card has what it has
  const Offered aligned(1);
  const LogCapture log;
  const int all = products_of(101, 0);
  CHECK(all > 0);
  CHECK(products_of(101, 1) < all);  // only where the program's copies are aligned
  CHECK(log.warnings().empty());
}

TEST_CASE("cuda products: a bias that is not aligned has an algorithm of its own", "[cuda]") {
  need_device();
  for (const int64_t skew : {0, 1, 2}) products_of(105, skew, 1);
  products_of(105, 0, 2);
}

TEST_CASE("cuda products: shapes that the library does not take are told once, and multiplied", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  for (const int offered : {0, -1}) {
    const Offered none(offered);
    const LogCapture log;
    CHECK(products_of(103 - offered, 0) == 0);
    CHECK(products_of(103 - offered, 1) == 0);
    REQUIRE(log.warnings().size() == 1);
    CHECK_THAT(log.warnings()[0], Contains("(103, 24) x (24, 40)") || Contains("(104, 24) x (24, 40)"));
    CHECK_THAT(log.warnings()[0], Contains(offered < 0 ? "status 7" : "status 15"));
  }
}

// Some of the library's kernels have a grid of so many matrices at most, and say so when they run.
TEST_CASE("cuda products: batches of more than 65,535 matrices are several calls", "[cuda]") {
  need_device();
  for (const int64_t batch : {65535, 65536, 70001})
    for (const int64_t skew : {0, 1}) {
      const Tensor a = td::randn({batch * 6 + skew}), b = td::randn({batch, 3, 2});
      const Tensor on_card = a.to(kCuda), other = b.to(kCuda);
      const auto part = [&](const Tensor& t) {
        return t.slice(0, skew, skew + batch * 6).view({batch, 2, 3});
      };
      const Tensor expected = td::matmul(part(a), b);
      auto traced = td::trace([&](const Tensor& t) { return td::matmul(part(t), other); });
      const Tensor eager = td::matmul(part(on_card), other);
      for (int i = 0; i < 3; ++i) CHECK(bits_of(traced(on_card)) == bits_of(eager));
      CHECK(td::allclose(eager.to(td::cpu), expected, 1e-5, 1e-6));
      CHECK(td::allclose(td::matmul(other.transpose(1, 2), part(on_card).transpose(1, 2)).to(td::cpu),
                         expected.transpose(1, 2), 1e-5, 1e-6));
    }
}
