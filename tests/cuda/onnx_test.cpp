// A function on the device is exported as the same one on the CPU.
#include "tandem/core/io/file.h"
#include "tests/core/scratch_folder.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

TEST_CASE("a frozen function on the device is exported with its weights", "[cuda]") {
  need_device();
  const ScratchFolder folder;
  const auto file = [&](td::Device device) {
    td::manual_seed(3);
    SmallNet net;
    net.to(device);
    auto f = td::trace([&](const Tensor& x) {
      const td::NoGrad no_grad;
      return td::softmax(net.out(td::relu(net.norm(net.hidden(x)))), 1);
    });
    const Tensor x = td::zeros({4, 16}, {.device = device});
    f(x), f(x);
    const std::string path = folder / (to_string(device) + ".onnx");
    td::onnx::save(path, f, {.names = net.state()});
    return td::core::read_file(path);
  };
  const std::string text = file(kCuda);
  CHECK(text.size() > 200);
  CHECK(text == file(td::cpu));
}
