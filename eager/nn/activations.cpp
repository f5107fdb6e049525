#include "tandem/eager/nn/activations.h"

namespace tandem::nn {

PReLU::PReLU(int64_t num_parameters, double init, TensorOptions options, Location where)
    : weight(parameter(
          "weight",
          full({num_parameters}, init, {.dtype = options.dtype, .device = options.device}, made_at(where)),
          made_at(where))) {}

}  // namespace tandem::nn
