#include "benchmarks/bench/literature.h"

#include <cstdlib>

#include "benchmarks/bench/contest.h"
#include "samples/models/alexnet.h"
#include "samples/models/gnmt.h"
#include "samples/models/gpt2.h"
#include "samples/models/mobilenet.h"
#include "samples/models/neumf.h"
#include "samples/models/resnet.h"
#include "samples/models/vgg.h"
#include "tandem/core/error.h"

namespace bench {

namespace {

using td::Tensor;

constexpr int kHeavyGateSteps = 5;
constexpr int64_t kSide = 224, kClasses = 1000;

template <class Optimizer, class Options>
auto optimizer(Options options) {
  return [options](const std::vector<Tensor>& parameters, double lr) mutable {
    options.lr = lr;
    return std::make_unique<Optimizer>(parameters, options);
  };
}

/// Of one image of 224 x 224: FLOP of a training step (twice the multiplications and additions of its three
/// directions), parameters, and results of convolutions.
struct Image {
  const char* name;
  const char* what;
  int64_t batch;  // for two processors
  double gflop, parameters, results;
  bool norms;  // batch norms stand between its convolutions
  std::function<Net()> net;
};

template <class Module>
std::function<Net()> classifier(std::function<std::shared_ptr<Module>()> make) {
  return [make] {
    const std::shared_ptr<Module> net = make();
    return Net{net, [at = net.get()](Tensors b) { return td::cross_entropy(at->forward(b[0]), b[1]); }};
  };
}

const std::vector<Image>& images() {
  using namespace samples;
  static const std::vector<Image> all = {
      {"alexnet", "AlexNet", 4, 4.14, 61.1e6, 0.48e6, false,
       classifier<AlexNet>([] { return std::make_shared<AlexNet>(kClasses, 0.0); })},
      {"vgg19", "VGG-19", 1, 117.6, 143.7e6, 14.9e6, false,
       classifier<Vgg>([] { return std::make_shared<Vgg>(19, kClasses, 0.0); })},
      {"resnet50", "ResNet-50 v1.5", 2, 24.3, 25.6e6, 11.1e6, true,
       classifier<ResNet>([] { return std::make_shared<ResNet>(50, kClasses); })},
      {"mobilenet_v1", "MobileNet v1", 4, 3.39, 4.2e6, 5.0e6, true,
       classifier<MobileNetV1>([] { return std::make_shared<MobileNetV1>(kClasses); })},
      {"mobilenet_v2", "MobileNet v2", 4, 1.78, 3.5e6, 6.7e6, true,
       classifier<MobileNetV2>([] { return std::make_shared<MobileNetV2>(kClasses, 0.0); })},
  };
  return all;
}

Literature image(const Image& model, int64_t batch) {
  Literature l;
  l.recipe.net = model.net;
  l.recipe.optimizer =
      optimizer<td::optim::SGD>(td::optim::SGDOptions{.momentum = 0.9, .weight_decay = 1e-4});
  l.recipe.batch = {{{batch, 3, kSide, kSide}}, {{batch}, 0, kClasses}};
  l.recipe.gate_lr = 1e-5;         // larger steps over few images diverge by rounding alone
  l.recipe.gain = std::sqrt(6.0);  // He et al., 2015: what ReLU leaves keeps its variance
  if (model.norms) {
    // A relu that rounding switches shows in every gradient before it: eager mode's in float32 are 0.01 to
    // 0.08 (root mean square) off those in float64. What one batch norm adds and the next takes away, or
    // scales through a relu, has no gradient but rounding's.
    l.gradient_tolerance = 0.2;
    l.gradient_floor = 1e-3;
  }
  const auto n = static_cast<double>(batch);
  l.what = std::string(model.what) + ", batch " + std::to_string(batch) + " of 224 x 224, SGD with momentum";
  l.unit = "images", l.units = n;
  l.flop = n * model.gflop * 1e9;
  const double passes = model.norms ? 9 : 3;
  l.results = 4 * n * passes * model.results;
  l.bytes = 16 * model.parameters + 4 * n * 3 * kSide * kSide + l.results;
  l.counted =
      "two FLOP a multiplication and addition; 16 bytes a parameter (weight and momentum, read and written), "
      "the images once, results of convolutions " +
      std::string(model.norms ? "nine times (with batch norm: written, and read for mean, for result, and "
                                "in backward twice, written and read twice on either side of it)"
                              : "three times");
  return l;
}

/// Sentences without padding: S words each, so that nobody has to look at lengths.
Literature gnmt(int64_t batch, int64_t hidden, int64_t words, int64_t length) {
  const samples::GnmtConfig config{.vocab_size = words, .hidden_size = hidden, .dropout = 0};
  constexpr int64_t kFirstWord = 4;  // behind the marks
  Literature l;
  l.recipe.net = [config] {
    const auto net = std::make_shared<samples::Gnmt>(config);
    return Net{net, [at = net.get()](Tensors b) { return at->loss({b[0], b[1], b[2], b[3]}); }};
  };
  l.recipe.optimizer = optimizer<td::optim::Adam>(td::optim::AdamOptions{});
  l.recipe.max_norm = 5;
  l.recipe.gain = 4;  // so that the loss depends on more than the last layer
  const Input sentences{{batch, length}, kFirstWord, words};
  l.recipe.batch = {sentences, {{batch}, length, length + 1}, sentences, sentences};
  const auto h = static_cast<double>(hidden), v = static_cast<double>(words);
  const auto tokens = static_cast<double>(batch * length);
  l.what = "GNMT v2, " + std::to_string(hidden) + " wide, " + std::to_string(words) + " words, " +
           std::to_string(batch) + " pairs of " + std::to_string(length) + " tokens, Adam, clipped";
  l.unit = "tokens", l.units = 2 * tokens;
  // Both stacks have 88 h^2 of LSTMs a token, the attention 2 h^2 on either side.
  l.flop = 3 * tokens * (2 * 90 * h * h + 2 * h * v);
  l.results = 4 * tokens * (2 * static_cast<double>(length) * h + 4 * v + 2 * 2 * 4 * 6 * h);
  l.bytes = 24 * (88 * h * h + 2 * h * h + 2 * v * h) + l.results;
  l.counted =
      "two FLOP a multiplication and addition; 24 bytes a parameter, tanh of the attention written and read, "
      "logits and their gradient written and read, gates, cell and state of each LSTM written and read";
  return l;
}

Literature ncf(int64_t batch) {
  samples::NeuMfConfig config;
  config.dropout = 0;
  Literature l;
  l.recipe.net = [config] {
    const auto net = std::make_shared<samples::NeuMf>(config);
    return Net{net, [at = net.get()](Tensors b) { return at->loss(b[0], b[1], b[2]); }};
  };
  l.recipe.optimizer = optimizer<td::optim::Adam>(td::optim::AdamOptions{.betas = {0.25, 0.5}});
  l.recipe.gain = 4;
  l.recipe.batch = {{{batch}, 0, config.users}, {{batch}, 0, config.items}, {{batch}, 0, 2, true}};
  const auto n = static_cast<double>(batch);
  l.what = "NeuMF of MovieLens 20M's tables, batch " + std::to_string(batch) + ", Adam";
  l.unit = "samples", l.units = n;
  l.flop = n * 0.64e6;
  l.results = n * 4 * 2 * (64 + 256 + 128 + 64);
  l.bytes = 24 * 31.8e6 + n * 4 * 2 * 384 + l.results;
  l.counted =
      "two FLOP a multiplication and addition; 24 bytes a parameter, embeddings read and their gradients "
      "added once, what layers give written and read";
  return l;
}

Literature gpt2(int64_t batch, int64_t length, int64_t words) {
  samples::Gpt2Config config{.vocab_size = words, .embd_pdrop = 0, .resid_pdrop = 0, .attn_pdrop = 0};
  Literature l;
  l.recipe.net = [config] {
    const auto net = std::make_shared<samples::Gpt2>(config);
    return Net{net, [at = net.get()](Tensors b) { return at->loss(b[0], b[1]); }};
  };
  l.recipe.optimizer =
      optimizer<td::optim::AdamW>(td::optim::AdamWOptions{.betas = {0.9, 0.95}, .weight_decay = 0.1});
  l.recipe.max_norm = 1;
  l.recipe.batch = {{{batch, length}, 0, config.vocab_size}, {{batch, length}, 0, config.vocab_size}};
  l.recipe.gate_lr = 1e-4;
  const double c = 768, layers = 12, heads = 12;
  const auto v = static_cast<double>(words), t = static_cast<double>(length);
  const double tokens = static_cast<double>(batch) * t;
  const double products = layers * 12 * c * c + v * c;
  l.what = "GPT-2 of 124 million parameters, batch " + std::to_string(batch) + " of " +
           std::to_string(length) + " tokens, AdamW, clipped";
  l.unit = "tokens", l.units = tokens;
  l.flop = tokens * (6 * products + 12 * layers * c * t);
  l.results = 2 * 4 * tokens * (layers * (13 * c + heads * t) + v);
  l.bytes = 24 * (products + layers * 13 * c + 1024 * c) + l.results;
  l.counted =
      "two FLOP a multiplication and addition, attention whole; 24 bytes a parameter, what a layer keeps (13 "
      "widths and the probabilities a row) and the logits written and read once";
  return l;
}

using Of = Bar::Of;

Workload row(const std::string& name, const std::string& section, double record) {
  std::string base = name;
  const Precision precision = take_precision(base);
  const std::optional<Literature> l = literature(base);
  TANDEM_INTERNAL(l.has_value(), "no such model");
  Workload w = training_workload(name, section, l->what + ": a training step", td::float32, {});
  w.flop = l->flop, w.bytes = l->bytes, w.counted = l->counted;
  w.units = l->units, w.unit = l->unit;
  w.heavy = true;
  w.gradient_tolerance = precision == Precision::float32 ? l->gradient_tolerance : 0.2;
  w.gradient_floor = l->gradient_floor;
  if (precision == Precision::bf16) {
    w.tolerance = 2e-2;
    w.bytes -= l->results / 2;
    w.counted += "; what layers give in bfloat16, parameters, moments and inputs in float32";
  }
  w.bars = {{Of::times_faster, record, "PyTorch"},
            {Of::at_most_times, 1.01, "frozen"},
            {Of::fact_at_most, 1, "private bytes over eager's"}};
  return w;
}

}  // namespace

std::optional<Literature> literature(const std::string& name) {
  const size_t at = name.rfind("_b");
  const bool card =
      at != std::string::npos && name.find_first_not_of("0123456789", at + 2) == std::string::npos;
  const std::string model = card ? name.substr(0, at) : name;
  const int64_t batch = card ? std::atoll(name.c_str() + at + 2) : 0;
  std::optional<Literature> found;
  for (const Image& i : images())
    if (model == i.name) found = image(i, card ? batch : i.batch);
  if (model == "gnmt") found = card ? gnmt(batch, 1024, 32320, 50) : gnmt(16, 256, 8000, 12);
  if (model == "ncf") found = ncf(card ? batch : 1 << 14);
  if (model == "gpt2") found = card ? gpt2(batch, 1024, 50304) : gpt2(1, 128, 50257);
  if (found) found->recipe.gate_steps = kHeavyGateSteps, found->recipe.shared = true;
  return found;
}

std::vector<Workload> literature_workloads() {
  std::vector<Workload> all;
  for (const char* name : {"alexnet", "vgg19", "resnet50", "mobilenet_v1", "mobilenet_v2", "gnmt", "ncf"})
    all.push_back(row(name, name == std::string("resnet50") ? "5.d, 5.f" : "5.f", 1));
  all.push_back(row("gpt2", "5.e", 1));
  // Of slow steps a block is one call, and others' memory traffic decides.
  all.back().open =
      "Frozen: checked replay took 0.92, 1.04 and 1.02 of its time in three runs, whose blocks are of one "
      "call "
      "and differ by a tenth from each other; beside a plan of 0.7 s comparing the calls is some ten "
      "microseconds. Next: more rounds for slow steps, if that time is given.";
  return all;
}

std::vector<Workload> card_workloads() {
  struct Column {
    const char* name;
    double float32, tf32, bf16;  // the ratios that a record takes
  };
  // Those of the protocol; where it has one for all, that one.
  constexpr Column kColumns[] = {{"alexnet_b128", 1.3, 1.3, 1.3},      {"vgg19_b64", 1.1, 1.1, 1.1},
                                 {"resnet50_b64", 1.05, 1.2, 1.25},    {"mobilenet_v1_b128", 1.5, 1.5, 1.5},
                                 {"mobilenet_v2_b128", 1.5, 1.5, 1.5}, {"gnmt_b128", 1.4, 1.4, 1.4},
                                 {"ncf_b1048576", 2.5, 2.5, 2.5}};
  std::vector<Workload> all;
  for (const Column& c : kColumns) {
    all.push_back(row(c.name, "5.f", c.float32));
    all.push_back(row(c.name + std::string("_tf32"), "5.f", c.tf32));
    all.push_back(row(c.name + std::string("_bf16"), "5.f", c.bf16));
  }
  for (const char* batch : {"128", "256"}) {
    all.push_back(row(std::string("resnet50_b") + batch, "5.d", 1.05));
    all.push_back(row(std::string("resnet50_b") + batch + "_tf32", "5.d", 1.2));
    all.push_back(row(std::string("resnet50_b") + batch + "_bf16", "5.d", 1.25));
  }
  for (const char* batch : {"4", "16", "32", "64"})
    all.push_back(
        row(std::string("gpt2_b") + batch + "_bf16", "5.e", batch == std::string("4") ? 1.25 : 1.15));
  return all;
}

}  // namespace bench
