// Eager mode on several threads: what they read may be shared, what they write is their own.
#include <atomic>
#include <thread>

#include "tandem/core/thread_pool.h"
#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;
using Values = std::vector<float>;

namespace {

constexpr int kThreads = 3;

/// All begin at the same time.
template <class F>
void on_threads(F&& f) {
  std::atomic<int> ready = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&f, &ready, t] {
      ++ready;
      while (ready < kThreads) {
      }
      f(t);
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace

TEST_CASE("threads: one tensor is read in every way at once", "[eager][threads]") {
  const Tensor shared = td::arange(0.f, 12).view({3, 4});
  const Tensor number = td::full({}, 3.f);
  std::atomic<int> wrong = 0;
  on_threads([&](int) {
    for (int i = 0; i < 50; ++i) {
      const float* data = shared.data<float>();
      wrong += data[5] != 5 || shared.to_vector<float>()[11] != 11 || number.item<float>() != 3;
      wrong += shared.t().contiguous().to_vector<float>()[1] != 4;
      wrong += (shared * number).sum().item<float>() != 198;
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads: views follow their base on whatever thread they are read first", "[eager][threads]") {
  for (int round = 0; round < 200; ++round) {
    const Tensor a = td::full({4}, 1.f).requires_grad_();
    const Tensor base = a * 2.f;
    const Tensor view = base.view({2, 2}).t();
    base.mul_(3.f);
    std::vector<Tensor> y(kThreads);
    on_threads([&](int t) { y[size_t(t)] = (view * float(t + 1)).sum(); });
    for (const Tensor& one : y) one.backward({}, true);
    CHECK(a.grad().to_vector<float>() == Values(4, 36));
  }
}

TEST_CASE("threads: each takes gradients of its own through shared parameters", "[eager][threads]") {
  td::manual_seed(3);
  const Tensor w = td::randn({8, 8}).requires_grad_(), b = td::randn({8}).requires_grad_();
  const Tensor x = td::randn({16, 8});
  const auto gradients = [&](int k) {
    const Tensor h = td::gelu(td::matmul(x, w) + b);
    const Tensor y = td::softmax(h * float(k + 1), 1);
    const Tensor loss = (y * y + td::layer_norm(h, 1)).mean();
    const td::TensorList g = td::autograd::grad({{loss}}, {{w, b}});
    return std::pair(g[0].to_vector<float>(), g[1].to_vector<float>());
  };
  std::vector<std::pair<Values, Values>> found(kThreads);
  on_threads([&](int t) {
    for (int i = 0; i < 20; ++i) found[size_t(t)] = gradients(t);
  });
  for (int t = 0; t < kThreads; ++t) CHECK(found[size_t(t)] == gradients(t));
}

TEST_CASE("threads: one tape is walked by several threads at a time", "[eager][threads]") {
  td::manual_seed(4);
  const Tensor w = td::randn({8, 8}).requires_grad_(), x = td::randn({16, 8});
  const Tensor h = td::gelu(td::matmul(x, w)), y = td::softmax(h, 1), loss = (y * y + h).mean();
  const auto gradient = [&] { return td::autograd::grad({{loss}}, {{w}}, {}, true)[0].to_vector<float>(); };
  const Values expected = gradient();
  std::atomic<int> wrong = 0;
  on_threads([&](int) {
    for (int i = 0; i < 100; ++i) wrong += gradient() != expected;
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads: each adds to the gradient of one leaf", "[eager][threads]") {
  for (int round = 0; round < 50; ++round) {
    const Tensor w = td::ones({4}).requires_grad_();
    on_threads([&](int t) {
      for (int i = 0; i < 5; ++i) (w * float(t + 1)).sum().backward();
    });
    REQUIRE(w.grad().to_vector<float>() == Values(4, 5.f * kThreads * (kThreads + 1) / 2));
  }
}

TEST_CASE("threads: tensors are handed from thread to thread", "[eager][threads]") {
  std::atomic<Tensor*> box{nullptr};
  std::atomic<int> wrong = 0, got = 0;
  std::atomic<bool> over = false;
  std::thread other([&] {
    while (!over) {
      Tensor* taken = box.exchange(nullptr);
      if (!taken) continue;
      const Tensor y = *taken * 2.f;
      delete taken;
      wrong += y.to_vector<float>()[3] != 6;
      ++got;
    }
  });
  const Tensor w = td::ones({8}).requires_grad_();
  for (int i = 0; i < 2000; ++i) {
    const Tensor x = w * 3.f;
    delete box.exchange(new Tensor(x));
  }
  over = true;
  other.join();
  delete box.exchange(nullptr);
  CHECK(wrong == 0);
}

TEST_CASE("threads: several loaders of one data set", "[eager][threads]") {
  const Tensor x = td::arange(0.f, 64).view({32, 2}), y = td::arange(0.f, 32);
  const auto set = std::make_shared<td::data::TensorDataset>(x, y);
  std::atomic<int> wrong = 0;
  on_threads([&](int t) {
    td::data::DataLoader loader(std::shared_ptr<const td::data::Dataset>(set),
                                {.batch_size = 3, .shuffle = true, .seed = uint64_t(t), .workers = 2});
    for (int epoch = 0; epoch < 5; ++epoch) {
      int64_t sum = 0, count = 0;
      for (const auto& [bx, by] : loader) {
        for (const int64_t v : by.to_vector<int64_t>()) sum += v;
        count += bx.sizes()[0];
        if (epoch == 3 && count > 9) break;
      }
      wrong += epoch != 3 && (sum != 31 * 16 || count != 32);
    }
  });
  CHECK(wrong == 0);
}

TEST_CASE("threads: the number of threads changes while others compute", "[eager][threads]") {
  const int before = td::num_threads();
  std::atomic<int> wrong = 0;
  const Tensor big = td::ones({1 << 16});
  on_threads([&](int t) {
    for (int i = 0; i < 60; ++i) {
      if (t == 0) td::set_num_threads(1 + i % 4);
      wrong += (td::exp(big * 0.f) + big).sum().item<float>() != float(2 << 16);
      wrong += td::matmul(big.view({256, 256}), big.view({256, 256})).data<float>()[7] != 256;
    }
  });
  td::set_num_threads(before);
  CHECK(wrong == 0);
}
