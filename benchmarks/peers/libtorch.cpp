// The same work in LibTorch's C++ API, a block a process: prints microseconds per call.
#include <torch/torch.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace {

template <class F>
double time_us(int calls, F&& f) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) f();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count() / calls;
}

template <class F>
void block(int warm, int calls, F&& f) {
  time_us(warm, f);
  std::printf("%f\n", time_us(calls, f));
}

void mlp() {
  torch::nn::Sequential net(torch::nn::Linear(64, 256), torch::nn::ReLU(), torch::nn::Linear(256, 128),
                            torch::nn::ReLU(), torch::nn::Linear(128, 10));
  torch::optim::AdamW opt(net->parameters(), torch::optim::AdamWOptions(1e-7));
  const auto x = torch::rand({64, 64});
  const auto y = torch::randint(0, 10, {64}, torch::kLong);
  block(100, 300, [&] {
    auto loss = torch::nn::functional::cross_entropy(net->forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
  });
}

}  // namespace

int main(int argc, char** argv) {
  torch::set_num_threads(1);
  const std::string what = argc > 1 ? argv[1] : "";
  const auto a = torch::rand({4}), b = torch::rand({4});
  const auto g = torch::rand({4}).requires_grad_();
  if (what == "mlp")
    mlp();
  else if (what == "add")
    block(20000, 100000, [&] { a + b; });
  else if (what == "add_grad")
    block(20000, 100000, [&] { g + b; });
  else
    return 2;
}
