#include "tandem/eager/nn/loss_layers.h"

namespace tandem::nn {

CrossEntropyLoss::CrossEntropyLoss(const CrossEntropyOptions& options, Location where) : options(options) {
  if (options.weight.defined()) buffer("weight", options.weight, true, made_at(where));
}

NLLLoss::NLLLoss(const Tensor& weight, int64_t ignore_index, Reduction reduction, Location where)
    : weight(weight), ignore_index(ignore_index), reduction(reduction) {
  if (weight.defined()) buffer("weight", weight, true, made_at(where));
}

BCELoss::BCELoss(const Tensor& weight, Reduction reduction, Location where)
    : weight(weight), reduction(reduction) {
  if (weight.defined()) buffer("weight", weight, true, made_at(where));
}

BCEWithLogitsLoss::BCEWithLogitsLoss(const Tensor& weight, Reduction reduction, const Tensor& pos_weight,
                                     Location where)
    : weight(weight), reduction(reduction), pos_weight(pos_weight) {
  if (weight.defined()) buffer("weight", weight, true, made_at(where));
  if (pos_weight.defined()) buffer("pos_weight", pos_weight, true, made_at(where));
}

}  // namespace tandem::nn
