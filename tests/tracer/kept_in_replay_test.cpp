// What checked replay keeps of captured tensors from call to call: it is used only while the tensors that
// stand in their places, and their elements, are those that it was made of; results are eager mode's bit for
// bit.
#include <thread>

#include "tandem/core/allocator.h"
#include "tandem/tandem.h"
#include "tests/tracer/kept_programs.h"
#include "tests/tracer/scarce_memory.h"

using namespace programs;

namespace {

constexpr int kWarm = 7;  // calls after which something is kept, if tensors last

struct Kept : Inference {
  using Inference::Inference;
  int64_t kept() const { return traced.report().kept_bytes; }
  bool same(int64_t n = 5) { return Inference::same(traced, n); }
  /// So many calls that something is kept.
  bool warm(int64_t n = 5) {
    bool all = true;
    for (int i = 0; i < kWarm; ++i) all = same(n) && all;
    return all && kept() > 0;
  }
};

}  // namespace

TEST_CASE("checked replay keeps what is made of captured tensors that last", "[kept]") {
  td::manual_seed(1);
  Kept f;
  for (int i = 0; i < 4; ++i) CHECK(f.same());
  CHECK(f.kept() == 0);
  CHECK(f.warm());
  const int64_t kept = f.kept();
  CHECK(kept >= 4 * (20 * 80 + 70 * 32));  // two matrices in panels
  CHECK(kept < 8 * (20 * 80 + 70 * 32));
  CHECK(has(to_string(f.traced.report()), "kept of captured tensors"));
  CHECK(has(f.traced.code(), "kept from call to call"));
  for (int i = 0; i < 3; ++i) CHECK(f.same());
  CHECK(f.kept() == kept);
  CHECK(f.traced.report().plans == 1);
  CHECK(f.traced.check(rows(70)).defined());
}

TEST_CASE("checked replay: what is kept follows every change of what it is made of", "[kept]") {
  td::manual_seed(2);
  Kept f;
  REQUIRE(f.warm());
  const auto followed = [&](const char* how) {
    CAPTURE(how);
    CHECK(f.same());
    CHECK(f.kept() == 0);
    CHECK(f.warm());
  };
  f.net.hidden.weight.mul_(2);
  followed("in place");
  f.net.out.weight.narrow(0, 3, 2).fill_(0.5);
  followed("through a view");
  td::Tensor alias = f.net.hidden.weight.detach();
  alias.copy_(td::randn({70, 20}));
  followed("through another tensor of the same memory");
  {
    const td::EnableGrad grad;
    td::optim::SGD opt(f.net.parameters(), {.lr = 0.1});
    auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) {
      const td::Tensor loss = td::cross_entropy(f.net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
    });
    const td::Tensor y = td::randint(0, 17, {5}, {.dtype = td::int64});
    for (int i = 0; i < 10; ++i) step(rows(60 + i), y);
    CHECK(step.report().kept_bytes == 0);
    CHECK_FALSE(has(step.code(), "kept from call to call"));
  }
  followed("a traced step");
}

TEST_CASE("checked replay keeps for the tensor that is bound, wherever its memory lies", "[kept]") {
  td::manual_seed(3);
  const td::NoGrad no_grad;
  td::Tensor w = td::randn({24, 20});
  auto traced = td::trace([&](const td::Tensor& x) { return td::linear(x, w); });
  const auto same = [&](int i) {
    Values got, want;
    append(got, traced(rows(i)));
    append(want, td::linear(rows(i), w));
    return equal_bits(got, want);
  };
  for (int i = 0; i < kWarm; ++i) REQUIRE(same(i));
  REQUIRE(traced.report().kept_bytes > 0);
  SECTION("another tensor at the same address, as often changed") {
    [[maybe_unused]] int moved = 0;
    for (int i = 0; i < 20; ++i) {
      const void* const before = w.impl()->data;
      w = td::Tensor();
      REQUIRE(traced.report().kept_bytes == 0);  // gone with it
      w = td::randn({24, 20});
      moved += w.impl()->data != before;
      REQUIRE(same(i));
      REQUIRE(traced.report().kept_bytes == 0);
    }
#ifdef TANDEM_TEST_SCARCE_MEMORY  // else memory is a sanitizer's, which does not give it again
    CHECK(moved < 20);
#endif
    CHECK(traced.report().recorded == 1);
  }
  SECTION("two tensors in turn") {
    td::Tensor other = td::randn({24, 20});
    for (int i = 0; i < 12; ++i) {
      std::swap(w, other);
      REQUIRE(same(i));
    }
    CHECK(traced.report().kept_bytes == 0);
  }
  SECTION("a view of it at another place") {
    const td::Tensor all = td::randn({48, 20});
    for (int i = 0; i < 3; ++i) {
      w = all.narrow(0, 8 * i, 24);
      for (int k = 0; k < kWarm; ++k) REQUIRE(same(i));
      CHECK(traced.report().kept_bytes > 0);
    }
  }
  SECTION("its address is asked for, and written through") {
    float* const p = w.data<float>();
    for (int i = 0; i < 2 * kWarm; ++i) {
      p[i] += 1;
      REQUIRE(same(i));
      REQUIRE(traced.report().kept_bytes == 0);
    }
  }
}

TEST_CASE("checked replay: captured tensors that change do not hinder those that last", "[kept]") {
  td::manual_seed(4);
  Classifier net;
  net.eval();
  const td::NoGrad no_grad;
  td::Tensor batch = rows(0);
  td::Tensor total = td::zeros({17});
  auto traced = td::trace([&] {
    const td::Tensor y = net.forward(batch);
    total.add_(y.sum(0));
    return y;
  });
  Values want_total = Values(17, 0.f);
  for (int i = 0; i < 3 * kWarm; ++i) {
    if (i % 2) batch = rows(i);
    Values got, want;
    append(got, traced());
    const td::Tensor y = net.forward(batch);
    append(want, y);
    REQUIRE(equal_bits(got, want));
    const Values sums = y.sum(0).to_vector<float>();
    for (size_t k = 0; k < sums.size(); ++k) want_total[k] += sums[k];
  }
  CHECK(traced.report().kept_bytes > 0);
  CHECK(equal_bits(total.to_vector<float>(), want_total));
}

TEST_CASE("checked replay: a tensor that stops lasting is not waited for", "[kept]") {
  td::manual_seed(11);
  const td::NoGrad no_grad;
  td::Tensor v = td::randn({24, 20});
  const td::Tensor w = td::randn({24, 20});
  auto traced =
      td::trace([&](const td::Tensor& x) { return td::linear(x, v) + td::linear(x, w); }, {.compile = false});
  const auto same = [&](int i) {
    Values got, want;
    append(got, traced(rows(i)));
    append(want, td::linear(rows(i), v) + td::linear(rows(i), w));
    return equal_bits(got, want);
  };
  for (int i = 0; i < kWarm; ++i) REQUIRE(same(i));
  const int64_t both = traced.report().kept_bytes;
  REQUIRE(both > 0);
  for (int i = 0; i < 200; ++i) {
    v.mul_(-1);
    REQUIRE(same(i));
  }
  CHECK(traced.report().kept_bytes == both / 2);
}

TEST_CASE("checked replay keeps nothing of what the call itself changes", "[kept]") {
  td::manual_seed(5);
  const td::NoGrad no_grad;
  td::Tensor w = td::randn({24, 20}), v = w.clone();
  const bool behind_a_read = GENERATE(false, true);
  auto traced = td::trace([&](const td::Tensor& x) {
    const td::Tensor y = td::linear(x, w);
    if (behind_a_read && y.sum().item<float>() == 12345.f) return y;
    w.mul_(1.5f);
    return y + td::linear(x, w);
  });
  for (int i = 0; i < 3 * kWarm; ++i) {
    Values got, want;
    append(got, traced(rows(i)));
    const td::Tensor y = td::linear(rows(i), v);
    v.mul_(1.5f);
    append(want, y + td::linear(rows(i), v));
    REQUIRE(equal_bits(got, want));
  }
  CHECK(traced.report().kept_bytes == 0);
}

TEST_CASE("one signature of a trace keeps at a time", "[kept]") {
  td::manual_seed(6);
  Kept f;
  REQUIRE(f.warm(5));
  const int64_t of_five = f.kept();
  REQUIRE(f.warm(9));
  CHECK(f.kept() == of_five);  // the same matrices: those of five rows were let go
  REQUIRE(f.warm(5));
  CHECK(f.kept() == of_five);
  for (int i = 0; i < 30; ++i) REQUIRE((f.same(5) && f.same(9) && f.same(11)));
  CHECK(f.kept() <= of_five);
  f.net.hidden.weight.mul_(3);
  REQUIRE((f.same(5) && f.same(9) && f.same(11)));
  CHECK(f.kept() == 0);
}

TEST_CASE("checked replay keeps on several threads", "[kept]") {
  td::manual_seed(7);
  Kept f;
  std::vector<Values> want;
  for (int i = 0; i < 8; ++i) append(want.emplace_back(), f.net.forward(rows(i)));
  const auto wrong = [&] {
    std::atomic<int> n = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back([&] {
        const td::NoGrad no_grad;
        for (int i = 0; i < 40; ++i) {
          Values got;
          append(got, f.traced(rows(i % 8)));
          n += !equal_bits(got, want[static_cast<size_t>(i % 8)]);
        }
      });
    for (std::thread& t : threads) t.join();
    return n.load();
  };
  CHECK(wrong() == 0);
  CHECK(f.kept() > 0);
  f.net.out.weight.mul_(2);
  for (int i = 0; i < 8; ++i) {
    want[static_cast<size_t>(i)].clear();
    append(want[static_cast<size_t>(i)], f.net.forward(rows(i)));
  }
  CHECK(wrong() == 0);
}

TEST_CASE("an error in a run with kept values names its op and line", "[kept]") {
  td::manual_seed(8);
  LookUp body;
  auto traced = td::trace([&](const td::Tensor& x, const td::Tensor& index) { return body(x, index); });
  const td::Tensor good = LookUp::index(3);
  for (int i = 0; i < kWarm; ++i) traced(rows(i), good);
  REQUIRE(traced.report().kept_bytes > 0);
  const std::string error = error_of([&] { traced(rows(0), LookUp::index(7)); });
  CAPTURE(error);
  CHECK(has(error, "out of range"));
  CHECK(has(error, here(body.line, "kept_programs.h")));
  Values got, want;
  append(got, traced(rows(1), good));
  append(want, body(rows(1), good));
  CHECK(equal_bits(got, want));
}

TEST_CASE("checked replay keeps in the evaluator, under verify and with gradients", "[kept]") {
  td::manual_seed(9);
  SECTION("evaluator") {
    Kept f({.compile = false});
    CHECK(f.warm());
  }
  SECTION("verify") {
    Kept f({.verify = -1});
    CHECK(f.warm());
    CHECK(f.traced.report().verified == kWarm);
  }
  SECTION("no more than is allowed") {
    Kept none({.max_kept_bytes = 0}), few({.max_kept_bytes = 4 * 20 * 80}), all({.max_kept_bytes = 1 << 16});
    CHECK_FALSE(none.warm());
    CHECK_FALSE(few.warm());
    CHECK(all.warm());
    for (const auto* f : {&none, &few}) {
      const td::FrozenFunction frozen = f->traced.freeze();
      for (int i = 0; i < 4; ++i) frozen({rows(i)});
      CHECK(frozen.report().kept_bytes == 0);
    }
  }
  SECTION("debug keeps nothing: no plan runs") {
    Kept f({.debug = true});
    CHECK_FALSE(f.warm());
    CHECK(f.kept() == 0);
  }
  SECTION("gradients of frozen layers' inputs") {
    td::nn::Linear fixed(20, 24);
    for (const td::Tensor& p : fixed.parameters()) td::Tensor(p).requires_grad_(false);
    td::Tensor x = rows(3).requires_grad_();
    auto traced = td::trace([&] {
      x.set_grad(td::Tensor());
      const td::Tensor loss = td::relu(fixed.forward(x)).sum();
      loss.backward();
      return loss;
    });
    for (int i = 0; i < 2 * kWarm; ++i) {
      Values got, want;
      append(got, traced());
      append(got, x.grad());
      td::Tensor y = x.detach().requires_grad_();
      const td::Tensor loss = td::relu(fixed.forward(y)).sum();
      loss.backward();
      append(want, loss);
      append(want, y.grad());
      REQUIRE(equal_bits(got, want));
      if (i == kWarm) {
        const td::NoGrad no_grad;
        fixed.weight.add_(1);
      }
    }
    CHECK(traced.report().kept_bytes > 0);
  }
}

#ifdef TANDEM_TEST_SCARCE_MEMORY
TEST_CASE("checked replay goes on where there is no memory to keep anything", "[kept]") {
  td::manual_seed(10);
  const td::NoGrad no_grad;
  td::nn::Linear wide(2048, 4096);
  auto traced = td::trace([&](const td::Tensor& x) { return wide.forward(x); });
  const td::Tensor x = td::randn({6, 2048});
  const Values want = wide.forward(x).to_vector<float>();
  const tandem::test::LogCapture log;
  for (int i = 0; i < 2 * kWarm; ++i) {
    td::core::empty_cache();
    const tandem::test::ScarceMemory scarce(8 << 20);
    REQUIRE(traced(x).to_vector<float>() == want);
  }
  CHECK(log.warned("nothing is kept of captured tensors"));
  CHECK(traced.report().kept_bytes == 0);
}

TEST_CASE("checked replay lets go of what it keeps where a call's results need the memory", "[kept]") {
  td::manual_seed(12);
  const td::NoGrad no_grad;
  td::nn::Linear wide(2048, 4096);
  auto traced =
      td::trace([&](const td::Tensor& x, const td::Tensor& y) { return y + wide.forward(x).sum(); });
  const td::Tensor x = td::randn({6, 2048}), y = td::randn({10 << 20});
  const Values want = (y + wide.forward(x).sum()).to_vector<float>();
  for (int i = 0; i < kWarm; ++i) traced(x, y);
  REQUIRE(traced.report().kept_bytes > 24 << 20);
  const tandem::test::LogCapture log;
  td::core::empty_cache();
  td::Tensor got;
  {
    const tandem::test::ScarceMemory scarce(16 << 20);
    got = traced(x, y);
  }
  CHECK(got.to_vector<float>() == want);
  CHECK(log.warned("nothing is kept of captured tensors"));
  CHECK(traced.report().kept_bytes == 0);
}
#endif
