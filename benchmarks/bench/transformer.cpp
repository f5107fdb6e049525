// The host's side of a transformer's training step (12 layers, 148 parameters, AdamW): its plan's entries are
// not run, so sizes are small. And what a batch size costs that was not seen before.
#include <cmath>
#include <cstdio>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/executable.h"
#include "tandem/jit/kernel_cache.h"
#include "tandem/tandem.h"

using td::Tensor;

namespace bench {

namespace {

struct Block : td::nn::Module {
  Block(int64_t width, int64_t heads) : width_(width), heads_(heads) {}
  Tensor forward(const Tensor& x, const Tensor& mask) {
    const Tensor a = attention(norm1(x), mask);
    const Tensor h = x + a;
    const Tensor hidden = td::gelu(fc1(norm2(h)));
    return h + fc2(hidden);
  }
  Tensor attention(const Tensor& x, const Tensor& mask) {
    const int64_t batch = x.size(0), length = x.size(1), size = width_ / heads_;
    const Tensor all = qkv(x).reshape({batch, length, 3, heads_, size}).permute({2, 0, 3, 1, 4});
    const Tensor q = all.select(0, 0), k = all.select(0, 1), v = all.select(0, 2);
    const Tensor scores = td::matmul(q, k.transpose(-2, -1)) * (1.f / std::sqrt(float(size))) + mask;
    const Tensor mixed = td::matmul(td::softmax(scores, -1), v);
    return out(mixed.transpose(1, 2).reshape({batch, length, width_}));
  }

  int64_t width_, heads_;
  td::nn::LayerNorm norm1 = child<td::nn::LayerNorm>("norm1", width_);
  td::nn::Linear qkv = child<td::nn::Linear>("qkv", width_, 3 * width_);
  td::nn::Linear out = child<td::nn::Linear>("out", width_, width_);
  td::nn::LayerNorm norm2 = child<td::nn::LayerNorm>("norm2", width_);
  td::nn::Linear fc1 = child<td::nn::Linear>("fc1", width_, 4 * width_);
  td::nn::Linear fc2 = child<td::nn::Linear>("fc2", 4 * width_, width_);
};

struct Transformer : td::nn::Module {
  static constexpr int64_t kWidth = 16, kLength = 8, kWords = 32;
  td::nn::Embedding words = child<td::nn::Embedding>("words", kWords, kWidth);
  td::nn::Embedding places = child<td::nn::Embedding>("places", kLength, kWidth);
  td::nn::ModuleList<Block> blocks = child<td::nn::ModuleList<Block>>("blocks");
  td::nn::LayerNorm norm = child<td::nn::LayerNorm>("norm", kWidth);
  Tensor positions = td::arange(0, kLength).to(td::int64);
  Tensor mask = td::where(td::arange(0, kLength).reshape({kLength, 1}) >= td::arange(0, kLength), 0.f, -1e9f);

  explicit Transformer(int layers) {
    for (int i = 0; i < layers; ++i) blocks.emplace(kWidth, 2);
  }
  Tensor forward(const Tensor& x) {
    const Tensor embedded = words(x);
    Tensor h = embedded + places(positions);
    for (const auto& b : blocks) h = b->forward(h, mask);
    return td::matmul(norm(h), words.weight.t());
  }
};

struct TransformerTraining {
  Transformer net{12};
  td::optim::AdamW opt{net.parameters(), {.lr = 1e-7}};
  Tensor x = td::randint(0, Transformer::kWords, {2, Transformer::kLength});
  Tensor y = td::randint(0, Transformer::kWords, {2 * Transformer::kLength});
  Tensor step(const Tensor& in, const Tensor& labels) {
    const Tensor logits = net.forward(in).reshape({-1, Transformer::kWords});
    const Tensor loss = td::cross_entropy(logits, labels);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  }
};

}  // namespace

std::vector<Row> transformer(bool) {
  td::set_num_threads(1);
  td::manual_seed(1);
  TransformerTraining training;
  auto step = td::trace([&](Tensor x, Tensor y) { return training.step(x, y); });
  const auto call = [&] { step(training.x, training.y); };
  {
    const td::jit::WithoutEntries scope;
    for (int i = 0; i < 3; ++i) call();
  }
  const td::TraceReport r = step.report();
  std::fprintf(stderr, "bench: the transformer's step has %zu parameters, %lld ops, %lld plan entries\n",
               training.net.parameters().size(), static_cast<long long>(r.ops),
               static_cast<long long>(r.entries));
  std::vector<Row> rows = interleave(
      "transformer",
      {{"12-layer step beside its plan, warm", [&] { return time_us(20, call), time_us(100, call); }},
       {"the same, 8 MB of memory touched", [&] { return time_after_us(8, call); }},
       {"the same, L1 and L2 lost", [&] { return time_without_inner_caches_us(call); }},
       {"the same, all caches lost", [&] { return time_after_us(128, call); }}},
      101);
  const td::TraceReport ran = step.report();
  if (ran.recorded != 1 || ran.plans != 1 || ran.op_by_op || ran.eager_calls)
    std::fprintf(stderr, "bench: the step was not replayed: the host's figures mean nothing\n");
  return rows;
}

std::vector<Row> sizes(bool) {
  td::set_num_threads(1);
  td::manual_seed(1);
  auto training = std::make_shared<Training>();
  auto step = td::trace([training](Tensor x, Tensor y) { return training->step(x, y); });
  int64_t batch = 63;
  Tensor x, y;
  const auto next = [&] {
    x = td::rand({batch, 64}), y = td::randint(0, 10, {batch});
    return time_us(1, [&] { step(x, y); });
  };
  next(), ++batch, next();
  const int64_t compiled = td::jit::cache_stats().compiles;
  std::vector<Row> rows =
      interleave("sizes",
                 {{"MLP step, a batch size seen before", [&] { return time_us(1, [&] { step(x, y); }); }},
                  {"a batch size not seen before", [&] { return ++batch, next(); }}},
                 41);
  if (td::jit::cache_stats().compiles != compiled)
    std::fprintf(stderr, "bench: a new batch size compiled a kernel\n");
  return rows;
}

}  // namespace bench
