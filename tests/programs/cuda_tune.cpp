// A product on the device, eagerly, traced, and traced into another order of axes: prints a word of their
// bits, whether these are equal, and how many products cuBLASLt was asked for. For tests that set how its
// algorithms are chosen.
#include <bit>
#include <cstdio>

#include "tandem/tandem.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;

int main() try {
  const td::Device device{td::DeviceType::cuda};
  td::manual_seed(5);
  const td::Tensor x = td::randn({2, 16, 96}).to(device), w = td::randn({2, 96, 32}).to(device);
  const auto product = [](const td::Tensor& a, const td::Tensor& b) { return td::matmul(a, b); };
  const auto turned = [](const td::Tensor& a, const td::Tensor& b) {
    const td::Tensor rows = td::matmul(a, b).permute({1, 0, 2}).contiguous();
    return td::matmul(rows.reshape({16, 64}), b.reshape({96, 64}).t());
  };
  const long before = td::test::simulator().sim_gpu_count("products");
  const td::Tensor eager = product(x, w);
  auto step = td::trace(product);
  const td::Tensor traced = step(x, w);
  auto other = td::trace(turned);
  const td::Tensor eager_other = turned(x, w), traced_other = other(x, w);
  const long products = td::test::simulator().sim_gpu_count("products") - before;
  const auto bits = eager.to_vector<float>();
  uint32_t word = 0;
  for (const float v : bits) word = word * 31 + std::bit_cast<uint32_t>(v);
  const bool equal =
      bits == traced.to_vector<float>() && eager_other.to_vector<float>() == traced_other.to_vector<float>();
  std::printf("%08x %s %ld\n", word, equal ? "equal" : "DIFFERENT", products);
  return 0;
} catch (const std::exception& e) {
  std::printf("%s\n", e.what());
  return 1;
}
