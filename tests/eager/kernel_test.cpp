// A program's own kernels on the CPU: the twin, its operands, types, errors. tests/cuda has their text.
#include "tandem/eager/kernel.h"

#include "tandem/eager/autograd_function.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::KernelCall;
using td::Tensor;
using td::TensorType;
using td::test::message;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

void scale_rows(const KernelCall& k) {
  const auto *x = k.input<float>(0), *w = k.input<float>(1);
  const int64_t columns = k.in_sizes(0)[1], n = k.in_sizes(0)[0] * columns;
  for (int64_t i = 0; i < n; ++i) k.output<float>()[i] = x[i] * w[i / columns];
}

td::KernelDef scale_rows_def() {
  return {
      .name = "scale_rows",
      .inputs = {"x", "w"},
      .outputs = {"y"},
      .cpu = scale_rows,
      .infer = [](std::span<const TensorType> in) {
        if (in[0].sizes.rank() != 2 || in[1].sizes.rank() != 1 || in[0].sizes[0] != in[1].sizes[0])
          td::fail("x (N, D) and w (N) are needed, found " + to_string(in[0]) + " and " + to_string(in[1]));
        return std::vector<TensorType>{in[0]};
      }};
}

}  // namespace

TEST_CASE("kernel: the twin gets contiguous operands and sizes", "[eager]") {
  const td::Kernel k(scale_rows_def());
  const Tensor x = td::arange(0.f, 6).reshape({3, 2}).transpose(0, 1),
               w = td::arange(1.f, 5).index({td::Slice{0, 4, 2}});
  const Tensor y = k(x, w);
  CHECK(y.sizes() == td::Dims{2, 3});
  CHECK(values(y) == values(x * w.unsqueeze(1)));
  CHECK(k(td::zeros({0, 3}), td::zeros({0})).sizes() == td::Dims{0, 3});
}

TEST_CASE("kernel: numbers, several results, types that infer gives", "[eager]") {
  const td::Kernel split({.name = "split",
                          .inputs = {"x", "limit"},
                          .outputs = {"low", "high", "which"},
                          .cpu =
                              [](const KernelCall& k) {
                                const auto* x = k.input<float>();
                                const double limit = *k.input<double>(1);
                                for (int64_t i = 0; i < k.in_sizes()[0]; ++i) {
                                  k.output<float>(0)[i] = std::min(x[i], static_cast<float>(limit));
                                  k.output<double>(1)[i] = std::max<double>(x[i], limit);
                                  k.output<bool>(2)[i] = x[i] > limit;
                                }
                              },
                          .infer =
                              [](std::span<const TensorType> in) {
                                std::vector<TensorType> out(3, in[0]);
                                out[1].dtype = td::float64;
                                out[2].dtype = td::bool_;
                                return out;
                              }});
  const Tensor x = td::tensor({1.f, 3.f, 2.f});
  const td::TensorList out = split.call({x, td::scalar_tensor(1.5)});
  CHECK(values(out[0]) == std::vector<double>{1, 1.5, 1.5});
  CHECK(out[1].dtype() == td::float64);
  CHECK(values(out[1]) == std::vector<double>{1.5, 3, 2});
  CHECK(values(out[2]) == std::vector<double>{0, 1, 1});
  CHECK_THAT(message([&] { split(x, 1.5); }), Contains("split: it has 3 results; use call({...})"));

  const td::Kernel power(
      {.name = "power", .inputs = {"x", "n"}, .outputs = {"y"}, .cpu = [](const KernelCall& k) {
         for (int64_t i = 0; i < k.in_sizes()[0]; ++i) {
           double p = 1;
           for (int64_t j = 0; j < *k.input<int64_t>(1); ++j) p *= k.input<float>()[i];
           k.output<float>()[i] = static_cast<float>(p);
         }
       }});
  CHECK(values(power(x, 3)) == std::vector<double>{1, 27, 8});
}

TEST_CASE("kernel: an integer arrives exactly", "[eager]") {
  const td::Kernel second({.name = "second",
                           .inputs = {"x", "n"},
                           .outputs = {"y"},
                           .cpu = [](const KernelCall& k) { *k.output<int64_t>() = *k.input<int64_t>(1); },
                           .infer = [](std::span<const TensorType> in) { return std::vector{in[1]}; }});
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max(), kMin = std::numeric_limits<int64_t>::min();
  for (const int64_t n :
       {int64_t{9007199254740993}, int64_t{-9007199254740993}, int64_t{1} << 53, kMax, kMin})
    CHECK(second(td::ones({1}), n).item<int64_t>() == n);
}

TEST_CASE("kernel: what the twin throws names the kernel and the line", "[eager]") {
  const td::Kernel k({.name = "floats", .inputs = {"x"}, .outputs = {"y"}, .cpu = [](const KernelCall& c) {
                        c.output<double>()[0] = c.input<float>()[0];
                      }});
  for (int i = 0; i < 2; ++i)
    CHECK_THAT(message([&] { k(td::ones({1}, {.dtype = td::float64})); }),
               Contains("floats: a kernel's twin: operand 0 is float64, asked for float32 at ") &&
                   Contains("kernel_test.cpp:" + std::to_string(__LINE__ - 2)));
}

TEST_CASE("kernel: halves are their bits", "[eager]") {
  const td::Kernel copy(
      {.name = "copy_bits", .inputs = {"x"}, .outputs = {"y"}, .cpu = [](const KernelCall& k) {
         for (int64_t i = 0; i < k.in_sizes()[0]; ++i) k.output<uint16_t>()[i] = k.input<uint16_t>()[i];
       }});
  for (const td::DType t : {td::float16, td::bfloat16})
    CHECK(values(copy(td::tensor({1.5f, -2.f}).to(t))) == std::vector<double>{1.5, -2});
  CHECK_THAT(message([&] { copy(td::tensor({1.5f})); }),
             Contains("copy_bits: a kernel's twin: result 0 is float32, asked for a half") ||
                 Contains("copy_bits: a kernel's twin: operand 0 is float32, asked for a half"));
}

TEST_CASE("kernel: what cannot be is an error with the kernel's name and the line", "[eager]") {
  const td::Kernel k(scale_rows_def());
  const Tensor x = td::ones({2, 3}), w = td::ones({2});
  CHECK_THAT(message([&] { k(x, td::ones({3})); }),
             Contains("scale_rows: x (N, D) and w (N) are needed, found float32(2, 3) and float32(3,)") &&
                 Contains("kernel_test.cpp:" + std::to_string(__LINE__ - 2)));
  CHECK_THAT(message([&] { k(x); }), Contains("scale_rows: takes 2 operands, found 1"));
  CHECK_THAT(message([&] { k(1.0, 2.0); }), Contains("scale_rows: at least one operand must be a tensor"));
  CHECK_THAT(message([&] { k(Tensor(), w); }), Contains("undefined tensor"));
  CHECK_THAT(message([&] {
               k(td::ones({2, 3}).requires_grad_(), w);
             }),
             Contains("scale_rows: operand x requires grad, and a kernel has no gradient"));
  const td::NoGrad no_grad;
  CHECK(k(td::ones({2, 3}).requires_grad_(), w).sizes() == td::Dims{2, 3});
}

TEST_CASE("kernel: definitions that cannot be are refused", "[eager]") {
  const auto refused = [](auto change) {
    td::KernelDef d = scale_rows_def();
    change(d);
    return message([&] { td::Kernel k(d); });
  };
  CHECK_THAT(refused([](auto& d) { d.name = ""; }), Contains("needs a name") && Contains("kernel_test.cpp"));
  CHECK_THAT(refused([](auto& d) { d.inputs = {}; }), Contains("1 to 16 inputs are possible, found 0"));
  CHECK_THAT(refused([](auto& d) { d.outputs.resize(5, "a"); }),
             Contains("1 to 4 outputs are possible, found 5"));
  CHECK_THAT(refused([](auto& d) { d.cpu = nullptr; }), Contains("the plain C++ twin `cpu` is missing"));
  CHECK_THAT(refused([](auto& d) { d.inputs[0] = "x y"; }), Contains("\"x y\" cannot name an operand"));
  CHECK_THAT(refused([](auto& d) { d.inputs[0] = "td_x"; }), Contains("\"td_x\" cannot name an operand"));
  CHECK_THAT(refused([](auto& d) { d.inputs[0] = "y"; }), Contains("the name y stands for two things"));
  CHECK_THAT(refused([](auto& d) { d.outputs[0] = "count"; }),
             Contains("the name count stands for two things"));
  td::KernelDef d = scale_rows_def();
  d.infer = [](std::span<const TensorType>) { return std::vector<TensorType>(); };
  CHECK_THAT(message([&] {
               td::Kernel{d}(td::ones({2, 3}), td::ones({2}));
             }),
             Contains("scale_rows: infer gave 0 types for 1 results"));
}

TEST_CASE("kernel: a gradient by an autograd function around it", "[eager]") {
  static const td::Kernel kernel(scale_rows_def());
  struct ScaleRows : td::autograd::Function<ScaleRows> {
    static Tensor forward(td::autograd::Context& c, const Tensor& x, const Tensor& w) {
      c.save_for_backward({x, w});
      return kernel(x, w);
    }
    static td::TensorList backward(td::autograd::Context& c, const td::TensorList& g) {
      return {kernel(g[0], c.saved()[1]), (g[0] * c.saved()[0]).sum({1})};
    }
  };
  Tensor x = td::arange(0.f, 6).reshape({2, 3}).requires_grad_(), w = td::tensor({2.f, 3.f}).requires_grad_();
  ScaleRows::apply(x, w).square().sum().backward();
  Tensor a = td::arange(0.f, 6).reshape({2, 3}).requires_grad_(), b = td::tensor({2.f, 3.f}).requires_grad_();
  (a * b.unsqueeze(1)).square().sum().backward();
  CHECK(values(x.grad()) == values(a.grad()));
  CHECK(values(w.grad()) == values(b.grad()));
}
