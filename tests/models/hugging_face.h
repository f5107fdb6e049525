// Weights of a small GPT-2 as Hugging Face's files name and lay them out, drawn from the default generator.
#pragma once

#include <string>
#include <vector>

#include "samples/models/gpt2.h"

namespace tandem::test {

/// Widths that are no multiples of each other's, so that no transposition fits by chance, but for c_proj's.
inline const samples::Gpt2Config kSmallGpt2 = {
    .n_layer = 2, .n_head = 3, .n_embd = 12, .n_positions = 10, .vocab_size = 31};

/// Whether a file holds that weight as (in, out).
inline bool is_turned(const std::string& name) {
  return name.ends_with("c_attn.weight") || name.ends_with("c_proj.weight") || name.ends_with("c_fc.weight");
}

/// Of kSmallGpt2, with "transformer." before each name, without masks and head.
inline std::vector<NamedTensor> hugging_face_weights(DType type = float32) {
  const int64_t e = kSmallGpt2.n_embd;
  std::vector<NamedTensor> all;
  const auto add = [&](const std::string& name, const Dims& sizes, double mean = 0) {
    all.push_back({"transformer." + name, (randn(sizes) * 0.2 + mean).to(type)});
  };
  add("wte.weight", {kSmallGpt2.vocab_size, e});
  add("wpe.weight", {kSmallGpt2.n_positions, e});
  for (int64_t i = 0; i < kSmallGpt2.n_layer; ++i) {
    const std::string h = "h." + std::to_string(i) + '.';
    add(h + "ln_1.weight", {e}, 1);
    add(h + "ln_1.bias", {e});
    add(h + "attn.c_attn.weight", {e, 3 * e});
    add(h + "attn.c_attn.bias", {3 * e});
    add(h + "attn.c_proj.weight", {e, e});
    add(h + "attn.c_proj.bias", {e});
    add(h + "ln_2.weight", {e}, 1);
    add(h + "ln_2.bias", {e});
    add(h + "mlp.c_fc.weight", {e, 4 * e});
    add(h + "mlp.c_fc.bias", {4 * e});
    add(h + "mlp.c_proj.weight", {4 * e, e});
    add(h + "mlp.c_proj.bias", {e});
  }
  add("ln_f.weight", {e}, 1);
  add("ln_f.bias", {e});
  return all;
}

}  // namespace tandem::test
