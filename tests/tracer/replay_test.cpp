// Behaviour of replay that is not a comparison with one mechanism: reads, layouts, sizes, bounds, figures of
// the report.
#include "tandem/core/log.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

td::TraceReport trained(bool traced, Values& out, int calls) {
  Tensor w = (range(12).view({4, 3}) * 0.1f).requires_grad_();
  Tensor b = range(4).requires_grad_();
  auto step = [&](Tensor x, Tensor y) {
    Tensor loss = td::mse_loss(td::tanh(td::linear(x, w, b)), y);
    w.zero_grad();
    b.zero_grad();
    loss.backward();
    td::NoGrad no_grad;
    w.sub_(w.grad() * 0.1f);
    b.sub_(b.grad() * 0.1f);
    return loss.detach();
  };
  auto f = td::trace(step);
  for (int i = 0; i < calls; ++i) {
    const Tensor x = range(6, float(i)).view({2, 3}) * 0.1f, y = range(8).view({2, 4}) * 0.05f;
    append(out, traced ? f(x, y) : step(x, y));
  }
  append(out, w.detach());
  return f.report();
}

}  // namespace

TEST_CASE("replay: a training step is recorded once, its backward skipped as a block", "[tracer]") {
  Values eager, traced;
  trained(false, eager, 10);
  const td::TraceReport r = trained(true, traced, 10);
  CHECK(equal_bits(eager, traced));
  CHECK(r.calls == 10);
  CHECK(r.recorded == 1);
  CHECK(r.plans == 1);
  CHECK(r.backward_walked == 1);
  CHECK(r.backward_skipped == 9);
  CHECK(r.op_by_op == 0);
}

TEST_CASE("replay: two recordings of one program are equal", "[tracer]") {
  const auto text = [] {
    Tensor w = range(3).requires_grad_();
    auto f = td::trace([&](Tensor x) {
      Tensor loss = (td::tanh(x * w) + w).sum();
      w.zero_grad();
      loss.backward();
      return loss.detach();
    });
    f(range(3));
    return f.graph();
  };
  const std::string first = text();
  CHECK(first.find("tanh") != std::string::npos);
  CHECK(first == text());
}

TEST_CASE("replay: a read gives the real value in the middle of the body", "[tracer]") {
  CHECK(same([](bool traced) {
    auto f = wrapped(traced, [](Tensor x) {
      const Tensor y = x * 3.f;
      const float s = y.sum().item<float>();
      if (y.sum() > 30.f) return y / s;
      return y * s;
    });
    Values out;
    for (int i = 0; i < 8; ++i) append(out, f(range(3, float(i))));
    return out;
  }));
}

TEST_CASE("replay: a value that is real already is read without ending a segment", "[tracer]") {
  Tensor w = range(3);
  auto f = td::trace([&](Tensor x) {
    Tensor y = x * 2.f;
    const float v = w.sum().item<float>() * 0 + w.to_vector<float>()[0];
    return y * v;
  });
  f(range(3));
  CHECK(f.report().segments == 2);  // the item() of a pending sum, and the end; to_vector() of w adds none
}

TEST_CASE("replay: results that are views alias as in eager mode", "[tracer]") {
  auto f = td::trace([](Tensor x) {
    const Tensor y = x + 1.f;
    return std::pair<Tensor, Tensor>(y, y.view({2, 3}).t());
  });
  for (int i = 0; i < 3; ++i) {
    const auto [y, v] = f(range(6));
    CHECK(v.impl()->storage == y.impl()->storage);
    CHECK(v.strides() == td::Dims{1, 3});
    y.add_(1.f);
    CHECK(v.to_vector<float>()[0] == y.to_vector<float>()[0]);
  }
}

TEST_CASE("replay: a result that is a view of an argument shares its memory", "[tracer]") {
  auto f = td::trace([](Tensor x) { return x.view({3, 2}); });
  for (int i = 0; i < 3; ++i) {
    const Tensor x = range(6);
    const Tensor v = f(x);
    CHECK(v.impl()->storage == x.impl()->storage);
  }
}

TEST_CASE("replay: a new batch size compiles nothing", "[tracer]") {
  auto f = td::trace([](Tensor x) { return td::softmax(td::tanh(x) * 2.f, 1); });
  f(td::rand({8, 20}));
  f(td::rand({8, 20}));
  const double before = f.report().compile_ms;
  f(td::rand({5, 20}));
  CHECK(f.report().signatures == 2);
  CHECK(f.report().compile_ms == before);
}

TEST_CASE("replay: a storm of branches ends in eager calls", "[tracer]") {
  td::core::set_log("off");
  int n = 0;
  auto body = [&](Tensor x) { return x.view({n + 1, 120 / (n + 1)}).sum({0}); };
  auto f = td::trace(body, {.compile = false});
  const int divisors[] = {1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60, 120};
  for (int round = 0; round < 2; ++round)
    for (const int d : divisors) {
      n = d - 1;
      CHECK(equal_bits(f(range(120)).to_vector<float>(), body(range(120)).to_vector<float>()));
    }
  CHECK(f.report().branches == 16);
  float scale = 0;
  int64_t axis = 0;
  auto g = td::trace(
      [&](Tensor x) {
        // Each call slices elsewhere: a structural attribute that never repeats.
        return (x * scale).slice(0, axis, axis + 5);
      },
      {.compile = false});
  for (axis = 0; axis < 100; ++axis, scale += 1) {
    const Tensor x = range(120);
    CHECK(equal_bits(g(x).to_vector<float>(), (x.slice(0, axis, axis + 5) * scale).to_vector<float>()));
  }
  CHECK(g.report().eager_calls == 100 - 65);
  td::core::set_log("warn");
}

TEST_CASE("replay: the body runs once per call", "[tracer]") {
  int runs = 0;
  auto f = td::trace([&](Tensor x) {
    ++runs;
    return x * 2.f;
  });
  for (int i = 1; i <= 5; ++i) {
    f(range(3));
    CHECK(runs == i);
  }
}

TEST_CASE("replay: an index out of range names the op's line and leaves later writes undone", "[tracer]") {
  Tensor w = range(3);
  auto f = td::trace([&](Tensor index) {
    const Tensor rows = range(3).index_select(0, index);
    w.add_(rows);
    return rows;
  });
  f(td::tensor<int64_t>({0, 1, 2}));
  const Values before = w.to_vector<float>();
  for (int i = 0; i < 2; ++i) {
    try {
      f(td::tensor<int64_t>({0, 7, 2}));
      FAIL("no error");
    } catch (const td::Error& e) {
      CHECK(std::string(e.what()).find("replay_test.cpp") != std::string::npos);
      CHECK(std::string(e.what()).find("index") != std::string::npos);
    }
    CHECK(equal_bits(before, w.to_vector<float>()));
  }
  f(td::tensor<int64_t>({0, 1, 2}));
  CHECK(w.to_vector<float>()[2] == before[2] + 3);
}

TEST_CASE("replay: a failed check throws at its line and records nothing", "[tracer]") {
  bool wrong = true;
  auto f = td::trace([&](Tensor x) {
    Tensor y = x * 2.f;
    try {
      if (wrong) y = y + range(5);
    } catch (const td::Error&) {
      y = y + 100.f;
    }
    return y;
  });
  for (int i = 0; i < 3; ++i) CHECK(f(range(3)).to_vector<float>()[0] == 102);
  CHECK(f.report().branches == 1);
  wrong = false;
  CHECK(f(range(3)).to_vector<float>()[0] == 2);
}

TEST_CASE("replay: autograd::grad and create_graph inside a body", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor w = range(3).requires_grad_();
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor y = (x * w).square().sum();
      const Tensor outs[] = {y}, ins[] = {w};
      const Tensor g = td::autograd::grad(outs, ins, {}, false, true)[0];
      const Tensor penalty = g.square().sum();
      w.zero_grad();
      penalty.backward();
      return penalty.detach();
    });
    Values out;
    for (int i = 0; i < 4; ++i) {
      append(out, f(range(3, float(i))));
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("replay: a dead captured model is forgotten, another takes its place", "[tracer]") {
  CHECK(same([](bool traced) {
    auto w = std::make_shared<Tensor>(range(3));
    auto f = wrapped(traced, [&](Tensor x) { return x * *w; });
    Values out;
    for (int i = 0; i < 6; ++i) {
      if (i >= 2) {
        w.reset();
        const Tensor filler = range(3, 50);
        w = std::make_shared<Tensor>(range(3, float(i)));
      }
      append(out, f(range(3)));
    }
    return out;
  }));
}
