// What is asked of cuBLASLt, and what is done where it has no answer.
#include "tests/cuda/on_device.h"

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
