// log_scalar: values are those of the moment they were logged, and no segment ends for them.
#include <thread>

#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {
std::vector<double> values(const std::string& name) {
  std::vector<double> out;
  int64_t index = -1;
  for (const td::Scalar& s : td::take_scalars()) {
    if (s.name != name) continue;
    if (index >= 0) CHECK(s.index == index + 1);
    index = s.index;
    out.push_back(s.value);
  }
  return out;
}
}  // namespace

TEST_CASE("log_scalar keeps what a tensor was when it was logged", "[tracer][scalars]") {
  Tensor t = td::zeros({});
  for (int i = 0; i < 3; ++i) {
    t.add_(1.5f);
    td::log_scalar("t", t);
  }
  td::log_scalar("count", td::full({1, 1}, 7, {.dtype = td::int64}));
  const std::vector<td::Scalar> all = td::take_scalars();
  REQUIRE(all.size() == 4);
  CHECK(all[0].value == 1.5);
  CHECK(all[1].value == 3.0);
  CHECK(all[2].value == 4.5);
  CHECK(all[3].name == "count");
  CHECK(all[3].value == 7.0);
  CHECK(td::take_scalars().empty());
}

TEST_CASE("log_scalar in a traced call ends no segment", "[tracer][scalars]") {
  td::take_scalars();
  Tensor w = td::full({4}, 1.f).requires_grad_();
  Tensor running = td::zeros({});
  const auto body = [&](const Tensor& x) {
    const Tensor loss = ((x * w) * (x * w)).sum();
    td::log_scalar("loss", loss);
    w.zero_grad();
    loss.backward();
    const td::NoGrad no_grad;
    w.sub_(w.grad() * 0.01f);
    running.mul_(0.5f).add_(loss.detach());
    td::log_scalar("running", running);
    return loss;
  };
  const auto losses = [&](auto&& f) {
    {
      const td::NoGrad no_grad;
      w.fill_(1.f), running.fill_(0.f);
    }
    for (int i = 0; i < 2000; ++i) f(td::full({4}, 0.1f * float(i % 3)));
    std::vector<double> loss, run;
    for (const td::Scalar& s : td::take_scalars()) (s.name == "loss" ? loss : run).push_back(s.value);
    loss.insert(loss.end(), run.begin(), run.end());
    return loss;
  };
  const std::vector<double> eager = losses(body);
  auto step = td::trace([&](Tensor x) { return body(x); });
  CHECK(losses(step) == eager);
  REQUIRE(eager.size() == 4000);
  CHECK(step.report().segments == step.report().branches);
  CHECK(step.report().op_by_op <= 1);  // the second branch: .grad is there
}

TEST_CASE("values of a running traced call stay for later", "[tracer][scalars]") {
  td::take_scalars();
  size_t inside = 99;
  auto f = td::trace([&](Tensor x) {
    td::log_scalar("sum", x.sum());
    inside = td::take_scalars().size();
    return x;
  });
  for (int i = 0; i < 3; ++i) {
    f(td::full({2}, float(i)));
    CHECK(inside == 0);
    CHECK(values("sum") == std::vector<double>{2.0 * i});
  }
}

TEST_CASE("values of a call that fails are lost, the others are not", "[tracer][scalars]") {
  td::take_scalars();
  auto f = td::trace([&](Tensor x, Tensor index) {
    const Tensor row = td::embedding(index, x);
    td::log_scalar("row", row.sum());
    return row;
  });
  const Tensor x = td::ones({3, 2});
  for (const int64_t i : {1, 2, 7, 0}) {
    const Tensor index = td::full({1}, double(i), {.dtype = td::int64});
    if (i == 7)
      CHECK_THROWS_WITH(f(x, index), Contains("index out of range"));
    else
      f(x, index);
  }
  CHECK(values("row").size() == 3);
}

TEST_CASE("threads log and take at the same time", "[tracer][scalars][threads]") {
  td::take_scalars();
  auto f = td::trace([&](Tensor x) {
    td::log_scalar("x", x.sum());
    return x * 2.f;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) f(td::ones({2}));
    });
  size_t taken = 0;
  while (taken < 400) {
    for (const td::Scalar& s : td::take_scalars()) taken += s.value == 2.0;
    std::this_thread::yield();
  }
  for (std::thread& t : threads) t.join();
  CHECK(taken == 400);
  CHECK(td::take_scalars().empty());
}

TEST_CASE("log_scalar refuses what is no number", "[tracer][scalars]") {
  CHECK_THROWS_WITH(td::log_scalar("x", td::ones({2})), Contains("one element is wanted"));
  CHECK_THROWS_WITH(td::log_scalar("x", Tensor()), Contains("undefined"));
}
