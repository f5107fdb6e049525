// Loss layers against PyTorch's.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
constexpr const char* kReductions[] = {"none", "mean", "sum"};

Tensors pair(DType t) { return {randn({4, 3}, {.dtype = t}), randn({4, 3}, {.dtype = t})}; }
Tensors probabilities(DType t) {
  return {sigmoid(randn({4, 3}, {.dtype = t})), sigmoid(randn({4, 3}, {.dtype = t}))};
}
Tensors signs(DType t) { return {randn({4, 3}, {.dtype = t}), sign(randn({4, 3}, {.dtype = t}))}; }
Tensors logits_and_labels(DType t) {
  return {randn({5, 4}, {.dtype = t}), tensor({0, 3, 2, 1, 3}).to(int64)};
}
Tensors places(DType t) { return {randn({2, 4, 3, 2}, {.dtype = t}), randint(0, 4, {2, 3, 2})}; }
Tensors one_row(DType t) { return {randn({4}, {.dtype = t}), scalar_tensor(int64_t{3})}; }
Tensors class_probabilities(DType t) {
  return {randn({5, 4}, {.dtype = t}), softmax(randn({5, 4}, {.dtype = t}), 1)};
}
Tensors probabilities_of_places(DType t) {
  return {randn({2, 4, 3}, {.dtype = t}), softmax(randn({2, 4, 3}, {.dtype = t}), 1)};
}
Tensors probabilities_of_one(DType t) {
  return {randn({4}, {.dtype = t}), softmax(randn({4}, {.dtype = t}), 0)};
}
Tensors three(DType t) {
  return {randn({4, 3}, {.dtype = t}), randn({4, 3}, {.dtype = t}), randn({4, 3}, {.dtype = t})};
}

}  // namespace

TEST_CASE("Loss layers are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  const auto two = [](auto& m, const Tensors& in) { return Tensors{m(in[0], in[1])}; };
  const auto of_three = [](auto& m, const Tensors& in) { return Tensors{m(in[0], in[1], in[2])}; };
  for (const Reduction r : {Reduction::none, Reduction::mean, Reduction::sum}) {
    const auto how = [&](Fields f = {}, std::vector<NamedTensor> tensors = {}, size_t leaves = 1) {
      f.text("reduction", kReductions[static_cast<size_t>(r)]);
      return LayerArguments{.options = f, .tensors = std::move(tensors), .leaves = leaves};
    };
    s.add(
        "MSELoss", how({}, {}, 2), pair, [&] { return std::make_unique<nn::MSELoss>(r); }, two);
    s.add(
        "L1Loss", how({}, {}, 2), pair, [&] { return std::make_unique<nn::L1Loss>(r); }, two);
    s.add(
        "SmoothL1Loss", how(Fields().number("beta", 0.5), {}, 2), pair,
        [&] { return std::make_unique<nn::SmoothL1Loss>(r, 0.5); }, two);
    s.add(
        "HuberLoss", how(Fields().number("delta", 0.7), {}, 2), pair,
        [&] { return std::make_unique<nn::HuberLoss>(r, 0.7); }, two);
    s.add(
        "SoftMarginLoss", how(), signs, [&] { return std::make_unique<nn::SoftMarginLoss>(r); }, two);
    s.add(
        "KLDivLoss", how(), probabilities, [&] { return std::make_unique<nn::KLDivLoss>(r); }, two);
    s.add(
        "KLDivLoss", how(Fields().flag("log_target", true)), pair,
        [&] { return std::make_unique<nn::KLDivLoss>(r, true); }, two);
    s.add(
        "HingeEmbeddingLoss", how(Fields().number("margin", 0.6)), signs,
        [&] { return std::make_unique<nn::HingeEmbeddingLoss>(0.6, r); }, two);
    const Tensor weights = tensor({0.5, 1.5, 0.25, 2.0}), of_columns = tensor({0.5, 1.5, 0.25});
    s.add(
        "CrossEntropyLoss", how(), logits_and_labels,
        [&] { return std::make_unique<nn::CrossEntropyLoss>(CrossEntropyOptions{.reduction = r}); }, two);
    s.add(
        "CrossEntropyLoss", how(Fields().integer("ignore_index", 2).number("label_smoothing", 0.2)),
        logits_and_labels,
        [&] {
          return std::make_unique<nn::CrossEntropyLoss>(
              CrossEntropyOptions{.reduction = r, .ignore_index = 2, .label_smoothing = 0.2});
        },
        two);
    for (const auto labels : {logits_and_labels, places, one_row})
      for (const double smoothing : {0.0, 0.2})
        s.add(
            "CrossEntropyLoss",
            how(Fields().integer("ignore_index", 1).number("label_smoothing", smoothing),
                {{"made_with.weight", weights}}),
            labels,
            [&] {
              return std::make_unique<nn::CrossEntropyLoss>(CrossEntropyOptions{
                  .weight = weights, .reduction = r, .ignore_index = 1, .label_smoothing = smoothing});
            },
            two);
    for (const auto labels : {places, one_row})
      s.add(
          "CrossEntropyLoss", how(), labels,
          [&] { return std::make_unique<nn::CrossEntropyLoss>(CrossEntropyOptions{.reduction = r}); }, two);
    for (const auto target : {class_probabilities, probabilities_of_places, probabilities_of_one})
      for (const double smoothing : {0.0, 0.2}) {
        s.add(
            "CrossEntropyLoss", how(Fields().number("label_smoothing", smoothing), {}, 2), target,
            [&] {
              return std::make_unique<nn::CrossEntropyLoss>(
                  CrossEntropyOptions{.reduction = r, .label_smoothing = smoothing});
            },
            two);
        s.add(
            "CrossEntropyLoss",
            how(Fields().number("label_smoothing", smoothing), {{"made_with.weight", weights}}), target,
            [&] {
              return std::make_unique<nn::CrossEntropyLoss>(
                  CrossEntropyOptions{.weight = weights, .reduction = r, .label_smoothing = smoothing});
            },
            two);
      }
    s.add(
        "NLLLoss", how(Fields().integer("ignore_index", 1), {{"made_with.weight", weights}}), places,
        [&] { return std::make_unique<nn::NLLLoss>(weights, 1, r); }, two);
    s.add(
        "NLLLoss", how(Fields().integer("ignore_index", 1), {{"made_with.weight", weights}}),
        logits_and_labels, [&] { return std::make_unique<nn::NLLLoss>(weights, 1, r); }, two);
    s.add(
        "BCELoss", how({}, {{"made_with.weight", of_columns}}), probabilities,
        [&] { return std::make_unique<nn::BCELoss>(of_columns, r); }, two);
    s.add(
        "BCEWithLogitsLoss", how({}, {{"made_with.pos_weight", of_columns}}), probabilities,
        [&] { return std::make_unique<nn::BCEWithLogitsLoss>(Tensor(), r, of_columns); }, two);
    s.add(
        "MarginRankingLoss", how(Fields().number("margin", 0.3), {}, 2),
        [](DType t) {
          return Tensors{randn({5}, {.dtype = t}), randn({5}, {.dtype = t}), sign(randn({5}, {.dtype = t}))};
        },
        [&] { return std::make_unique<nn::MarginRankingLoss>(0.3, r); }, of_three);
    s.add(
        "CosineEmbeddingLoss", how(Fields().number("margin", 0.1), {}, 2),
        [](DType t) {
          return Tensors{randn({5, 3}, {.dtype = t}), randn({5, 3}, {.dtype = t}),
                         sign(randn({5}, {.dtype = t}))};
        },
        [&] { return std::make_unique<nn::CosineEmbeddingLoss>(0.1, r); }, of_three);
    s.add(
        "PoissonNLLLoss", how(Fields().flag("full", true)), probabilities,
        [&] { return std::make_unique<nn::PoissonNLLLoss>(true, true, 1e-8, r); }, two);
    s.add(
        "GaussianNLLLoss", how(Fields().number("eps", 0.5)),
        [](DType t) {
          return Tensors{randn({4, 3}, {.dtype = t}), randn({4, 3}, {.dtype = t}),
                         rand({4, 3}, {.dtype = t})};
        },
        [&] { return std::make_unique<nn::GaussianNLLLoss>(false, 0.5, r); }, of_three);
    s.add(
        "MultiMarginLoss",
        how(Fields().integer("p", 2).number("margin", 0.7), {{"made_with.weight", weights}}),
        logits_and_labels, [&] { return std::make_unique<nn::MultiMarginLoss>(2, 0.7, weights, r); }, two);
    s.add(
        "MultiLabelSoftMarginLoss", how({}, {{"made_with.weight", of_columns}}), probabilities,
        [&] { return std::make_unique<nn::MultiLabelSoftMarginLoss>(of_columns, r); }, two);
    s.add(
        "TripletMarginLoss", how(Fields().number("margin", 0.7), {}, 3), three,
        [&] { return std::make_unique<nn::TripletMarginLoss>(0.7, 2, 1e-6, r); }, of_three);
  }
  s.compare();
}
