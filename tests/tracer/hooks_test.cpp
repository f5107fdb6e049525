// Hooks and functions with a gradient of their own: in traced calls they are given what eager mode gives
// them, and may change it.
#include "tandem/eager/autograd_function.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

using Loss = Tensor (*)(const Tensor& h, const Tensor& k);
const std::pair<const char*, Loss> kLosses[] = {
    {"sum", [](const Tensor& h, const Tensor& k) { return h.sum() + k.sum(); }},
    {"mean", [](const Tensor& h, const Tensor& k) { return (h * k).mean(); }},
    {"reshape",
     [](const Tensor& h, const Tensor& k) { return td::square(h.reshape({12}) + k.reshape({12})).sum(); }},
    {"transpose", [](const Tensor& h, const Tensor& k) { return td::square(h.t()).sum() + k.t().sum(); }},
    {"columns", [](const Tensor& h, const Tensor& k) { return td::square(h.sum({0}) + k.sum({0})).sum(); }},
    {"expand",
     [](const Tensor& h, const Tensor& k) {
       return (h.unsqueeze(0).expand({2, 3, 4}) * 2.f).sum() + k.unsqueeze(0).expand({2, 3, 4}).sum();
     }},
    {"join",
     [](const Tensor& h, const Tensor& k) {
       return td::square(td::cat({h, k}, 0)).sum();
     }},
    {"stack",
     [](const Tensor& h, const Tensor& k) {
       return td::stack({h, k}, 0).sum();
     }},
    {"product", [](const Tensor& h, const Tensor& k) { return td::matmul(h, k.t()).sum(); }},
    {"slices", [](const Tensor& h,
                  const Tensor& k) { return h.select(0, 1).sum() + td::square(k.slice(1, 1, 3)).sum(); }},
    {"softmax", [](const Tensor& h, const Tensor& k) {
       return td::softmax(h, -1).slice(0, 0, 1).sum() + k.logsumexp({0}).sum();
     }}};

void append_layout(Values& out, const Tensor& g) {
  for (int d = 0; d < g.dim(); ++d) out.push_back(static_cast<float>(g.strides()[d]));
  const float* at = g.data<float>();
  for (int64_t i = 0; i < g.numel(); ++i) out.push_back(at[i]);
}

/// Calls of a step whose two inner values, or two parameters, have hooks; all that these and the caller see.
bool same_with_hooks(Loss loss, bool on_parameters, bool changes) {
  return same([&](bool traced) {
    const Tensor p = td::rand({3, 4}).requires_grad_(), q = td::rand({3, 4}).requires_grad_();
    Values seen;
    std::vector<Tensor> kept;
    const auto watch = [&](const Tensor& t, bool change) {
      t.register_hook([&seen, &kept, change](const Tensor& g) {
        append_layout(seen, g);
        if (change) g.mul_(2.f);
        kept.push_back(g);
        return Tensor();
      });
    };
    if (on_parameters) watch(p, changes), watch(q, false);
    const auto step = wrapped(traced, [&](const Tensor& x) {
      p.zero_grad();
      q.zero_grad();
      const Tensor h = p * x, k = q * x;
      if (!on_parameters) watch(h, changes), watch(k, false);
      const Tensor l = loss(h, k);
      l.backward();
      return l.detach();
    });
    for (int i = 0; i < 5; ++i) {
      append(seen, step(td::rand({3, 4})));
      append(seen, p.grad());
      append(seen, q.grad());
    }
    for (const Tensor& g : kept) append(seen, g);
    return seen;
  });
}

}  // namespace

TEST_CASE("hooks in a traced call get gradients with the layout and memory that eager mode gives them",
          "[tracer]") {
  for (const auto& [name, loss] : kLosses)
    for (const bool on_parameters : {false, true})
      for (const bool changes : {false, true}) {
        CAPTURE(name, on_parameters, changes);
        CHECK(same_with_hooks(loss, on_parameters, changes));
      }
}

TEST_CASE("functions with a gradient of their own may change what flows to them in a traced call",
          "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor p = td::ones({2, 3}).requires_grad_();
    Values seen;
    const auto step = wrapped(traced, [&](const Tensor& x) {
      p.zero_grad();
      const td::TensorList y = td::autograd::apply(
          [](td::autograd::Context&, const td::TensorList& in) { return td::TensorList{in[0] * 2.f}; },
          [&](const td::autograd::Context&, const td::TensorList& g) {
            append_layout(seen, g[0]);
            g[0].mul_(2.f);
            return td::TensorList{g[0]};
          },
          {p * x});
      const Tensor l = y[0].sum();
      l.backward();
      return l.detach();
    });
    for (int i = 0; i < 5; ++i) {
      append(seen, step(td::full({2, 3}, static_cast<float>(i))));
      append(seen, p.grad());
    }
    return seen;
  }));
}
