// What a training step's plan costs, by counts that do not depend on the machine: entries (launches), bytes
// moved, and memory private to the step against eager mode's peak. Three steps: an MLP, a small convolutional
// network, a small transformer.
#include <cmath>
#include <cstdio>
#include <memory>

#include "tandem/core/allocator.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

struct Mlp : td::nn::Module {
  td::nn::Linear a = child<td::nn::Linear>("a", 64, 256);
  td::nn::Linear b = child<td::nn::Linear>("b", 256, 128);
  td::nn::Linear c = child<td::nn::Linear>("c", 128, 10);
  Tensor forward(const Tensor& x) { return c(td::relu(b(td::relu(a(x))))); }
};

struct Cnn : td::nn::Module {
  td::nn::Conv2d conv1 = child<td::nn::Conv2d>("conv1", 1, 16, 3, 1, 1);
  td::nn::Conv2d conv2 = child<td::nn::Conv2d>("conv2", 16, 32, 3, 1, 1);
  td::nn::MaxPool2d pool = child<td::nn::MaxPool2d>("pool", 2);
  td::nn::Linear fc1 = child<td::nn::Linear>("fc1", 32 * 7 * 7, 128);
  td::nn::Dropout drop = child<td::nn::Dropout>("drop", 0.3);
  td::nn::Linear fc2 = child<td::nn::Linear>("fc2", 128, 10);
  Tensor forward(const Tensor& x) {
    const Tensor h1 = pool(td::relu(conv1(x)));
    const Tensor h2 = pool(td::relu(conv2(h1)));
    return fc2(drop(td::relu(fc1(h2.flatten(1)))));
  }
};

struct Block : td::nn::Module {
  Block(int64_t width, int64_t heads)
      : norm1(child<td::nn::LayerNorm>("norm1", td::Dims{width})),
        attn(child<td::nn::MultiheadAttention>("attn", width, heads,
                                               td::nn::MultiheadAttentionOptions{.batch_first = true})),
        norm2(child<td::nn::LayerNorm>("norm2", td::Dims{width})),
        up(child<td::nn::Linear>("up", width, 4 * width)),
        down(child<td::nn::Linear>("down", 4 * width, width)) {}
  Tensor forward(const Tensor& x) const {
    const Tensor a = norm1(x);
    const Tensor y = x + attn(a, a, a, {.need_weights = false, .is_causal = true}).output;
    return y + down(td::gelu(up(norm2(y)), true));
  }
  td::nn::LayerNorm norm1;
  td::nn::MultiheadAttention attn;
  td::nn::LayerNorm norm2;
  td::nn::Linear up, down;
};

/// Four layers of four heads over 65 characters.
struct Gpt : td::nn::Module {
  static constexpr int64_t kWidth = 128, kLength = 64, kCharacters = 65;
  td::nn::Embedding token = child<td::nn::Embedding>("token", kCharacters, kWidth);
  td::nn::Embedding position = child<td::nn::Embedding>("position", kLength, kWidth);
  td::nn::ModuleList<Block> blocks = child<td::nn::ModuleList<Block>>("blocks");
  td::nn::LayerNorm norm = child<td::nn::LayerNorm>("norm", td::Dims{kWidth});
  td::nn::Linear head = child<td::nn::Linear>("head", kWidth, kCharacters, false);
  Gpt() {
    for (int i = 0; i < 4; ++i) blocks.emplace(kWidth, 4);
  }
  Tensor forward(const Tensor& x) const {
    Tensor y = token(x) + position.weight;
    for (const auto& block : blocks) y = block->forward(y);
    return head(norm(y)).reshape({-1, kCharacters});
  }
};

struct Cost {
  td::TraceReport report;
  int64_t eager_bytes = 0;  // the most that an eager step holds beside what lives on; 0: not seen
  int64_t own_bytes() const { return report.arena_bytes + report.escaping_bytes; }
};

/// Trains two steps eagerly and two traced.
template <class Net>
Cost cost(const Tensor& x, const Tensor& y, bool clip = false) {
  td::manual_seed(3);
  Net net;
  td::optim::AdamW opt(net.parameters(), {.lr = 1e-3});
  const auto body = [&](const Tensor& in, const Tensor& labels) {
    Tensor loss = td::cross_entropy(net.forward(in), labels);
    opt.zero_grad();
    loss.backward();
    if (clip) td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
    opt.step();
    return loss.detach();
  };
  Cost c;
  const td::core::AllocatorStats before = td::core::allocator_stats();
  body(x, y);
  body(x, y);
  // The peak is the process's: a higher one of before hides this one.
  const int64_t peak = td::core::allocator_stats().peak_bytes;
  if (peak > before.peak_bytes) c.eager_bytes = peak - before.live_bytes;
  auto step = td::trace(body);
  step(x, y);
  step(x, y);
  c.report = step.report();
  CHECK(c.report.plans == 1);
  CHECK(c.report.op_by_op == 0);
  INFO(c.report);
  CAPTURE(c.eager_bytes);
  // The allocator counts large blocks alone, and its peak is low by a megabyte at most.
  const auto share = [&](int64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(c.eager_bytes + (1 << 20));
  };
  if (c.eager_bytes > 4 << 20) {
    CHECK(share(c.report.arena_bytes) <= 0.8);
    CHECK(share(c.own_bytes()) <= 0.9);  // with gradients, most of which eager mode's counter leaves out
  }
  return c;
}

}  // namespace

TEST_CASE("the plan of an MLP's step", "[tracer]") {
  const Cost c = cost<Mlp>(td::rand({64, 64}), td::randint(0, 10, {64}));
  CHECK(c.report.entries <= 12);
  CHECK(c.report.bytes_moved <= 2900000);
  CHECK(c.report.arena_bytes <= 80000);
  const Cost large = cost<Mlp>(td::rand({4096, 64}), td::randint(0, 10, {4096}));
  CHECK(large.report.entries <= 14);
}

TEST_CASE("the plan of a small convolutional network's step", "[tracer]") {
  const Cost c = cost<Cnn>(td::rand({64, 1, 28, 28}), td::randint(0, 10, {64}));
  CHECK(c.report.entries <= 28);
  CHECK(c.report.bytes_moved <= 49000000);
  CHECK(c.report.arena_bytes <= 4300000);
}

TEST_CASE("the plan of a small transformer's step", "[tracer]") {
  const Cost c = cost<Gpt>(td::randint(0, 65, {12, 64}), td::randint(0, 65, {768}));
  CHECK(c.report.entries <= 82);
  CHECK(c.report.natives == 1);  // the embedding's gradient
  CHECK(c.report.bytes_moved <= 220000000);
  CHECK(c.report.arena_bytes <= 21500000);
}

TEST_CASE("the plan of a step that clips gradients by their norm", "[tracer]") {
  const Cost plain = cost<Mlp>(td::rand({64, 64}), td::randint(0, 10, {64}));
  const Cost clipped = cost<Mlp>(td::rand({64, 64}), td::randint(0, 10, {64}), true);
  CAPTURE(plain.report.entries, clipped.report.entries);
  CHECK(clipped.report.entries <= plain.report.entries + 8);
}
