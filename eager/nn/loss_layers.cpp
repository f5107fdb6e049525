#include "tandem/eager/nn/loss_layers.h"

namespace tandem::nn {

namespace {

/// A layer's weight is its own: what moves or loads the layer does not change the caller's tensor.
Tensor own(const Tensor& weight) { return weight.defined() ? weight.detach().clone() : weight; }

CrossEntropyOptions own(CrossEntropyOptions options) {
  options.weight = own(options.weight);
  return options;
}

}  // namespace

CrossEntropyLoss::CrossEntropyLoss(const CrossEntropyOptions& given, Location where) : options(own(given)) {
  if (options.weight.defined()) buffer("weight", options.weight, true, made_at(where));
}

NLLLoss::NLLLoss(const Tensor& weight, int64_t ignore_index, Reduction reduction, Location where)
    : weight(own(weight)), ignore_index(ignore_index), reduction(reduction) {
  if (this->weight.defined()) buffer("weight", this->weight, true, made_at(where));
}

MultiMarginLoss::MultiMarginLoss(int64_t p, double margin, const Tensor& weight, Reduction reduction,
                                 Location where)
    : p(p), margin(margin), weight(own(weight)), reduction(reduction) {
  if (this->weight.defined()) buffer("weight", this->weight, true, made_at(where));
}

MultiLabelSoftMarginLoss::MultiLabelSoftMarginLoss(const Tensor& weight, Reduction reduction, Location where)
    : weight(own(weight)), reduction(reduction) {
  if (this->weight.defined()) buffer("weight", this->weight, true, made_at(where));
}

BCELoss::BCELoss(const Tensor& weight, Reduction reduction, Location where)
    : weight(own(weight)), reduction(reduction) {
  if (this->weight.defined()) buffer("weight", this->weight, true, made_at(where));
}

BCEWithLogitsLoss::BCEWithLogitsLoss(const Tensor& weight, Reduction reduction, const Tensor& pos_weight,
                                     Location where)
    : weight(own(weight)), reduction(reduction), pos_weight(own(pos_weight)) {
  if (this->weight.defined()) buffer("weight", this->weight, true, made_at(where));
  if (this->pos_weight.defined()) buffer("pos_weight", this->pos_weight, true, made_at(where));
}

}  // namespace tandem::nn
