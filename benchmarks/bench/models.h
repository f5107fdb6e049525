// The networks that workloads train. Single-threaded.
#pragma once

#include <cmath>

#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

/// in-first-second-10 with ReLU.
struct Mlp : td::nn::Module {
  explicit Mlp(int64_t in, int64_t first = 256, int64_t second = 128)
      : a(child<td::nn::Linear>("a", in, first)),
        b(child<td::nn::Linear>("b", first, second)),
        c(child<td::nn::Linear>("c", second, 10)) {}
  /// (N, in) to logits (N, 10).
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor h = td::relu(a(x));
    const td::Tensor g = td::relu(b(h));
    return c(g);
  }
  td::nn::Linear a, b, c;
};

/// Two convolutions, each with ReLU and pooling, then two linear layers.
struct Cnn : td::nn::Module {
  td::nn::Conv2d conv1 = child<td::nn::Conv2d>("conv1", 1, 32, 3, 1, 1);
  td::nn::Conv2d conv2 = child<td::nn::Conv2d>("conv2", 32, 64, 3, 1, 1);
  td::nn::Linear fc1 = child<td::nn::Linear>("fc1", 64 * 7 * 7, 128);
  td::nn::Linear fc2 = child<td::nn::Linear>("fc2", 128, 10);
  /// Images (N, 1, 28, 28) to logits (N, 10).
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor h1 = td::max_pool2d(td::relu(conv1(x)), 2);
    const td::Tensor h2 = td::max_pool2d(td::relu(conv2(h1)), 2);
    return fc2(td::relu(fc1(h2.flatten(1))));
  }
};

struct TransformerSizes {
  int layers;
  int64_t width, heads, length, words;
  /// Attention as one call and GELU by tanh; else attention op by op over a mask, and GELU by erf.
  bool fused;
};

inline constexpr TransformerSizes kGpt{4, 128, 4, 64, 65, true};
inline constexpr int64_t kGptBatch = 12;

struct Block : td::nn::Module {
  explicit Block(const TransformerSizes& s)
      : sizes(s),
        norm1(child<td::nn::LayerNorm>("norm1", s.width)),
        qkv(child<td::nn::Linear>("qkv", s.width, 3 * s.width)),
        out(child<td::nn::Linear>("out", s.width, s.width)),
        norm2(child<td::nn::LayerNorm>("norm2", s.width)),
        fc1(child<td::nn::Linear>("fc1", s.width, 4 * s.width)),
        fc2(child<td::nn::Linear>("fc2", 4 * s.width, s.width)) {}
  td::Tensor forward(const td::Tensor& x, const td::Tensor& mask) {
    const td::Tensor a = attention(norm1(x), mask);
    const td::Tensor h = x + a;
    const td::Tensor hidden = td::gelu(fc1(norm2(h)), sizes.fused);
    return h + fc2(hidden);
  }
  td::Tensor attention(const td::Tensor& x, const td::Tensor& mask) {
    const int64_t batch = x.size(0), length = x.size(1), size = sizes.width / sizes.heads;
    const td::Tensor all = qkv(x).reshape({batch, length, 3, sizes.heads, size}).permute({2, 0, 3, 1, 4});
    const td::Tensor q = all.select(0, 0), k = all.select(0, 1), v = all.select(0, 2);
    const td::Tensor mixed = sizes.fused ? td::scaled_dot_product_attention(q, k, v, {}, 0, true)
                                         : td::matmul(weights(q, k, mask), v);
    return out(mixed.transpose(1, 2).reshape({batch, length, sizes.width}));
  }
  td::Tensor weights(const td::Tensor& q, const td::Tensor& k, const td::Tensor& mask) const {
    const float scale = 1.f / std::sqrt(static_cast<float>(sizes.width / sizes.heads));
    const td::Tensor scores = td::matmul(q, k.transpose(-2, -1)) * scale + mask;
    return td::softmax(scores, -1);
  }

  TransformerSizes sizes;
  td::nn::LayerNorm norm1;
  td::nn::Linear qkv, out;
  td::nn::LayerNorm norm2;
  td::nn::Linear fc1, fc2;
};

/// A decoder with learned places, whose last layer is its table of words.
struct Transformer : td::nn::Module {
  explicit Transformer(const TransformerSizes& s)
      : words(child<td::nn::Embedding>("words", s.words, s.width)),
        places(child<td::nn::Embedding>("places", s.length, s.width)),
        blocks(child<td::nn::ModuleList<Block>>("blocks")),
        norm(child<td::nn::LayerNorm>("norm", s.width)),
        positions(buffer("positions", td::arange(s.length))) {
    const td::Tensor at = td::arange(s.length);
    if (!s.fused) mask = buffer("mask", td::where(at.reshape({s.length, 1}) >= at, 0.f, -1e9f));
    for (int i = 0; i < s.layers; ++i) blocks.emplace(s);
  }
  /// Words (N, T) to logits (N * T, words).
  td::Tensor forward(const td::Tensor& x) {
    const td::Tensor embedded = words(x);
    td::Tensor h = embedded + places(positions);
    for (const auto& b : blocks) h = b->forward(h, mask);
    return td::matmul(norm(h), words.weight.t()).reshape({-1, words.weight.size(0)});
  }

  td::nn::Embedding words, places;
  td::nn::ModuleList<Block> blocks;
  td::nn::LayerNorm norm;
  td::Tensor positions, mask;
};

}  // namespace bench
