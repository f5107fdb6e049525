// Trains a GPT-2 on a text, of its bytes or with GPT-2's tokens, and lets it write. With --out the run is
// logged and saved; --resume goes on with it bit for bit.
#include "samples/models/gpt2.h"

#include <tandem/tandem.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "samples/cli.h"
#include "samples/models/bpe.h"
#include "samples/run_folder.h"
#include "tandem/core/io/file.h"

namespace td = tandem;

namespace {

struct Settings {
  std::string size, data, vocab, weights, device, dtype, mode, prompt;
  long steps, batch, context, warmup, seed, every, write, top_k;
  double lr, clip, decay, dropout, temperature;
};

Settings read_settings(samples::Options& o) {
  Settings s;
  s.size = o.text("size", "tiny", "tiny, 124M, 355M, 774M or 1558M");
  s.data = o.text("data", TANDEM_SAMPLE_DATA "/shakespeare.txt", "the text; its last tenth only tests");
  s.vocab = o.text("vocab", "", "GPT-2's tokens: vocab.json and merges.txt in a folder, or a tokenizer.json");
  s.weights = o.text("weights", "", "begin with a model.safetensors of Hugging Face's");
  s.device = o.text("device", "cpu", "where to train: cpu, cuda or cuda:1");
  s.dtype = o.text("dtype", "float32", "float32, or bf16: products in bfloat16");
  s.mode =
      o.text("mode", "checked", "how to run a step: eager, checked (traced) or frozen (after the warm-up)");
  s.steps = o.integer("steps", 200, "steps of training, with those before --resume");
  s.batch = o.integer("batch", 8, "pieces of text a step");
  s.context = o.integer("context", 64, "tokens a piece");
  s.lr = o.number("lr", 1e-3, "learning rate after the warm-up");
  s.warmup = o.integer("warmup", 20, "steps in which the rate rises from 0");
  s.clip = o.number("clip", 1, "largest norm of the gradients; 0 for any");
  s.decay = o.number("weight-decay", 0.1, "of AdamW");
  s.dropout = o.number("dropout", 0.1, "probability, everywhere");
  s.seed = o.integer("seed", 1, "of weights, dropout and pieces of text");
  s.every = o.integer("every", 100, "steps between checkpoints, each with a look at the test text");
  s.write = o.integer("write", 200, "tokens to write in the end");
  s.prompt = o.text("prompt", "\n", "what the written text begins with");
  s.temperature = o.number("temperature", 0.8, "of the written text; 0 for the likeliest token");
  s.top_k = o.integer("top-k", 40, "tokens that it is drawn from; 0 for all");
  return s;
}

void check(const Settings& s, const samples::Options& o) {
  for (const long n : {s.steps, s.batch, s.context, s.every})
    if (n < 1) o.stop("sizes and counts must be at least 1");
  for (const double n : {double(s.warmup), double(s.write), double(s.top_k), s.clip, s.decay, s.temperature})
    if (!(n >= 0))
      o.stop("--warmup, --write, --top-k, --clip, --weight-decay and --temperature are at least 0");
  if (s.dtype != "float32" && s.dtype != "bf16") o.stop("--dtype is float32 or bf16, not '" + s.dtype + "'");
  if (s.mode != "eager" && s.mode != "checked" && s.mode != "frozen")
    o.stop("--mode is eager, checked or frozen, not '" + s.mode + "'");
  if (s.prompt.empty()) o.stop("--prompt must not be empty");
}

/// Tokens of a text: its bytes, or GPT-2's.
struct Tokens {
  std::optional<samples::Bpe> bpe;

  int64_t size() const { return bpe ? bpe->size() : 256; }
  std::vector<int64_t> encode(const std::string& text) const {
    if (bpe) return bpe->encode(text);
    std::vector<int64_t> ids;
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  std::string decode(const std::vector<int64_t>& ids) const {
    if (bpe) return bpe->decode(ids);
    std::string text;
    for (const int64_t id : ids) text += static_cast<char>(id);
    return text;
  }
};

/// The text with question marks for what may not be UTF-8, which a model of bytes learns late.
std::string readable(std::string text) {
  for (char& c : text)
    if (static_cast<uint8_t>(c) >= 0x80) c = '?';
  return text;
}

/// Tokens (N, T) from each start on, and those that follow them.
std::pair<td::Tensor, td::Tensor> batch_of(const std::vector<int64_t>& text,
                                           const std::vector<size_t>& starts, long context) {
  std::vector<int64_t> x, y;
  for (const size_t start : starts) {
    const auto from = text.begin() + static_cast<std::ptrdiff_t>(start);
    x.insert(x.end(), from, from + context);
    y.insert(y.end(), from + 1, from + 1 + context);
  }
  const td::Dims sizes = {static_cast<int64_t>(starts.size()), context};
  td::Tensor ids = td::tensor(std::span<const int64_t>(x), sizes);
  return {ids, td::tensor(std::span<const int64_t>(y), sizes)};
}

struct StepResult {
  td::Tensor loss, norm;  // norm: of the gradients before clipping
};
using Step = std::function<StepResult(td::Tensor, td::Tensor)>;
using Loss = std::function<td::Tensor(td::Tensor, td::Tensor)>;

class Training {
 public:
  Training(const Settings& s, Tokens tokens, const samples::Options& options)
      : s_(s), tokens_(std::move(tokens)), net_(config(s, tokens_, options)) {
    const std::vector<int64_t> all = tokens_.encode(td::core::read_file(s.data));
    const auto split = static_cast<std::ptrdiff_t>(all.size() * 9 / 10);
    train_.assign(all.begin(), all.begin() + split);
    test_.assign(all.begin() + split, all.end());
    if (test_.size() <= static_cast<size_t>(s.context))
      options.stop("the last tenth of '" + s.data + "', " + std::to_string(test_.size()) +
                   " tokens, is shorter than --context and one more");
    if (!s.weights.empty()) net_.load_hugging_face(s.weights);
    pieces_.seed(static_cast<uint64_t>(s.seed));
    std::printf("%zu tokens to learn from, %zu more to test, of %lld; %lld parameters\n", train_.size(),
                test_.size(), static_cast<long long>(tokens_.size()),
                static_cast<long long>(net_.num_parameters()));
  }

  void run(samples::RunFolder& folder) {
    const td::Metadata fixed = {{"size", s_.size},
                                {"vocab", s_.vocab},
                                {"batch", std::to_string(s_.batch)},
                                {"context", std::to_string(s_.context)},
                                {"seed", std::to_string(s_.seed)},
                                {"weight-decay", samples::RunFolder::digits(s_.decay)}};
    const td::Checkpoint parts{.module = &net_,
                               .optimizer = &opt_,
                               .generators = {{"default", &td::default_generator()}, {"pieces", &pieces_}}};
    long done = folder.start(fixed, parts);
    const long reports = (s_.steps + s_.every - 1) / s_.every - done / s_.every;
    samples::Progress progress(s_.mode, std::max(reports, 0L), s_.every);
    while (done < s_.steps) {
      const StepResult result = step(++done);
      log(folder, done, result);
      progress.step();
      if (done % s_.every != 0 && done != s_.steps) continue;
      const double test = evaluate();
      folder.log(done, {{"test_loss", test}});
      folder.save(done, parts);
      char line[64];
      std::snprintf(line, sizeof line, "step %ld, loss %.4f, test %.4f", done, loss_, test);
      progress.epoch(line);
    }
    if (folder.active()) net_.save_hugging_face(folder / "model.safetensors");
    std::printf("step %ld: %.4f nats a token of the test text\n", done, evaluate());
    if (s_.write == 0) return;
    const std::string text = written();
    folder.text("written", readable(text), done);
    std::printf("\n%s\n", text.c_str());
  }

 private:
  static samples::Gpt2Config config(const Settings& s, const Tokens& tokens,
                                    const samples::Options& options) {
    samples::Gpt2Config c = samples::Gpt2Config::preset(s.size);
    c.vocab_size = tokens.size();
    c.embd_pdrop = c.resid_pdrop = c.attn_pdrop = s.dropout;
    if (s.context > c.n_positions)
      options.stop("--context is at most " + std::to_string(c.n_positions) + " for --size " + s.size);
    return c;
  }

  /// Matrices decay; gains and biases do not.
  static std::vector<td::optim::Group<td::optim::AdamWOptions>> groups(const samples::Gpt2& net,
                                                                       const Settings& s) {
    std::vector<td::Tensor> matrices, rest;
    for (const td::Tensor& p : net.parameters()) (p.dim() > 1 ? matrices : rest).push_back(p);
    const td::optim::AdamWOptions options{.lr = s.lr, .betas = {0.9, 0.95}, .weight_decay = s.decay};
    td::optim::AdamWOptions without = options;
    without.weight_decay = 0;
    return {{matrices, options}, {rest, without}};
  }

  td::Tensor loss(const td::Tensor& x, const td::Tensor& y) {
    const td::autocast guard(td::bfloat16, s_.dtype == "bf16");
    return net_.loss(x, y);
  }
  StepResult train_body(const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = this->loss(x, y);
    opt_.zero_grad();
    loss.backward();
    const td::Tensor norm = td::nn::utils::clip_grad_norm_(net_.parameters(), s_.clip > 0 ? s_.clip : 1e30);
    opt_.step();
    return {loss.detach(), norm};
  }

  /// One step; `number` counts from 1. A frozen step keeps the rate that it was recorded with, so it begins
  /// after the warm-up.
  StepResult step(long number) {
    const double risen = static_cast<double>(number) / static_cast<double>(std::max(s_.warmup, 1L));
    for (size_t group = 0; group < opt_.group_count(); ++group)
      opt_.set_lr(s_.lr * std::min(risen, 1.0), group);
    std::vector<size_t> starts;
    for (long i = 0; i < s_.batch; ++i)
      starts.push_back(pieces_.below(train_.size() - static_cast<size_t>(s_.context)));
    const auto [x, y] = batch_of(train_, starts, s_.context);
    const auto begin = std::chrono::steady_clock::now();
    const StepResult result = (s_.mode == "frozen" && number > s_.warmup ? frozen_ : checked_)(x, y);
    loss_ = result.loss.item<double>();
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
  }

  void log(samples::RunFolder& folder, long number, const StepResult& result) const {
    if (!folder.active()) return;
    folder.log(number, {{"loss", loss_},
                        {"grad_norm", result.norm.item<double>()},
                        {"lr", opt_.lr()},
                        {"tokens_per_second", static_cast<double>(s_.batch * s_.context) / seconds_}});
  }

  /// Mean loss over the test text, of at most 64 pieces.
  double evaluate() {
    net_.eval();
    const size_t context = static_cast<size_t>(s_.context), most = static_cast<size_t>(s_.batch);
    const size_t windows = std::min<size_t>(64, (test_.size() - 1) / context);
    double sum = 0;
    for (size_t from = 0; from < windows; from += most) {
      std::vector<size_t> starts;
      for (size_t w = from; w < std::min(windows, from + most); ++w) starts.push_back(w * context);
      const auto [x, y] = batch_of(test_, starts, s_.context);
      sum += test_loss_(x, y).item<double>() * static_cast<double>(starts.size());
    }
    net_.train();
    return sum / static_cast<double>(windows);
  }

  std::string written() {
    const std::vector<int64_t> prompt = tokens_.encode(s_.prompt);
    const td::Tensor ids =
        td::tensor(std::span<const int64_t>(prompt), {1, static_cast<int64_t>(prompt.size())});
    const td::Tensor all = samples::generate(net_, ids, s_.write, s_.temperature, s_.top_k);
    return tokens_.decode(all.to_vector<int64_t>());
  }

  Step wrapped(td::Replay replay) {
    auto body = [this](const td::Tensor& x, const td::Tensor& y) { return train_body(x, y); };
    if (s_.mode == "eager") return body;
    return td::trace(body, {.name = "train_step", .replay = replay});
  }
  Loss wrapped_loss() {
    auto body = [this](const td::Tensor& x, const td::Tensor& y) {
      const td::NoGrad no_grad;
      return loss(x, y);
    };
    if (s_.mode == "eager") return body;
    return td::trace(body, {.name = "test_loss"});
  }

  const Settings s_;
  const Tokens tokens_;
  samples::Gpt2 net_;
  td::optim::AdamW opt_{groups(net_, s_)};
  td::Generator pieces_;
  std::vector<int64_t> train_, test_;
  double loss_ = 0, seconds_ = 0;  // of the last step
  Step checked_ = wrapped(td::Replay::checked), frozen_ = wrapped(td::Replay::frozen);
  Loss test_loss_ = wrapped_loss();
};

int run(int argc, char** argv) {
  samples::Options options(argc, argv, "Trains a GPT-2 on a text.");
  const Settings s = read_settings(options);
  samples::RunFolder folder(options);
  options.done();
  check(s, options);
  td::set_default_device(td::parse_device(s.device));
  td::manual_seed(static_cast<uint64_t>(s.seed));
  Tokens tokens;
  if (!s.vocab.empty()) tokens.bpe = samples::Bpe::load(s.vocab);
  Training(s, std::move(tokens), options).run(folder);
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return samples::run_program("gpt2", run, argc, argv); }
