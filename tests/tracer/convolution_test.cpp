// A convolutional net, traced and eagerly: equal bit for bit, recorded once, replayed; other batch sizes;
// other attributes are another branch.
#include <optional>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace td = tandem;

namespace {

struct Net : td::nn::Module {
  td::nn::Conv2d first = child<td::nn::Conv2d>("first", 1, 8, 3, 1, 1);
  td::nn::Conv2d second = child<td::nn::Conv2d>("second", 8, 8, 3, 2, 0, 1, 4);
  td::nn::ConvTranspose2d up = child<td::nn::ConvTranspose2d>("up", 8, 4, 2, 2);
  td::nn::Linear out = child<td::nn::Linear>("out", 4 * 10 * 10, 3);
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor y = td::relu(up(td::relu(second(td::relu(first(x))))));
    return out(y.reshape({x.size(0), -1}));
  }
};

template <class Module>
auto step_of(Module& net, td::optim::AdamW& opt) {
  return [&](const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  };
}

std::vector<float> train(bool traced, td::TraceReport* report = nullptr) {
  td::manual_seed(3);
  Net net;
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-2});
  const auto body = step_of(net, opt);
  auto step = td::trace(body);
  std::vector<float> numbers;
  for (int i = 0; i < 8; ++i) {
    const int64_t batch = i % 4 == 3 ? 5 : 12;  // another size now and then
    const td::Tensor x = td::randn({batch, 1, 12, 12}), y = td::randint(0, 3, {batch});
    numbers.push_back((traced ? step(x, y) : body(x, y)).item<float>());
  }
  for (const td::Tensor& p : net.parameters())
    for (const float v : p.to_vector<float>()) numbers.push_back(v);
  if (report) *report = step.report();
  return numbers;
}

/// Wide enough for the CPU's library to compute in blocks of channels.
struct Wide : td::nn::Module {
  td::nn::Conv2d first = child<td::nn::Conv2d>("first", 3, 32, 3, 1, 1);
  td::nn::Conv2d second = child<td::nn::Conv2d>("second", 32, 32, 3, 1, 1);
  td::nn::Conv2d third = child<td::nn::Conv2d>("third", 32, 32, 3, 1, 1);
  td::nn::Linear out = child<td::nn::Linear>("out", 32 * 4 * 4, 5);
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor y = td::max_pool2d(td::relu(first(x)), 2);
    const td::Tensor z = td::relu(second(y)) + y;
    return out(td::max_pool2d(td::tanh(third(z)), 2).flatten(1));
  }
};

}  // namespace

TEST_CASE("a convolutional net trains to the same bits traced and eagerly", "[convolution]") {
  td::TraceReport report;
  const std::vector<float> traced = train(true, &report);
  CHECK(traced == train(false));
  CHECK(traced[7] < traced[0] + 1);
  CHECK(report.recorded == 2);  // once a batch size
  CHECK(report.natives > 0);
}

TEST_CASE("a stride that changes between calls is followed", "[convolution]") {
  td::manual_seed(4);
  const td::Tensor w = td::randn({4, 3, 3, 3});
  int64_t stride = 1;
  auto f = td::trace([&](const td::Tensor& x) { return td::conv2d(x, w, {}, {stride, 2}, {0, 1}) * 2; });
  for (const int64_t s : {1, 1, 2, 2, 1, 3}) {
    stride = s;
    const td::Tensor x = td::randn({2, 3, 9, 8});
    CHECK(f(x).to_vector<float>() == (td::conv2d(x, w, {}, {s, 2}, {0, 1}) * 2).to_vector<float>());
  }
  REQUIRE_FALSE(f.report().misses.empty());
  const std::string why = to_string(f.report());
  CAPTURE(why);
  CHECK_THAT(why, Contains("stride") && Contains("(1, 2)") && Contains("(2, 2)"));
}

TEST_CASE("a wide net gives the same bits eagerly, traced, verified, frozen, saved and loaded",
          "[convolution]") {
  const ScratchFolder folder;
  const int64_t batch = GENERATE(4, 16);  // 16: enough tiles for Winograd's algorithm
  const auto train = [&](bool traced) {
    td::manual_seed(6);
    Wide net;
    td::optim::AdamW opt(net.parameters(), {.lr = 1e-2});
    const auto body = step_of(net, opt);
    auto step = td::trace(body, {.verify = 2});
    std::optional<decltype(step.freeze())> frozen;
    std::optional<td::FrozenFunction> loaded;
    std::vector<float> losses;
    for (int i = 0; i < 9; ++i) {
      const td::Tensor x = td::randn({batch, 3, 16, 16}), y = td::randint(0, 5, {batch});
      if (traced && i == 4) frozen.emplace(step.freeze());
      if (traced && i == 6) {
        frozen->save(folder / "step.tandem");
        loaded.emplace(td::load_function(folder / "step.tandem"));
        step.draw(folder / "step.html");
      }
      const td::Tensor loss = !traced  ? body(x, y)
                              : loaded ? (*loaded)({x, y})[0]
                              : frozen ? (*frozen)(x, y)
                                       : step(x, y);
      losses.push_back(loss.item<float>());
    }
    return losses;
  };
  CHECK(train(true) == train(false));
}

TEST_CASE("convolutions infer the same bits with their weights kept in the library's layout",
          "[convolution]") {
  td::manual_seed(8);
  td::nn::Conv2d first(64, 128, 3, 1, 1), second(128, 64, 3, 1, 1);
  const auto body = [&](const td::Tensor& x) { return second(td::relu(first(x))); };
  const td::NoGrad no_grad;
  const int64_t batch = GENERATE(1, 8);  // 8: enough tiles for Winograd's algorithm
  auto traced = td::trace(body);
  std::optional<decltype(traced.freeze())> frozen;
  for (int i = 0; i < 12; ++i) {
    const td::Tensor x = td::randn({batch, 64, 8, 8});
    if (i == 8) frozen.emplace(traced.freeze());
    const td::Tensor y = frozen ? (*frozen)(x) : traced(x);
    REQUIRE(y.to_vector<float>() == body(x).to_vector<float>());
  }
#if defined(TANDEM_HAVE_DNNL) && TANDEM_HAVE_DNNL
  CHECK(traced.report().kept_bytes > 0);
  CHECK(frozen->report().kept_bytes > 0);
#endif
}
