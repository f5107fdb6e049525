// The examples of docs/extending.md: a pointwise op of one's own, a function with a gradient of its own, a
// kernel given as CUDA text with its C++ twin, and memory shared with another library by DLPack. Each runs
// eagerly and traced, and is compared with the same written in Tandem's own functions.
#include <tandem/tandem.h>

#include <cmath>
#include <cstdio>

#include "samples/cli.h"

namespace td = tandem;

namespace {

const auto swish = td::pointwise("swish", [](auto x, auto beta) { return x * td::sigmoid(x * beta); });

struct Clipped : td::autograd::Function<Clipped> {
  static td::Tensor forward(td::autograd::Context& c, const td::Tensor& x, double limit) {
    c.save_for_backward({x});
    c.saved_data["limit"] = limit;
    return td::clamp(x, -limit, limit);
  }
  static td::TensorList backward(td::autograd::Context& c, const td::TensorList& grads) {
    const auto limit = std::any_cast<double>(c.saved_data.at("limit"));
    const td::Tensor& x = c.saved()[0];
    const td::Tensor passes = (td::abs(x) <= limit) | (x * grads[0] > 0);  // inside, or leading back
    return {grads[0] * passes.to(td::float32), td::Tensor()};              // none for the number
  }
};

const td::Kernel& scale_rows() {
  static const td::Kernel kernel({
      .name = "scale_rows",
      .inputs = {"x", "w"},  // x (N, D), w (N)
      .outputs = {"y"},
      .cuda = "y[thread] = x[thread] * w[thread / x_sizes[1]];",
      .cpu =
          [](const td::KernelCall& k) {
            const int64_t columns = k.in_sizes(0)[1], n = columns * k.in_sizes(0)[0];
            for (int64_t i = 0; i < n; ++i)
              k.output<float>()[i] = k.input<float>(0)[i] * k.input<float>(1)[i / columns];
          },
  });
  return kernel;
}

struct ScaleRows : td::autograd::Function<ScaleRows> {
  static td::Tensor forward(td::autograd::Context& c, const td::Tensor& x, const td::Tensor& w) {
    c.save_for_backward({x, w});
    return scale_rows()(x, w);
  }
  static td::TensorList backward(td::autograd::Context& c, const td::TensorList& grads) {
    const td::Tensor &g = grads[0], &x = c.saved()[0], &w = c.saved()[1];
    return {scale_rows()(g, w), (g * x).sum({1})};
  }
};

bool right = true;

void compare(const char* what, const td::Tensor& own, const td::Tensor& known) {
  const double apart = (own.detach() - known.detach()).abs().amax().item<double>();
  right = right && apart < 1e-5;
  std::printf("%-44s largest difference %g\n", what, apart);
}

}  // namespace

int main(int argc, char** argv) {
  samples::Options options(argc, argv, "Runs ops of this program's own, eagerly and traced.");
  const td::Device device = td::parse_device(options.text("device", "cpu", "where to run: cpu or cuda"));
  options.done();

  const td::Tensor x = td::arange(-6.f, 6, 1, {.device = device}).reshape({4, 3});
  td::Tensor w = td::tensor({1.f, -2.f, 0.5f, 3.f}).to(device).requires_grad_();

  double beta = 1;
  auto activation = td::trace([&](td::Tensor t) { return swish(t + 1, beta); });
  for (; beta < 3; ++beta) {
    compare("swish, eager", swish(x, beta), x * td::sigmoid(x * beta));
    compare("swish, traced, another number each time", activation(x), swish(x + 1, beta));
  }

  const auto gradient = [&](auto f) {
    w.zero_grad();
    f(x * w.unsqueeze(1)).square().sum().backward();
    return w.grad().clone();
  };
  const auto clipped = [](const td::Tensor& t) { return Clipped::apply(t, 100.0); };
  compare("a gradient of its own, where nothing is clipped", gradient(clipped),
          gradient([](const td::Tensor& t) { return t; }));

  auto step = td::trace([&](td::Tensor t) {
    const td::Tensor y = ScaleRows::apply(t, w);
    w.zero_grad();
    y.square().sum().backward();
    return y.detach();
  });
  for (int i = 0; i < 3; ++i) compare("a kernel, traced", step(x), x * w.unsqueeze(1));
  const td::Tensor kernel_gradient = w.grad().clone();
  w.zero_grad();
  (x * w.unsqueeze(1)).square().sum().backward();
  compare("its gradient", kernel_gradient, w.grad());

  td::dlpack::ManagedTensorVersioned* shared = td::to_dlpack(x);  // another library would take this
  const td::Tensor same = td::from_dlpack(shared);
  same.add_(1);
  compare("shared memory", same, x);
  std::puts(right ? "all as expected" : "something differs");
  return right ? 0 : 1;
}
