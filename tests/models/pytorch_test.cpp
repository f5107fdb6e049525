// The image models beside PyTorch's (tests/pytorch/models.py), from the same weights: ten losses, the
// gradients of the first step, running statistics after the last.
#include "tests/pytorch/exchange.h"

#include "samples/models/alexnet.h"
#include "samples/models/mobilenet.h"
#include "samples/models/resnet.h"
#include "samples/models/vgg.h"

namespace td = tandem;
using td::Tensor;
using namespace td::test;

namespace {

constexpr int64_t kClasses = 10, kBatch = 8, kSide = 64;

struct Trained {
  std::string name;
  td::DType type;
  std::vector<td::NamedTensor> results;
};

class Suite {
 public:
  /// `make()` gives the model; `lr` such that ten steps stay smooth enough for digits to be compared.
  template <class Make>
  void add(const std::string& model, double scale, double lr, Make make) {
    for (const td::DType type : {td::float32, td::float64}) {
      td::manual_seed(7);
      Trained t{model + '.' + td::name(type), type, {}};
      const auto net = make();
      net->to(type);
      // Batch norm begins with biases of 0, which would hide what is done with them.
      for (const td::NamedTensor& p : net->named_parameters())
        if (p.tensor.sizes().rank() == 1) td::nn::init::normal_(p.tensor, 0.5, 0.2);
      for (const td::NamedTensor& s : net->state())
        exchange_.give(t.name, "state." + s.name, s.tensor.clone());
      const Tensor x = td::randn({kBatch, 3, kSide, kSide}, {.dtype = type});
      const Tensor y = td::randint(0, kClasses, {kBatch});
      exchange_.give(t.name, "x", x);
      exchange_.give(t.name, "y", y);
      exchange_.ask(
          t.name, "model",
          Fields().text("model", model).integer("classes", kClasses).number("scale", scale).number("lr", lr));
      td::optim::SGD opt(net->parameters(), {.lr = lr, .momentum = 0.9, .weight_decay = 1e-4});
      std::vector<Tensor> losses;
      for (int step = 0; step < 10; ++step) {
        const Tensor loss = td::cross_entropy(net->forward(x), y);
        opt.zero_grad();
        loss.backward();
        if (step == 0)
          for (const td::NamedTensor& p : net->named_parameters())
            t.results.push_back({"grad." + p.name, p.tensor.grad().clone()});
        opt.step();
        losses.push_back(loss.detach());
      }
      t.results.push_back({"losses", td::stack(losses, 0)});
      for (const td::NamedTensor& b : net->named_buffers())
        t.results.push_back({"after." + b.name, b.tensor.detach()});
      trained_.push_back(std::move(t));
    }
  }

  void compare() {
    exchange_.run();
    for (const Trained& t : trained_) {
      INFO(t.name << ' ' << exchange_.without(t.name));
      CHECK(exchange_.answers(t.name).size() == t.results.size());
      // A bias between two batch norms has no gradient but rounding errors, which all gradients together
      // measure.
      double squares = 0;
      for (const td::NamedTensor& r : t.results)
        if (r.name.starts_with("grad.")) squares += r.tensor.square().sum().item<double>();
      for (const td::NamedTensor& r : t.results) {
        INFO(r.name);
        CHECK(disagreement(r.tensor, exchange_.answer(t.name, r.name), t.type == td::float64 ? 1e-9 : 1e-4,
                           r.name.starts_with("grad.") ? 0.01 * std::sqrt(squares) : 0) == "");
      }
    }
  }

 private:
  Exchange exchange_;
  std::vector<Trained> trained_;
};

}  // namespace

TEST_CASE("Ten steps of the image models are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  Suite s;
  using namespace samples;
  s.add("alexnet", 0.0625, 0.01, [] { return std::make_unique<AlexNet>(kClasses, 0.0, 0.0625); });
  s.add("vgg19", 0.0625, 0.01, [] { return std::make_unique<Vgg>(19, kClasses, 0.0, 0.0625); });
  s.add("resnet18", 0.125, 0.01, [] { return std::make_unique<ResNet>(18, kClasses, 0.125); });
  s.add("resnet50", 0.125, 0.01, [] { return std::make_unique<ResNet>(50, kClasses, 0.125); });
  s.add("mobilenet_v1", 0.25, 0.01, [] { return std::make_unique<MobileNetV1>(kClasses, 0.25); });
  s.add("mobilenet_v2", 0.25, 0.01, [] { return std::make_unique<MobileNetV2>(kClasses, 0.0, 0.25); });
  s.compare();
}
