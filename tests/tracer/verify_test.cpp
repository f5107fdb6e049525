// verify, check and debug (R18): a plan that is wrong is noticed, and the first wrong op named with its line;
// a right one is never accused; the body runs once whatever is asked for.
#include <cmath>

#include "tandem/core/allocator.h"
#include "tandem/jit/planted_bugs.h"
#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;
using td::jit::PlantedBug;

namespace {

class Plant {
 public:
  explicit Plant(PlantedBug bug) { td::jit::planted_bug = bug; }
  ~Plant() { td::jit::planted_bug = PlantedBug::none; }
};

std::string thrown(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& e) {
    return e.what();
  }
  return "";
}

std::string at(int line) { return "verify_test.cpp:" + std::to_string(line); }

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

// Planted bugs reach eager ops as well; each program runs eagerly first, so that those are compiled before.

TEST_CASE("verify names the op that a wrong plan computes otherwise", "[tracer]") {
  // attributes_ignored: nodes that differ in attributes alone become one.
  const Tensor x = td::arange(1.f, 5).reshape({2, 2});
  int line = 0;
  const auto body = [&](const Tensor& a) {
    const Tensor t = a + 1.f;
    const Tensor columns = t.sum({0});
    line = __LINE__ + 1;
    const Tensor rows = t.sum({1});
    return td::tanh(columns * 0.1f) + rows;
  };
  const Values right = body(x).to_vector<float>();
  for (const bool compile : {false, true}) {
    auto f = td::trace(body, {.name = "f", .compile = compile, .verify = -1});
    const Plant plant(PlantedBug::attributes_ignored);
    const std::string error = thrown([&] { f(x); });
    INFO(error);
    CHECK(has(error, "f: verify: sum gives another value"));
    CHECK(has(error, "6 instead of 5 at element (0,) of (2,)"));
    CHECK(has(error, at(line)));
    // What is known to be wrong is not used again.
    CHECK(f(x).to_vector<float>() == right);
    CHECK(f.report().op_by_op_reasons.size() == 1);
  }
}

TEST_CASE("an op whose value is no output is named by probing", "[tracer]") {
  const Tensor x = td::arange(1.f, 5).reshape({2, 2});
  int line = 0;
  const auto body = [&](const Tensor& a) {
    const Tensor t = td::tanh(a);
    line = __LINE__ + 1;
    const Tensor u = t.t() + t;
    return td::exp(u * 0.5f) - 1.f;
  };
  body(x);
  auto f = td::trace(body, {.compile = false});
  const Plant plant(PlantedBug::permutation_ignored);
  f(x);
  const std::string error = thrown([&] { f.check(x); });
  INFO(error);
  CHECK(has(error, "add gives another value"));
  CHECK(has(error, at(line)));
}

TEST_CASE("check verifies one call, in recording and in replay", "[tracer]") {
  const Tensor x = td::arange(1.f, 5).reshape({2, 2});
  const auto body = [](const Tensor& a) { return a.sum({0}) - a.sum({1}) * 2.f; };
  const Values right = body(x).to_vector<float>();
  {
    const Plant plant(PlantedBug::attributes_ignored);
    auto f = td::trace(body, {.compile = false});
    CHECK(f(x).to_vector<float>() != right);  // the wrong plan
    CHECK(f.report().verified == 0);
    CHECK(has(thrown([&] { f.check(x); }), "sum gives another value"));
    CHECK(f(x).to_vector<float>() == right);
  }
  {
    const Plant plant(PlantedBug::attributes_ignored);
    auto f = td::trace(body, {.compile = false});
    CHECK(has(thrown([&] { f.check(x); }), "sum gives another value"));
  }
  auto f = td::trace(body, {.compile = false});
  CHECK(f.check(x).to_vector<float>() == right);
  CHECK(f.check(x).to_vector<float>() == right);
  CHECK(f.report().verified == 2);
  CHECK(f.report().recorded == 1);
  CHECK(f.report().plans == 1);
}

TEST_CASE("a wrong write to a captured tensor is found, and the eager value stands", "[tracer]") {
  // numbers_swapped: a fused kernel with two run-time numbers is given them in another order.
  for (const bool replayed : {false, true}) {
    const Tensor state = td::zeros({4});
    float a = 2.f, b = 5.f;
    int line = 0;
    const auto body = [&](const Tensor& x) {
      const Tensor y = x * a;
      line = __LINE__ + 1;
      state.copy_(y + b);
      return y * 0.5f;
    };
    const Tensor x = td::ones({4});
    auto f = td::trace(body, {.compile = false, .verify = replayed ? 0 : 1});
    const Plant plant(PlantedBug::numbers_swapped);
    if (replayed) {
      f(x);
      state.fill_(0.f);
    }
    const std::string error = thrown([&] { f.check(x); });
    INFO(error);
    CHECK(has(error, "verify: "));
    CHECK(has(error, "verify_test.cpp:"));
    CHECK(state.to_vector<float>() == Values(4, 7.f));
    CHECK(f(x).to_vector<float>() == Values(4, 1.f));
    CHECK(state.to_vector<float>() == Values(4, 7.f));
  }
}

TEST_CASE("a difference in a gradient names the line of its op", "[tracer]") {
  const Tensor w = td::arange(1.f, 5).reshape({2, 2}).requires_grad_();
  const Tensor x = td::arange(5.f, 9).reshape({2, 2});
  int line = 0;
  const auto body = [&] {
    w.zero_grad();
    const Tensor t = w.t();
    line = __LINE__ + 1;
    const Tensor loss = (td::tanh(t * 0.1f) * x).sum();
    loss.backward();
    return loss.detach();
  };
  body();
  const Values right = w.grad().to_vector<float>();
  auto f = td::trace(body, {.compile = false});
  const Plant plant(PlantedBug::permutation_ignored);
  f();
  CHECK(w.grad().to_vector<float>() != right);
  const std::string error = thrown([&] { f.check(); });
  INFO(error);
  CHECK(has(error, at(line)));
  CHECK(w.grad().to_vector<float>() == right);
  f();
  CHECK(w.grad().to_vector<float>() == right);
}

TEST_CASE("a wrong number inside a skipped backward is found", "[tracer]") {
  float scale = 2.f;
  const Tensor w = leaf(3);
  int line = 0;
  auto f = td::trace(
      [&] {
        w.zero_grad();
        const Tensor loss = (w * scale).sum();
        line = __LINE__ + 1;
        loss.backward();
        return loss.detach();
      },
      {.compile = false});
  f();
  scale = 3.f;
  f.check();
  CHECK(w.grad().to_vector<float>() == Values(3, 3.f));
  CHECK(f.report().recorded == 1);
  CHECK(f.report().backward_walked == 2);
  scale = 4.f;
  {
    const Off off(td::tracer::Mechanism::follow_numbers);
    const std::string error = thrown([&] { f.check(); });
    INFO(error);
    CHECK(has(error, "verify: a number inside this backward"));
    CHECK(has(error, at(line)));
    f();
  }
  CHECK(w.grad().to_vector<float>() == Values(3, 4.f));
  CHECK(f.report().backward_skipped == 0);
}

TEST_CASE("tracer bugs are found as well as those of plans", "[tracer]") {
  // A number that is not stored on replay.
  float scale = 2.f;
  auto f = td::trace([&](const Tensor& x) { return td::tanh(x * scale) + x; }, {.compile = false});
  const Tensor x = td::arange(1.f, 4);
  f(x);
  scale = 0.25f;
  const Off off(td::tracer::Mechanism::store_scalars);
  CHECK(has(thrown([&] { f.check(x); }), "mul gives another value"));
}

TEST_CASE("the body runs once under every option, and random numbers are those of eager mode", "[tracer]") {
  struct Kind {
    const char* name;
    td::TraceOptions options;
    bool check;
  };
  const Kind kinds[] = {{"plain", {}, false},
                        {"verify", {.verify = -1}, false},
                        {"verify two", {.verify = 2}, false},
                        {"check", {}, true},
                        {"debug", {.debug = true}, false}};
  Values expected;
  for (const Kind& k : kinds) {
    INFO(k.name);
    for (const bool traced : {false, true}) {
      int runs = 0, reads = 0;
      td::manual_seed(3);
      td::nn::Linear net(4, 3);
      td::optim::AdamW opt(net.parameters(), {.lr = 0.05});
      const auto body = [&](const Tensor& x) {
        ++runs;
        const Tensor h = td::dropout(net.forward(x), 0.5) + td::randn({3});
        const Tensor loss = (h * h).mean();
        reads += loss.item<float>() > -1.f;
        opt.zero_grad();
        loss.backward();
        opt.step();
        return loss.detach();
      };
      td::TraceOptions options = k.options;
      options.compile = false;
      auto f = td::trace(body, options);
      Values seen;
      for (int call = 0; call < 6; ++call) {
        const Tensor x = td::randn({5, 4});
        append(seen, !traced ? body(x) : k.check ? f.check(x) : f(x));
        seen.push_back(static_cast<float>(td::default_generator().offset()));
      }
      for (const Tensor& p : net.parameters()) append(seen, p.detach());
      CHECK(runs == 6);
      CHECK(reads == 6);
      if (expected.empty()) expected = seen;
      CHECK(equal_bits(seen, expected));
      if (!traced) continue;
      CHECK(f.report().recorded == 1);
      CHECK(f.report().verified == (k.check || k.options.verify < 0 ? 6 : k.options.verify));
    }
  }
}

TEST_CASE("verify = n counts per branch, and a branch counts when its plan has run", "[tracer]") {
  bool other = false;
  auto f = td::trace([&](const Tensor& x) { return other ? td::tanh(x) * 2.f : x + 1.f; },
                     {.compile = false, .verify = 2});
  const Tensor x = td::arange(1.f, 4), longer = td::arange(1.f, 6);
  for (int i = 0; i < 4; ++i) f(x);
  CHECK(f.report().verified == 2);
  f(longer);
  CHECK(f.report().verified == 3);
  f(longer);
  f(longer);
  CHECK(f.report().verified == 4);
  other = true;
  f(x);  // recorded, run op by op
  CHECK(f.report().verified == 4);
  for (int i = 0; i < 4; ++i) f(x);
  CHECK(f.report().verified == 6);
}

TEST_CASE("shadows are freed when the call ends", "[tracer]") {
  Tensor state = td::zeros({1 << 19});
  auto f = td::trace(
      [&](const Tensor& x) {
        state.add_(x);
        const Tensor y = td::tanh(state) * 2.f;
        return (y + x).sum();
      },
      {.compile = false});
  const Tensor x = td::ones({1 << 19});
  f(x);
  const int64_t before = td::core::allocator_stats().live_bytes;
  f.check(x);
  f.check(x);
  CHECK(td::core::allocator_stats().live_bytes == before);
  auto g = td::trace([&](const Tensor& a) { return td::log(a).sum(); }, {.debug = true});
  CHECK(thrown([&] { g(x * -1.f); }) != "");
  CHECK(td::core::allocator_stats().live_bytes == before);
}

TEST_CASE("an index out of range under verify and debug", "[tracer]") {
  const Tensor table = td::arange(0.f, 8).reshape({4, 2});
  for (const bool debug : {false, true}) {
    Tensor state = td::zeros({3});
    auto f = td::trace(
        [&](const Tensor& i) {
          state.add_(1.f);
          const Tensor r = td::embedding(i, table);
          return r * 2.f;
        },
        {.compile = false, .verify = -1, .debug = debug});
    const Tensor good = td::zeros({2}, {.dtype = td::int64}), bad = good + 9;
    f(good);
    CHECK(has(thrown([&] { f(bad); }), "embedding"));
    CHECK(state.to_vector<float>() == Values(3, 2.f));
    f(good);
    CHECK(state.to_vector<float>() == Values(3, 3.f));
  }
}

TEST_CASE("debug stops at the line of the first value that is not finite", "[tracer]") {
  int line = 0;
  Tensor state = td::zeros({3});
  const auto body = [&](const Tensor& x) {
    state.add_(1.f);
    const Tensor y = x * 2.f;
    line = __LINE__ + 1;
    const Tensor z = td::log(y);
    state.add_(10.f);
    return z + 1.f;
  };
  auto f = td::trace(body, {.name = "step", .compile = false, .debug = true});
  const Tensor good = td::arange(1.f, 4), bad = td::arange(1.f, 4) * -1.f;
  for (const int calls : {1, 2}) {  // in recording and in replay
    INFO(calls);
    auto g = td::trace(body, {.name = "step", .compile = false, .debug = true});
    state.fill_(0.f);
    if (calls == 2) g(good);
    const float before = state.to_vector<float>()[0];
    const std::string error = thrown([&] { g(bad); });
    INFO(error);
    CHECK(has(error, "step: log of (3,) gives "));
    CHECK(has(error, "nan at element (0,) of (3,); its operands were finite"));
    CHECK(has(error, at(line)));
    CHECK(state.to_vector<float>() == Values(3, before + 1.f));
  }
  f(good);
  CHECK(f.report().plans == 0);
  const std::string error = thrown([&] { f(td::full({3}, INFINITY)); });
  INFO(error);
  CHECK(
      has(error, "mul of (3,) gives inf at element (0,) of (3,); operand 0 held values that are not finite"));
}

TEST_CASE("debug finds a 0/0 in backward at the line of its op", "[tracer]") {
  for (const int calls : {1, 2}) {
    INFO(calls);
    Tensor w = td::zeros({3});
    w.requires_grad_();
    float shift = 1.f;
    int line = 0;
    auto f = td::trace(
        [&] {
          w.zero_grad();
          line = __LINE__ + 1;
          const Tensor root = td::sqrt(w * w + shift);
          const Tensor loss = root.sum();
          loss.backward();
          return loss.detach();
        },
        {.compile = false, .debug = true});
    if (calls == 2) f();
    shift = 0.f;
    const std::string error = thrown([&] { f(); });
    INFO(error);
    CHECK(has(error, "of (3,)"));
    CHECK(has(error, at(line)));
  }
}

TEST_CASE("a checked call leaves the trace as a plain call would", "[tracer]") {
  Tensor w = leaf(3);
  auto f = td::trace(
      [&](const Tensor& x) {
        const Tensor h = td::tanh(w * x);
        if (h.sum().item<float>() > 100.f) return h;
        w.zero_grad();
        h.sum().backward();
        return h.detach();
      },
      {.compile = false});
  const Tensor x = td::arange(1.f, 4);
  f(x);
  f(x);
  const td::TraceReport before = f.report();
  f.check(x);
  f(x);
  const td::TraceReport after = f.report();
  CHECK(after.recorded == before.recorded);
  CHECK(after.branches == before.branches);
  CHECK(after.plans == before.plans);
  CHECK(after.backward_skipped == before.backward_skipped + 1);
}
