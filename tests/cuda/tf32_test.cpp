// TF32: off unless allowed, a property of the product that its gradient, its graph and its trace keep.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

/// One product whose exact sum needs 12 bits of mantissa in an operand: 1 + 2^-12, which TF32 rounds to 1.
const float kFine = 1.0f + 0x1p-12f;
Tensor fine(td::Device device) { return td::full({2, 2}, kFine).to(device); }
Tensor ones(td::Device device) { return td::full({2, 2}, 1.0).to(device); }
float first(const Tensor& t) { return t.select(0, 0).select(0, 0).item<float>(); }

constexpr float kExact = 2.0f + 0x1p-11f;

/// Of a product that may round: the simulated library does, a card's need not.
bool rounded(float x) { return x == 2.0f || (!simulator().there && x == kExact); }
bool rounded(const std::pair<float, float>& both) { return rounded(both.first) && rounded(both.second); }

}  // namespace

TEST_CASE("tf32: off by default, a scope's mode on CUDA, nothing on the CPU", "[cuda]") {
  need_device();
  const auto both = [](td::Device device) {
    const Tensor a = fine(device), b = ones(device);
    return std::pair(first(td::matmul(a, b)), first(td::linear(a, b)));
  };
  CHECK(both(kCuda) == std::pair(kExact, kExact));
  {
    const td::AllowTf32 allow;
    CHECK(rounded(both(kCuda)));
    CHECK(both(td::cpu) == std::pair(kExact, kExact));
    const td::AllowTf32 forbid(false);
    CHECK(both(kCuda) == std::pair(kExact, kExact));
  }
  CHECK(both(kCuda) == std::pair(kExact, kExact));
}

TEST_CASE("tf32: float64, float16 and bfloat16 products are what they were", "[cuda]") {
  need_device();
  for (const td::DType t : {td::float64, td::float16, td::bfloat16}) {
    const Tensor a = td::randn({5, 7}).to(t).to(kCuda), b = td::randn({7, 3}).to(t).to(kCuda);
    const Tensor before = td::matmul(a, b);
    const td::AllowTf32 allow;
    CHECK(bits_of(td::matmul(a, b)) == bits_of(before));
  }
}

TEST_CASE("tf32: a product's gradients are rounded as the product was", "[cuda]") {
  need_device();
  const auto gradient_of_b = [](bool allowed, bool allowed_in_backward) {
    const Tensor a = fine(kCuda);
    Tensor b = ones(kCuda);
    b.requires_grad_();
    const auto product = [&] {
      const td::AllowTf32 mode(allowed);
      return td::matmul(a, b);
    };
    const Tensor y = product();
    const td::AllowTf32 mode(allowed_in_backward);
    y.backward(ones(kCuda));
    return first(b.grad());
  };
  CHECK(gradient_of_b(false, false) == kExact);
  CHECK(gradient_of_b(false, true) == kExact);
  CHECK(rounded(gradient_of_b(true, false)));
  CHECK(rounded(gradient_of_b(true, true)));
}

TEST_CASE("tf32: a trace follows the mode around it and inside it", "[cuda]") {
  need_device();
  bool inner = false;
  auto f = td::trace([&](const Tensor& a, const Tensor& b) {
    const Tensor outside = td::matmul(a, b);
    const td::AllowTf32 mode(inner || td::modes().tf32);
    return std::pair(outside, td::linear(a, b));
  });
  const Tensor a = fine(kCuda), b = ones(kCuda);
  const auto call = [&] {
    const auto [x, y] = f(a, b);
    return std::pair(first(x), first(y));
  };
  for (int round = 0; round < 3; ++round) {
    CHECK(call() == std::pair(kExact, kExact));
    inner = true;
    const auto [outside, inside] = call();
    CHECK(outside == kExact);
    CHECK(rounded(inside));
    inner = false;
    const td::AllowTf32 allow;
    CHECK(rounded(call()));
  }
  CHECK_THAT(f.graph(), Contains("tf32=1"));
}
