#include "tandem/eager/nn/nn.h"

#include <cmath>
#include <optional>

#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

struct Mlp : nn::Module {
  nn::Linear hidden = child<nn::Linear>("hidden", 4, 3);
  nn::Dropout drop = child<nn::Dropout>("drop", 0.5);
  nn::Linear out = child<nn::Linear>("out", 3, 2, false);
  Tensor forward(const Tensor& x) { return out(drop(relu(hidden(x)))); }
};

/// A block with constructor arguments, a parameter and buffers of its own, and a list of children.
struct Block : nn::Module {
  Block(int64_t width, double start)
      : scale(parameter("scale", full({width}, start))), running(buffer("running", zeros({width}))) {
    buffer("scratch", ones({2}), false);
    for (int i = 0; i < 2; ++i) layers.emplace(width, width);
  }
  Tensor scale, running;
  nn::ModuleList<nn::Linear> layers = child<nn::ModuleList<nn::Linear>>("layers");
};
struct Net : nn::Module {
  Block block = child<Block>("block", 3, 0.5);
  nn::LayerNorm norm = child<nn::LayerNorm>("norm", 3);
};

std::vector<std::string> names(const std::vector<NamedTensor>& list) {
  std::vector<std::string> out;
  for (const NamedTensor& n : list) out.push_back(n.name);
  return out;
}

std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }

using tandem::test::message;

}  // namespace

TEST_CASE("children and parameters are registered in order under PyTorch's names", "[nn]") {
  Net net;
  CHECK(names(net.named_parameters()) ==
        std::vector<std::string>{"block.scale", "block.layers.0.weight", "block.layers.0.bias",
                                 "block.layers.1.weight", "block.layers.1.bias", "norm.weight", "norm.bias"});
  CHECK(names(net.named_buffers()) == std::vector<std::string>{"block.running", "block.scratch"});
  CHECK(names(net.state())[1] == "block.running");
  CHECK(net.state().size() == 8);  // without the scratch buffer
  CHECK(net.num_parameters() == 3 + 2 * (9 + 3) + 6);
  std::vector<std::string> modules;
  for (const nn::NamedModule& m : net.named_modules()) modules.push_back(m.name);
  CHECK(modules ==
        std::vector<std::string>{"", "block", "block.layers", "block.layers.0", "block.layers.1", "norm"});
  // Handles in members and in the registry are the same tensors, at final addresses.
  CHECK(net.parameters()[0].impl() == net.block.scale.impl());
  CHECK(net.named_modules()[1].module == &net.block);
  for (const Tensor& p : net.parameters()) CHECK((p.requires_grad() && p.is_leaf()));
}

TEST_CASE("names must be new, not empty and without dots", "[nn]") {
  struct Twice : nn::Module {
    nn::ReLU a = child<nn::ReLU>("a");
    nn::ReLU b = child<nn::ReLU>("a");
  };
  CHECK_THAT(message([] { Twice t; }), Contains("\"a\" is taken") && Contains("nn_test.cpp"));
  struct Dotted : nn::Module {
    Tensor w = parameter("a.b", ones({1}));
  };
  CHECK_THAT(message([] { Dotted d; }), Contains("a.b"));
  struct Clash : nn::Module {
    Tensor w = parameter("w", ones({1}));
    nn::ReLU r = child<nn::ReLU>("w");
  };
  CHECK_THROWS_AS(Clash(), Error);
}

TEST_CASE("a child that fails or dies early leaves nothing behind", "[nn]") {
  struct Failing : nn::Module {
    Failing() { fail("no"); }
  };
  struct Parent : nn::Module {
    void try_child() {
      try {
        child<Failing>("f");
      } catch (const Error&) {
      }
    }
    void temporary() { child<nn::Linear>("t", 2, 2); }
  };
  Parent p;
  p.try_child();
  p.temporary();
  CHECK(p.named_modules().size() == 1);
  nn::Linear lone(2, 2);  // the failed registration is not pending any more
  CHECK(p.named_modules().size() == 1);
  struct Giver : nn::Module {
    nn::Linear give() { return child<nn::Linear>("g", 2, 2); }
  };
  std::optional<Giver> giver(std::in_place);
  const nn::Linear outlives = giver->give();
  CHECK(giver->parameters().size() == 2);
  giver.reset();
  CHECK(outlives.weight.numel() == 4);
}

TEST_CASE("Linear starts as PyTorch's does and computes x W^T + b", "[nn]") {
  manual_seed(3);
  nn::Linear layer(100, 50);
  const double bound = 1 / std::sqrt(100.0);
  double most = 0, sum = 0;
  for (const float w : values(layer.weight)) {
    REQUIRE(std::abs(w) <= bound);
    most = std::max<double>(most, std::abs(w));
    sum += w;
  }
  CHECK(most > 0.99 * bound);
  CHECK(std::abs(sum / 5000) < 0.05 * bound);
  for (const float b : values(layer.bias)) REQUIRE(std::abs(b) <= bound);

  nn::Linear small(2, 2);
  {
    const NoGrad no_grad;
    small.weight.copy_(tensor({1.f, 2.f, 3.f, 4.f}).view({2, 2}));
    small.bias.copy_(tensor({10.f, 20.f}));
  }
  CHECK(values(small(tensor({1.f, 1.f}).view({1, 2}))) == std::vector<float>{13, 27});
  nn::Linear no_bias(3, 2, false);
  CHECK_FALSE(no_bias.bias.defined());
  CHECK(no_bias.parameters().size() == 1);
  CHECK_THROWS_AS(nn::Linear(-1, 2), Error);
  nn::Linear doubles(3, 2, true, {.dtype = float64});
  CHECK(doubles.weight.dtype() == float64);
  manual_seed(3);
  nn::Linear halves(100, 50, true, {.dtype = bfloat16});
  manual_seed(3);
  CHECK(values(halves.weight) == values(nn::Linear(100, 50).weight.to(bfloat16)));
}

TEST_CASE("Embedding, LayerNorm and Dropout", "[nn]") {
  manual_seed(4);
  nn::Embedding table(200, 8);
  const std::vector<float> w = values(table.weight);
  double mean = 0, square = 0;
  for (const float v : w) mean += v, square += v * v;
  mean /= static_cast<double>(w.size());
  CHECK(std::abs(mean) < 0.1);
  CHECK(square / static_cast<double>(w.size()) == Approx(1).epsilon(0.1));
  CHECK(values(table(tensor({int64_t{5}}))) == std::vector<float>(w.begin() + 40, w.begin() + 48));

  nn::LayerNorm norm(4);
  const std::vector<float> y = values(norm(tensor({1.f, 2.f, 3.f, 4.f}).view({1, 4})));
  const double scale = 1 / std::sqrt(1.25 + 1e-5);
  for (int i = 0; i < 4; ++i) CHECK(y[static_cast<size_t>(i)] == Approx((i - 1.5) * scale).epsilon(1e-5));
  CHECK_THAT(message([&] {
               norm(ones({2, 3}));
             }),
             Contains("(4,)") && Contains("(2, 3)") && Contains("nn_test.cpp"));
  CHECK(nn::LayerNorm({2, 3}, 1e-5, false).parameters().empty());

  nn::Dropout drop(0.5);
  const Tensor x = ones({1000});
  const std::vector<float> kept = values(drop(x));
  const auto zeros = std::count(kept.begin(), kept.end(), 0.f);
  CHECK((zeros > 400 && zeros < 600));
  CHECK(std::count(kept.begin(), kept.end(), 2.f) == 1000 - zeros);
  drop.eval();
  CHECK(values(drop(x)) == values(x));
  CHECK_THROWS_AS(nn::Dropout(1.5), Error);
}

TEST_CASE("Sequential runs modules of any type in order and names them by position", "[nn]") {
  struct Scale : nn::Module {
    explicit Scale(double by) : by(by) {}
    Tensor forward(const Tensor& x) { return x * by; }
    double by;
  };
  struct Model : nn::Module {
    nn::Sequential net = child<nn::Sequential>("net", [](nn::Sequential& s) {
      s.emplace<nn::Linear>(3, 4);
      s.emplace<nn::GELU>();
      s.emplace<nn::Linear>(4, 2);
      s.emplace<Scale>(2.0);
    });
  };
  manual_seed(5);
  Model m;
  CHECK(names(m.named_parameters()) ==
        std::vector<std::string>{"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"});
  const Tensor x = randn({5, 3});
  auto& first = static_cast<nn::Linear&>(m.net[0]);
  auto& second = static_cast<nn::Linear&>(m.net[2]);
  CHECK(values(m.net(x)) == values(second(gelu(first(x))) * 2));
  CHECK_THAT(message([&] { m.net(randn({5, 4})); }), Contains("nn_test.cpp"));
}

TEST_CASE("training mode, gradients and requires_grad go down the tree", "[nn]") {
  manual_seed(6);
  Mlp net;
  CHECK(net.drop.is_training());
  net.eval();
  CHECK_FALSE(net.drop.is_training());
  net.train();
  CHECK(net.drop.is_training());
  net.forward(ones({2, 4})).sum().backward();
  CHECK(net.hidden.weight.grad().defined());
  net.zero_grad();
  for (const Tensor& p : net.parameters()) CHECK_FALSE(p.grad().defined());
  net.requires_grad_(false);
  CHECK_FALSE(net.forward(ones({2, 4})).requires_grad());
  int count = 0;
  net.apply([&](nn::Module&) { ++count; });
  CHECK(count == 4);
}

TEST_CASE("state moves between modules by name; a wrong state lists its mistakes and changes nothing",
          "[nn]") {
  manual_seed(7);
  Mlp a, b;
  b.load_state(a.state());
  CHECK(values(b.hidden.weight) == values(a.hidden.weight));
  CHECK(b.hidden.weight.impl() != a.hidden.weight.impl());

  Mlp c;
  const std::vector<float> before = values(c.hidden.weight);
  std::vector<NamedTensor> wrong = a.state();
  wrong[1].name = "hidden.offset";
  wrong[2].tensor = zeros({2, 2});
  const std::string text = message([&] { c.load_state(wrong); });
  CHECK_THAT(text, Contains("missing: hidden.bias") && Contains("unexpected: hidden.offset") &&
                       Contains("out.weight is float32(2, 3), given float32(2, 2)") &&
                       Contains("nn_test.cpp"));
  CHECK(values(c.hidden.weight) == before);

  std::vector<NamedTensor> halves = a.state();
  halves[0].tensor = halves[0].tensor.detach().to(float64);
  CHECK_THAT(message([&] { c.load_state(halves); }),
             Contains("hidden.weight is float32(3, 4), given float64(3, 4)"));
  halves[0] = halves[1];
  CHECK_THAT(message([&] { c.load_state(halves); }), Contains("given twice: hidden.bias"));
  c.load_state({{"hidden.bias", full({3}, 9.f)}, {"other", ones({1})}}, false);
  CHECK(values(c.hidden.bias) == std::vector<float>{9, 9, 9});
  CHECK(values(c.hidden.weight) == before);
}

TEST_CASE("to() casts in place: handles stay, gradients follow, an old tape is refused", "[nn]") {
  manual_seed(8);
  Mlp net;
  net.eval();
  const Tensor handle = net.hidden.weight;
  const std::vector<float> before = values(handle);
  const Tensor y = net.forward(ones({2, 4}));
  y.sum().backward();
  const Tensor again = net.forward(ones({2, 4})).sum();
  net.to(float64);
  CHECK(handle.dtype() == float64);
  CHECK(handle.grad().dtype() == float64);
  CHECK(values(handle) == before);
  CHECK(net.forward(ones({2, 4}, {.dtype = float64})).dtype() == float64);
  CHECK_THROWS_AS(again.backward(), Error);
  CHECK_THROWS_AS(net.to(int64), Error);
  net.to(cpu);
  CHECK(values(handle) == before);
  CHECK_THROWS_AS(net.to(Device{DeviceType::cuda, 0}), Error);
  CHECK(values(handle) == before);
}

TEST_CASE("a tied weight is one parameter with two names in the state", "[nn]") {
  struct Tied : nn::Module {
    nn::Embedding in = child<nn::Embedding>("in", 5, 3);
    Tensor out = parameter("out", in.weight);
  };
  Tied net;
  CHECK(net.parameters().size() == 1);
  CHECK(names(net.state()) == std::vector<std::string>{"out", "in.weight"});
}

TEST_CASE("clone makes an independent module with the same values and draws no random numbers", "[nn]") {
  manual_seed(9);
  Block block(3, 0.5);
  block.running.fill_(4);
  block.layers[0].requires_grad_(false);
  block.layers[1].eval();
  const uint64_t offset = default_generator().offset();
  const std::unique_ptr<Block> copy = nn::clone(block, 3, 0.25);
  CHECK(default_generator().offset() == offset);
  CHECK(values(copy->scale) == values(block.scale));
  CHECK(values(copy->running) == std::vector<float>{4, 4, 4});
  CHECK(values(copy->layers[1].weight) == values(block.layers[1].weight));
  CHECK_FALSE(copy->layers[0].weight.requires_grad());
  CHECK(copy->layers[1].weight.requires_grad());
  CHECK_FALSE(copy->layers[1].is_training());
  CHECK(copy->layers[0].is_training());
  {
    const NoGrad no_grad;
    copy->scale.fill_(7);
  }
  CHECK(values(block.scale)[0] == 0.5f);
  Mlp net;
  net.to(float64);
  CHECK(nn::clone(net)->hidden.weight.dtype() == float64);
  CHECK_THROWS_AS(nn::clone(block, 4, 0.5), Error);
}

TEST_CASE("initialisers follow their formulas and their generator", "[nn]") {
  Generator g(11);
  const Tensor w = empty({64, 32});
  const auto extreme = [&] {
    double most = 0;
    for (const float v : values(w)) most = std::max<double>(most, std::abs(v));
    return most;
  };
  const auto deviation = [&] {
    double square = 0;
    for (const float v : values(w)) square += static_cast<double>(v) * v;
    return std::sqrt(square / 2048);
  };
  const uint64_t offset = default_generator().offset();
  nn::init::kaiming_uniform_(w, 0, nn::init::Fan::in, &g);
  CHECK(extreme() == Approx(std::sqrt(6.0 / 32)).epsilon(0.01));
  nn::init::kaiming_uniform_(w, 0, nn::init::Fan::out, &g);
  CHECK(extreme() == Approx(std::sqrt(6.0 / 64)).epsilon(0.01));
  nn::init::xavier_uniform_(w, 2, &g);
  CHECK(extreme() == Approx(2 * std::sqrt(6.0 / 96)).epsilon(0.01));
  nn::init::xavier_normal_(w, 1, &g);
  CHECK(deviation() == Approx(std::sqrt(2.0 / 96)).epsilon(0.1));
  nn::init::kaiming_normal_(w, 0, nn::init::Fan::in, &g);
  CHECK(deviation() == Approx(std::sqrt(2.0 / 32)).epsilon(0.1));
  nn::init::normal_(w, 3, 0.5, &g);
  CHECK(w.mean().item<double>() == Approx(3).epsilon(0.02));
  CHECK(default_generator().offset() == offset);
  CHECK(g.offset() > 0);

  Generator h(11);
  const Tensor a = empty({4, 4}), b = empty({4, 4});
  g.seed(11);
  nn::init::uniform_(a, -1, 1, &g);
  nn::init::uniform_(b, -1, 1, &h);
  CHECK(values(a) == values(b));
  nn::init::zeros_(a);
  nn::init::ones_(b);
  CHECK((values(a)[3] == 0 && values(b)[3] == 1));
  CHECK_THAT(message([] { nn::init::kaiming_uniform_(ones({3})); }), Contains("(3,)"));
  Tensor leaf = ones({2, 2}, {.requires_grad = true});
  nn::init::zeros_(leaf);  // notes no gradient
  CHECK(leaf.is_leaf());
}
