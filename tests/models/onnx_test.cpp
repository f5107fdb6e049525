// The networks of samples/models as ONNX files, which ONNX Runtime, where it is, runs to Tandem's results.
#include "samples/models/alexnet.h"
#include "samples/models/gpt2.h"
#include "samples/models/mobilenet.h"
#include "samples/models/resnet.h"
#include "samples/models/vgg.h"
#include "tandem/tandem.h"
#include "tests/io/onnx_judge.h"

namespace td = tandem;
using td::Tensor;

namespace {

/// A file for each of the inputs, which differ in their sizes.
template <class Net>
void ask(td::test::OnnxJudge& judge, const std::string& name, Net& net, const std::vector<Tensor>& inputs) {
  net.eval();
  {
    const td::NoGrad no_grad;  // statistics that a trained network could have
    td::Generator draws(4);
    for (const td::NamedTensor& b : net.named_buffers())
      if (td::is_floating(b.tensor.dtype()))
        b.tensor.copy_(td::rand(b.tensor.sizes(), {}, &draws) * 0.5 + 0.75);
  }
  for (const Tensor& x : inputs) {
    const std::string file = name + "-" + std::to_string(x.size(0));
    INFO(file);
    auto f = td::trace(
        [&](const Tensor& in) {
          const td::NoGrad no_grad;
          return net.forward(in);
        },
        {.compile = false});
    f(x);
    const Tensor wanted = f(x);
    td::onnx::save(judge.path(file), f, {.names = net.state(), .inputs = {"input"}, .outputs = {"logits"}});
    judge.ask(file, {x}, {wanted});
  }
}

std::vector<Tensor> images(int64_t size, const std::vector<int64_t>& batches) {
  td::Generator draws(9);
  std::vector<Tensor> all;
  for (const int64_t n : batches) all.push_back(td::randn({n, 3, size, size}, {}, &draws));
  return all;
}

}  // namespace

TEST_CASE("The networks of samples/models are ONNX files that give the same results") {
  if (!td::test::have_onnx()) return;
  td::manual_seed(3);
  td::test::OnnxJudge judge;
  {
    samples::AlexNet net(10, 0.5, 0.25);
    ask(judge, "alexnet", net, images(95, {1, 2, 3}));
  }
  {
    samples::Vgg net(16, 10, 0.5, 0.25);
    ask(judge, "vgg", net, images(64, {1, 2, 3}));
  }
  {
    samples::ResNet net(50, 10, 0.25);
    ask(judge, "resnet", net, images(64, {1, 2, 3}));
  }
  {
    samples::MobileNetV1 first(10, 0.25);
    ask(judge, "mobilenet", first, images(64, {1, 2, 3}));
    samples::MobileNetV2 second(10, 0.2, 0.25);
    ask(judge, "mobilenet2", second, images(64, {1, 2, 3}));
  }
  {
    samples::Gpt2 net(samples::Gpt2Config::preset("tiny"));
    td::Generator draws(2);
    std::vector<Tensor> ids;
    for (const int64_t n : {1, 2, 3})
      ids.push_back(td::randint(0, 256, {n, 17}, {.dtype = td::int64}, &draws));
    ask(judge, "gpt2", net, ids);
  }
  judge.run();
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}
