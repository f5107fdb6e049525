#include <tandem/tandem.h>

#include <cstdio>

namespace td = tandem;

int main() {
  td::manual_seed(7);
  td::nn::Linear layer(4, 2);
  auto step = td::trace([&](td::Tensor x) { return td::relu(layer(x)).sum(); });
  td::Tensor x = td::ones({3, 4});
  const float eager = td::relu(layer(x)).sum().item<float>();
  const bool equal = step(x).item<float>() == eager && step(x).item<float>() == eager;
  std::printf("%s\n", equal ? "equal" : "different");
  return equal ? 0 : 1;
}
