#include "samples/models/neumf.h"

#include <cmath>

namespace samples {
namespace td = tandem;
namespace nn = tandem::nn;
using td::Tensor;

namespace {

const NeuMfConfig& checked(const NeuMfConfig& c, td::Location where) {
  std::vector<int64_t> sizes = {c.users, c.items, c.mf_width};
  sizes.insert(sizes.end(), c.mlp_widths.begin(), c.mlp_widths.end());
  for (const int64_t n : sizes)
    if (n < 1) td::fail("NeuMf: sizes must be at least 1, found " + std::to_string(n), where);
  if (c.mlp_widths.size() < 2 || c.mlp_widths[0] % 2 != 0)
    td::fail("NeuMf: mlp_widths must be two numbers or more and begin with an even one", where);
  return c;
}

}  // namespace

NeuMf::NeuMf(const NeuMfConfig& c, td::Location where)
    : config(checked(c, where)),
      mf_user_embed(child<nn::Embedding>("mf_user_embed", c.users, c.mf_width)),
      mf_item_embed(child<nn::Embedding>("mf_item_embed", c.items, c.mf_width)),
      mlp_user_embed(child<nn::Embedding>("mlp_user_embed", c.users, c.mlp_widths[0] / 2)),
      mlp_item_embed(child<nn::Embedding>("mlp_item_embed", c.items, c.mlp_widths[0] / 2)),
      dropout(child<nn::Dropout>("dropout", c.dropout)),
      mlp(child<nn::ModuleList<nn::Linear>>("mlp")),
      final(child<nn::Linear>("final", c.mlp_widths.back() + c.mf_width, 1)) {
  for (size_t i = 1; i < c.mlp_widths.size(); ++i) {
    const nn::Linear& layer = mlp.emplace(c.mlp_widths[i - 1], c.mlp_widths[i]);
    nn::init::xavier_uniform_(layer.weight);
  }
  for (const nn::Embedding* e : {&mf_user_embed, &mf_item_embed, &mlp_user_embed, &mlp_item_embed})
    nn::init::normal_(e->weight, 0, 0.01);
  const double bound = std::sqrt(3.0 / static_cast<double>(c.mlp_widths.back() + c.mf_width));
  nn::init::uniform_(final.weight, -bound, bound);
}

Tensor NeuMf::forward(const Tensor& users, const Tensor& items) const {
  const Tensor mf_user = mf_user_embed(users), mlp_user = mlp_user_embed(users);
  const Tensor product = mf_user * mf_item_embed(items);
  Tensor x = td::cat({mlp_user, mlp_item_embed(items)}, 1);
  for (const auto& layer : mlp) x = dropout(td::relu((*layer)(x)));
  return final(td::cat({product, x}, 1)).squeeze(1);
}

Tensor NeuMf::loss(const Tensor& users, const Tensor& items, const Tensor& labels) const {
  return td::binary_cross_entropy_with_logits(forward(users, items), labels);
}

}  // namespace samples
