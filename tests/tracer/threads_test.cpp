// R15: each call of a traced function has a frame of its own, on whatever thread it runs.
#include <atomic>
#include <barrier>
#include <thread>

#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {

template <class F>
void on_threads(int n, F&& f) {
  std::vector<std::thread> threads;
  for (int t = 0; t < n; ++t) threads.emplace_back([&f, t] { f(t); });
  for (std::thread& t : threads) t.join();
}

struct Net : td::nn::Module {
  td::nn::Linear a = child<td::nn::Linear>("a", 6, 5);
  td::nn::Linear b = child<td::nn::Linear>("b", 5, 3);
  Tensor forward(const Tensor& x) {
    const Tensor h = td::tanh(a(x));
    return b(h);
  }
};

struct Training {
  Net net;
  td::optim::AdamW opt{net.parameters(), {.lr = 1e-2}};
  Tensor step(const Tensor& x) {
    const Tensor y = net.forward(x);
    const Tensor loss = (y * y).mean();
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  }
};

}  // namespace

TEST_CASE("threads: two calls of one traced function run at the same time", "[tracer][threads]") {
  std::barrier both(2);  // a body that waits for the other thread's body: one call at a time would never end
  const Tensor w = td::arange(0.f, 4);
  auto f = td::trace([&](Tensor x) {
    const Tensor y = x * w;
    both.arrive_and_wait();
    return (y + x).sum();
  });
  std::atomic<int> wrong = 0;
  on_threads(2, [&](int t) {
    for (int i = 0; i < 20; ++i)
      if (f(td::full({4}, float(t + i))).item<float>() != 10.f * float(t + i)) ++wrong;
  });
  CHECK(wrong == 0);
  const td::TraceReport r = f.report();
  CHECK(r.calls == 40);
  CHECK(r.signatures == 2);
  CHECK(r.recorded == 2);
}

TEST_CASE("threads: each thread trains a model of its own through one traced step", "[tracer][threads]") {
  const auto losses_of = [](auto&& step) {
    Training training;
    {
      td::NoGrad no_grad;
      float k = 0;
      for (const Tensor& p : training.net.parameters()) p.fill_(0.1f * ++k);
    }
    std::vector<float> losses;
    for (int i = 0; i < 40; ++i)
      losses.push_back(step(training, td::full({4, 6}, 0.1f * float(i % 5 + 1))).template item<float>());
    return losses;
  };
  const auto eager = losses_of([](Training& t, const Tensor& x) { return t.step(x); });
  auto step = td::trace([](Training* t, Tensor x) { return t->step(x); });
  std::vector<std::vector<float>> traced(3);
  on_threads(3, [&](int t) {
    traced[static_cast<size_t>(t)] =
        losses_of([&](Training& training, const Tensor& x) { return step(&training, x); });
  });
  for (const auto& losses : traced) CHECK(losses == eager);
}

TEST_CASE("threads: a captured tensor that another thread drops is kept until the call is over",
          "[tracer][threads]") {
  // Bound by the first call; dropped by the main thread while a call that has not yet come to it runs.
  Tensor captured = td::full({4}, 3.f);
  std::barrier step(2);
  bool wait = false;
  auto f = td::trace([&](Tensor x) {
    Tensor y = x * 2.f;
    if (wait) {
      step.arrive_and_wait();
      step.arrive_and_wait();
    }
    return y * captured;
  });
  f(td::ones({4}));
  f(td::ones({4}));
  wait = true;
  Tensor result;
  std::thread other([&] { result = f(td::ones({4})); });
  step.arrive_and_wait();
  captured = td::full({4}, 5.f);  // the old one dies here
  std::vector<Tensor> more;
  for (int i = 0; i < 8; ++i) more.push_back(td::full({4}, 100.f));  // would take its address
  step.arrive_and_wait();
  other.join();
  CHECK(result.to_vector<float>() == std::vector<float>(4, 10.f));
  wait = false;
  CHECK(f(td::ones({4})).to_vector<float>() == std::vector<float>(4, 10.f));
}

TEST_CASE("threads: values of a call that another thread copies and drops meanwhile", "[tracer][threads]") {
  // The call's own thread drops lent values without a locked instruction where nobody else can hold them.
  std::atomic<Tensor*> box{nullptr};
  std::atomic<bool> over{false};
  std::thread other([&] {
    while (!over) {
      Tensor* taken = box.exchange(nullptr);
      if (!taken) continue;
      for (int i = 0; i < 50; ++i) const Tensor copy = *taken;
      delete taken;
    }
  });
  const Tensor w = td::full({4}, 2.f).requires_grad_();
  auto f = td::trace([&](const Tensor& x) {
    Tensor y = x;
    for (int i = 0; i < 8; ++i) {
      y = y * w;
      delete box.exchange(new Tensor(y));
      for (int k = 0; k < 20; ++k) const Tensor copy = y;
    }
    w.zero_grad();
    y.sum().backward();
    delete box.exchange(new Tensor(w.grad()));
    return y;
  });
  for (int i = 0; i < 200; ++i) {
    const std::vector<float> y = f(td::full({4}, 1.f)).to_vector<float>();
    const std::vector<float> g = w.grad().to_vector<float>();
    if (y != std::vector<float>(4, 256.f) || g != std::vector<float>(4, 8 * 128.f)) FAIL("call " << i);
  }
  over = true;
  other.join();
  delete box.exchange(nullptr);
}

TEST_CASE("threads: reports may be asked while others call", "[tracer][threads]") {
  const Tensor w = td::ones({8});
  auto f = td::trace([&](Tensor x) { return (x * w).sum(); });
  std::atomic<bool> done = false;
  std::thread asks([&] {
    while (!done) {
      CHECK(f.report().calls >= 0);
      CHECK(f.graph().size() < 100000);
    }
  });
  on_threads(2, [&](int t) {
    for (int i = 0; i < 200; ++i) f(td::full({8}, float(t + i)));
  });
  done = true;
  asks.join();
  CHECK(f.report().calls == 400);
}
