// Autocast, GradScaler and checkpoint in traced calls: bit for bit as eagerly, from one recording, frozen and
// saved; a network on real data trained in bfloat16.
#include <cmath>
#include <cstdlib>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/frozen_programs.h"

namespace td = tandem;
using namespace programs;
using td::Tensor;

namespace {

/// The eager and the traced run of `program(traced)`.
template <class Program>
void same_both_ways(Program&& program) {
  const Values eager = program(false), traced = program(true);
  REQUIRE(eager.size() > 4);
  CHECK(equal_bits(eager, traced));
}

/// A training step under autocast, with a scaler, whose batch decides whether a gradient overflows.
struct Scaled {
  explicit Scaled(double p = 0.2) : net(p), opt(net.parameters(), {.lr = 0.02}) {}
  Net net;
  td::optim::AdamW opt;
  td::optim::GradScaler scaler{{.init_scale = 256, .growth_interval = 3}};
  Tensor operator()(const Tensor& x, const Tensor& y) {
    opt.zero_grad();
    Tensor loss;
    {
      const td::Autocast region(td::float16);
      loss = td::cross_entropy(net.forward(x), y);
    }
    scaler.scale(loss).backward();
    scaler.unscale_(opt);
    td::nn::utils::clip_grad_norm_(net.parameters(), 1.0);
    scaler.step(opt);
    scaler.update();
    return loss.detach();
  }
  Values numbers() {
    Values out;
    for (const Tensor& p : net.parameters()) append(out, p);
    for (const td::NamedTensor& n : opt.state()) append(out, n.tensor);
    for (const td::NamedTensor& n : scaler.state()) append(out, n.tensor);
    return out;
  }
};
std::pair<Tensor, Tensor> batch_or_overflow(int i, bool overflow) {
  auto [x, y] = batch(i);
  if (overflow) x = td::where(td::arange(0.f, 6) < 1, HUGE_VAL, x);
  return {x, y};
}

}  // namespace

TEST_CASE("autocast: a traced training step is the eager one bit for bit, from one recording", "[autocast]") {
  for (const td::DType type : {td::bfloat16, td::float16}) {
    td::TraceReport report;
    same_both_ways([&](bool traced) {
      td::manual_seed(3);
      Training<td::optim::AdamW> training(0.3, td::optim::AdamWOptions{.lr = 0.02});
      const auto body = [&](const Tensor& x, const Tensor& y) {
        Tensor loss;
        {
          const td::Autocast region(type);
          loss = td::cross_entropy(training.net.forward(x), y);
        }
        training.opt.zero_grad();
        loss.backward();
        training.opt.step();
        return loss.detach();
      };
      auto step = td::trace(body);
      Values out;
      for (int i = 0; i < 5; ++i) {
        const auto [x, y] = batch(i);
        append(out, traced ? step(x, y) : body(x, y));
      }
      for (const float v : training.numbers()) out.push_back(v);
      if (traced) report = step.report();
      return out;
    });
    CHECK(report.recorded == 1);
    CHECK(report.plans == 1);
    CHECK(report.op_by_op == 0);
    CHECK(report.backward_skipped == 4);
  }
}

TEST_CASE("autocast: a trace follows the mode around it and inside it", "[autocast]") {
  bool on = true;
  const Tensor x = td::randn({4, 4});
  auto f = td::trace([&](const Tensor& a) {
    const td::Autocast region(td::bfloat16, on);
    return td::matmul(a, a);
  });
  CHECK(f(x).dtype() == td::bfloat16);
  CHECK(f(x).dtype() == td::bfloat16);
  on = false;
  CHECK(f(x).dtype() == td::float32);
  CHECK(f(x).dtype() == td::float32);
  on = true;
  CHECK(f(x).dtype() == td::bfloat16);
  CHECK(f.report().recorded == 2);
  auto g = td::trace([](const Tensor& a) { return td::matmul(a, a); });
  CHECK(g(x).dtype() == td::float32);
  {
    const td::Autocast region(td::float16);
    CHECK(g(x).dtype() == td::float16);
    CHECK(g(x).dtype() == td::float16);
  }
  CHECK(g(x).dtype() == td::float32);
  CHECK(g.report().recorded == 2);
}

TEST_CASE("modes: many in one recording are told apart", "[modes]") {
  // Eight words: what a record keeps of them moves while it grows.
  same_both_ways([](bool traced) {
    const auto body = [](const Tensor& x) {
      Tensor sum = x;
      for (int i = 0; i < 8; ++i) {
        const td::Autocast region(i & 1 ? td::bfloat16 : td::float16, (i & 2) != 0);
        const td::Deterministic mode((i & 4) != 0);
        sum = sum + td::tanh(td::matmul(sum, x)).to(td::float32);
      }
      return sum;
    };
    auto f = td::trace(body);
    const Tensor x = td::arange(0.f, 9).reshape({3, 3}) / 9;
    Values out;
    for (int i = 0; i < 3; ++i) append(out, traced ? f(x) : body(x));
    if (traced) CHECK(f.report().recorded == 1);
    return out;
  });
}

TEST_CASE("autocast: a plan casts a weight once, however often it is used", "[autocast]") {
  const Tensor w = td::randn({4, 4}), x = td::randn({2, 4});
  auto automatic = td::trace([&](const Tensor& a) {
    const td::Autocast region(td::bfloat16);
    Tensor h = a;
    for (int i = 0; i < 3; ++i) h = td::relu(td::matmul(h, w));
    return h;
  });
  auto by_hand = td::trace([&](const Tensor& a) {
    const Tensor narrow = w.to(td::bfloat16);
    Tensor h = a.to(td::bfloat16);
    for (int i = 0; i < 3; ++i) h = td::relu(td::matmul(h, narrow));
    return h;
  });
  CHECK(equal_bits(automatic(x).to(td::float32).to_vector<float>(),
                   by_hand(x).to(td::float32).to_vector<float>()));
  CHECK(automatic.report().ops == by_hand.report().ops + 2);
  CHECK(automatic.report().entries == by_hand.report().entries);
  CHECK(automatic.report().bytes_moved == by_hand.report().bytes_moved);
}

TEST_CASE("autocast: frozen and saved functions keep it", "[autocast]") {
  td::manual_seed(6);
  Net net;
  auto f = td::trace([&](const Tensor& x) {
    const td::Autocast region(td::bfloat16);
    const td::NoGrad no_grad;
    return net.forward(x);
  });
  const Tensor x = batch(1).first;
  const Values wanted = f(x).to(td::float32).to_vector<float>();
  f(x);
  auto frozen = f.freeze();
  const Tensor y = frozen(x);
  CHECK(y.dtype() == td::bfloat16);
  CHECK(equal_bits(y.to(td::float32).to_vector<float>(), wanted));
  const ScratchFolder folder;
  const std::string path = folder / "f.safetensors";
  frozen.save(path);
  auto loaded = td::load_function(path);
  const Tensor z = loaded({x})[0];
  CHECK(equal_bits(z.to(td::float32).to_vector<float>(), wanted));
}

TEST_CASE("deterministic: the mode is compared, and changes no value", "[modes]") {
  const Tensor x = td::randn({4, 4});
  auto f = td::trace([](const Tensor& a) { return td::matmul(a, a); });
  const Values wanted = f(x).to_vector<float>();
  {
    const td::deterministic on(true);
    CHECK(f.report().recorded == 1);
    f(x);
    CHECK(f.report().recorded == 1);
    const td::Deterministic off(false);
    CHECK_FALSE(td::modes().deterministic);
    CHECK(equal_bits(f(x).to_vector<float>(), wanted));
    CHECK(f.report().recorded == 2);
  }
  CHECK(td::modes().deterministic);
}

TEST_CASE("GradScaler: one trace over skipped and taken steps, with no read, bit for bit", "[scaler]") {
  td::TraceReport report;
  const auto bad = [](int i) { return i == 0 || i == 4 || i == 5; };
  same_both_ways([&](bool traced) {
    td::manual_seed(3);
    Scaled training;
    auto step = td::trace([&](const Tensor& x, const Tensor& y) { return training(x, y); },
                          {.require_full_capture = true});
    Values out;
    for (int i = 0; i < 12; ++i) {
      const auto [x, y] = batch_or_overflow(i, bad(i));
      const Tensor loss = traced ? step(x, y) : training(x, y);
      if (!bad(i)) append(out, loss);
    }
    if (traced) report = step.report();
    CHECK(training.opt.state()[7].name == "0.step");
    CHECK(training.opt.state()[7].tensor.item<int64_t>() == 9);
    CHECK(training.scaler.get_scale() == 256 / 8 * 8);
    for (const float v : training.numbers()) out.push_back(v);
    return out;
  });
  CHECK(report.recorded == 1);
  CHECK(report.segments == 1);
  CHECK(report.plans == 1);
  CHECK(report.op_by_op == 0);
  CHECK(report.misses.empty());
}

TEST_CASE("GradScaler: an infinity planted in each gradient in turn, traced", "[scaler]") {
  const size_t n = Net().parameters().size();
  REQUIRE(n == 6);
  for (size_t which = 0; which < n; ++which) {
    CAPTURE(which);
    td::manual_seed(3);
    Training<td::optim::AdamW> t(0, td::optim::AdamWOptions{.lr = 0.02});
    td::optim::GradScaler scaler({.init_scale = 64});
    auto step = td::trace([&](const Tensor& x, const Tensor& y, const Tensor& planted) {
      t.opt.zero_grad();
      scaler.scale(td::cross_entropy(t.net.forward(x), y)).backward();
      t.net.parameters()[which].grad().add_(planted);
      scaler.step(t.opt);
      scaler.update();
    });
    const auto [x, y] = batch(1);
    for (int i = 0; i < 6; ++i) {
      Values before, after;
      for (const Tensor& p : t.net.parameters()) append(before, p);
      const auto moments = [&](Values& out) {
        for (const td::NamedTensor& s : t.opt.state()) append(out, s.tensor);
      };
      const bool bad = i == 2 || i == 3;
      if (i != 1 && i != 5) moments(before);
      step(x, y, td::scalar_tensor(bad ? HUGE_VALF : 0.f));
      for (const Tensor& p : t.net.parameters()) append(after, p);
      if (i != 1 && i != 5) moments(after);
      CHECK(equal_bits(before, after) == bad);
    }
    CHECK(scaler.get_scale() == 16);
    CHECK(step.report().recorded == 1);
    CHECK(step.report().segments == 1);
  }
}

TEST_CASE("GradScaler: every optimizer is traced once", "[scaler]") {
  const auto with = [](auto tag, auto options) {
    using O = decltype(tag);
    same_both_ways([&](bool traced) {
      td::manual_seed(3);
      Net net;
      typename O::type opt(net.parameters(), options);
      td::optim::GradScaler scaler({.init_scale = 64, .growth_interval = 2});
      const auto body = [&](const Tensor& x, const Tensor& y) {
        opt.zero_grad();
        scaler.scale(td::cross_entropy(net.forward(x), y)).backward();
        scaler.step(opt);
        scaler.update();
      };
      auto step = td::trace(body);
      for (int i = 0; i < 9; ++i) {
        const auto [x, y] = batch_or_overflow(i, i == 3);
        traced ? step(x, y) : body(x, y);
      }
      if (traced) CHECK(step.report().recorded == 1);
      Values out;
      for (const Tensor& p : net.parameters()) append(out, p);
      for (const td::NamedTensor& s : opt.state()) append(out, s.tensor);
      return out;
    });
  };
  using namespace td::optim;
  with(std::type_identity<SGD>(), SGDOptions{.lr = 0.1, .momentum = 0.9, .dampening = 0.1});
  with(std::type_identity<Adam>(), AdamOptions{.lr = 0.01});
  with(std::type_identity<Adamax>(), AdamaxOptions{.lr = 0.01});
  with(std::type_identity<NAdam>(), NAdamOptions{.lr = 0.01});
  with(std::type_identity<RAdam>(), RAdamOptions{.lr = 0.01});
  with(std::type_identity<Adagrad>(), AdagradOptions{.lr = 0.01, .lr_decay = 0.1});
  with(std::type_identity<RMSprop>(), RMSpropOptions{.lr = 0.01, .centered = true});
  with(std::type_identity<Lion>(), LionOptions{.lr = 0.01});
}

TEST_CASE("GradScaler: a frozen step skips, counts and scales as the body does", "[scaler]") {
  const auto bad = [](int i) { return i == 3 || i == 6; };
  same_both_ways([&](bool frozen) {
    td::manual_seed(3);
    Scaled training(0);
    auto step = td::trace([&](const Tensor& x, const Tensor& y) { return training(x, y); });
    for (int i = 0; i < 2; ++i) {
      const auto [x, y] = batch(i);
      step(x, y);
    }
    std::optional<decltype(step.freeze())> f;
    if (frozen) f.emplace(step.freeze());
    for (int i = 2; i < 9; ++i) {
      const auto [x, y] = batch_or_overflow(i, bad(i));
      frozen ? (*f)(x, y) : step(x, y);
    }
    return training.numbers();
  });
}

TEST_CASE("checkpoint: in a traced call the function runs once and gives the same bits", "[checkpoint]") {
  int calls = 0;
  same_both_ways([&](bool traced) {
    td::manual_seed(8);
    Net net(0.3);
    td::optim::SGD opt(net.parameters(), {.lr = 0.1});
    calls = 0;
    const auto body = [&](const Tensor& x, const Tensor& y) {
      opt.zero_grad();
      const Tensor out = td::checkpoint([&](const Tensor& in) { return ++calls, net.forward(in); }, x);
      const Tensor loss = td::cross_entropy(out, y);
      loss.backward();
      opt.step();
      return loss.detach();
    };
    auto step = td::trace(body);
    Values out;
    for (int i = 0; i < 4; ++i) {
      const auto [x, y] = batch(i);
      append(out, traced ? step(x, y) : body(x, y));
    }
    CHECK(calls == (traced ? 4 : 8));
    if (traced) CHECK(step.report().recorded == 1);
    for (const Tensor& p : net.parameters()) append(out, p);
    out.push_back(static_cast<float>(td::default_generator().offset()));
    return out;
  });
}

TEST_CASE("checkpoint: a history from before a traced call is computed again inside it", "[checkpoint]") {
  same_both_ways([&](bool traced) {
    td::manual_seed(8);
    Tensor w = td::randn({3, 3}).requires_grad_();
    const auto body = [](const Tensor& y) {
      const Tensor loss = y.square().sum();
      loss.backward();
      return loss.detach();
    };
    auto step = td::trace(body);
    Values out;
    for (int i = 0; i < 4; ++i) {
      const Tensor x = td::randn({2, 3});
      const Tensor y =
          td::checkpoint([&](const Tensor& in) { return td::dropout(td::tanh(td::matmul(in, w)), 0.5); }, x);
      append(out, traced ? step(y) : body(y));
      append(out, w.grad());
    }
    return out;
  });
}

TEST_CASE("checkpoint: of a function that calls a traced one", "[checkpoint]") {
  Values found[2];
  for (const bool on : {false, true}) {
    td::manual_seed(8);
    Tensor w = td::randn({3}).requires_grad_();
    const auto body = [&](const Tensor& t) { return td::dropout(td::exp(td::sin(t * w)), 0.3) * 2.0; };
    auto traced = td::trace(body);
    const auto alone = [&](const Tensor& t) { return on ? traced(t) : body(t); };
    const auto amid = [&](const Tensor& t) { return td::tanh(alone(td::cos(t)) * w); };
    for (int i = 0; i < 8; ++i) {
      // Another length now and then, so that second calls record too, and replays are forgotten.
      const Tensor x = td::rand({i % 4 == 3 ? 3 : 1, 3}).requires_grad_();
      const auto f = [&](const Tensor& t) { return i % 2 ? alone(t) : amid(t); };
      const Tensor y = on ? td::checkpoint(f, x) : f(x);
      append(found[on], y);
      y.sum().backward();
      append(found[on], x.grad());
      append(found[on], w.grad());
    }
    found[on].push_back(static_cast<float>(td::default_generator().offset()));
  }
  CHECK(equal_bits(found[0], found[1]));
}

TEST_CASE("bfloat16: a network learns digits under autocast as it does in float32", "[autocast]") {
  const Tensor table =
      td::data::read_csv(std::string(TANDEM_SOURCE_DIR) + "/samples/data/digits.csv.gz").values;
  const Tensor x = table.narrow(1, 0, 64) / 16;
  const Tensor y = table.select(1, 64).to(td::int64);
  const int64_t n = table.size(0), n_test = n / 5;
  const auto accuracy = [&](std::optional<td::DType> type) {
    td::manual_seed(1);
    td::nn::Sequential net;
    net.emplace<td::nn::Linear>(64, 128);
    net.emplace<td::nn::ReLU>();
    net.emplace<td::nn::Linear>(128, 10);
    td::optim::AdamW opt(net.parameters(), {.lr = 3e-3});
    auto step = td::trace([&](const Tensor& a, const Tensor& b) {
      Tensor loss;
      {
        const td::Autocast region(type.value_or(td::bfloat16), type.has_value());
        loss = td::cross_entropy(net.forward(a), b);
      }
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss.detach();
    });
    td::Generator order(7);
    for (int epoch = 0; epoch < 20; ++epoch) {
      const Tensor rows = td::randperm(n - n_test, &order) + n_test;
      for (int64_t at = 0; at + 64 <= n - n_test; at += 64) {
        const Tensor some = rows.narrow(0, at, 64);
        step(x.index_select(0, some), y.index_select(0, some));
      }
    }
    CHECK(step.report().recorded == 1);
    const td::NoGrad no_grad;
    const td::Autocast region(type.value_or(td::bfloat16), type.has_value());
    const Tensor out = net.forward(x.narrow(0, 0, n_test));
    CHECK(out.dtype() == type.value_or(td::float32));
    return (out.argmax(1) == y.narrow(0, 0, n_test)).to(td::float32).mean().item<double>();
  };
  const double wide = accuracy({}), narrow = accuracy(td::bfloat16);
  CAPTURE(wide, narrow);
  CHECK(wide > 0.92);
  CHECK(std::abs(wide - narrow) <= 0.005);
}
