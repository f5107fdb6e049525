// Calls that are not what was recorded: what the log says of them, the bounds max_traces and max_bytes, and
// require_full_capture.
#include "tandem/core/log.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

struct Step {
  std::vector<Tensor> images;
  Tensor labels;
};
#if defined(__clang__)
const std::string kImages = ".0";
#else
const std::string kImages = ".images";
#endif

std::vector<std::string>* lines = nullptr;

/// What the trace's log says while it lives.
class Log {
 public:
  Log() {
    lines = &lines_;
    td::core::set_log("trace:debug");
    td::core::set_log_sink([](td::core::LogArea, td::core::LogLevel level, const std::string& text) {
      if (level == td::core::LogLevel::debug) lines->push_back(text);
    });
  }
  ~Log() {
    td::core::set_log_sink(nullptr);
    td::core::set_log("warn");
    lines = nullptr;
  }
  /// The only line since the last question.
  std::string line() {
    const std::string text =
        lines_.size() == 1 ? lines_[0] : std::to_string(lines_.size()) + " lines: " + all();
    lines_.clear();
    return text;
  }

 private:
  std::string all() const {
    std::string text;
    for (const std::string& l : lines_) text += l + "\n";
    return text;
  }
  std::vector<std::string> lines_;
};

using tandem::test::message;

std::string here(int line) { return "misses_test.cpp:" + std::to_string(line); }

}  // namespace

TEST_CASE("misses: a new signature is told with the argument, its old and its new value", "[tracer]") {
  Log log;
  auto f = td::trace(
      [](int, const Step& s) {
        Tensor sum = s.labels.sum();
        for (const Tensor& t : s.images) sum = sum + t.sum().to(td::float32);
        return sum;
      },
      {.name = "step", .compile = false});
  const auto call = [&](std::vector<Tensor> images, Tensor labels) {
    f(1, Step{std::move(images), std::move(labels)});
    return log.line();
  };
  const Tensor x = range(6).view({2, 3}), y = range(3);
  CHECK(call({x, range(6).view({2, 3})}, y) == "0 lines: ");
  CHECK(call({x, range(6).view({2, 3})}, range(3)) == "0 lines: ");
  CHECK_THAT(call({x, range(9).view({3, 3})}, y),
             Contains("step: a new signature of arguments (1 are known): arg1" + kImages +
                      "[1]: sizes (2, 3) before, (3, 3) now"));
  CHECK_THAT(call({x, range(8).view({4, 2})}, y), Contains("(2 are known): arg1" + kImages + "[1]: sizes"));
  CHECK_THAT(call({x, range(6).view({2, 3}).to(td::float64)}, y),
             Contains("[1]: dtype float32 before, float64 now"));
  CHECK_THAT(call({x, range(6).view({3, 2}).transpose(0, 1)}, y),
             Contains("[1]: strides (3, 1) before, (1, 2) now"));
  CHECK_THAT(call({x, range(6).view({2, 3}).requires_grad_()}, y),
             Contains("[1]: requires_grad no before, yes now"));
  CHECK_THAT(call({x, range(6).view({2, 3}).requires_grad_() * 1.f}, y),
             Contains("[1]: leaf yes before, no now"));
  CHECK_THAT(call({x, x}, y), Contains("[1]: aliasing: a tensor of its own before, the same tensor as arg1" +
                                       kImages + "[0] now"));
  CHECK_THAT(call({x, x.view({2, 3})}, y), Contains("now"));
  CHECK_THAT(call({x, x.view({2, 3})}, y), Contains("0 lines"));
  CHECK_THAT(call({x}, y), Contains("number of tensors 3 before, 2 now"));
  {
    const td::NoGrad no_grad;
    CHECK_THAT(call({x, range(6).view({2, 3})}, y), Contains("mode grad yes before, no now"));
  }
}

TEST_CASE("misses: a new branch is told with the event that differs and both lines", "[tracer]") {
  Log log;
  int way = 0, recorded = 0, called = 0;
  Tensor w = range(3);
  auto f = td::trace(
      [&](Tensor x) {
        const Tensor v = x.view({3, 1}), m = v * w;
        if (way == 1) {
          called = __LINE__ + 1;
          return td::tanh(m);
        }
        if (way == 2) return td::exp(v);
        if (way == 3) {
          const td::NoGrad no_grad;
          return td::exp(m);
        }
        if (way == 4) return Tensor(m).sub_(v);
        if (way == 5) return m * m.sum().item<float>();
        recorded = __LINE__ + 1;
        return td::exp(m);
      },
      {.name = "step", .compile = false});
  const auto call = [&](int next) {
    way = next;
    f(range(3));
    return log.line();
  };
  CHECK(call(0) == "0 lines: ");
  const std::string tanh = call(1);
  CHECK_THAT(tanh, Contains("step: a new branch: event 2: expected exp at "));
  CHECK_THAT(tanh, Contains(here(recorded)));
  CHECK_THAT(tanh, Contains("found tanh at "));
  CHECK_THAT(tanh, Contains(here(called)));
  CHECK(call(1) == "0 lines: ");
  const std::string operand = call(2);
  CHECK_THAT(operand, Contains("event 2 (2 ways are known): exp at "));
  CHECK_THAT(operand, Contains("operand 0: the result of mul at "));
  CHECK_THAT(operand, Contains("before, the result of reshape at "));
  CHECK_THAT(call(3), Contains("mode grad yes before, no now"));
  CHECK_THAT(call(4), Contains("found sub_ (in place)"));
  CHECK_THAT(call(5), Contains("found sum at "));
  w = range(4);
  const std::string captured = call(0);
  CHECK_THAT(captured, Contains("event 1: mul at "));
  CHECK_THAT(captured, Contains("operand 1: captured tensor, sizes (3,) before, (4,) now"));
  w = range(4).requires_grad_();
  CHECK_THAT(call(0), Contains("requires_grad no before, yes now"));
}

TEST_CASE("misses: attributes, reads, backward and the end of the body in words", "[tracer]") {
  Log log;
  int way = 0;
  Tensor w = range(3).requires_grad_();
  auto f = td::trace(
      [&](Tensor x) {
        const Tensor m = x.view({3, 1}) * w;
        if (way == 1) return m.sum({1});
        Tensor s = m.sum({0}).sum();
        if (way == 2) s.item<float>();
        if (way == 3) s.backward({}, true);
        if (way == 4) return s;
        if (way == 5) w.zero_grad();
        s.backward();
        return s;
      },
      {.name = "step", .compile = false});
  const auto call = [&](int next) {
    way = next;
    f(range(3));
    return log.line();
  };
  CHECK(call(0) == "0 lines: ");
  CHECK_THAT(call(0),
             Contains("backward() at"));  // the gradient is there now, and a first one is another thing
  CHECK(call(5) == "0 lines: ");
  CHECK_THAT(call(1), Contains("attribute axes (0) before, (1) now"));
  CHECK_THAT(call(2), Contains("found a read at "));
  CHECK_THAT(call(3), Contains("retain_graph no before, yes now"));
  CHECK_THAT(call(4), Contains("found the end of the body"));
}

TEST_CASE("misses: max_traces refuses one more signature or branch, and says what differs", "[tracer]") {
  bool other = false;
  const int made = __LINE__ + 1;
  auto f = td::trace([&](Tensor x) { return other ? td::tanh(x) : td::exp(x); },
                     {.name = "step", .compile = false, .max_traces = 2});
  f(range(3));
  f(range(4));
  const std::string signature = message([&] { f(range(5)); });
  CHECK_THAT(signature, Contains("step: max_traces = 2 allows no new signature of arguments: "
                                 "arg0: sizes (3,) before, (5,) now"));
  CHECK_THAT(signature, Contains(here(made)));
  other = true;
  const std::string branch = message([&] { f(range(3)); });
  CHECK_THAT(branch, Contains("step: max_traces = 2 allows no new branch: event 0: expected exp at "));
  CHECK_THAT(branch, Contains("found tanh at "));
  other = false;
  CHECK(f(range(4, 2)).to_vector<float>()[0] == std::exp(2.f));  // what was recorded goes on
  CHECK(f.report().recorded == 2);
  CHECK(f.report().signatures == 2);
}

TEST_CASE("misses: a recording that an exception broke off does not count for max_traces", "[tracer]") {
  bool bad = true;
  auto f = td::trace(
      [&](Tensor x) {
        Tensor y = x * 2.f;
        if (bad) throw std::runtime_error("stop");
        return y;
      },
      {.compile = false, .max_traces = 1});
  for (int i = 0; i < 3; ++i) CHECK_THROWS_WITH(f(range(3)), Contains("stop"));
  bad = false;
  for (int i = 0; i < 3; ++i) CHECK(f(range(3)).to_vector<float>()[0] == 2);
}

TEST_CASE("misses: what came before a refused branch has happened, as before any exception", "[tracer]") {
  bool other = false;
  Tensor total = range(3);
  auto f = td::trace(
      [&](Tensor x) {
        total.add_(x);
        return other ? td::tanh(total) : td::exp(total);
      },
      {.compile = false, .max_traces = 1});
  f(range(3));
  other = true;
  CHECK_THROWS_AS(f(range(3)), td::Error);
  CHECK(total.to_vector<float>()[0] == 3);
}

TEST_CASE("misses: 10,000 sets of sizes take bounded memory", "[tracer]") {
  auto f = td::trace([](Tensor x, Tensor y) { return (x * 2.f + y).sum(); },
                     {.compile = false, .max_bytes = 1 << 20});
  int64_t most = 0;
  for (int i = 0; i < 10'000; ++i) {
    const int64_t rows = 1 + i % 100, columns = 1 + i / 100;
    const Tensor x = td::full({rows, columns}, 1.f), y = td::full({rows, columns}, 0.5f);
    const float sum = f(x, y).item<float>();
    if (sum != 2.5f * float(rows * columns)) FAIL("sum of " << rows << " x " << columns << ": " << sum);
    if (i % 500 == 0) most = std::max(most, f.report().record_bytes);
  }
  const td::TraceReport r = f.report();
  CHECK(most <= 1 << 20);
  CHECK(r.record_bytes <= 1 << 20);
  CHECK(r.record_bytes > 1 << 19);
  CHECK(r.recorded == 10'000);
  CHECK(r.signatures + r.forgotten == 10'000);
  CHECK(r.signatures > 10);
  // The latest are those that are kept.
  f(td::full({100, 100}, 1.f), td::full({100, 100}, 1.f));
  CHECK(f.report().recorded == 10'000);
  f(td::full({1, 1}, 1.f), td::full({1, 1}, 1.f));
  CHECK(f.report().recorded == 10'001);
}

TEST_CASE("misses: what is used stays, what is not is forgotten", "[tracer]") {
  auto f = td::trace([](Tensor x) { return x * 2.f; }, {.compile = false, .max_bytes = 200'000});
  for (int i = 1; i <= 300; ++i) {
    f(range(1000));
    f(range(i));
  }
  CHECK(f.report().recorded == 301);
  CHECK(f.report().forgotten > 100);
  // One signature alone may be larger than the bound.
  auto g = td::trace([](Tensor x) { return x * 2.f; }, {.compile = false, .max_bytes = 1});
  for (int i = 0; i < 3; ++i) g(range(3));
  CHECK(g.report().recorded == 1);
  g(range(4));
  CHECK(g.report().signatures == 1);
  CHECK(g.report().forgotten == 1);
}

TEST_CASE("misses: a captured view that is another one in each call takes no more memory", "[tracer]") {
  const auto bytes_after = [](int calls) {
    bool other = false;
    Tensor row;
    auto f = td::trace([&](Tensor x) { return other ? x - row : x * row; }, {.compile = false});
    for (int i = 0; i < calls; ++i) {
      row = range(6).view({2, 3})[i % 2];
      f(range(3));
    }
    other = true;  // what is recorded now is counted together with what was there
    f(range(3));
    CHECK(f.report().recorded == 2);
    return f.report().record_bytes;
  };
  CHECK(bytes_after(2'000) <= bytes_after(20));
}

TEST_CASE("misses: the branches of one signature are bounded too", "[tracer]") {
  uint32_t bits = 1;
  Tensor w = td::ones({2}).requires_grad_();
  const auto body = [&](Tensor x) {
    for (int i = 0; i < 12; ++i) x = (bits >> (8 + i)) & 1 ? x * w : x + w;
    w.zero_grad();
    x.sum().backward();
    return x;
  };
  auto f = td::trace(body, {.compile = false, .max_bytes = 500'000});
  std::vector<Tensor> kept;  // with what is left of their histories
  for (int i = 0; i < 500; ++i) {
    bits = bits * 1664525 + 1013904223;
    const Tensor x = range(2), y = f(x);
    const Values gradient = w.grad().to_vector<float>();
    if (i % 50 == 0) kept.push_back(y);
    const Values expected = body(x).to_vector<float>();
    if (!equal_bits(y.to_vector<float>(), expected) || !equal_bits(gradient, w.grad().to_vector<float>()))
      FAIL("call " << i);
    if (f.report().record_bytes > 600'000) FAIL("bytes after call " << i << ": " << f.report().record_bytes);
  }
  CHECK(f.report().forgotten > 1);
  CHECK(f.report().forgotten < 100);
  for (const Tensor& t : kept) CHECK_THROWS_AS(t.sum().backward(), td::Error);  // used up, as in eager mode
}

TEST_CASE("misses: require_full_capture refuses what would run op by op", "[tracer]") {
  // A slice with a step, changed in place, is no graph.
  Tensor state = td::zeros({6});
  const auto body = [&](Tensor x) {
    state.add_(1.f);
    state.index({td::Slice{0, 6, 2}}).add_(x);
    return state * 2.f;
  };
  auto f = td::trace(body, {.name = "step", .compile = false, .require_full_capture = true});
  for (int i = 1; i <= 3; ++i) {
    CHECK_THROWS_WITH(f(range(3)),
                      Contains("step: require_full_capture: a part of the call would run op by op: "));
    CHECK(state.to_vector<float>()[1] == float(i));  // as after any exception: what came before has happened
  }
  auto loose = td::trace(body, {.compile = false});
  loose(range(3));
  CHECK(loose.report().op_by_op == 1);

  // An argument that is also captured.
  Tensor w = range(3);
  auto g = td::trace([&](Tensor x) { return x * w; },
                     {.name = "product", .compile = false, .require_full_capture = true});
  g(range(3));
  CHECK_THROWS_WITH(g(w), Contains("product: require_full_capture: an argument shares memory"));
  g(range(3));

  // The 65th way to go on after one event.
  const Tensor x = td::zeros({64 * 2520});
  const auto views = [&](int64_t n) { return x.view({n, 64 * 2520 / n}) * 2.f; };
  int64_t rows = 0;
  auto many = td::trace([&](Tensor) { return views(rows); },
                        {.name = "ways", .compile = false, .require_full_capture = true});
  int divisors = 0;
  std::string refused;
  for (rows = 1; rows <= 64 * 2520 && refused.empty(); ++rows) {
    if (64 * 2520 % rows) continue;
    const std::string e = message([&] { many(range(1)); });
    if (e == "no error")
      ++divisors;
    else
      refused = e;
  }
  CHECK(divisors == 65);  // the first path and 64 branches
  CHECK_THAT(refused,
             Contains("ways: require_full_capture: a part of the call would run op by op: a call went on "
                      "in 64 ways after the same event"));
}

TEST_CASE("a call past the 64th way runs as it is called, also where it meets what was recorded",
          "[tracer]") {
  const Tensor x = td::zeros({64 * 2520});
  int64_t rows = 0;
  auto f = td::trace(
      [&](const Tensor& a) {
        if (rows) x.view({rows, 64 * 2520 / rows}) * 2.f;
        return a * 3.f;  // the event after which all ways but the first differ
      },
      {.name = "ways", .compile = false});
  const auto triple = [&](float v) { return f(td::full({3}, v)).to_vector<float>(); };
  CHECK(triple(1) == std::vector<float>(3, 3.f));
  int ways = 0;
  for (rows = 1; ways < 67; ++rows) {
    if (64 * 2520 % rows) continue;
    ++ways;
    if (triple(static_cast<float>(ways)) != std::vector<float>(3, 3.f * static_cast<float>(ways)))
      FAIL("way " << ways);
  }
  CHECK(f.report().eager_calls == 3);
}
