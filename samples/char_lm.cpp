// Trains a small transformer (4 layers, 128 wide, 4 heads) to predict the next character of a text, eagerly
// or with the step traced; prints the loss in nats a character on the part of the text that it trains on and
// on the last tenth, which it never sees, and lets the model write.
#include <tandem/tandem.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <numbers>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "samples/cli.h"
#include "samples/run_folder.h"
#include "tandem/core/io/file.h"

namespace td = tandem;

namespace {

struct Settings {
  long layers, width, heads, context, batch, steps, seed, evaluations, write;
  double lr, dropout, seconds;
};

/// x + attention(norm(x)), then x + mlp(norm(x)).
struct Block : td::nn::Module {
  explicit Block(const Settings& s)
      : norm1(child<td::nn::LayerNorm>("norm1", td::Dims{s.width})),
        attn(child<td::nn::MultiheadAttention>(
            "attn", s.width, s.heads,
            td::nn::MultiheadAttentionOptions{.dropout = s.dropout, .batch_first = true})),
        norm2(child<td::nn::LayerNorm>("norm2", td::Dims{s.width})),
        up(child<td::nn::Linear>("up", s.width, 4 * s.width)),
        down(child<td::nn::Linear>("down", 4 * s.width, s.width)),
        drop(child<td::nn::Dropout>("drop", s.dropout)) {}

  td::Tensor forward(const td::Tensor& x) const {
    const td::Tensor a = norm1(x);
    const td::Tensor y = x + drop(attn(a, a, a, {.need_weights = false, .is_causal = true}).output);
    return y + drop(down(td::gelu(up(norm2(y)), true)));
  }

  td::nn::LayerNorm norm1;
  td::nn::MultiheadAttention attn;
  td::nn::LayerNorm norm2;
  td::nn::Linear up, down;
  td::nn::Dropout drop;
};

struct CharModel : td::nn::Module {
  CharModel(const Settings& s, int64_t characters)
      : token(child<td::nn::Embedding>("token", characters, s.width)),
        position(child<td::nn::Embedding>("position", s.context, s.width)),
        drop(child<td::nn::Dropout>("drop", s.dropout)),
        blocks(child<td::nn::ModuleList<Block>>("blocks")),
        norm(child<td::nn::LayerNorm>("norm", td::Dims{s.width})),
        head(child<td::nn::Linear>("head", s.width, characters, false)) {
    for (long i = 0; i < s.layers; ++i) blocks.emplace(s);
    // Weights near 0, those that are added to x the nearer the more of them there are.
    for (const td::NamedTensor& p : named_parameters()) {
      const bool added = p.name.ends_with("out_proj.weight") || p.name.ends_with("down.weight");
      const double std = added ? 0.02 / std::sqrt(2.0 * static_cast<double>(s.layers)) : 0.02;
      if (p.tensor.dim() == 2) td::nn::init::normal_(p.tensor, 0, std);
    }
  }

  /// Characters (N, T) to logits (N, T, characters); T is at most the context.
  td::Tensor forward(const td::Tensor& x) const {
    td::Tensor y = drop(token(x) + position.weight.narrow(0, 0, x.size(1)));
    for (const auto& block : blocks) y = block->forward(y);
    return head(norm(y));
  }
  td::Tensor loss(const td::Tensor& x, const td::Tensor& next) const {
    const td::Tensor logits = forward(x);
    return td::cross_entropy(logits.reshape({-1, logits.size(2)}), next.reshape({-1}));
  }

  td::nn::Embedding token, position;
  td::nn::Dropout drop;
  td::nn::ModuleList<Block> blocks;
  td::nn::LayerNorm norm;
  td::nn::Linear head;
};

/// A text as numbers of its distinct characters.
struct Text {
  std::string characters;
  std::vector<int64_t> train, valid;
};

Text read_text(const std::string& path, const samples::Options& options, const Settings& s) {
  const std::string bytes = td::core::read_file(path);
  Text t;
  t.characters = bytes;
  std::sort(t.characters.begin(), t.characters.end());
  t.characters.erase(std::unique(t.characters.begin(), t.characters.end()), t.characters.end());
  std::vector<int64_t> all;
  for (const char c : bytes) all.push_back(static_cast<int64_t>(t.characters.find(c)));
  const auto split = static_cast<std::ptrdiff_t>(all.size() * 9 / 10);
  t.train.assign(all.begin(), all.begin() + split);
  t.valid.assign(all.begin() + split, all.end());
  if (t.valid.size() < static_cast<size_t>(s.context) + 1)
    options.stop("the last tenth of '" + path + "', " + std::to_string(t.valid.size()) +
                 " characters, is shorter than --context and one more");
  return t;
}

/// Characters (N, T) from each start on, and those that follow them.
struct Batch {
  td::Tensor x, next;
};
Batch batch_of(const std::vector<int64_t>& text, const std::vector<size_t>& starts, long context) {
  std::vector<int64_t> x, next;
  for (const size_t start : starts)
    for (size_t i = start; i < start + static_cast<size_t>(context); ++i) {
      x.push_back(text[i]);
      next.push_back(text[i + 1]);
    }
  const td::Dims sizes = {static_cast<int64_t>(starts.size()), context};
  return {td::tensor(std::span<const int64_t>(x), sizes), td::tensor(std::span<const int64_t>(next), sizes)};
}

using Step = std::function<td::Tensor(td::Tensor, td::Tensor)>;

/// Mean loss over windows that follow one another, at most `limit` of them.
double evaluate(CharModel& net, const Step& loss, const std::vector<int64_t>& text, const Settings& s,
                size_t limit) {
  const auto context = static_cast<size_t>(s.context);
  const size_t windows = std::min(limit, (text.size() - 1) / context);
  net.eval();
  double sum = 0;
  for (size_t from = 0; from < windows; from += 32) {
    std::vector<size_t> starts;
    for (size_t w = from; w < std::min(windows, from + 32); ++w) starts.push_back(w * context);
    const Batch b = batch_of(text, starts, s.context);
    sum += loss(b.x, b.next).item<double>() * static_cast<double>(starts.size());
  }
  net.train();
  return sum / static_cast<double>(windows);
}

/// The learning rate at a share of the way, in [0, 1]: up in the first 4 %, then down a cosine to a tenth.
double rate_at(double way, double top) {
  constexpr double kWarm = 0.04;
  if (way < kWarm) return top * std::max(way / kWarm, 0.02);
  return top * (0.55 + 0.45 * std::cos(std::numbers::pi * (way - kWarm) / (1 - kWarm)));
}

std::string written(CharModel& net, const Text& text, const Settings& s) {
  const td::NoGrad no_grad;
  net.eval();
  std::vector<int64_t> so_far = {std::max<int64_t>(static_cast<int64_t>(text.characters.find('\n')), 0)};
  for (long i = 0; i < s.write; ++i) {
    const size_t n = std::min(so_far.size(), static_cast<size_t>(s.context));
    const td::Tensor x = td::tensor(std::span<const int64_t>(so_far).last(n), {1, static_cast<int64_t>(n)});
    const td::Tensor logits = net.forward(x).select(1, -1).select(0, 0);
    so_far.push_back(td::multinomial(td::softmax(logits, 0), 1).item<int64_t>());
  }
  net.train();
  std::string out;
  for (size_t i = 1; i < so_far.size(); ++i) out += text.characters[static_cast<size_t>(so_far[i])];
  return out;
}

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int run(int argc, char** argv) {
  samples::Options options(argc, argv, "Trains a character-level language model on a text.");
  Settings s{};
  const std::string data = options.text("data", TANDEM_SAMPLE_DATA "/shakespeare.txt", "the text");
  const std::string mode = options.text("mode", "traced", "how to run the step: eager or traced");
  s.steps = options.integer("steps", 2000, "steps of training");
  s.seconds = options.number("seconds", 0, "end after this time, whatever the steps; 0 for never");
  s.batch = options.integer("batch", 16, "pieces of text a step");
  s.context = options.integer("context", 64, "characters a piece");
  s.layers = options.integer("layers", 4, "layers");
  s.width = options.integer("width", 128, "width of a layer");
  s.heads = options.integer("heads", 4, "heads of attention");
  s.dropout = options.number("dropout", 0, "probability");
  s.lr = options.number("lr", 2e-3, "highest learning rate");
  s.seed = options.integer("seed", 1, "of weights, dropout and pieces of text");
  s.evaluations = options.integer("evaluations", 10, "how often to look at the validation text");
  s.write = options.integer("write", 300, "characters to write in the end");
  const std::string device = options.text("device", "cpu", "where to train: cpu, cuda or cuda:1");
  const std::string save = options.text("save", "", "also save the model to this file");
  const std::string profile =
      options.text("profile", "", "also time the ops of the last 20 steps: a Chrome trace");
  samples::RunFolder folder(options);
  options.done();
  if (s.seconds > 0 && folder.active())
    options.stop("--seconds makes a rate by the clock, which --out cannot go on with");
  if (mode != "eager" && mode != "traced") options.stop("--mode is eager or traced, not '" + mode + "'");
  for (const long n : {s.steps, s.batch, s.context, s.layers, s.width, s.heads, s.evaluations})
    if (n < 1) options.stop("sizes and counts must be at least 1");

  const Text text = read_text(data, options, s);
  td::set_default_device(td::parse_device(device));
  td::manual_seed(static_cast<uint64_t>(s.seed));
  CharModel net(s, static_cast<int64_t>(text.characters.size()));
  std::printf("%zu characters to learn from, %zu more to test, %zu different; %lld parameters\n",
              text.train.size(), text.valid.size(), text.characters.size(),
              static_cast<long long>(net.num_parameters()));

  td::optim::AdamW opt(net.parameters(), {.lr = s.lr, .betas = {0.9, 0.99}, .weight_decay = 0.1});
  const auto train_body = [&](const td::Tensor& x, const td::Tensor& next) {
    td::Tensor loss = net.loss(x, next);
    opt.zero_grad();
    loss.backward();
    td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
    opt.step();
    return loss.detach();
  };
  const auto loss_body = [&](const td::Tensor& x, const td::Tensor& next) {
    const td::NoGrad no_grad;
    return net.loss(x, next);
  };
  const bool traced = mode == "traced";
  const Step step = traced ? Step(td::trace(train_body, {.name = "train_step"})) : Step(train_body);
  const Step loss = traced ? Step(td::trace(loss_body, {.name = "loss"})) : Step(loss_body);

  using Clock = std::chrono::steady_clock;
  td::Generator pieces(static_cast<uint64_t>(s.seed));
  const td::Checkpoint parts{.module = &net,
                             .optimizer = &opt,
                             .generators = {{"default", &td::default_generator()}, {"pieces", &pieces}}};
  td::Metadata fixed = {{"lr", samples::RunFolder::digits(s.lr)}};
  for (const auto& [name, value] : {std::pair("steps", s.steps),
                                    {"batch", s.batch},
                                    {"context", s.context},
                                    {"layers", s.layers},
                                    {"width", s.width},
                                    {"heads", s.heads},
                                    {"seed", s.seed}})
    fixed.emplace_back(name, std::to_string(value));
  const long start = folder.start(fixed, parts);
  const auto begin = Clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  const double cpu_begin = cpu_seconds();
  const long every = std::max(s.steps / s.evaluations, 1L);
  samples::Progress progress(mode, (s.steps + every - 1) / every - start / every, every);
  std::optional<td::Profile> timed;
  double train_loss = 0, step_s = 0;
  long done = start, seen = 0;
  for (; done < s.steps; ++done) {
    const double way = static_cast<double>(done) / static_cast<double>(s.steps);
    const double by_time = s.seconds > 0 ? elapsed() / s.seconds : 0;
    if (by_time >= 1) break;
    opt.set_lr(rate_at(std::max(way, by_time), s.lr));
    if (!profile.empty() && done == std::max(s.steps - 20, 2L)) timed.emplace(profile);
    std::vector<size_t> starts;
    const uint64_t choices = text.train.size() - static_cast<size_t>(s.context);
    for (long i = 0; i < s.batch; ++i) starts.push_back(pieces.next_u64() % choices);
    const Batch b = batch_of(text.train, starts, s.context);
    const auto from = Clock::now();
    train_loss += step(b.x, b.next).item<double>();
    step_s += std::chrono::duration<double>(Clock::now() - from).count();
    ++seen;
    progress.step();
    if ((done + 1) % every != 0 && done + 1 != s.steps) continue;
    const double mean = train_loss / static_cast<double>(seen);
    const double validation = evaluate(net, loss, text.valid, s, 64);
    folder.log(done + 1, {{"loss", mean}, {"validation", validation}, {"lr", opt.lr()}});
    folder.save(done + 1, parts);
    char line[96];
    std::snprintf(line, sizeof line, "loss %.4f, validation %.4f, %.0f s", mean, validation, elapsed());
    progress.epoch(line);
    train_loss = 0, seen = 0;
  }
  timed.reset();
  const double wall = elapsed(), cpu = cpu_seconds() - cpu_begin;
  const size_t windows = (text.valid.size() - 1) / static_cast<size_t>(s.context);
  const double valid = evaluate(net, loss, text.valid, s, windows);
  const double train = evaluate(net, loss, text.train, s, windows);
  std::printf("%s: %ld steps in %.1f s (%.1f s of processor time), %.1f steps/s\n", mode.c_str(), done, wall,
              cpu, static_cast<double>(done - start) / step_s);
  std::printf("loss in nats a character: training %.4f, validation %.4f\n", train, valid);
  if (!save.empty()) td::save(save, net, {{"validation", std::to_string(valid)}});
  if (s.write > 0) std::printf("\n%s\n", written(net, text, s).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return samples::run_program("char_lm", run, argc, argv); }
