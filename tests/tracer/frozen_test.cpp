// Frozen replay: what it does as the body does.
#include <algorithm>

#include "tests/tracer/frozen_programs.h"

using namespace programs;

TEST_CASE("a frozen training step trains as the eager one, bit for bit", "[frozen]") {
  const auto compare = [](const char* name, double p, auto make) {
    CAPTURE(name);
    const auto run = [&](bool frozen) {
      td::manual_seed(7);
      auto t = make(p);
      int bodies = 0;
      auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) {
        ++bodies;
        return (*t)(x, y);
      });
      std::optional<decltype(step.freeze())> fast;
      Values out;
      for (int i = 0; i < 12; ++i) {
        const auto [x, y] = batch(i);
        if (frozen && i == 3) fast.emplace(step.freeze());
        append(out, fast ? (*fast)(x, y) : frozen ? step(x, y) : (*t)(x, y));
      }
      if (frozen) CHECK(bodies == 3);
      const Values last = t->numbers();
      out.insert(out.end(), last.begin(), last.end());
      // The optimizer goes on where the frozen steps have left it.
      const auto [x, y] = batch(99);
      append(out, (*t)(x, y));
      const Values end = t->numbers();
      out.insert(out.end(), end.begin(), end.end());
      return out;
    };
    const Values eager = run(false), frozen = run(true);
    CHECK(eager.size() > 100);
    CHECK(equal_bits(eager, frozen));
  };
  using namespace td::optim;
  for (const double p : {0.0, 0.4}) {
    compare("SGD", p, [](double q) { return std::make_unique<Training<SGD>>(q, SGDOptions{.lr = 0.1}); });
    compare("SGD with momentum", p, [](double q) {
      return std::make_unique<Training<SGD>>(q, SGDOptions{.lr = 0.1, .momentum = 0.9, .nesterov = true});
    });
    compare("Adam", p, [](double q) { return std::make_unique<Training<Adam>>(q, AdamOptions{.lr = 0.01}); });
    compare("AdamW", p,
            [](double q) { return std::make_unique<Training<AdamW>>(q, AdamWOptions{.lr = 0.01}); });
  }
}

TEST_CASE("a frozen call gives results of the body's type, layout and aliasing", "[frozen]") {
  const td::Tensor w = range(3, 5);
  const auto body = [&](const td::Tensor& a, const std::vector<td::Tensor>& more) {
    const td::Tensor sum = a + more[0] * w;
    return Two{sum, {sum.reshape({3, 1}), more[1].narrow(0, 1, 2), w, a, sum.unsqueeze(0) * 2}};
  };
  auto step = td::trace(body);
  const auto one = [&](auto& f, float first) {
    const td::Tensor a = range(3, first);
    const td::Tensor c = range(6, first).narrow(0, 2, 4);
    Two t = f(a, std::vector<td::Tensor>{range(3, 2 * first), c});
    Values out;
    CHECK(t.parts[3].impl() == a.impl());
    CHECK(t.parts[2].impl() == w.impl());
    CHECK(t.parts[0].impl()->storage == t.sum.impl()->storage);
    CHECK(t.parts[1].impl()->storage == c.impl()->storage);
    t.sum.add_(1);
    for (const td::Tensor& part : t.parts) {
      append(out, part);
      for (const int64_t n : part.sizes()) out.push_back(static_cast<float>(n));
      for (const int64_t n : part.strides()) out.push_back(static_cast<float>(n));
    }
    return out;
  };
  one(step, 1);
  one(step, 2);
  auto frozen = step.freeze();
  for (int i = 0; i < 5; ++i)
    CHECK(equal_bits(one(frozen, static_cast<float>(i)), one(body, static_cast<float>(i))));
  const std::vector<td::Tensor> all = frozen({range(3), range(3), range(4)});
  CHECK(all.size() == 6);
}

TEST_CASE("results of frozen calls are not overwritten by later ones", "[frozen]") {
  auto step = td::trace([](const td::Tensor& x) { return td::exp(x) * 2; });
  auto frozen = frozen_after_two(step, range(5));
  std::vector<td::Tensor> kept;
  for (int i = 0; i < 100; ++i) kept.push_back(frozen(range(5) * (static_cast<float>(i) / 50)));
  for (int i = 0; i < 100; ++i) {
    Values out, expected;
    append(out, kept[static_cast<size_t>(i)]);
    append(expected, td::exp(range(5) * (static_cast<float>(i) / 50)) * 2);
    CHECK(equal_bits(out, expected));
  }
}

TEST_CASE("frozen calls follow captured tensors changed in place, and count versions", "[frozen]") {
  const td::Tensor w = leaf(3), mean = td::zeros({3});
  auto step = td::trace([&](const td::Tensor& x) {
    const td::NoGrad no_grad;
    mean.mul_(0.5).add_(x * 0.5);
    return x * w + mean;
  });
  auto frozen = frozen_after_two(step, range(3));
  {
    const td::NoGrad no_grad;
    w.copy_(range(3, 10));
    mean.zero_();
  }
  CHECK(frozen(range(3)).to_vector<float>() == Values{10.5f, 23, 37.5f});
  CHECK(frozen(range(3)).to_vector<float>() == Values{10.75f, 23.5f, 38.25f});
  // What was saved before the in-place change must not be used after it.
  const td::Tensor v = leaf(3);
  const td::Tensor product = v * mean;
  frozen(range(3));
  CHECK(has(error_of([&] { product.sum().backward(); }), "in place"));
  CHECK(frozen.report().scans == 1);
}

TEST_CASE("random numbers of frozen calls are those of the body", "[frozen]") {
  const auto run = [](bool frozen) {
    td::manual_seed(3);
    auto body = [](const td::Tensor& x) { return td::dropout(x, 0.5) + td::rand({7}) * td::randn({7}); };
    auto step = td::trace(body);
    std::optional<decltype(step.freeze())> fast;
    Values out;
    for (int i = 0; i < 8; ++i) {
      if (frozen && i == 2) fast.emplace(step.freeze());
      if (i == 5) td::manual_seed(12);
      if (i == 6) td::rand({3});
      append(out, fast ? (*fast)(range(7)) : frozen ? step(range(7)) : body(range(7)));
      out.push_back(static_cast<float>(td::default_generator().offset()));
    }
    return out;
  };
  CHECK(equal_bits(run(false), run(true)));
}

TEST_CASE("a gradient that is added to is captured", "[frozen]") {
  const auto run = [](bool frozen) {
    const td::Tensor w = leaf(3);
    w.set_grad(td::zeros({3}));
    auto body = [&](const td::Tensor& x) {
      td::Tensor loss = (x * w * w).sum();
      loss.backward();
      return loss;
    };
    auto step = td::trace(body);
    Values out;
    std::optional<decltype(step.freeze())> fast;
    for (int i = 0; i < 6; ++i) {
      if (frozen && i == 3) fast.emplace(step.freeze());
      append(out, fast ? (*fast)(range(3)) : frozen ? step(range(3)) : body(range(3)));
      append(out, w.grad());
    }
    if (fast) {
      const td::Tensor before = w.grad();
      w.set_grad(td::zeros({3}));
      CHECK(has(error_of([&] { (*fast)(range(3)); }), "had another gradient"));
    }
    return out;
  };
  CHECK(equal_bits(run(false), run(true)));
}

TEST_CASE("numbers are constants of a frozen function, and listed", "[frozen]") {
  td::manual_seed(1);
  Training<td::optim::SGD> t(0, td::optim::SGDOptions{.lr = 0.25});
  auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) { return t(x, y); });
  const auto [x, y] = batch(1);
  auto frozen = frozen_after_two(step, x, y);
  const td::FrozenReport report = frozen.report();
  const auto lr = std::find_if(report.constants.begin(), report.constants.end(),
                               [](const td::FrozenConstant& c) { return c.attribute == "lr"; });
  REQUIRE(lr != report.constants.end());
  CHECK(lr->op == "sgd_update");
  CHECK(lr->value == 0.25);
  CHECK(has(lr->file, "frozen_programs.h"));
  CHECK(report.tensors.size() == 6);
  CHECK(report.tensors[0].requires_grad);
  CHECK(has(td::to_string(report), "constant    sgd_update lr = 0.25"));
  // Documented: the frozen function goes on with the rate of its freezing.
  t.opt.set_lr(0);
  const Values before = t.numbers();
  frozen(x, y);
  CHECK_FALSE(equal_bits(before, t.numbers()));
  // A rate that changed between the observed calls is no constant.
  step(x, y);
  CHECK(has(error_of([&] { step.freeze(); }), "lr changed between the observed calls"));
}

TEST_CASE("Replay::frozen freezes itself after two calls, or refuses", "[frozen]") {
  int bodies = 0;
  auto step = td::trace(
      [&](const td::Tensor& x) {
        ++bodies;
        return x * 2 + 1;
      },
      {.replay = td::Replay::frozen});
  for (int i = 0; i < 10; ++i)
    CHECK(step(range(3, static_cast<float>(i))).to_vector<float>()[0] == 2 * static_cast<float>(i) + 1);
  CHECK(bodies == 2);
  CHECK(step(range(4)).numel() == 4);
  step(range(4));
  step(range(4));
  CHECK(bodies == 4);
  const td::TraceReport report = step.report();
  CHECK(report.frozen_calls == 9);
  REQUIRE(report.constants.size() == 4);
  CHECK(report.constants[0].value == 2);

  auto reads = td::trace([](const td::Tensor& x) { return x * x.sum().item<float>(); },
                         {.replay = td::Replay::frozen});
  reads(range(3));
  reads(range(3));
  CHECK(has(error_of([&] { reads(range(3)); }), "a read"));
  CHECK(has(error_of([&] { reads(range(3)); }), "a read"));
}

TEST_CASE("a frozen function inside a traced call", "[frozen]") {
  int bodies = 0;
  const td::Tensor w = range(3);
  auto inner = td::trace([&](const td::Tensor& x) {
    ++bodies;
    return x * w;
  });
  auto frozen = frozen_after_two(inner, range(3));
  auto outer = td::trace([&](const td::Tensor& x) { return frozen(x + 1) * 2; });
  for (int i = 0; i < 3; ++i) CHECK(outer(range(3)).to_vector<float>() == Values{4, 12, 24});
  CHECK(bodies == 5);
  CHECK(outer.report().segments == 1);
  // Without its types it is host code: what it reads is made real.
  const td::FrozenFunction plain = frozen;
  auto opaque = td::trace([&](const td::Tensor& x) {
    w.add_(1);
    return plain({x + 1})[0] * 2;
  });
  for (int i = 0; i < 3; ++i) {
    w.copy_(range(3));
    CHECK(opaque(range(3)).to_vector<float>() == Values{8, 18, 32});
  }
  CHECK(bodies == 5);
}

TEST_CASE("an index out of range in a frozen call names the line and writes nothing", "[frozen]") {
  const td::Tensor table = range(4).reshape({4, 1}), seen = td::zeros({2, 1});
  auto step = td::trace([&](const td::Tensor& i) {
    const td::Tensor rows = td::embedding(i, table);
    seen.add_(rows);
    return rows;
  });
  const td::Tensor good = td::tensor({int64_t{1}, int64_t{2}});
  auto frozen = frozen_after_two(step, good);
  const Values before = seen.to_vector<float>();
  const std::string text = error_of([&] { frozen(td::tensor({int64_t{1}, int64_t{4}})); });
  CHECK(has(text, "embedding: index out of range"));
  CHECK(has(text, here(__LINE__ - 9)));
  CHECK(seen.to_vector<float>() == before);
  frozen(good);
  CHECK(seen.to_vector<float>() != before);
}

TEST_CASE("a frozen function outlives its trace, not its optimizer", "[frozen]") {
  std::optional<td::FrozenFunction> frozen;
  const auto first_batch = batch(0);
  const td::Tensor x = first_batch.first, y = first_batch.second;
  auto t = std::make_unique<Training<td::optim::AdamW>>(0.0, td::optim::AdamWOptions{});
  {
    auto step = td::trace([&](const td::Tensor& a, const td::Tensor& b) { return (*t)(a, b); });
    frozen = frozen_after_two(step, x, y);
  }
  const float first = (*frozen)({x, y})[0].item<float>();
  CHECK((*frozen)({x, y})[0].item<float>() != first);
  t.reset();
  CHECK(has(error_of([&] { (*frozen)({x, y}); }), "is gone"));
}

TEST_CASE("a frozen call drops and looks for gradients as the body does", "[frozen]") {
  const auto run = [](bool frozen) {
    const td::Tensor w = leaf(3), unused = leaf(3), looked_at = leaf(3);
    auto body = [&](const td::Tensor& x) {
      for (const td::Tensor* t : {&w, &unused}) t->zero_grad();
      const td::Tensor loss = (x * w).sum();
      loss.backward();
      const td::NoGrad no_grad;
      w.grad().mul_(0.5);  // as clipping does
      w.sub_(w.grad());
      if (looked_at.grad().defined()) w.zero_();
      return loss;
    };
    auto step = td::trace(body);
    std::optional<decltype(step.freeze())> fast;
    Values out;
    for (int i = 0; i < 6; ++i) {
      if (frozen && i == 2) fast.emplace(step.freeze());
      if (i == 4) unused.set_grad(td::ones({3})), w.set_grad(td::ones({3}));
      append(out, fast ? (*fast)(range(3)) : frozen ? step(range(3)) : body(range(3)));
      append(out, w);
      append(out, w.grad());
      CHECK_FALSE(unused.grad().defined());
    }
    if (fast) {
      looked_at.set_grad(td::ones({3}));
      CHECK(has(error_of([&] { (*fast)(range(3)); }), "has a gradient already"));
    }
    return out;
  };
  CHECK(equal_bits(run(false), run(true)));
}

TEST_CASE("a frozen call changes arguments and their gradients as the body does", "[frozen]") {
  const auto run = [](bool frozen) {
    auto body = [](const td::Tensor& x, const td::Tensor& total) {
      (x * x).sum().backward();
      const td::NoGrad no_grad;
      total.add_(x);
      total.slice(0, 0, 1).mul_(2);
    };
    auto step = td::trace(body);
    std::optional<decltype(step.freeze())> fast;
    Values out;
    const td::Tensor total = td::zeros({3});
    for (int i = 0; i < 5; ++i) {
      if (frozen && i == 2) fast.emplace(step.freeze());
      const td::Tensor x = leaf(3, static_cast<float>(i));
      if (fast)
        (*fast)(x, total);
      else if (frozen)
        step(x, total);
      else
        body(x, total);
      append(out, x.grad());
      append(out, total);
      out.push_back(static_cast<float>(total.impl()->storage->version));
    }
    return out;
  };
  CHECK(equal_bits(run(false), run(true)));
}

TEST_CASE("two optimizer steps in one frozen call, and checked calls between frozen ones", "[frozen]") {
  const auto run = [](bool frozen) {
    td::manual_seed(2);
    Training<td::optim::AdamW> t(0.2, td::optim::AdamWOptions{.lr = 0.01});
    auto body = [&](const td::Tensor& x, const td::Tensor& y) {
      const td::Tensor first = t(x, y).detach();
      return std::vector<td::Tensor>{first, t(x, y)};
    };
    auto step = td::trace(body);
    std::optional<decltype(step.freeze())> fast;
    Values out;
    for (int i = 0; i < 8; ++i) {
      if (frozen && i == 2) fast.emplace(step.freeze());
      const auto [x, y] = batch(i);
      const bool checked = frozen && (!fast || i % 3 == 0);
      for (const td::Tensor& loss : checked ? step(x, y) : fast ? (*fast)(x, y) : body(x, y))
        append(out, loss);
    }
    const Values end = t.numbers();
    out.insert(out.end(), end.begin(), end.end());
    return out;
  };
  CHECK(equal_bits(run(false), run(true)));
}

TEST_CASE("a captured tensor may be replaced before freezing", "[frozen]") {
  td::Tensor w = range(3);
  auto step = td::trace([&](const td::Tensor& x) { return x * w; });
  step(range(3));
  step(range(3));
  w = range(3, 5);
  step(range(3));
  CHECK(has(error_of([&] { step.freeze(); }), "another one than in the calls that were observed"));
  step(range(3));
  step(range(3));
  CHECK(step.freeze()(range(3)).to_vector<float>() == Values{5, 12, 21});
}
