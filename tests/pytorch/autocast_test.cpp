// Autocast against PyTorch's: which list each op is in, and a training run in bfloat16.
#include "tandem/ops/autocast.h"
#include "tandem/core/modes.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tests/ops/sample_call.h"
#include "tests/pytorch/exchange.h"

using namespace tandem;
using namespace tandem::test;
using ops::AutocastRule;

namespace {

/// Ops under the names of PyTorch's lists; "" for those that its lists do not have, with the reason.
struct Name {
  const char *ours, *theirs, *reason;
};
constexpr Name kNames[] = {
    {"convolution", "conv2d", ""},
    {"convolution_input", "conv_transpose2d", ""},
    {"convolution_weight", "", "a gradient"},
    {"lstm_gates", "lstm_cell", ""},
    {"gru_gates", "gru_cell", ""},
    {"scaled_dot_product_attention", "", "younger than these lists"},
    {"attention_forward", "", "younger than these lists"},
    {"scaled_dot_product_attention_dropout", "", "younger than these lists"},
    {"square", "pow", ""},
    {"norm_p", "norm", ""},
    {"rms_norm", "layer_norm", ""},
    {"cross_entropy", "log_softmax", ""},
    {"huber_loss", "smooth_l1_loss", ""},
    {"binary_cross_entropy", "", "refused by PyTorch"},
    {"interpolate", "", "the upsample functions of PyTorch's own list, which its tests leave out"},
    {"cat", "", "promotes by itself in PyTorch"},
    {"index_add", "scatter_add", ""},
    {"index_copy", "scatter_add", ""},
    {"scatter", "scatter_add", ""},
};

}  // namespace

TEST_CASE("Autocast's table is PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  Exchange exchange;
  exchange.ask("lists", "autocast", Fields().text("what", "rules"));
  exchange.give("lists", "nothing", zeros({1}));
  exchange.run();
  if (exchange.without("lists") != "") {
    std::printf("SKIPPED: %s\n", exchange.without("lists").c_str());
    return;
  }
  int compared = 0;
  for_each_op([&](const ops::OpDef& op) {
    CAPTURE(op.name);
    std::string theirs = op.name;
    for (const Name& n : kNames)
      if (theirs == n.ours) {
        theirs = n.theirs;
        break;
      }
    const auto ours = static_cast<int>(ops::autocast_rule(op.id));
    const Tensor rule = exchange.answer("lists", theirs);
    if (theirs == "") {
      CHECK(ours != 0);
    } else {
      CHECK(ours == (rule.defined() ? rule.item<int>() : 0));
      compared += rule.defined();
    }
  });
  std::printf("%d ops are in PyTorch's lists\n", compared);
  CHECK(compared > 40);
}

TEST_CASE("Ten steps under autocast in bfloat16 are PyTorch's, within the digits of bfloat16", "[pytorch]") {
  if (!have_pytorch()) return;
  manual_seed(3);
  std::vector<Tensor> p = {randn({4, 3, 3}), randn({4}), randn({2, 24}) * 0.3, randn({2})};
  const Tensor x = randn({5, 3, 8}), target = randn({5, 2});
  Exchange exchange;
  for (size_t i = 0; i < p.size(); ++i) {
    exchange.give("run", "p" + std::to_string(i), p[i].clone());
    p[i] = p[i].detach().requires_grad_();
  }
  exchange.give("run", "x", x);
  exchange.give("run", "target", target);
  exchange.ask("run", "autocast", Fields().text("what", "training").integer("steps", 10));
  exchange.run();
  optim::SGD opt(p, {.lr = 0.05});
  std::vector<Tensor> losses;
  Tensor y;
  for (int t = 0; t < 10; ++t) {
    Tensor loss;
    {
      const autocast guard(bfloat16);
      y = linear(relu(conv1d(x, p[0], p[1])).flatten(1), p[2], p[3]);
      loss = mse_loss(y, target);
    }
    CHECK(y.dtype() == bfloat16);
    CHECK(loss.dtype() == float32);
    opt.zero_grad();
    loss.backward();
    opt.step();
    losses.push_back(loss.detach());
  }
  INFO(exchange.without("run"));
  CHECK(exchange.answer("run", "half").item<bool>());
  CHECK(disagreement(stack(losses, 0), exchange.answer("run", "losses"), 2e-2) == "");
  CHECK(disagreement(y.detach().to(float32), exchange.answer("run", "y"), 2e-2) == "");
}
