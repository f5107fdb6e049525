// Trains a 64-256-128-10 network with dropout on 8x8 handwritten digits, eagerly and with the same step
// traced, from the same seed: losses, accuracy, time per step, and what the trace captured.
#include <tandem/tandem.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "samples/cli.h"
#include "tandem/core/io/file.h"

namespace td = tandem;

namespace {

struct Mlp : td::nn::Module {
  td::nn::Linear fc1 = child<td::nn::Linear>("fc1", 64, 256);
  td::nn::Dropout drop1 = child<td::nn::Dropout>("drop1", 0.2);
  td::nn::Linear fc2 = child<td::nn::Linear>("fc2", 256, 128);
  td::nn::Dropout drop2 = child<td::nn::Dropout>("drop2", 0.2);
  td::nn::Linear fc3 = child<td::nn::Linear>("fc3", 128, 10);

  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor h1 = drop1(td::relu(fc1(x)));
    const td::Tensor h2 = drop2(td::relu(fc2(h1)));
    return fc3(h2);
  }
};

/// Images (N, 64) scaled to [0, 1] and labels (N).
struct Digits {
  td::Tensor train_x, train_y, test_x, test_y;
};

/// Every fifth row of a fixed permutation is test data, whatever the seed of the training.
Digits load_digits(const std::string& path) {
  const td::Tensor table = td::data::read_csv(path).values;
  if (table.size(1) != 65)
    td::fail("digits: 64 pixels and a label per line are expected, found " + std::to_string(table.size(1)));
  td::Generator fixed(20);
  const td::Tensor order = td::randperm(table.size(0), &fixed);
  const td::Tensor rows = table.index_select(0, order);
  const td::Tensor x = rows.narrow(1, 0, 64) / 16;
  const td::Tensor y = rows.select(1, 64).to(td::int64);
  const int64_t n = table.size(0), n_test = n / 5;
  Digits d;
  d.test_x = x.narrow(0, 0, n_test).contiguous();
  d.test_y = y.narrow(0, 0, n_test).contiguous();
  d.train_x = x.narrow(0, n_test, n - n_test).clone();
  d.train_y = y.narrow(0, n_test, n - n_test).clone();
  return d;
}

double accuracy(Mlp& net, const Digits& d) {
  const td::NoGrad no_grad;
  net.eval();
  const td::Tensor hits = net.forward(d.test_x).argmax(1) == d.test_y;
  net.train();
  return hits.to(td::float32).mean().item<double>();
}

struct Settings {
  long epochs, batch, seed;
  double lr;
  std::string draw, profile;  // files; empty for none
};

struct Result {
  std::vector<float> losses;   // of every step
  std::vector<double> epochs;  // mean loss of each epoch
  double accuracy = 0, step_us = 0;
  td::TraceReport report;   // of the traced step, with
  std::string graph, code;  // what it captured
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

/// Trains `net`; `wrap` makes the step from its body: as it is, or traced. Only calls of the step are timed.
template <class Wrap>
Result train(const char* name, Mlp& net, const Digits& d, const Settings& s, Wrap wrap) {
  Result result;
  td::optim::AdamW opt(net.parameters(), {.lr = s.lr, .weight_decay = 0.05});
  td::optim::CosineAnnealingLR schedule(opt, std::max(s.epochs, 1L));
  td::data::DataLoader loader(
      td::data::TensorDataset(d.train_x, d.train_y),
      {.batch_size = s.batch, .shuffle = true, .drop_last = true, .seed = static_cast<uint64_t>(s.seed)});
  auto step = wrap([&](const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  });

  samples::Progress progress(name, s.epochs, loader.size());
  std::vector<double> times;
  for (long epoch = 0; epoch < s.epochs; ++epoch) {
    double sum = 0;
    for (auto [x, y] : loader) {
      const auto start = std::chrono::steady_clock::now();
      const td::Tensor loss = step(x, y);
      times.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
      result.losses.push_back(loss.item<float>());
      sum += static_cast<double>(result.losses.back());
      progress.step();
    }
    schedule.step();
    result.epochs.push_back(sum / static_cast<double>(std::max<int64_t>(loader.size(), 1)));
    char text[32];
    std::snprintf(text, sizeof text, "loss %.4f", result.epochs.back());
    progress.epoch(text);
  }
  result.accuracy = accuracy(net, d);
  result.step_us = median(std::move(times));
  if constexpr (requires { step.report(); }) {
    result.report = step.report();
    result.graph = step.graph();
    result.code = step.code();
    if (!s.draw.empty()) step.draw(s.draw);
  }
  return result;
}

std::string json_of(const Result& r) {
  std::string text = "{\"accuracy\": " + std::to_string(r.accuracy) +
                     ", \"step_us\": " + std::to_string(r.step_us) + ", \"losses\": [";
  for (size_t i = 0; i < r.losses.size(); ++i) {
    char number[32];
    std::snprintf(number, sizeof number, "%s%.9g", i ? ", " : "", static_cast<double>(r.losses[i]));
    text += number;
  }
  return text + "]}";
}

void write_json(const std::string& path, const Result& eager, const Result& traced) {
  td::core::write_file_atomic(path, "{\"eager\": " + json_of(eager) + ",\n \"traced\": " + json_of(traced) +
                                        ",\n \"speedup\": " + std::to_string(eager.step_us / traced.step_us) +
                                        ", \"kernels\": " + std::to_string(traced.report.kernels) +
                                        ", \"ops\": " + std::to_string(traced.report.ops) + "}\n");
}

void print(const Result& eager, const Result& traced) {
  std::puts("epoch   loss, eager   loss, traced");
  for (size_t i = 0; i < eager.epochs.size(); ++i)
    std::printf("%5zu   %11.6f   %12.6f\n", i + 1, eager.epochs[i], traced.epochs[i]);
  std::printf("losses of all %zu steps: %s\n\n", eager.losses.size(),
              eager.losses == traced.losses ? "equal bit for bit" : "DIFFERENT");
  std::printf("             eager      traced\n");
  std::printf("accuracy     %.4f     %.4f\n", eager.accuracy, traced.accuracy);
  std::printf("step         %.1f us   %.1f us   (median)   %.2f times faster\n", eager.step_us,
              traced.step_us, eager.step_us / traced.step_us);
  std::printf("\n%s\n", td::to_string(traced.report).c_str());
}

int run(int argc, char** argv) {
  samples::Options options(
      argc, argv, "Trains a network on handwritten digits, eagerly and traced, and compares the two.");
  Settings s{};
  s.epochs = options.integer("epochs", 30, "passes over the training set");
  s.batch = options.integer("batch", 64, "images a step");
  s.seed = options.integer("seed", 1, "of weights, dropout and shuffling");
  s.lr = options.number("lr", 4e-3, "learning rate of the first epoch; it falls to 0 along a cosine");
  const std::string device = options.text("device", "cpu", "where to train: cpu, cuda or cuda:1");
  const std::string data = options.text("data", TANDEM_SAMPLE_DATA "/digits.csv.gz", "the digits");
  const std::string json = options.text("json", "", "also write the results to this file");
  s.draw = options.text("draw", "", "also draw the traced step: a page for a browser");
  s.profile =
      options.text("profile", "", "also time the ops of the traced run, which slows it: a Chrome trace");
  const std::string folder =
      options.text("out", "", "folder for graph, kernels and model (default: the program's)");
  options.done();
  if (s.epochs < 1) options.stop("--epochs must be at least 1");
  if (s.batch < 1) options.stop("--batch must be at least 1");

  const td::Device on = td::parse_device(device);
  const std::string out =
      folder.empty() ? std::filesystem::read_symlink("/proc/self/exe").parent_path().string() : folder;
  Digits digits = load_digits(data);
  if (digits.train_x.size(0) < s.batch)
    options.stop("--batch is larger than the " + std::to_string(digits.train_x.size(0)) + " training images");

  for (td::Tensor* t : {&digits.train_x, &digits.train_y, &digits.test_x, &digits.test_y}) *t = t->to(on);
  td::set_default_device(on);

  std::printf("a 64-256-128-10 network with dropout, on %lld digits; %lld more to test\n",
              static_cast<long long>(digits.train_x.size(0)), static_cast<long long>(digits.test_x.size(0)));
  td::manual_seed(static_cast<uint64_t>(s.seed));
  Mlp eager_net;
  const Result eager = train("eager ", eager_net, digits, s, [](auto body) { return body; });
  td::manual_seed(static_cast<uint64_t>(s.seed));
  Mlp net;
  std::optional<td::Profile> profile;
  if (!s.profile.empty()) profile.emplace(s.profile);
  const Result traced =
      train("traced", net, digits, s, [](auto body) { return td::trace(body, {.name = "train_step"}); });
  profile.reset();
  print(eager, traced);

  const std::string base = out + "/digits_mlp";
  td::core::write_file_atomic(base + ".graph.txt", traced.graph);
  td::core::write_file_atomic(base + ".kernels.c", traced.code);
  std::printf("graph        %s.graph.txt\nkernels      %s.kernels.c\n", base.c_str(), base.c_str());

  td::save(base + ".safetensors", net, {{"accuracy", std::to_string(traced.accuracy)}});
  Mlp loaded;
  td::load(base + ".safetensors", loaded);
  const double reloaded = accuracy(loaded, digits);
  std::printf("model        %s.safetensors, accuracy after loading %.4f: %s\n", base.c_str(), reloaded,
              reloaded == traced.accuracy ? "equal" : "DIFFERENT");

  if (!json.empty()) write_json(json, eager, traced);
  return eager.losses == traced.losses && reloaded == traced.accuracy ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return samples::run_program("digits_mlp", run, argc, argv); }
