#include "samples/models/gpt2.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

namespace samples {
namespace td = tandem;
namespace nn = tandem::nn;
using td::Location;
using td::NamedTensor;
using td::Tensor;

namespace {

constexpr std::string_view kPrefix = "transformer.", kHead = "lm_head.weight";

const Gpt2Config& checked(const Gpt2Config& c, Location where) {
  for (const int64_t n : {c.n_layer, c.n_head, c.n_embd, c.n_positions, c.vocab_size})
    if (n < 1) td::fail("Gpt2: sizes must be at least 1, found " + std::to_string(n), where);
  if (c.n_embd % c.n_head != 0)
    td::fail(
        "Gpt2: " + std::to_string(c.n_head) + " heads do not divide a width of " + std::to_string(c.n_embd),
        where);
  return c;
}

/// Masks of attention, which old files hold as buffers.
bool is_mask(std::string_view name) {
  return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
}

/// Weights that Hugging Face's files hold as (in, out).
bool is_turned(std::string_view name) {
  return name.ends_with(".c_attn.weight") || name.ends_with(".c_proj.weight") ||
         name.ends_with(".c_fc.weight");
}

/// Modules without dropout while it lives, then in the modes that they had.
class Evaluating {
 public:
  explicit Evaluating(nn::Module& module) {
    for (const nn::NamedModule& m : module.named_modules())
      modes_.emplace_back(m.module, m.module->is_training());
    module.eval();
  }
  ~Evaluating() {
    for (const auto& [module, training] : modes_) module->train(training);  // parents first
  }
  Evaluating(const Evaluating&) = delete;
  Evaluating& operator=(const Evaluating&) = delete;

 private:
  std::vector<std::pair<nn::Module*, bool>> modes_;
};

}  // namespace

Gpt2Config Gpt2Config::preset(const std::string& name, Location where) {
  if (name == "tiny")
    return {.n_layer = 4, .n_head = 4, .n_embd = 128, .n_positions = 256, .vocab_size = 256};
  if (name == "124M") return {};
  if (name == "355M") return {.n_layer = 24, .n_head = 16, .n_embd = 1024};
  if (name == "774M") return {.n_layer = 36, .n_head = 20, .n_embd = 1280};
  if (name == "1558M") return {.n_layer = 48, .n_head = 25, .n_embd = 1600};
  td::fail("Gpt2Config: there is no \"" + name + "\"; tiny, 124M, 355M, 774M and 1558M are known", where);
}

Gpt2Attention::Gpt2Attention(const Gpt2Config& config)
    : config(config),
      c_attn(child<nn::Linear>("c_attn", config.n_embd, 3 * config.n_embd)),
      c_proj(child<nn::Linear>("c_proj", config.n_embd, config.n_embd)),
      resid_dropout(child<nn::Dropout>("resid_dropout", config.resid_pdrop)) {}

std::vector<Tensor> Gpt2Attention::heads(const Tensor& x) const {
  const int64_t e = config.n_embd, thirds[] = {e, e, e};
  // One op whose gradient is one joining; those of three slices would each be widened and added.
  std::vector<Tensor> qkv = td::eager::parts(c_attn(x), thirds, 2, Location::here());
  for (Tensor& part : qkv) part = part.reshape({x.size(0), x.size(1), config.n_head, -1}).transpose(1, 2);
  return qkv;
}

Tensor Gpt2Attention::joined(const Tensor& y) const {
  return resid_dropout(c_proj(y.transpose(1, 2).flatten(2)));
}

Tensor Gpt2Attention::forward(const Tensor& x) const {
  const std::vector<Tensor> qkv = heads(x);
  const double p = is_training() ? config.attn_pdrop : 0;
  return joined(td::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], {}, p, true));
}

Tensor Gpt2Attention::forward(const Tensor& x, const Gpt2Next& next, const Gpt2Kept& kept) const {
  const std::vector<Tensor> qkv = heads(x);
  kept.keys.index_copy_(2, next.positions, qkv[1]);
  kept.values.index_copy_(2, next.positions, qkv[2]);
  const double p = is_training() ? config.attn_pdrop : 0;
  return joined(td::scaled_dot_product_attention(qkv[0], kept.keys, kept.values, next.seen, p));
}

Gpt2Mlp::Gpt2Mlp(const Gpt2Config& config)
    : c_fc(child<nn::Linear>("c_fc", config.n_embd, 4 * config.n_embd)),
      c_proj(child<nn::Linear>("c_proj", 4 * config.n_embd, config.n_embd)),
      dropout(child<nn::Dropout>("dropout", config.resid_pdrop)) {}

Tensor Gpt2Mlp::forward(const Tensor& x) const { return dropout(c_proj(td::gelu(c_fc(x), true))); }

Gpt2Block::Gpt2Block(const Gpt2Config& config)
    : ln_1(child<nn::LayerNorm>("ln_1", td::Dims{config.n_embd}, config.layer_norm_epsilon)),
      attn(child<Gpt2Attention>("attn", config)),
      ln_2(child<nn::LayerNorm>("ln_2", td::Dims{config.n_embd}, config.layer_norm_epsilon)),
      mlp(child<Gpt2Mlp>("mlp", config)) {}

Tensor Gpt2Block::forward(const Tensor& x) const {
  const Tensor y = x + attn.forward(ln_1(x));
  return y + mlp.forward(ln_2(y));
}

Tensor Gpt2Block::forward(const Tensor& x, const Gpt2Next& next, const Gpt2Kept& kept) const {
  const Tensor y = x + attn.forward(ln_1(x), next, kept);
  return y + mlp.forward(ln_2(y));
}

Gpt2Transformer::Gpt2Transformer(const Gpt2Config& config)
    : wte(child<nn::Embedding>("wte", config.vocab_size, config.n_embd)),
      wpe(child<nn::Embedding>("wpe", config.n_positions, config.n_embd)),
      drop(child<nn::Dropout>("drop", config.embd_pdrop)),
      h(child<nn::ModuleList<Gpt2Block>>("h")),
      ln_f(child<nn::LayerNorm>("ln_f", td::Dims{config.n_embd}, config.layer_norm_epsilon)) {
  for (int64_t i = 0; i < config.n_layer; ++i) h.emplace(config);
}

Tensor Gpt2Transformer::forward(const Tensor& ids) const {
  if (ids.dim() != 2 || ids.size(1) > wpe.weight.size(0))
    td::fail("Gpt2: tokens (B, T) with T at most " + std::to_string(wpe.weight.size(0)) +
             " are needed, found shape " + td::to_string(ids.sizes()));
  const Tensor tokens = wte(ids);
  Tensor x = drop(tokens + wpe.weight.narrow(0, 0, ids.size(1)));
  for (const auto& block : h) x = block->forward(x);
  return ln_f(x);
}

Tensor Gpt2Transformer::forward(const Tensor& ids, const Tensor& positions,
                                const std::vector<Gpt2Kept>& kept) const {
  const Tensor room = td::arange(kept[0].keys.size(2), {.device = ids.device()});
  const Gpt2Next next{positions, room <= positions.unsqueeze(1)};
  Tensor x = drop(wte(ids) + wpe(positions));
  for (size_t i = 0; i < kept.size(); ++i) x = h[i].forward(x, next, kept[i]);
  return ln_f(x);
}

Gpt2::Gpt2(const Gpt2Config& c, Location where)
    : config(checked(c, where)), transformer(child<Gpt2Transformer>("transformer", c)) {
  const double added = 0.02 / std::sqrt(2.0 * static_cast<double>(config.n_layer));
  for (const NamedTensor& p : named_parameters()) {
    if (p.tensor.dim() == 2)
      nn::init::normal_(p.tensor, 0, p.name.ends_with("c_proj.weight") ? added : 0.02);
    else if (p.name.ends_with(".bias"))
      nn::init::zeros_(p.tensor);
  }
}

Tensor Gpt2::forward(const Tensor& ids) const {
  return td::linear(transformer.forward(ids), transformer.wte.weight);
}

Tensor Gpt2::loss(const Tensor& ids, const Tensor& targets) const {
  const Tensor logits = forward(ids);
  return td::cross_entropy(logits.flatten(0, 1), targets.flatten());
}

void Gpt2::load_hugging_face(const std::string& path, Location where) {
  const std::string who = "load_hugging_face: \"" + path + '"';
  const td::LoadedFile file = td::load(path, where);
  const std::vector<NamedTensor> mine = state();
  const auto known = [&](const std::string& name) {
    return std::any_of(mine.begin(), mine.end(), [&](const NamedTensor& n) { return n.name == name; });
  };
  std::vector<NamedTensor> given;
  Tensor head, tokens;
  for (const NamedTensor& n : file.tensors) {
    if (is_mask(n.name)) continue;
    if (n.name == kHead) {
      head = n.tensor;
      continue;
    }
    const std::string longer = std::string(kPrefix) + n.name;
    const std::string& name = known(longer) ? longer : n.name;
    if (name == "transformer.wte.weight") tokens = n.tensor;
    given.push_back({name, is_turned(name) && n.tensor.dim() == 2 ? n.tensor.t() : n.tensor});
  }
  td::eager::match_names(mine, given, true, who, where);
  if (head.defined() && (head.dtype() != tokens.dtype() || !tandem::equal(head, tokens)))
    td::fail(who + ": lm_head.weight differs from the token embedding, which is the head here", where);
  load_state(given, true, where);
}

void Gpt2::save_hugging_face(const std::string& path, Location where) const {
  std::vector<NamedTensor> all = state();
  for (NamedTensor& n : all)
    if (is_turned(n.name)) n.tensor = n.tensor.detach().t();
  td::save(path, all, {{"format", "pt"}}, where);
}

Tensor generate(Gpt2& net, const Tensor& ids, int64_t n, double temperature, int64_t top_k,
                td::Generator* generator, Location where) {
  if (ids.dim(where) != 2 || ids.size(1) < 1)
    td::fail("generate: tokens (B, T), T at least 1, are needed, found shape " + td::to_string(ids.sizes()),
             where);
  if (n < 0 || top_k < 0 || !(temperature >= 0))
    td::fail("generate: n, temperature and top_k must not be negative, found " + std::to_string(n) + ", " +
                 std::to_string(temperature) + " and " + std::to_string(top_k),
             where);
  const td::NoGrad no_grad;
  const Evaluating evaluating(net);
  const Gpt2Config& c = net.config;
  const int64_t given = ids.size(1), room = std::min(given + n, c.n_positions);
  std::vector<Gpt2Kept> kept;
  for (int64_t i = 0; i < c.n_layer; ++i) {
    const auto none = [&] {
      return td::zeros({ids.size(0), c.n_head, room, c.n_embd / c.n_head},
                       {.dtype = net.transformer.wte.weight.dtype(), .device = ids.device()});
    };
    kept.push_back({none(), none()});
  }
  auto read = td::trace(
      [&](const Tensor& tokens, const Tensor& positions) {
        return net.transformer.forward(tokens, positions, kept).select(1, -1);
      },
      {.name = "generate"});
  const int64_t k = top_k == 0 ? net.config.vocab_size : std::min(top_k, net.config.vocab_size);
  Tensor all = ids;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t length = all.size(1), unread = i == 0 ? length : 1;
    const Tensor state =
        length <= room
            ? read(all.narrow(1, length - unread, unread),
                   td::arange(length - unread, length, 1, {.dtype = td::int64, .device = ids.device()}))
            : net.transformer.forward(all.narrow(1, length - c.n_positions, c.n_positions)).select(1, -1);
    const Tensor logits = td::linear(state, net.transformer.wte.weight).to(td::float32);
    Tensor next;
    if (temperature == 0) {
      next = logits.argmax(1, true);
    } else {
      Tensor scaled = logits / temperature;
      if (k < net.config.vocab_size) {
        const Tensor least = scaled.topk(k, 1).values.narrow(1, k - 1, 1);
        scaled = scaled.masked_fill(scaled < least, -std::numeric_limits<double>::infinity());
      }
      next = td::multinomial(td::softmax(scaled, 1), 1, false, generator, where);
    }
    all = td::cat({all, next.to(all.dtype())}, 1);
  }
  return all;
}

}  // namespace samples
