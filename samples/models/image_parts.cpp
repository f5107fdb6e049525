#include "samples/models/image_parts.h"

namespace samples {
namespace nn = tandem::nn;

void initialise(nn::Module& net, bool linear) {
  net.apply([&](nn::Module& m) {
    if (const auto* c = dynamic_cast<const nn::Conv2d*>(&m)) {
      nn::init::kaiming_normal_(c->weight, 0, nn::init::Fan::out);
      if (c->bias.defined()) nn::init::zeros_(c->bias);
    }
    const auto* l = linear ? dynamic_cast<const nn::Linear*>(&m) : nullptr;
    if (l == nullptr) return;
    nn::init::normal_(l->weight, 0, 0.01);
    if (l->bias.defined()) nn::init::zeros_(l->bias);
  });
}

}  // namespace samples
