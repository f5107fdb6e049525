// Whole training steps, eager and traced from the same seed: every optimizer, schedules, checkpoints.
#include <cmath>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace td = tandem;

namespace {

struct Net : td::nn::Module {
  explicit Net(double p = 0) : p(p) {}
  double p;
  td::nn::Embedding table = child<td::nn::Embedding>("table", 10, 8);
  td::nn::Sequential body = child<td::nn::Sequential>("body", [this](td::nn::Sequential& s) {
    s.emplace<td::nn::Linear>(8, 16);
    s.emplace<td::nn::LayerNorm>(16);
    s.emplace<td::nn::GELU>();
    s.emplace<td::nn::Dropout>(p);
    s.emplace<td::nn::Linear>(16, 4);
  });
  td::Tensor forward(const td::Tensor& i) { return body(table(i)); }
};

/// The numbers of a run, bit by bit: losses and, at the end, all parameters.
using Numbers = std::vector<float>;
struct Outcome {
  Numbers numbers;
  td::TraceReport report;
};

td::data::TensorDataset examples() {
  td::Generator g(3);
  const td::Tensor x = td::randint(0, 10, {48}, {.dtype = td::int64}, &g);
  return {x, td::randint(0, 4, {48}, {.dtype = td::int64}, &g)};
}

void append(Numbers& out, const td::Tensor& t) {
  for (const float v : t.to_vector<float>()) out.push_back(v);
}

/// Trains `epochs` epochs from seed 7; `make(net)` gives the optimizer.
template <class Make>
Outcome train(bool traced, double p, int epochs, Make make) {
  td::manual_seed(7);
  Net net(p);
  auto opt = make(net);
  td::optim::CosineAnnealingLR schedule(*opt, epochs);
  td::data::DataLoader loader(examples(), {.batch_size = 16, .shuffle = true, .seed = 5});
  Outcome out;
  const auto body = [&](const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt->zero_grad();
    loss.backward();
    opt->step();
    return loss;
  };
  auto step = td::trace(body);
  for (int e = 0; e < epochs; ++e) {
    for (auto [x, y] : loader) append(out.numbers, traced ? step(x, y) : body(x, y));
    schedule.step();
  }
  for (const td::NamedTensor& n : net.state()) append(out.numbers, n.tensor);
  out.report = step.report();
  return out;
}

/// A run whose whole state can be saved.
struct Run {
  Net net{0.3};
  td::optim::AdamW opt{net.parameters(), {.lr = 0.01}};
  td::data::DataLoader loader{examples(), {.batch_size = 16, .shuffle = true, .seed = 5}};
  Numbers epoch(auto& step) {
    Numbers out;
    for (auto [x, y] : loader) append(out, step(x, y));
    return out;
  }
  auto traced() {
    return td::trace([this](const td::Tensor& x, const td::Tensor& y) {
      td::Tensor loss = td::cross_entropy(net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    });
  }
  td::Checkpoint parts() {
    return {.module = &net,
            .optimizer = &opt,
            .generators = {{"default", &td::default_generator()}, {"loader", &loader.generator()}}};
  }
};

}  // namespace

TEST_CASE("every optimizer trains traced as it does eagerly, bit for bit, from one recording", "[training]") {
  const auto compare = [](const char* name, auto make) {
    CAPTURE(name);
    const Outcome eager = train(false, 0, 4, make), traced = train(true, 0, 4, make);
    REQUIRE(eager.numbers.size() > 12);
    CHECK((eager.numbers == traced.numbers));
    CHECK(eager.numbers.front() != eager.numbers[11]);
    CHECK(traced.report.calls == 12);
    // Learning rates, step counts and corrections are run-time numbers: nothing is recorded again.
    CHECK(traced.report.recorded == 1);
    CHECK(traced.report.op_by_op == 0);
  };
  using namespace td::optim;
  compare("AdamW", [](Net& n) { return std::make_unique<AdamW>(n.parameters(), AdamWOptions{.lr = 0.01}); });
  compare("Adam", [](Net& n) {
    return std::make_unique<Adam>(n.parameters(), AdamOptions{.lr = 0.01, .weight_decay = 0.1});
  });
  compare("SGD", [](Net& n) { return std::make_unique<SGD>(n.parameters(), SGDOptions{.lr = 0.1}); });
  compare("SGD with momentum", [](Net& n) {
    return std::make_unique<SGD>(n.parameters(), SGDOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true});
  });
  compare("AdamW upwards", [](Net& n) {
    return std::make_unique<AdamW>(n.parameters(), AdamWOptions{.lr = 0.01, .maximize = true});
  });
  compare("AdamW by the largest second moment", [](Net& n) {
    return std::make_unique<AdamW>(n.parameters(), AdamWOptions{.lr = 0.01, .amsgrad = true});
  });
}

TEST_CASE("dropout draws the same numbers traced, forward and backward", "[training]") {
  const auto make = [](Net& n) {
    return std::make_unique<td::optim::AdamW>(n.parameters(), td::optim::AdamWOptions{.lr = 0.01});
  };
  const Outcome eager = train(false, 0.3, 4, make), traced = train(true, 0.3, 4, make);
  CHECK((eager.numbers == traced.numbers));
  CHECK(traced.report.recorded == 1);
}

TEST_CASE("evaluation, a frozen layer and new options are followed by a traced step", "[training]") {
  const auto run = [](bool traced) {
    td::manual_seed(9);
    Net net(0.3);
    td::optim::AdamW opt(net.parameters(), {.lr = 0.01});
    Numbers out;
    const auto body = [&](const td::Tensor& x, const td::Tensor& y) {
      td::Tensor loss = td::cross_entropy(net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    };
    auto step = td::trace(body);
    td::data::DataLoader loader(examples(), {.batch_size = 16});
    for (int e = 0; e < 6; ++e) {
      if (e == 1) net.eval();
      if (e == 2) net.train();
      if (e == 3) net.table.requires_grad_(false);
      if (e == 4) opt.set_options({.lr = 0.02, .betas = {0.8, 0.9}, .eps = 1e-6, .weight_decay = 0.1});
      for (auto [x, y] : loader) append(out, traced ? step(x, y) : body(x, y));
    }
    for (const td::NamedTensor& n : net.state()) append(out, n.tensor);
    return out;
  };
  CHECK((run(false) == run(true)));
}

TEST_CASE("a traced run that is saved, loaded and resumed continues bit for bit", "[training]") {
  const ScratchFolder folder;
  td::manual_seed(4);
  Run run;
  auto step = run.traced();
  run.epoch(step);
  td::save_checkpoint(folder / "c", run.parts());
  const Numbers expected = run.epoch(step);

  td::manual_seed(99);
  Run other;
  auto other_step = other.traced();
  other.epoch(other_step);
  td::load_checkpoint(folder / "c", other.parts());
  CHECK(other.epoch(other_step) == expected);
  td::load_checkpoint(folder / "c", run.parts());  // back in time, through the same trace
  CHECK(run.epoch(step) == expected);
}
