// Convolutions of programs on a CUDA device: cuDNN takes them, with and without a bias, eagerly and in a
// traced segment's graph, and results are the CPU's but for the order of sums.
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

long convolutions() { return simulator().there ? simulator().sim_gpu_count("convolutions") : 0; }

/// Multiples of 1/8: sums are exact in every order.
Tensor numbers(const td::Dims& sizes, td::Device device) {
  Tensor t = td::randint(-16, 17, sizes, {.dtype = td::float32}) * 0.125f;
  return t.to(device);
}

std::vector<Tensor> outcome(td::Device device) {
  td::manual_seed(4);
  const Tensor x = numbers({2, 4, 7, 6}, device).requires_grad_(),
               w = numbers({6, 2, 3, 2}, device).requires_grad_(), b = numbers({6}, device).requires_grad_();
  const Tensor y = td::conv2d(x, w, b, {2, 1}, {1, 1}, {1, 2}, 2);
  (y * y).sum().backward();
  const Tensor line = td::conv1d(x.detach().select(2, 0), w.detach().select(3, 0), Tensor(), 1, 1, 1, 2);
  return {y.detach(), x.grad(), w.grad(), b.grad(), line};
}

}  // namespace

TEST_CASE("cuda convolutions: forward and both gradients by cuDNN equal the CPU's", "[cuda]") {
  need_device();
  const long before = convolutions();
  const std::vector<Tensor> here = outcome(td::cpu), there = outcome(kCuda);
  if (simulator().there) CHECK(convolutions() == before + 4);
  for (size_t i = 0; i < here.size(); ++i) {
    CAPTURE(i);
    CHECK(bits_of(here[i]) == bits_of(there[i]));
  }
}

TEST_CASE("cuda convolutions: halves with a bias go to cuDNN and are rounded once", "[cuda]") {
  need_device();
  for (const td::DType type : {td::float16, td::bfloat16}) {
    td::manual_seed(6);
    const Tensor x = numbers({2, 16, 7, 6}, td::cpu).to(type), w = numbers({6, 16, 3, 3}, td::cpu).to(type),
                 b = numbers({6}, td::cpu).to(type), y = numbers({2, 6, 7, 6}, td::cpu).to(type),
                 back = numbers({16}, td::cpu).to(type);
    const auto both = [&](td::Device on) {
      return std::vector<Tensor>{td::conv2d(x.to(on), w.to(on), b.to(on), 1, 1),
                                 td::conv_transpose2d(y.to(on), w.to(on), back.to(on), 1, 1)};
    };
    const long before = convolutions();
    const std::vector<Tensor> here = both(td::cpu), there = both(kCuda);
    if (simulator().there) CHECK(convolutions() == before + 2);
    for (size_t i = 0; i < here.size(); ++i) {
      CAPTURE(i, td::name(type));
      CHECK(bits_of(here[i]) == bits_of(there[i]));
    }
  }
}

TEST_CASE("cuda convolutions: a float's bias is added by the kernel behind", "[cuda]") {
  need_device();
  for (const td::DType type : {td::float32, td::float64}) {
    CAPTURE(td::name(type));
    td::manual_seed(7);
    const auto made = [&](const td::Dims& sizes) { return td::randn(sizes).to(type).to(kCuda); };
    const Tensor x = made({2, 4, 7, 6}), w = made({6, 4, 3, 3}), b = made({6}), y = made({2, 6, 7, 6}),
                 back = made({4}), line = made({2, 4, 9}), taps = made({6, 4, 3});
    const auto all = [&](bool apart) {
      const auto added = [&](const Tensor& sums, const Tensor& bias, int64_t rank) {
        return sums + bias.reshape(rank == 3 ? td::Dims{-1, 1} : td::Dims{-1, 1, 1});
      };
      const Tensor none;
      return std::vector<Tensor>{
          td::relu(apart ? added(td::conv2d(x, w, none, 1, 1), b, 4) : td::conv2d(x, w, b, 1, 1)),
          td::relu(apart ? added(td::conv_transpose2d(y, w, none, 1, 1), back, 4)
                         : td::conv_transpose2d(y, w, back, 1, 1)),
          td::relu(apart ? added(td::conv1d(line, taps, none), b, 3) : td::conv1d(line, taps, b))};
    };
    const bool taken = type == td::float32;  // by cuDNN; our own kernels add the bias themselves
    const long before = convolutions();
    const std::vector<Tensor> eager = all(false);
    if (simulator().there) CHECK(convolutions() == before + (taken ? 3 : 0));
    const std::vector<Tensor> apart = all(true);
    auto step = td::trace([&] { return all(false); });
    std::vector<Tensor> traced;
    for (int i = 0; i < 3; ++i) traced = step();
    for (size_t i = 0; i < eager.size(); ++i) {
      CAPTURE(i);
      CHECK(bits_of(eager[i]) == bits_of(apart[i]));
      CHECK(bits_of(eager[i]) == bits_of(traced[i]));
    }
    if (!simulator().there) continue;
    const long kernels = simulator().sim_gpu_count("launches");
    step();
    CHECK(simulator().sim_gpu_count("launches") == kernels + (taken ? 3 : 6));
  }
}

TEST_CASE("cuda convolutions: halves that lie channels last are read where they lie", "[cuda]") {
  need_device();
  td::manual_seed(8);
  const Tensor lying = numbers({2, 7, 6, 16}, kCuda).to(td::bfloat16),
               w = numbers({8, 16, 3, 3}, kCuda).to(td::bfloat16), b = numbers({8}, kCuda).to(td::bfloat16),
               line = numbers({2, 9, 16}, kCuda).to(td::float16),
               w1 = numbers({8, 16, 3}, kCuda).to(td::float16),
               flat = numbers({2, 1, 7, 6, 16}, kCuda).to(td::float16),  // a volume of one plane
      w3 = numbers({8, 16, 1, 3, 3}, kCuda).to(td::float16);
  const auto both = [&](bool packed) {
    const auto as = [&](const Tensor& t) { return packed ? t.contiguous() : t; };
    const Tensor x = as(lying.permute({0, 3, 1, 2})), x1 = as(line.permute({0, 2, 1})),
                 x3 = as(flat.permute({0, 4, 1, 2, 3}));
    return std::vector<Tensor>{td::conv2d(x, w, b, 1, 1), td::conv1d(x1, w1), td::conv3d(x3, w3)};
  };
  const std::vector<Tensor> packed = both(true), lain = both(false);
  const std::vector<Tensor> traced = td::trace([&] { return both(false); })();
  for (size_t i = 0; i < packed.size(); ++i) {
    CHECK(bits_of(packed[i]) == bits_of(lain[i]));
    CHECK(bits_of(packed[i]) == bits_of(traced[i]));
    CHECK(lain[i].is_contiguous());
  }
  if (!simulator().there) return;
  both(false);
  const long launches = simulator().sim_gpu_count("launches"), before = convolutions();
  both(false);
  CHECK(convolutions() == before + 3);
  CHECK(simulator().sim_gpu_count("launches") == launches);  // nothing was copied
}

TEST_CASE("cuda convolutions: a traced step is one graph, also when its operands move", "[cuda]") {
  need_device();
  td::manual_seed(5);
  td::nn::Conv2d net(3, 5, 3);
  net.to(kCuda);
  const auto body = [&](const Tensor& x) {
    const Tensor loss = td::square(td::relu(net(x))).sum();
    for (const Tensor& p : net.parameters()) p.zero_grad();
    loss.backward();
    return loss;
  };
  auto step = td::trace(body);
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    kept.push_back(td::rand({2, 3, 8, 8}).to(kCuda));
    const Tensor loss = step(kept.back());
    const std::vector<char> traced = bits_of(loss), grad = bits_of(net.parameters()[0].grad());
    CHECK(bits_of(body(kept.back())) == traced);
    CHECK(bits_of(net.parameters()[0].grad()) == grad);
  }
  const long before = convolutions();
  step(kept[0]);
  if (simulator().there) CHECK(convolutions() <= before + 2);  // the forward and the weight's gradient
}
