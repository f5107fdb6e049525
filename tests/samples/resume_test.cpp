// mnist_cnn and char_lm, killed in the middle, and classic, ended, go on with the numbers of a run that was
// not.
#include <random>

#include "tests/samples/program.h"

using namespace tandem::test;

namespace {

/// An array of bytes as MNIST's files hold them.
std::string idx(std::initializer_list<uint8_t> sizes, const std::string& bytes) {
  std::string file = {0, 0, 8, static_cast<char>(sizes.size())};
  for (const uint8_t n : sizes) file += {0, 0, 0, static_cast<char>(n)};
  return file + bytes;
}

void compare(const std::vector<std::string>& program, int lines, std::initializer_list<const char*> names) {
  ScratchFolder whole, killed;
  const auto with = [&](std::initializer_list<std::string> more) {
    std::vector<std::string> all = program;
    all.insert(all.end(), more);
    return all;
  };
  const std::string metrics = killed / "metrics.jsonl";
  run(with({"--out", whole.path()}));
  kill_after(with({"--out", killed.path()}), metrics, lines);
  const std::string output = run(with({"--out", killed.path(), "--resume"}));
  CHECK(output.find("goes on after step") != std::string::npos);
  for (const char* name : names) {
    CHECK(numbers(metrics, name) == numbers(whole / "metrics.jsonl", name));
    CHECK(numbers(metrics, name).size() > static_cast<size_t>(lines));
  }
}

}  // namespace

TEST_CASE("mnist_cnn goes on after a kill", "[samples]") {
  ScratchFolder data;
  std::mt19937 random(3);
  std::string pixels, labels;
  for (int i = 0; i < 200; ++i) {
    const auto label = static_cast<char>(random() % 10);
    labels += label;
    for (int p = 0; p < 28 * 28; ++p)
      pixels += static_cast<char>(p / 28 % 10 == label ? 255 : random() % 100);
  }
  data.put("t10k-images-idx3-ubyte", idx({200, 28, 28}, pixels));
  data.put("t10k-labels-idx1-ubyte", idx({200}, labels));
  compare({TANDEM_SAMPLES "/mnist_cnn", "--data", data.path(), "--epochs", "6", "--batch", "32", "--mode",
           "eager"},
          3, {"loss", "accuracy", "lr"});
}

TEST_CASE("char_lm goes on after a kill", "[samples]") {
  compare({TANDEM_SAMPLES "/char_lm", "--mode", "eager", "--layers", "1", "--width", "32", "--heads", "2",
           "--context", "16", "--steps", "100", "--evaluations", "10", "--dropout", "0.1", "--write", "0"},
          4, {"loss", "validation", "lr"});
}

TEST_CASE("classic goes on from the end of an earlier run", "[samples]") {
  ScratchFolder whole, parted;
  const auto train = [](const ScratchFolder& folder, const std::string& steps, const std::string& more) {
    std::vector<std::string> program = {TANDEM_SAMPLES "/classic",
                                        "--model",
                                        "mobilenet_v2",
                                        "--scale",
                                        "0.0625",
                                        "--batch",
                                        "2",
                                        "--warmup",
                                        "0",
                                        "--steps",
                                        steps,
                                        "--mode",
                                        "eager",
                                        "--out",
                                        folder.path()};
    if (!more.empty()) program.push_back(more);
    return run(program);
  };
  train(whole, "6", "");
  train(parted, "3", "");
  CHECK(train(parted, "3", "--resume").find("goes on after step 3") != std::string::npos);
  CHECK(numbers(parted / "metrics.jsonl", "loss") == numbers(whole / "metrics.jsonl", "loss"));
  CHECK(numbers(parted / "metrics.jsonl", "loss").size() == 6);
}
