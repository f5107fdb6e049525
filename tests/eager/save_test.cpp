#include "tandem/eager/save.h"

#include <fstream>
#include <sstream>

#include "tandem/eager/data/data.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

struct Mlp : nn::Module {
  explicit Mlp(int64_t width = 6) : width(width) {}
  int64_t width;
  nn::Linear hidden = child<nn::Linear>("hidden", 4, width);
  nn::Dropout drop = child<nn::Dropout>("drop", 0.3);
  nn::Linear out = child<nn::Linear>("out", width, 3);
  Tensor steps = buffer("steps", zeros({}, {.dtype = int64}));
  Tensor forward(const Tensor& x) { return out(drop(relu(hidden(x)))); }
};

std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }

using tandem::test::message;

std::string bytes_of_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream out;
  out << in.rdbuf();
  return out.str();
}

/// A training run whose whole state can be saved.
struct Run {
  Mlp net;
  optim::AdamW opt{net.parameters(), {.lr = 0.01}};
  optim::CosineAnnealingLR schedule{opt, 20};
  data::DataLoader loader;

  Run()
      : loader(
            [] {
              Generator g(3);
              const Tensor x = randn({40, 4}, {}, &g);
              return data::TensorDataset(x, randint(0, 3, {40}, {.dtype = int64}, &g));
            }(),
            {.batch_size = 8, .shuffle = true, .seed = 5}) {}

  std::vector<float> epoch() {
    std::vector<float> losses;
    for (auto [x, y] : loader) {
      const Tensor loss = cross_entropy(net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
      losses.push_back(loss.item<float>());
    }
    schedule.step();
    return losses;
  }
  Checkpoint parts() {
    return {.module = &net,
            .optimizer = &opt,
            .scheduler = &schedule,
            .generators = {{"default", &default_generator()}, {"loader", &loader.generator()}},
            .metadata = {{"epoch", "2"}}};
  }
};

}  // namespace

TEST_CASE("tensors come back bit for bit with names, types, shapes and metadata", "[save]") {
  const ScratchFolder folder;
  const std::string path = folder / "t.safetensors";
  const Tensor a = randn({3, 4});
  const std::vector<NamedTensor> all = {{"a", a},
                                        {"a.transposed", a.t()},
                                        {"every second", a.slice(1, 0, 4, 2)},
                                        {"expanded", tensor({1.f, 2.f}).view({2, 1}).expand({2, 3})},
                                        {"int64", tensor({int64_t{-5}, int64_t{1} << 60})},
                                        {"int32", tensor({int32_t{-5}})},
                                        {"uint8", tensor({uint8_t{200}})},
                                        {"bool", tensor({true, false})},
                                        {"half", a.to(float16)},
                                        {"bfloat", a.to(bfloat16)},
                                        {"double", a.to(float64)},
                                        {"scalar", scalar_tensor(2.5f)},
                                        {"empty", zeros({0, 3})},
                                        {"wants grad", ones({2}, {.requires_grad = true})}};
  save(path, all, {{"who", "me"}});
  const LoadedFile file = load(path);
  CHECK(find_metadata(file.metadata, "who") == "me");
  CHECK(find_metadata(file.metadata, "tandem.version") == "1");
  CHECK(find_metadata(file.metadata, "none", "-") == "-");
  REQUIRE(file.tensors.size() == all.size());
  for (const NamedTensor& n : all) {
    CAPTURE(n.name);
    const Tensor* found = nullptr;
    for (const NamedTensor& f : file.tensors)
      if (f.name == n.name) found = &f.tensor;
    REQUIRE(found);
    CHECK(found->dtype() == n.tensor.dtype());
    CHECK(found->sizes() == n.tensor.sizes());
    CHECK(found->is_contiguous());
    CHECK(found->to_vector<double>() == n.tensor.to_vector<double>());
  }
  CHECK_THAT(message([&] { save(path, {{"x", Tensor()}}); }), Contains("\"x\" is an undefined tensor"));
  CHECK_THAT(message([&] { save(path, {{"x", a}, {"x", a}}); }), Contains("x"));
  CHECK_THAT(message([&] { save(path, all, {{"tandem.kind", "x"}}); }), Contains("reserved"));
  CHECK_THAT(message([&] { save(path, all, {{"k", "x"}, {"k", "y"}}); }), Contains("given twice"));
  CHECK(load(path).tensors.size() == all.size());  // what failed left the old file
  CHECK(folder.count() == 1);
}

TEST_CASE("a module is saved under PyTorch's names and loaded into another", "[save]") {
  const ScratchFolder folder;
  const std::string path = folder / "m.safetensors";
  manual_seed(1);
  Mlp a, b;
  a.steps.fill_(7);
  save(path, a, {{"accuracy", "0.9"}});
  std::vector<std::string> names;
  for (const NamedTensor& n : load(path).tensors) names.push_back(n.name);
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{"hidden.bias", "hidden.weight", "out.bias", "out.weight", "steps"});
  CHECK(find_metadata(load(path, b), "accuracy") == "0.9");
  CHECK(values(b.hidden.weight) == values(a.hidden.weight));
  CHECK(b.steps.item<int64_t>() == 7);

  Mlp wide(9);
  const std::vector<float> before = values(wide.out.bias);
  CHECK_THAT(message([&] { load(path, wide); }),
             Contains(path) && Contains("hidden.weight is float32(9, 4), given float32(6, 4)") &&
                 Contains("save_test.cpp"));
  CHECK(values(wide.out.bias) == before);
  nn::Linear linear(4, 6);
  CHECK_THAT(message([&] { load(path, linear); }),
             Contains("missing: weight, bias") && Contains("unexpected: steps, hidden.weight"));
  a.to(float64);
  CHECK_THAT(message([&] { load(path, a); }),
             Contains("hidden.weight is float64(6, 4), given float32(6, 4)"));
  CHECK_THAT(message([&] { load(folder / "none", a); }), Contains("none"));
}

TEST_CASE("optimizers and generators are saved on their own", "[save]") {
  const ScratchFolder folder;
  Tensor p = ones({3}).requires_grad_(), q = ones({3}).requires_grad_();
  optim::AdamW opt({p}, {.lr = 0.5}), other({q});
  p.set_grad(ones({3}));
  opt.step();
  save(folder / "o", opt);
  load(folder / "o", other);
  CHECK(other.lr() == 0.5);
  CHECK(values(other.state()[8].tensor) == values(opt.state()[8].tensor));
  optim::SGD sgd({q});
  CHECK_THAT(message([&] { load(folder / "o", sgd); }), Contains("missing: group.0.momentum"));

  Generator g(~uint64_t{0} - 4), h;
  g.advance(1000);
  save(folder / "g", g);
  load(folder / "g", h);
  CHECK(h.seed() == g.seed());
  CHECK(h.offset() == 1000);
  CHECK(h.next_u64() == g.next_u64());
  CHECK_THROWS_AS(load(folder / "o", h), Error);
}

TEST_CASE("a resumed run continues the uninterrupted one bit for bit", "[save]") {
  const ScratchFolder folder;
  const std::string path = folder / "checkpoint";
  std::vector<float> expected;
  std::vector<float> expected_weights;
  {
    manual_seed(2);
    Run run;
    run.epoch();
    run.epoch();
    save_checkpoint(path, run.parts());
    for (int i = 0; i < 3; ++i)
      for (const float l : run.epoch()) expected.push_back(l);
    expected_weights = values(run.net.hidden.weight);
  }
  manual_seed(77);
  Run run;
  run.epoch();  // somewhere else
  CHECK(find_metadata(load_checkpoint(path, run.parts()), "epoch") == "2");
  CHECK(run.schedule.last_epoch() == 2);
  std::vector<float> losses;
  for (int i = 0; i < 3; ++i)
    for (const float l : run.epoch()) losses.push_back(l);
  CHECK(losses == expected);
  CHECK(values(run.net.hidden.weight) == expected_weights);
}

TEST_CASE("a checkpoint that does not fit changes nothing", "[save]") {
  const ScratchFolder folder;
  const std::string path = folder / "checkpoint";
  manual_seed(2);
  Run run;
  run.epoch();
  save_checkpoint(path, run.parts());
  run.epoch();
  const std::vector<float> weights = values(run.net.hidden.weight);
  const uint64_t offset = default_generator().offset();
  const double lr = run.opt.lr();
  const auto unchanged = [&] {
    return values(run.net.hidden.weight) == weights && default_generator().offset() == offset &&
           run.opt.lr() == lr;
  };

  Checkpoint parts = run.parts();
  parts.generators[1].first = "shuffle";
  CHECK_THAT(message([&] { load_checkpoint(path, parts); }),
             Contains("missing: shuffle") && Contains("unexpected: loader"));
  CHECK(unchanged());
  parts = run.parts();
  parts.scheduler = nullptr;
  CHECK_THAT(message([&] { load_checkpoint(path, parts); }), Contains("also holds \"scheduler."));
  CHECK(unchanged());
  optim::SGD sgd(run.net.parameters());
  parts = run.parts();
  parts.optimizer = &sgd;
  CHECK_THAT(message([&] { load_checkpoint(path, parts); }), Contains("missing: group.0.momentum"));
  CHECK(unchanged());

  // Every kind of damage is an Error, whatever it does to the parts: all or nothing.
  const std::string bytes = bytes_of_file(path);
  for (size_t n = 0; n < bytes.size(); n += 1 + bytes.size() / 300) {
    const std::string cut = folder.put("cut", bytes.substr(0, n));
    REQUIRE_THROWS_AS(load_checkpoint(cut, run.parts()), Error);
  }
  CHECK(unchanged());
  load_checkpoint(path, run.parts());
  CHECK_FALSE(unchanged());
}

TEST_CASE("a file of a later version is refused", "[save]") {
  const ScratchFolder folder;
  save(folder / "a", {{"x", ones({1})}});
  std::string bytes = bytes_of_file(folder / "a");
  const size_t at = bytes.find("\"tandem.version\":\"1\"");
  REQUIRE(at != std::string::npos);
  bytes[at + 18] = '2';
  CHECK_THAT(message([&] { load(folder.put("b", bytes)); }), Contains("version 2"));
}
