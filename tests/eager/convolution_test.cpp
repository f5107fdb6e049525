// Convolutions as users call them: values, padding by word, operands without a batch, transposes, errors; and
// the layers.
#include <cmath>

#include "tandem/eager/autograd.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::test::message;

namespace {

std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }

void check_close(const Tensor& a, const Tensor& b, double tolerance = 1e-5) {
  REQUIRE(a.sizes() == b.sizes());
  const std::vector<float> x = values(a), y = values(b);
  for (size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    REQUIRE(x[i] == Approx(y[i]).margin(tolerance).epsilon(tolerance));
  }
}

float inner(const Tensor& a, const Tensor& b) { return (a * b).sum().item<float>(); }

}  // namespace

TEST_CASE("conv1d and conv2d give numbers that can be checked by hand", "[convolution]") {
  const Tensor x = tensor({1.f, 2.f, 3.f, 4.f, 5.f}).view({1, 1, 5});
  const Tensor w = tensor({1.f, 0.f, -1.f}).view({1, 1, 3});
  CHECK(values(conv1d(x, w)) == std::vector<float>{-2, -2, -2});  // the kernel is not flipped
  CHECK(values(conv1d(x, w, tensor({10.f}), 1, 1)) == std::vector<float>{8, 8, 8, 8, 14});
  CHECK(values(conv1d(x, w, {}, 2, 1)) == std::vector<float>{-2, -2, 4});
  CHECK(values(conv1d(x, w, {}, 1, 0, 2)) == std::vector<float>{-4});
  CHECK(values(conv_transpose1d(tensor({1.f, 2.f}).view({1, 1, 2}), w, {}, 2)) ==
        std::vector<float>{1, 0, 1, 0, -2});
  CHECK(values(conv_transpose1d(tensor({1.f, 2.f}).view({1, 1, 2}), w, {}, 2, 1, 1)) ==
        std::vector<float>{0, 1, 0, -2});

  const Tensor image = arange(0.f, 16).view({1, 1, 4, 4});
  const Tensor box = ones({1, 1, 2, 2});
  CHECK(values(conv2d(image, box, {}, 2)) == std::vector<float>{10, 18, 42, 50});
  CHECK(values(conv2d(image, box, {}, {2, 1})) == std::vector<float>{10, 14, 18, 42, 46, 50});
  // Two groups: each output channel sees its own input channel.
  const Tensor two = cat({image, image * 10}, 1);
  CHECK(values(conv2d(two, ones({2, 1, 2, 2}), {}, 2, 0, 1, 2)) ==
        std::vector<float>{10, 18, 42, 50, 100, 180, 420, 500});
  CHECK(conv3d(ones({1, 2, 3, 4, 5}), ones({7, 2, 2, 3, 1})).sizes() == Dims{1, 7, 2, 2, 5});
  CHECK(conv_transpose3d(ones({1, 2, 3, 4, 5}), ones({2, 7, 2, 3, 1})).sizes() == Dims{1, 7, 4, 6, 5});
}

TEST_CASE("padding by word, and operands without a batch", "[convolution]") {
  manual_seed(1);
  const Tensor x = randn({2, 3, 7, 6}), odd = randn({4, 3, 3, 5}), even = randn({4, 3, 2, 4});
  CHECK(values(conv2d(x, odd, {}, 1, "same")) == values(conv2d(x, odd, {}, 1, {1, 2})));
  CHECK(values(conv2d(x, odd, {}, 1, "valid")) == values(conv2d(x, odd)));
  const Tensor same = conv2d(x, even, {}, 1, "same");
  CHECK(same.sizes() == Dims{2, 4, 7, 6});
  // Of an odd number of zeros one more stands behind: without the first of them both agree.
  check_close(same, conv2d(x, even, {}, 1, {1, 2}).slice(2, 1, 8).slice(3, 1, 7));
  CHECK(conv2d(x, even, {}, 1, "same", {3, 2}).sizes() == Dims{2, 4, 7, 6});
  check_close(conv2d(x.select(0, 1), odd), conv2d(x, odd).select(0, 1), 0);
  check_close(conv_transpose2d(x.select(0, 1), randn({3, 2, 2, 2}).mul(0) + 1),
              conv_transpose2d(x, ones({3, 2, 2, 2})).select(0, 1), 0);
}

TEST_CASE("a transposed convolution is the adjoint of the convolution", "[convolution]") {
  manual_seed(2);
  struct Case {
    Dims x, w, stride, padding, dilation, output_padding;
    int64_t groups;
  };
  for (const Case& c : {Case{{2, 4, 9, 8}, {6, 2, 3, 2}, {2, 3}, {1, 0}, {1, 2}, {0, 2}, 2},
                        Case{{1, 3, 5, 5}, {3, 1, 3, 3}, {1, 1}, {1, 1}, {1, 1}, {0, 0}, 3},
                        Case{{3, 2, 11, 4}, {5, 2, 4, 1}, {3, 1}, {2, 0}, {2, 1}, {2, 0}, 1}}) {
    const Tensor x = randn(c.x), w = randn(c.w);
    const Tensor y = conv2d(x, w, {}, c.stride, c.padding, c.dilation, c.groups);
    const Tensor g = randn(y.sizes());
    const Tensor back =
        conv_transpose2d(g, w, {}, c.stride, c.padding, c.output_padding, c.groups, c.dilation);
    REQUIRE(back.sizes() == c.x);
    CHECK(inner(y, g) == Approx(inner(x, back)).epsilon(1e-4));
    // And it is what backward() computes.
    const Tensor leaf = x.clone().requires_grad_();
    conv2d(leaf, w, {}, c.stride, c.padding, c.dilation, c.groups).backward(g);
    check_close(leaf.grad(), back);
  }
}

TEST_CASE("convolutions of strided operands, in halves and of nothing", "[convolution]") {
  manual_seed(3);
  const Tensor x = randn({2, 6, 5, 3}), w = randn({4, 3, 3, 3});
  const Tensor turned = x.permute({0, 3, 1, 2});
  CHECK(values(conv2d(turned, w)) == values(conv2d(turned.contiguous(), w)));
  for (const DType half : {float16, bfloat16}) {
    const Tensor a = turned.to(half), b = w.to(half);
    CHECK(values(conv2d(a, b)) == values(conv2d(a.to(float32), b.to(float32)).to(half)));
  }
  CHECK(conv2d(zeros({0, 3, 6, 5}), w).sizes() == Dims{0, 4, 4, 3});
  const Tensor none = zeros({2, 0, 6, 5}), no_channels = zeros({4, 0, 3, 3}).requires_grad_();
  const Tensor y = conv2d(none, no_channels, tensor({1.f, 2.f, 3.f, 4.f}));
  CHECK(values(y.select(1, 2)) == std::vector<float>(24, 3.f));
  y.sum().backward();
  CHECK(no_channels.grad().sizes() == Dims{4, 0, 3, 3});
  const Tensor empty_batch = zeros({0, 3, 6, 5}), kernel = w.clone().requires_grad_();
  conv2d(empty_batch, kernel).sum().backward();
  CHECK(values(kernel.grad()) == std::vector<float>(108, 0.f));
}

TEST_CASE("second derivatives of a convolution", "[convolution]") {
  manual_seed(4);
  const Tensor x = randn({1, 2, 5, 4}, {.dtype = float64}).requires_grad_(),
               w = randn({4, 1, 2, 3}, {.dtype = float64}).requires_grad_(),
               v = randn({1, 2, 5, 4}, {.dtype = float64});
  const auto slope = [&](const Tensor& at) {  // of sum(conv^2), for x, along v
    const Tensor y = conv2d(x, at, {}, {2, 1}, {1, 0}, 1, 2);
    const Tensor loss = (y * y).sum();
    const Tensor outputs[] = {loss}, inputs[] = {x};
    return (autograd::grad(outputs, inputs, {}, false, true)[0] * v).sum();
  };
  const Tensor outputs[] = {slope(w)}, inputs[] = {w};
  const Tensor found = autograd::grad(outputs, inputs)[0];
  const Tensor direction = randn(w.sizes(), {.dtype = float64});
  const double step = 1e-5;
  const double difference = (slope((w + direction * step).detach()).item<double>() -
                             slope((w - direction * step).detach()).item<double>()) /
                            (2 * step);
  CHECK((found * direction).sum().item<double>() == Approx(difference).epsilon(1e-6));
}

TEST_CASE("wrong calls of convolutions say what was found", "[convolution]") {
  const Tensor x = ones({2, 4, 8, 8}), w = ones({6, 4, 3, 3});
  const auto text = [&](auto f) { return message(f); };
  CHECK_THAT(
      text([&] {
        conv2d(ones({8, 8}), w);
      }),
      Contains("conv2d: x needs rank 4, or 3") && Contains("(8, 8)") && Contains("convolution_test.cpp"));
  CHECK_THAT(text([&] { conv2d(x, ones({6, 4, 3})); }), Contains("weight needs rank 4"));
  CHECK_THAT(text([&] {
               conv2d(x, ones({6, 3, 3, 3}));
             }),
             Contains("takes 3 channels") && Contains("x has 4") && Contains("(2, 4, 8, 8)"));
  CHECK_THAT(text([&] { conv2d(x, ones({6, 2, 3, 3}), {}, 1, 0, 1, 4); }), Contains("takes 8 channels"));
  CHECK_THAT(text([&] { conv2d(x, ones({5, 2, 3, 3}), {}, 1, 0, 1, 2); }), Contains("2 groups"));
  CHECK_THAT(text([&] { conv2d(x, w, ones({5})); }), Contains("bias must have sizes (6,)"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, {1, 2, 3}); }), Contains("stride must be one number or 2"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 0); }), Contains("stride must be 2 numbers of at least 1"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 1, -1); }), Contains("padding must be 2 numbers of at least 0"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 1, 0, 5); }), Contains("larger than x with its padding"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 1, 0, int64_t{1} << 62); }), Contains("dilation must be"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 2, "same"); }), Contains("needs a stride of 1"));
  CHECK_THAT(text([&] { conv2d(x, w, {}, 1, "some"); }), Contains("found \"some\""));
  CHECK_THAT(text([&] { conv2d(x, w.to(float64)); }), Contains("different types"));
  CHECK_THAT(text([&] {
               conv_transpose2d(x, ones({4, 2, 3, 3}), {}, 2, 0, 2);
             }),
             Contains("output_padding must be less than stride or dilation"));
  CHECK_THAT(text([&] { conv_transpose2d(x, w); }), Contains("for 6 channels") && Contains("has 4"));
  CHECK_THAT(text([&] {
               conv_transpose1d(ones({1, 1, 2}), ones({1, 1, 2}), {}, 1, 4);
             }),
             Contains("leaves nothing"));
}

TEST_CASE("convolutional layers have PyTorch's parameters and initialisation", "[nn][convolution]") {
  manual_seed(5);
  nn::Conv2d conv(16, 32, {3, 5}, {1, 2}, {1, 2}, 1, 4);
  CHECK(conv.weight.sizes() == Dims{32, 4, 3, 5});
  CHECK(conv.bias.sizes() == Dims{32});
  CHECK(conv.named_parameters()[0].name == "weight");
  CHECK(conv.named_parameters()[1].name == "bias");
  const double bound = 1 / std::sqrt(4.0 * 15);
  double most = 0, sum = 0;
  for (const float v : values(conv.weight))
    most = std::max(most, std::fabs(static_cast<double>(v))), sum += v;
  CHECK(most <= bound);
  CHECK(most > 0.98 * bound);
  CHECK(std::fabs(sum / 1920) < 0.05 * bound);
  for (const float v : values(conv.bias)) CHECK(std::fabs(v) <= bound);
  const Tensor x = randn({2, 16, 6, 9});
  CHECK(values(conv(x)) == values(conv2d(x, conv.weight, conv.bias, {1, 2}, {1, 2}, 1, 4)));

  nn::ConvTranspose2d up(6, 8, 4, 2, 1, 1, 2);
  CHECK(up.weight.sizes() == Dims{6, 4, 4, 4});
  CHECK(up.bias.sizes() == Dims{8});
  CHECK(up(randn({1, 6, 5, 5})).sizes() == Dims{1, 8, 11, 11});
  for (const float v : values(up.weight)) CHECK(std::fabs(v) <= 1.0 / 8);

  nn::Conv1d no_bias(3, 5, 3, 1, "same", 2, 1, false, PadMode::constant, {.dtype = float64});
  CHECK_FALSE(no_bias.bias.defined());
  CHECK(no_bias.parameters().size() == 1);
  CHECK(no_bias(zeros({2, 3, 9}, {.dtype = float64})).sizes() == Dims{2, 5, 9});
  CHECK(nn::ConvTranspose1d(3, 5, 4, 2)(zeros({2, 3, 9})).sizes() == Dims{2, 5, 20});
  CHECK(nn::Conv3d(2, 3, 2)(zeros({1, 2, 4, 4, 4})).sizes() == Dims{1, 3, 3, 3, 3});
  CHECK(nn::ConvTranspose3d(2, 3, 2)(zeros({1, 2, 4, 4, 4})).sizes() == Dims{1, 3, 5, 5, 5});

  // The generator is drawn from weight first, as if the layer were written by hand.
  manual_seed(6);
  nn::Conv1d one(2, 4, 3);
  manual_seed(6);
  const Tensor w = empty({4, 2, 3});
  nn::init::kaiming_uniform_(w, std::sqrt(5.0));
  check_close(one.weight, w, 1e-6);

  CHECK_THAT(message([] { nn::Conv2d(3, 4, 3, 1, 0, 1, 2); }),
             Contains("Conv2d: 3 input and 4 output channels do not divide into 2 groups") &&
                 Contains("convolution_test.cpp"));
  CHECK_THAT(message([] { nn::Conv2d(3, 4, {3, 3, 3}); }), Contains("Conv2d: kernel_size"));
  CHECK_THAT(message([] { nn::ConvTranspose1d(3, 4, 0); }), Contains("ConvTranspose1d: kernel_size"));
  CHECK_THAT(message([&] { conv(zeros({2, 3, 6, 9})); }), Contains("convolution_test.cpp"));
}

TEST_CASE("a small convolutional net learns", "[nn][convolution]") {
  manual_seed(7);
  struct Net : nn::Module {
    nn::Conv2d first = child<nn::Conv2d>("first", 1, 4, 3, 1, "same");
    nn::Conv2d second = child<nn::Conv2d>("second", 4, 8, Dims{3, 3}, 2);
    nn::Linear out = child<nn::Linear>("out", 8 * 3 * 3, 2);
    Tensor forward(const Tensor& x) {
      const Tensor y = relu(second(relu(first(x))));
      return out(y.reshape({x.size(0), -1}));
    }
  } net;
  // Bars across against bars down.
  const Tensor noise = randn({64, 1, 8, 8}) * 0.2;
  const Tensor bar = (arange(0.f, 8).view({1, 1, 8, 1}) == 3).to(float32).expand({32, 1, 8, 8});
  const Tensor x = noise + cat({bar, bar.transpose(2, 3)}, 0);
  const Tensor y = cat({zeros({32}), ones({32})}, 0).to(int64);
  optim::AdamW opt(net.parameters(), {.lr = 5e-3});
  float first = 0, last = 0;
  for (int i = 0; i < 60; ++i) {
    const Tensor loss = cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    last = loss.item<float>();
    if (i == 0) first = last;
  }
  CHECK(first > 0.5f);
  CHECK(last < 0.1f);
}
