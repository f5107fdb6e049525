// Recurrent layers and attention against PyTorch's.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr int64_t kIn = 4, kHidden = 3;
using Tensors = std::vector<Tensor>;

std::string sizes() { return "[4, 3]"; }

Fields json(const nn::RecurrentOptions& o) {
  Fields f;
  f.integer("num_layers", o.num_layers).flag("bias", o.bias).flag("batch_first", o.batch_first);
  return f.flag("bidirectional", o.bidirectional);
}

template <class Layer>
void layer(LayerSuite& s, const char* name, const nn::RecurrentOptions& o, bool with_state) {
  const int64_t states = o.num_layers * (o.bidirectional ? 2 : 1);
  s.add(
      name, {.arguments = sizes(), .options = json(o)},
      [&](DType t) {
        Tensors in = {randn(o.batch_first ? Dims{2, 5, kIn} : Dims{5, 2, kIn}, {.dtype = t})};
        if (with_state) in.push_back(randn({states, 2, kHidden}, {.dtype = t}));
        return in;
      },
      [&] { return std::make_unique<Layer>(kIn, kHidden, o); },
      [](Layer& m, const Tensors& in) {
        if constexpr (std::is_same_v<Layer, nn::LSTM>) {
          const auto [y, state] = m(in[0]);
          return Tensors{y, state.h, state.c};
        } else {
          const auto [y, h] = in.size() > 1 ? m(in[0], in[1]) : m(in[0]);
          return Tensors{y, h};
        }
      });
}

template <class Layer>
void layers(LayerSuite& s, const char* name) {
  constexpr bool kLstm = std::is_same_v<Layer, nn::LSTM>;
  layer<Layer>(s, name, {}, !kLstm);
  layer<Layer>(s, name, {.num_layers = 2, .bidirectional = true}, !kLstm);
  layer<Layer>(s, name, {.num_layers = 2, .bias = false, .batch_first = true}, false);
  for (const bool both : {false, true}) {
    const nn::RecurrentOptions o{.num_layers = 2, .batch_first = true, .bidirectional = both};
    const std::vector<int64_t> lengths = {3, 5, 1};
    s.add(
        name, {.arguments = sizes(), .options = json(o), .call = Fields().list("lengths", lengths)},
        [](DType t) {
          return Tensors{randn({3, 5, kIn}, {.dtype = t})};
        },
        [&] { return std::make_unique<Layer>(kIn, kHidden, o); },
        [&](Layer& m, const Tensors& in) {
          const auto [y, state] = m(in[0], {}, tensor(lengths));
          if constexpr (kLstm)
            return Tensors{y, state.h, state.c};
          else
            return Tensors{y, state};
        });
  }
}

}  // namespace

TEST_CASE("Recurrent layers are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  layers<nn::RNN>(s, "RNN");
  layers<nn::LSTM>(s, "LSTM");
  layers<nn::GRU>(s, "GRU");
  s.compare();
}

TEST_CASE("Recurrent cells are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  const auto inputs = [](DType t) {
    return Tensors{randn({2, kIn}, {.dtype = t}), randn({2, kHidden}, {.dtype = t})};
  };
  const auto call = [](auto& m, const Tensors& in) { return Tensors{m(in[0], in[1])}; };
  s.add(
      "RNNCell", {sizes()}, inputs, [] { return std::make_unique<nn::RNNCell>(kIn, kHidden); }, call);
  s.add(
      "RNNCell", {.arguments = "[4, 3, false]", .options = Fields().text("nonlinearity", "relu")}, inputs,
      [] { return std::make_unique<nn::RNNCell>(kIn, kHidden, false, nn::Nonlinearity::relu); }, call);
  s.add(
      "GRUCell", {sizes()}, inputs, [] { return std::make_unique<nn::GRUCell>(kIn, kHidden); }, call);
  s.add(
      "LSTMCell", {sizes()},
      [](DType t) {
        return Tensors{randn({2, kIn}, {.dtype = t})};
      },
      [] { return std::make_unique<nn::LSTMCell>(kIn, kHidden); },
      [](nn::LSTMCell& m, const Tensors& in) {
        const nn::LstmState state = m(in[0]);
        return Tensors{state.h, state.c};
      });
  s.compare();
}

TEST_CASE("Attention is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  const auto inputs = [](DType t) {
    return Tensors{randn({3, 2, 6}, {.dtype = t}), randn({4, 2, 6}, {.dtype = t}),
                   randn({4, 2, 6}, {.dtype = t})};
  };
  const auto call = [](nn::MultiheadAttention& m, const Tensors& in) {
    const nn::AttentionOutput y = m(in[0], in[1], in[2]);
    return Tensors{y.output, y.weights};
  };
  s.add(
      "MultiheadAttention", {"[6, 2]"}, inputs, [] { return std::make_unique<nn::MultiheadAttention>(6, 2); },
      call);
  s.add(
      "MultiheadAttention",
      {.arguments = "[6, 3]", .options = Fields().flag("bias", false).integer("kdim", 5).integer("vdim", 4)},
      [](DType t) {
        return Tensors{randn({3, 2, 6}, {.dtype = t}), randn({4, 2, 5}, {.dtype = t}),
                       randn({4, 2, 4}, {.dtype = t})};
      },
      [] {
        return std::make_unique<nn::MultiheadAttention>(
            6, 3, nn::MultiheadAttentionOptions{.bias = false, .kdim = 5, .vdim = 4});
      },
      call);
  s.add(
      "MultiheadAttention",
      {.arguments = "[6, 2]", .options = Fields().flag("add_bias_kv", true).flag("add_zero_attn", true)},
      inputs,
      [] {
        return std::make_unique<nn::MultiheadAttention>(
            6, 2, nn::MultiheadAttentionOptions{.add_bias_kv = true, .add_zero_attn = true});
      },
      call);
  const Tensor padding = tensor({0, 0, 0, 1, 0, 0, 0, 0}).to(bool_).reshape({2, 4});
  const Tensor mask = tensor({0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1}).to(bool_).reshape({3, 4});
  s.add(
      "MultiheadAttention",
      {.arguments = "[6, 2]",
       .call = Fields().flag("average_attn_weights", false),
       .tensors = {{"call.key_padding_mask", padding}, {"call.attn_mask", mask}}},
      inputs, [] { return std::make_unique<nn::MultiheadAttention>(6, 2); },
      [&](nn::MultiheadAttention& m, const Tensors& in) {
        const nn::AttentionOutput y =
            m(in[0], in[1], in[2],
              {.key_padding_mask = padding, .attn_mask = mask, .average_attn_weights = false});
        return Tensors{y.output, y.weights};
      });
  for (const bool norm_first : {false, true})
    s.add(
        "TransformerEncoderLayer",
        {.arguments = "[6, 2, 8, 0.0]",
         .options = Fields().flag("norm_first", norm_first).flag("batch_first", true)},
        [](DType t) {
          return Tensors{randn({2, 3, 6}, {.dtype = t})};
        },
        [&] {
          return std::make_unique<nn::TransformerEncoderLayer>(
              6, 2,
              nn::TransformerLayerOptions{
                  .dim_feedforward = 8, .dropout = 0, .batch_first = true, .norm_first = norm_first});
        },
        [](nn::TransformerEncoderLayer& m, const Tensors& in) { return Tensors{m(in[0])}; });
  for (const bool norm_first : {false, true}) {
    const nn::TransformerLayerOptions options{
        .dim_feedforward = 8, .dropout = 0, .batch_first = true, .norm_first = norm_first};
    const Fields fields = Fields().flag("norm_first", norm_first).flag("batch_first", true);
    const auto both = [](DType t) {
      return Tensors{randn({2, 3, 6}, {.dtype = t}), randn({2, 4, 6}, {.dtype = t})};
    };
    const Tensor of_keys = tensor({0, 0, 0, 1, 0, 0}).to(bool_).reshape({2, 3});
    const Tensor later = nn::Transformer::generate_square_subsequent_mask(4);
    s.add(
        "TransformerDecoderLayer",
        {.arguments = "[6, 2, 8, 0.0]",
         .options = fields,
         .tensors = {{"call.tgt_mask", ones({3, 3}, {.dtype = bool_}).triu(1)}}},
        both, [&] { return std::make_unique<nn::TransformerDecoderLayer>(6, 2, options); },
        [](nn::TransformerDecoderLayer& m, const Tensors& in) {
          return Tensors{m(in[0], in[1], {.tgt_is_causal = true})};
        });
    s.add(
        "Transformer",
        {.arguments = "[6, 2, 2, 1, 8, 0.0]",
         .options = fields,
         .tensors = {{"call.src_key_padding_mask", of_keys},
                     {"call.memory_key_padding_mask", of_keys},
                     {"call.tgt_mask", later.isinf()}}},
        both, [&] { return std::make_unique<nn::Transformer>(6, 2, 2, 1, options); },
        [=](nn::Transformer& m, const Tensors& in) {
          return Tensors{m(in[0], in[1],
                           {.tgt_mask = later.to(in[0].dtype()),
                            .src_key_padding_mask = of_keys,
                            .memory_key_padding_mask = of_keys})};
        });
  }
  s.compare();
}
