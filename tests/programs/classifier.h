// A small classifier with a batch norm, for tests of inference: 20 features to 17 classes.
#pragma once

#include "tandem/tandem.h"

namespace programs {

struct Classifier : tandem::nn::Module {
  tandem::nn::Linear hidden = child<tandem::nn::Linear>("hidden", 20, 70);
  tandem::nn::BatchNorm1d norm = child<tandem::nn::BatchNorm1d>("norm", 70);
  tandem::nn::Linear out = child<tandem::nn::Linear>("out", 70, 17);
  tandem::Tensor forward(const tandem::Tensor& x) { return out(tandem::relu(norm(hidden(x)))); }
};

}  // namespace programs
