// Optimizers' updates, which replay compares as a run: whatever differs in the middle of one is noticed, and
// everything else (values, moments, step counts, versions, errors) is as eager mode leaves it.
#include <functional>

#include "tandem/eager/dispatch.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;

namespace {

constexpr size_t kParameters = 70;  // more than are gathered at once

template <class Optimizer>
struct Model {
  using Options = typename Optimizer::Options;
  std::vector<td::Tensor> parameters, spare, given;
  std::unique_ptr<Optimizer> opt, other;
  td::Tensor x = td::rand({3});
  std::vector<double> seen;
  int calls = 0;

  explicit Model(Options options) {
    for (size_t i = 0; i < kParameters; ++i) {
      parameters.push_back(td::rand({3}).requires_grad_());
      spare.push_back(td::rand({3}).requires_grad_());
      given.push_back(td::rand({3}));
    }
    const std::vector<td::Tensor> head(parameters.begin(), parameters.begin() + 40),
        tail(parameters.begin() + 40, parameters.end());
    opt = std::make_unique<Optimizer>(head, options);
    options.lr *= 2;
    opt->add_group(tail, options);
    other = std::make_unique<Optimizer>(spare, options);
  }
  void see(const td::Tensor& t) {
    for (const double v : t.to_vector<double>()) seen.push_back(v);
  }
  void see_all() {
    for (const Optimizer* o : {opt.get(), other.get()})
      for (const td::NamedTensor& n : o->state()) see(n.tensor);
    for (const auto* list : {&parameters, &spare})
      for (const td::Tensor& t : *list) {
        see(t);
        seen.push_back(td::eager::version_of(t.impl()));
      }
  }
};

/// Fourteen calls (those that see something new are observed, and observed updates are no run); `twist` runs
/// between backward and step of each, `between` before each call.
template <class Optimizer>
std::vector<double> run(bool traced, const typename Optimizer::Options& options,
                        const std::function<void(Model<Optimizer>&)>& twist,
                        const std::function<void(Model<Optimizer>&)>& between = {}) {
  td::manual_seed(5);
  Model<Optimizer> m(options);
  const auto body = [&](const td::Tensor& x) {
    td::Tensor loss = (m.parameters[0] * x).sum();
    for (size_t i = 1; i < kParameters; ++i) loss = loss + (m.parameters[i] * m.parameters[i] * x).sum();
    m.opt->zero_grad();
    loss.backward();
    if (twist) twist(m);
    m.opt->step();
    return loss;
  };
  auto step = td::trace(body, {.compile = false});
  for (m.calls = 0; m.calls < 14; ++m.calls) {
    if (between) between(m);
    try {
      m.see(traced ? step(m.x) : body(m.x));
    } catch (const td::Error& e) {
      m.seen.push_back(static_cast<double>(std::hash<std::string>()(e.what())));
    }
    m.see_all();
  }
  if (traced) CHECK(step.report().calls == 14);
  return m.seen;
}

template <class Optimizer>
void compare(const typename Optimizer::Options& options, const std::function<void(Model<Optimizer>&)>& twist,
             const std::function<void(Model<Optimizer>&)>& between = {}) {
  CHECK(run<Optimizer>(true, options, twist, between) == run<Optimizer>(false, options, twist, between));
}

/// All that may differ in a run, at parameter `at`.
template <class Optimizer>
void compare_all(const typename Optimizer::Options& options, size_t at) {
  using M = Model<Optimizer>;
  compare<Optimizer>(options, [](M&) {});
  // A gradient that is missing, is another tensor, or another parameter's.
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls >= 3) m.parameters[at].set_grad({});
  });
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls >= 3) m.parameters[at].set_grad(m.given[static_cast<size_t>(m.calls)]);
  });
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls >= 3) m.parameters[at].set_grad(m.parameters[1].grad());
  });
  // Two gradients exchanged, inside one gathered run.
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls < 3) return;
    const td::Tensor g = m.parameters[at].grad();
    m.parameters[at].set_grad(m.parameters[at - 1].grad());
    m.parameters[at - 1].set_grad(g);
  });
  // Numbers of one group, and of all.
  compare<Optimizer>(options, [&](M& m) { m.opt->set_lr(0.01 * (1 + m.calls % 4), m.calls % 2); });
  compare<Optimizer>(options, {}, [&](M& m) {
    m.opt->set_lr(0.01 / (1 + m.calls), 0), m.opt->set_lr(0.02 / (1 + m.calls), 1);
  });
  // A call that leaves the recorded run in its middle brings new numbers to its first part alone.
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls >= 11) m.opt->set_lr(0.05, at / 40);
    if (m.calls % 4 == 3) m.parameters[at].set_grad(m.given[0]);
  });
  // Step counts and moments of one parameter.
  compare<Optimizer>(options, {}, [&](M& m) {
    if (m.calls != 3) return;
    std::vector<td::NamedTensor> state = m.opt->state();
    for (td::NamedTensor& n : state)
      if (n.name == std::to_string(at) + ".step") n.tensor = td::scalar_tensor(int64_t{40});
    m.opt->load_state(state);
  });
  // A parameter that is another tensor from some call on, and one whose updates another op interrupts.
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls == 3) {
      const td::NoGrad no_grad;
      m.parameters[at].mul_(0.5);
    }
  });
  compare<Optimizer>(options, {}, [&](M& m) {
    if (m.calls >= 3) std::swap(m.opt, m.other), std::swap(m.parameters, m.spare);
  });
  // The updates move versions, which a later backward sees.
  compare<Optimizer>(options, [&](M& m) {
    if (m.calls < 2) return;
    const td::Tensor y = (m.parameters[at] * m.parameters[at]).sum();
    m.opt->step();
    y.backward();
  });
}

}  // namespace

TEST_CASE("what differs in the middle of an optimizer's run of updates is noticed", "[training]") {
  // Of the first gathered run: its second and last; of the second run; the first and last of the other group.
  const size_t at = GENERATE(1, 31, 32, 39, 40, 69);
  compare_all<td::optim::AdamW>({.lr = 0.01}, at);
  if (at != 31) return;
  compare_all<td::optim::Adam>({.lr = 0.01, .weight_decay = 0.1}, at);
  compare_all<td::optim::SGD>({.lr = 0.01}, at);
  compare_all<td::optim::SGD>({.lr = 0.01, .momentum = 0.9, .dampening = 0.1}, at);
}
