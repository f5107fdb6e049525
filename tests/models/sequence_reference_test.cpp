// GNMT, NeuMF and GPT-2 against PyTorch's, of the same weights, without dropout: logits, ten losses of
// training, and every gradient of the first step. GPT-2 comes from a file with Hugging Face's names and
// layout.
#include <functional>
#include <optional>

#include "samples/models/gpt2.h"
#include "samples/models/neumf.h"
#include "samples/models/sequence_workloads.h"
#include "tests/models/hugging_face.h"
#include "tests/pytorch/exchange.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;

namespace {

constexpr int kSteps = 10;

/// The sizes of a model's comparison: what PyTorch's is made of, and how both train.
struct Case {
  std::string model;
  Fields config;
  std::string optimizer;
  Fields options;
  double clip;
};

Fields adam(double lr, double beta1, double beta2) {
  return Fields().number("lr", lr).raw("betas", '[' + Fields::json(beta1) + ", " + Fields::json(beta2) + ']');
}

/// Asks PyTorch about all models at once, then trains ours and compares.
class Suite {
 public:
  /// `state`: what PyTorch's model takes; `turned(name)`: whether it holds that weight transposed. `net` and
  /// what `forward` and `loss` refer to must live until compare().
  template <class Net, class Optimizer, class Forward, class Loss, class Turned>
  void add(const Case& c, Net& net, Optimizer& optimizer, const std::vector<td::NamedTensor>& state,
           const std::vector<Tensor>& batch, Forward forward, Loss loss, Turned turned) {
    const td::DType type = state.front().tensor.dtype();
    const std::string name = c.model + ' ' + td::name(type);
    Fields fields;
    fields.text("model", c.model).raw("config", c.config.object()).text("optimizer", c.optimizer);
    fields.raw("options", c.options.object()).integer("steps", kSteps).number("clip", c.clip);
    exchange_.ask(name, "sequence_model", fields);
    for (const td::NamedTensor& n : state) exchange_.give(name, "state." + n.name, n.tensor);
    for (size_t i = 0; i < batch.size(); ++i) exchange_.give(name, "batch" + std::to_string(i), batch[i]);
    // 1e-4 by norm is what float32 leaves after ten steps; in float64 the models must be the same.
    const double allowed = type == td::float64 ? 1e-9 : 1e-4;
    checks_.push_back([this, name, allowed, clip = c.clip, &net, &optimizer, forward, loss, turned] {
      INFO(name << ' ' << exchange_.without(name));
      {
        const td::NoGrad no_grad;
        CHECK(disagreement(forward(), exchange_.answer(name, "logits"), allowed) == "");
      }
      std::vector<Tensor> losses;
      for (int step = 0; step < kSteps; ++step) {
        const Tensor l = loss();
        optimizer.zero_grad();
        l.backward();
        if (step == 0) {
          for (const td::NamedTensor& p : net.named_parameters()) {
            INFO(p.name);
            const Tensor grad = turned(p.name) ? p.tensor.grad().t() : p.tensor.grad();
            CHECK(disagreement(grad, exchange_.answer(name, "grad." + p.name), allowed) == "");
          }
        }
        if (clip > 0) td::nn::utils::clip_grad_norm_(net.parameters(), clip);
        optimizer.step();
        losses.push_back(l.detach());
      }
      CHECK(disagreement(td::stack(losses), exchange_.answer(name, "losses"), allowed) == "");
      CHECK(losses.back().template item<double>() < losses.front().template item<double>());
    });
  }
  void compare() {
    exchange_.run();
    for (const auto& check : checks_) check();
  }

 private:
  Exchange exchange_;
  std::vector<std::function<void()>> checks_;
};

bool never(const std::string&) { return false; }

struct GnmtCase {
  GnmtCase(Suite& suite, td::DType type) {
    // At the initial weights keys hardly differ, and the attention's gradients are what rounding leaves.
    for (const td::NamedTensor& p : net.named_parameters()) td::nn::init::uniform_(p.tensor, -0.5, 0.5);
    net.to(type);
    optimizer.emplace(net.parameters(), td::optim::AdamOptions{.lr = 2e-3});
    const Fields config = Fields()
                              .integer("vocab_size", 41)
                              .integer("hidden_size", 16)
                              .integer("num_layers", 4)
                              .number("label_smoothing", 0.1);
    const double norm = 0.05;  // one that clips
    suite.add(
        {"gnmt", config, "Adam", adam(2e-3, 0.9, 0.999), norm}, net, *optimizer, net.state(),
        {b.source, b.lengths, b.input, b.target}, [&] { return net.forward(b.source, b.lengths, b.input); },
        [&] { return net.loss(b); }, never);
  }
  samples::Gnmt net{{.vocab_size = 41, .hidden_size = 16, .dropout = 0}};
  samples::GnmtBatch b = samples::random_sentences(net.config, 5, 7);
  std::optional<td::optim::Adam> optimizer;  // of parameters in their final type
};

struct NeuMfCase {
  NeuMfCase(Suite& suite, td::DType type) : labels((td::rand({64}) < 0.3).to(type)) {
    net.to(type);
    optimizer.emplace(net.parameters(), td::optim::AdamOptions{.lr = 4.5e-3, .betas = {0.25, 0.5}});
    const Fields config = Fields()
                              .integer("users", 30)
                              .integer("items", 20)
                              .integer("mf_width", 8)
                              .list("mlp_widths", net.config.mlp_widths);
    suite.add(
        {"ncf", config, "Adam", adam(4.5e-3, 0.25, 0.5), 0}, net, *optimizer, net.state(),
        {users, items, labels}, [&] { return net.forward(users, items); },
        [&] { return net.loss(users, items, labels); }, never);
  }
  samples::NeuMf net{{.users = 30, .items = 20, .mf_width = 8, .mlp_widths = {32, 24, 16}, .dropout = 0}};
  Tensor users = td::randint(0, 30, {64}), items = td::randint(0, 20, {64}), labels;
  std::optional<td::optim::Adam> optimizer;  // of parameters in their final type
};

struct Gpt2Case {
  Gpt2Case(Suite& suite, td::DType type) {
    const std::vector<td::NamedTensor> weights = hugging_face_weights(type);
    const ScratchFolder folder;
    td::save(folder / "model.safetensors", weights);
    net.to(type);
    optimizer.emplace(net.parameters(),
                      td::optim::AdamWOptions{.lr = 1e-3, .betas = {0.9, 0.95}, .weight_decay = 0.1});
    net.load_hugging_face(folder / "model.safetensors");
    net.eval();
    const Fields config = Fields()
                              .integer("n_layer", kSmallGpt2.n_layer)
                              .integer("n_head", kSmallGpt2.n_head)
                              .integer("n_embd", kSmallGpt2.n_embd)
                              .integer("n_positions", kSmallGpt2.n_positions)
                              .integer("vocab_size", kSmallGpt2.vocab_size);
    suite.add(
        {"gpt2", config, "AdamW", adam(1e-3, 0.9, 0.95).number("weight_decay", 0.1), 1}, net, *optimizer,
        weights, {ids, targets}, [&] { return net.forward(ids); }, [&] { return net.loss(ids, targets); },
        is_turned);
  }
  samples::Gpt2 net{kSmallGpt2};
  Tensor ids = td::randint(0, kSmallGpt2.vocab_size, {3, 9});
  Tensor targets = td::randint(0, kSmallGpt2.vocab_size, {3, 9});
  std::optional<td::optim::AdamW> optimizer;  // of parameters in their final type
};

}  // namespace

TEST_CASE("GNMT, NeuMF and GPT-2 are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  td::manual_seed(3);
  Suite suite;
  GnmtCase gnmt(suite, td::float32), gnmt64(suite, td::float64);
  NeuMfCase neumf(suite, td::float32), neumf64(suite, td::float64);
  Gpt2Case gpt2(suite, td::float32), gpt264(suite, td::float64);
  suite.compare();
}
