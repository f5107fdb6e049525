// GradScaler and Optimizer::step_unless: skipped steps leave no trace, taken ones are the optimizer's; the
// scale's rule; order of calls; state.
#include "tandem/eager/optim/grad_scaler.h"

#include <cmath>
#include <limits>
#include <memory>

#include "tandem/eager/functions.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tandem/eager/save.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"

using namespace tandem;
using tandem::optim::GradScaler;
using tandem::test::message;

namespace {

using Numbers = std::vector<double>;
void append(Numbers& out, const Tensor& t) {
  for (const double v : t.to_vector<double>()) out.push_back(v);
}

using Make = std::unique_ptr<optim::Optimizer> (*)(const std::vector<Tensor>&);
template <class O>
std::unique_ptr<optim::Optimizer> make(const std::vector<Tensor>& p) {
  if constexpr (std::is_same_v<O, optim::SGD>)
    return std::make_unique<O>(
        p, typename O::Options{.lr = 0.1, .momentum = 0.9, .dampening = 0.2, .weight_decay = 0.01});
  else if constexpr (std::is_same_v<O, optim::Adagrad>)
    return std::make_unique<O>(p, typename O::Options{.lr = 0.1, .lr_decay = 0.3});
  else
    return std::make_unique<O>(p, typename O::Options{.lr = 0.05});
}
struct Kind {
  const char* name;
  Make make;
};
const Kind kKinds[] = {
    {"SGD with momentum", make<optim::SGD>},
    {"SGD",
     [](const std::vector<Tensor>& p) -> std::unique_ptr<optim::Optimizer> {
       return std::make_unique<optim::SGD>(p, optim::SGDOptions{.lr = 0.1});
     }},
    {"Adam", make<optim::Adam>},
    {"AdamW", make<optim::AdamW>},
    {"AdamW by the largest second moment",
     [](const std::vector<Tensor>& p) -> std::unique_ptr<optim::Optimizer> {
       return std::make_unique<optim::AdamW>(p, optim::AdamWOptions{.lr = 0.05, .amsgrad = true});
     }},
    {"Adamax", make<optim::Adamax>},
    {"NAdam", make<optim::NAdam>},
    {"RAdam", make<optim::RAdam>},
    {"Adagrad", make<optim::Adagrad>},
    {"RMSprop", make<optim::RMSprop>},
    {"Lion", make<optim::Lion>},
    {"RMSprop, centered, with momentum",
     [](const std::vector<Tensor>& p) -> std::unique_ptr<optim::Optimizer> {
       return std::make_unique<optim::RMSprop>(
           p, optim::RMSpropOptions{.lr = 0.05, .momentum = 0.5, .centered = true});
     }},
};

double gradient(int t, int i) { return std::sin(1.7 * t + i) * (i + 0.5) + 0.1 * t; }
Tensor gradient_of(int t, DType type) {
  Numbers g;
  for (int i = 0; i < 3; ++i) g.push_back(gradient(t, i));
  return tensor(g).to(type);
}

/// `skip(t)`: step t does not happen; decided by the host, or by the device.
template <class Skip>
Numbers train(const Kind& kind, DType type, int steps, bool device, Skip skip) {
  const Tensor p = tensor(Numbers{1, -2, 3}).to(type).requires_grad_();
  const auto opt = kind.make({p});
  for (int t = 0; t < steps; ++t) {
    p.set_grad(gradient_of(t, type));
    if (device)
      opt->step_unless(scalar_tensor(skip(t)));
    else if (!skip(t))
      opt->step();
  }
  Numbers out;
  append(out, p);
  for (const NamedTensor& n : opt->state()) append(out, n.tensor);
  return out;
}

struct Net : nn::Module {
  nn::Linear a = child<nn::Linear>("a", 3, 4);
  nn::Linear b = child<nn::Linear>("b", 4, 2);
  Tensor forward(const Tensor& x) { return b(tanh(a(x))); }
};
Numbers everything(Net& net, const optim::Optimizer& opt) {
  Numbers out;
  for (const Tensor& p : net.parameters()) append(out, p);
  for (const NamedTensor& n : opt.state()) append(out, n.tensor);
  return out;
}

}  // namespace

TEST_CASE("step_unless: skipped steps are no steps, for every optimizer and type", "[scaler]") {
  const auto skip = [](int t) { return t == 0 || t == 3 || t == 4; };
  for (const Kind& kind : kKinds)
    for (const DType type : {float64, float32}) {
      CAPTURE(kind.name, name(type));
      const Numbers wanted = train(kind, type, 12, false, skip), found = train(kind, type, 12, true, skip);
      REQUIRE(found.size() == wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i) {
        CAPTURE(i);
        CHECK(found[i] == Approx(wanted[i]).epsilon(type == float64 ? 1e-12 : 2e-5).margin(1e-9));
      }
      CHECK(train(kind, type, 12, true, [](int) { return false; }) != found);
      // All skipped: not a bit has changed.
      CHECK(train(kind, type, 5, true, [](int) { return true; }) ==
            train(kind, type, 5, false, [](int) { return true; }));
    }
}

TEST_CASE("step_unless: steps of the host and of the device are counted together", "[scaler]") {
  for (const Kind& kind : kKinds) {
    CAPTURE(kind.name);
    const auto run = [&](int way) {
      const Tensor p = tensor(Numbers{1, -2, 3}).requires_grad_();
      auto opt = kind.make({p});
      for (int t = 0; t < 12; ++t) {
        p.set_grad(gradient_of(t, float64));
        const bool device = way == 1 && (t / 3) % 2 == 1;
        if (device && t == 4) opt->step_unless(scalar_tensor(true));  // counts nothing
        if (device)
          opt->step_unless(scalar_tensor(0.0));
        else
          opt->step();
        if (way == 1 && t == 7) {  // a state that is saved and taken back goes on as before
          auto other = kind.make({p});
          other->load_state(opt->state());
          opt = std::move(other);
        }
      }
      Numbers out;
      append(out, p);
      for (const NamedTensor& n : opt->state()) append(out, n.tensor);
      return out;
    };
    const Numbers wanted = run(0), found = run(1);
    REQUIRE(found.size() == wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i)
      CHECK(found[i] == Approx(wanted[i]).epsilon(1e-12).margin(1e-12));
  }
}

TEST_CASE("step_unless: parameters that miss steps keep counts of their own", "[scaler]") {
  const auto run = [&](bool device) {
    const Tensor a = tensor(Numbers{1, 2}).requires_grad_(), b = tensor(Numbers{3, 4}).requires_grad_(),
                 c = tensor(Numbers{5, 6}).requires_grad_();
    optim::Adam opt({{{a, b}, {.lr = 0.1}}, {{c}, {.lr = 0.2, .betas = {0.5, 0.8}}}});
    for (int t = 0; t < 10; ++t) {
      opt.zero_grad();
      a.set_grad(tensor(Numbers{0.1 * t, 1}));
      if (t % 3 != 1) b.set_grad(tensor(Numbers{-1, 0.3 * t}));
      if (t >= 4) c.set_grad(tensor(Numbers{2, -1}));
      const bool skip = t == 2 || t == 5;
      if (device)
        opt.step_unless(scalar_tensor(skip));
      else if (!skip)
        opt.step();
    }
    Numbers out;
    for (const Tensor& t : {a, b, c}) append(out, t);
    for (const NamedTensor& n : opt.state()) append(out, n.tensor);
    return out;
  };
  const Numbers wanted = run(false), found = run(true);
  REQUIRE(found.size() == wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) CHECK(found[i] == Approx(wanted[i]).epsilon(1e-12));
}

TEST_CASE("step_unless: what it refuses", "[scaler]") {
  const Tensor p = ones({2}).requires_grad_();
  optim::SGD opt({p});
  CHECK_THAT(message([&] { opt.step_unless(zeros({2})); }), Contains("skip must be a scalar, found (2,)"));
  CHECK_THAT(message([&] { opt.step_unless(Tensor()); }), Contains("undefined tensor"));
}

TEST_CASE("GradScaler: an infinity in any one gradient skips that step alone and halves the scale",
          "[scaler]") {
  const double bad[] = {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                        std::numeric_limits<double>::quiet_NaN()};
  for (size_t which = 0; which < 4; ++which)
    for (const double value : bad) {
      CAPTURE(which, value);
      const auto run = [&](bool scaled) {
        manual_seed(11);
        Net net;
        optim::AdamW opt(net.parameters(), {.lr = 0.05});
        GradScaler scaler({.init_scale = 1024});
        for (int t = 0; t < 6; ++t) {
          Generator g(static_cast<uint64_t>(t));
          const Tensor x = randn({5, 3}, {}, &g);
          opt.zero_grad();
          const Tensor loss = net.forward(x).square().mean();
          const bool planted = t == 2;
          const Numbers before = everything(net, opt);
          if (scaled) {
            scaler.scale(loss).backward();
            if (planted) net.parameters()[which].grad().reshape({-1}).narrow(0, 1, 1).fill_(value);
            scaler.step(opt);
            scaler.update();
            CHECK((everything(net, opt) == before) == planted);
            CHECK(scaler.get_scale() == (t < 2 ? 1024 : 512));
          } else if (!planted) {
            loss.backward();
            opt.step();
          }
        }
        return everything(net, opt);
      };
      const Numbers wanted = run(false), found = run(true);
      REQUIRE(found.size() == wanted.size());
      for (size_t i = 0; i < wanted.size(); ++i)
        CHECK(found[i] == Approx(wanted[i]).epsilon(1e-4).margin(1e-6));
    }
}

TEST_CASE("GradScaler: the scale grows, falls and stops growing as PyTorch's", "[scaler]") {
  const Tensor p = ones({2}).requires_grad_();
  optim::SGD opt({p}, {.lr = 0.0});
  GradScaler scaler({.init_scale = 8, .growth_factor = 4, .backoff_factor = 0.25, .growth_interval = 3});
  const auto go = [&](bool overflow) {
    p.set_grad(full({2}, overflow ? HUGE_VAL : 1.0));
    scaler.step(opt);
    scaler.update();
    return scaler.get_scale();
  };
  CHECK(go(false) == 8);
  CHECK(go(false) == 8);
  CHECK(go(false) == 32);
  CHECK(go(false) == 32);
  CHECK(go(false) == 32);
  CHECK(go(true) == 8);
  CHECK(go(false) == 8);
  CHECK(go(false) == 8);
  CHECK(go(false) == 32);
  scaler.set_scale(0x1p127);
  for (int i = 0; i < 4; ++i) CHECK(go(false) == 0x1p127);  // growing would overflow
  const GradScaler plain;
  CHECK(plain.get_scale() == 65536);
  CHECK(plain.options().growth_factor == 2);
  CHECK(plain.options().backoff_factor == 0.5);
  CHECK(plain.options().growth_interval == 2000);
}

TEST_CASE("GradScaler: gradients can be clipped between unscale_ and step", "[scaler]") {
  manual_seed(2);
  Net net, other;
  other.load_state(net.state());
  optim::SGD opt(net.parameters(), {.lr = 0.1}), plain(other.parameters(), {.lr = 0.1});
  GradScaler scaler({.init_scale = 4096});
  const Tensor x = randn({5, 3});
  for (int t = 0; t < 3; ++t) {
    opt.zero_grad();
    scaler.scale(net.forward(x).square().sum()).backward();
    scaler.unscale_(opt);
    CHECK_FALSE(scaler.found_inf(opt).item<bool>());
    nn::utils::clip_grad_norm_(net.parameters(), 0.5);
    scaler.step(opt);
    scaler.update();
    CHECK_FALSE(scaler.found_inf(opt).defined());
    plain.zero_grad();
    other.forward(x).square().sum().backward();
    nn::utils::clip_grad_norm_(other.parameters(), 0.5);
    plain.step();
  }
  Numbers a, b;
  for (const Tensor& p : net.parameters()) append(a, p);
  for (const Tensor& p : other.parameters()) append(b, p);
  CHECK(a == b);  // scales are powers of two
}

TEST_CASE("GradScaler: two optimizers have overflows of their own and one scale", "[scaler]") {
  const Tensor p = ones({2}).requires_grad_(), q = ones({2}).requires_grad_();
  optim::SGD first({p}, {.lr = 1}), second({q}, {.lr = 1});
  GradScaler scaler({.init_scale = 2});
  p.set_grad(full({2}, HUGE_VAL));
  q.set_grad(full({2}, 1.0));
  scaler.step(first);
  scaler.step(second);
  scaler.update();
  CHECK(p.to_vector<float>() == std::vector<float>{1, 1});
  CHECK(q.to_vector<float>() == std::vector<float>{0.5, 0.5});
  CHECK(scaler.get_scale() == 1);
}

TEST_CASE("GradScaler: without `enabled` it is not there", "[scaler]") {
  const Tensor p = ones({2}).requires_grad_();
  optim::SGD opt({p}, {.lr = 1});
  GradScaler scaler({.enabled = false});
  const Tensor loss = p.sum();
  CHECK(scaler.scale(loss).impl() == loss.impl());
  scaler.scale(loss).backward();
  scaler.unscale_(opt);
  scaler.step(opt);
  scaler.update();
  CHECK(p.to_vector<float>() == std::vector<float>{0, 0});
  CHECK(scaler.get_scale() == 1);
}

TEST_CASE("GradScaler: state goes into another and on", "[scaler]") {
  const auto go = [](GradScaler& s, int steps) {
    const Tensor p = ones({2}).requires_grad_();
    optim::SGD opt({p});
    for (int i = 0; i < steps; ++i) {
      p.set_grad(ones({2}));
      s.step(opt);
      s.update();
    }
    return s.get_scale();
  };
  GradScaler a({.init_scale = 4, .growth_interval = 3}), b;
  go(a, 2);
  b.load_state(a.state());
  CHECK(b.get_scale() == 4);
  CHECK(go(b, 1) == 8);
  std::vector<NamedTensor> broken = a.state();
  broken[4].name = "other";
  CHECK_THAT(message([&] { b.load_state(broken); }), Contains("growth_tracker"));
  broken = a.state();
  broken[1].tensor = scalar_tensor(0.5);
  CHECK_THAT(message([&] { b.load_state(broken); }), Contains("growth_factor must be above 1"));
  CHECK(b.get_scale() == 8);
}

TEST_CASE("GradScaler: a part of a checkpoint", "[scaler]") {
  const ScratchFolder folder;
  const Tensor p = ones({2}).requires_grad_();
  optim::Adam opt({p});
  GradScaler scaler({.init_scale = 32, .growth_interval = 7});
  for (int i = 0; i < 3; ++i) {
    p.set_grad(full({2}, i == 1 ? HUGE_VAL : 1.0));
    scaler.step(opt);
    scaler.update();
  }
  save_checkpoint(folder / "run", {.optimizer = &opt, .scaler = &scaler});
  const Tensor q = ones({2}).requires_grad_();
  optim::Adam other({q});
  GradScaler fresh;
  CHECK_THAT(message([&] { load_checkpoint(folder / "run", {.optimizer = &other}); }), Contains("scaler."));
  load_checkpoint(folder / "run", {.optimizer = &other, .scaler = &fresh});
  CHECK(fresh.get_scale() == 16);
  CHECK(fresh.options().growth_interval == 7);
  CHECK(other.state()[7].name == "0.step");
  CHECK(other.state()[7].tensor.item<int64_t>() == 2);
}

TEST_CASE("GradScaler: what it refuses", "[scaler]") {
  CHECK_THAT(message([] { GradScaler s({.init_scale = 0}); }), Contains("init_scale must be positive"));
  CHECK_THAT(message([] { GradScaler s({.growth_factor = 1}); }), Contains("growth_factor must be above 1"));
  CHECK_THAT(message([] { GradScaler s({.backoff_factor = 1}); }), Contains("backoff_factor"));
  CHECK_THAT(message([] { GradScaler s({.growth_interval = 0}); }), Contains("growth_interval"));
  const Tensor p = ones({2}).requires_grad_();
  optim::SGD opt({p});
  GradScaler s;
  CHECK_THAT(message([&] { s.update(); }), Contains("no gradients were unscaled"));
  CHECK_THAT(message([&] { s.step(opt); }), Contains("have no gradients"));
  p.set_grad(ones({2}));
  s.unscale_(opt);
  CHECK_THAT(message([&] { s.unscale_(opt); }), Contains("unscaled already"));
  s.step(opt);
  CHECK_THAT(message([&] { s.step(opt); }), Contains("has made a step"));
  CHECK_THAT(message([&] { s.unscale_(opt); }), Contains("used for a step"));
  s.update();
  const Tensor h = ones({2}, {.dtype = float16}).requires_grad_();
  optim::SGD narrow({h});
  h.set_grad(ones({2}, {.dtype = float16}));
  CHECK_THAT(message([&] { s.unscale_(narrow); }), Contains("a gradient is float16"));
}

TEST_CASE("GradScaler: a scale that fell to 0 is loaded again", "[scaler]") {
  GradScaler scaler;
  scaler.set_scale(1e-45);
  std::vector<NamedTensor> state = scaler.state();
  for (NamedTensor& t : state)
    if (t.name == "scale") t.tensor = zeros({});
  GradScaler other;
  other.load_state(state);
  CHECK(other.get_scale() == 0);
  for (NamedTensor& t : state)
    if (t.name == "scale") t.tensor = full({}, -1.0);
  CHECK_THAT(message([&] { other.load_state(state); }), Contains("GradScaler: the state's scale is -1"));
}

TEST_CASE("GradScaler: a guarded step of halves computes its corrections in float32", "[scaler]") {
  float found[2];
  for (const bool guarded : {false, true}) {
    const Tensor p = full({1}, 0.5f, {.dtype = float16}).requires_grad_();
    optim::Adam opt({p}, {.lr = 0.01, .betas = {0.9, 1 - 1e-6}});
    for (int t = 0; t < 3; ++t) {
      p.set_grad(full({1}, 0.25f, {.dtype = float16}));
      guarded ? opt.step_unless(zeros({}).to(bool_)) : opt.step();
    }
    found[guarded] = p.detach().to(float32).item<float>();
  }
  CHECK(found[0] == Approx(found[1]).epsilon(1e-3));
}

TEST_CASE("GradScaler: an optimizer at the address of an earlier one is another", "[optim]") {
  const Tensor p = ones({3}).requires_grad_();
  GradScaler scaler({.init_scale = 4});
  std::optional<optim::SGD> opt;
  for (int round = 0; round < 2; ++round) {
    opt.emplace(std::vector<Tensor>{p}, optim::SGDOptions{.lr = 0.1});
    opt->zero_grad();
    scaler.scale(p.sum()).backward();
    CHECK(!scaler.found_inf(*opt).defined());
    scaler.unscale_(*opt);
    CHECK(p.grad().to_vector<float>() == std::vector<float>{1, 1, 1});
  }
  scaler.step(*opt);
  scaler.update();
}
