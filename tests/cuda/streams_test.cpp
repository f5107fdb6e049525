// Streams and events: what a program sees of them, and that results never depend on them. The programs run on
// a device that is as late as it may be (lazy.h), and, to show that they would notice, without the waits.
#include <thread>

#include "tandem/core/cuda/runtime.h"
#include "tandem/core/env.h"
#include "tests/cuda/lazy.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;
using td::cuda::Event;
using td::cuda::Stream;
using td::cuda::StreamGuard;

namespace {

Tensor counting(int64_t n) { return td::arange(0, double(n)).to(kCuda); }

bool holds(const Tensor& t, float begin, float step) {
  const std::vector<float> found = t.to_vector<float>();
  for (size_t i = 0; i < found.size(); ++i)
    if (found[i] != begin + step * float(i)) return false;
  return true;
}

/// Values made on one stream, used on another, and back.
bool handed_over() {
  const Stream side;
  const Tensor x = counting(700);
  Tensor y, z;
  {
    const StreamGuard on(side);
    y = x * 2.f;
  }
  z = y + 1.f;
  {
    const StreamGuard on(side);
    y = z * 3.f;
    z = y - 3.f;
  }
  return holds(z, 0, 6) && holds(y, 3, 6);
}

/// Values changed in place on one stream while another still has to read them.
bool changed_in_place() {
  const Stream side;
  const Tensor x = counting(900);
  Tensor before;
  {
    const StreamGuard on(side);
    before = x + 0.5f;
  }
  x.mul_(2.f);
  const bool first = holds(x, 0, 2);  // runs this stream, not the other
  return holds(before, 0.5f, 1) && first;
}

/// Memory that is used again while another stream still has to read what was there.
bool used_again() {
  const Stream side;
  Tensor x = counting(1100), elsewhere;
  const void* const memory = x.impl()->data;
  {
    const StreamGuard on(side);
    elsewhere = x * 3.f;
  }
  const Tensor here = x * 2.f;
  x = Tensor();
  const Tensor other = td::full({1100}, 7.f, {.device = kCuda});
  if (!td::core::environment().cuda_exact && other.impl()->data != memory) return false;
  return holds(other, 7, 0) && holds(elsewhere, 0, 3) && holds(here, 0, 2);
}

/// Traced segments that share their intermediate memory, on streams of their own.
bool traced() {
  td::manual_seed(3);
  const auto body = [](const Tensor& a) {
    const Tensor s = td::softmax(td::matmul(a, a), 1);
    return td::matmul(s, a) + td::matmul(a, s);
  };
  auto f = td::trace(body), g = td::trace(body);
  const Stream sides[] = {Stream(), Stream()};
  std::vector<Tensor> in, out, expected;
  for (int i = 0; i < 6; ++i) in.push_back(td::rand({24, 24}).to(kCuda)), expected.push_back(body(in.back()));
  f(in[0]), g(in[0]);
  td::cuda::synchronize();
  for (size_t i = 0; i < in.size(); ++i) {
    const StreamGuard on(sides[i % 2]);
    out.push_back(i % 3 == 0 ? g(in[i]) : f(in[i]));
  }
  for (size_t i = in.size(); i-- > 0;)  // the latest first
    if (bits_of(out[i]) != bits_of(expected[i])) return false;
  return true;
}

/// Batches copied to the device on a stream of their own while the step before runs; a step changes
/// parameters.
bool prefetched() {
  td::manual_seed(4);
  std::vector<Tensor> batches;
  for (int i = 0; i < 5; ++i) batches.push_back(td::rand({8, 6}).pin_memory());
  const auto train = [&](bool ahead) {
    td::manual_seed(5);
    td::nn::Linear net(6, 3);
    net.to(kCuda);
    td::optim::SGD opt(net.parameters(), {.lr = 0.1});
    auto step = td::trace([&](const Tensor& x) {
      const Tensor loss = td::square(net(x)).sum();
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    });
    const Stream side = ahead ? Stream() : td::cuda::default_stream();
    const auto load = [&](size_t i) {
      const StreamGuard on(side);
      return batches[i % batches.size()].to(kCuda, true) * 2.f;
    };
    Tensor next = load(0);
    for (size_t i = 1; i <= batches.size() * 2; ++i) {
      const Tensor now = next;
      next = load(i);
      step(now);
    }
    return bits_of(net.parameters()[0]);
  };
  return train(true) == train(false);
}

struct Program {
  const char* name;
  bool (*run)();
};
constexpr Program kPrograms[] = {{"values handed over", handed_over},
                                 {"values changed in place", changed_in_place},
                                 {"memory used again", used_again},
                                 {"traced segments", traced},
                                 {"batches loaded ahead", prefetched}};

}  // namespace

TEST_CASE("cuda streams: no result depends on them", "[cuda]") {
  need_device();
  for (const Program& p : kPrograms) {
    CAPTURE(p.name);
    CHECK(p.run());
    const Lazy late;
    CHECK(p.run());
    CHECK(p.run());
  }
}

TEST_CASE("cuda streams: without the waits every one of these programs goes wrong", "[cuda]") {
  need_device();
  if (!simulator().there || td::core::environment().cuda_exact) return;  // a card may be quick enough
  const Lazy late;
  td::cuda::streams_wait = false;
  for (const Program& p : kPrograms) {
    CAPTURE(p.name);
    CHECK_FALSE(p.run());
    td::cuda::synchronize();
  }
  td::cuda::streams_wait = true;
}

TEST_CASE("cuda streams: a guard is this thread's, this scope's, and may stand in another", "[cuda]") {
  need_device();
  const Stream home = td::cuda::default_stream(), a, b;
  CHECK_FALSE(a == b);
  CHECK(a.device() == kCuda);
  CHECK(td::cuda::current_stream() == home);
  {
    const StreamGuard on_a(a);
    CHECK(td::cuda::current_stream() == a);
    {
      const StreamGuard on_b(b);
      CHECK(td::cuda::current_stream() == b);
      CHECK(td::cuda::current_stream().handle() == b.handle());
    }
    CHECK(td::cuda::current_stream() == a);
    bool other = false;
    std::thread([&] { other = td::cuda::current_stream() == home; }).join();
    CHECK(other);
  }
  CHECK(td::cuda::current_stream() == home);
}

TEST_CASE("cuda streams: one that nobody holds is handed out again; none leak", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  std::vector<Stream> some(3);
  some.clear();
  const auto churn = [] {
    for (int i = 0; i < 40; ++i) {
      const Stream a, b;
      const Tensor x = counting(10);
      {
        const StreamGuard on(a);
        x.mul_(2.f);
      }
      {
        const StreamGuard on(b);
        x.add_(1.f);
      }
      Event e;
      e.record(b);
      a.wait(e);
    }
  };
  churn();
  const long streams = simulator().sim_gpu_count("streams"), events = simulator().sim_gpu_count("events");
  const int64_t live = td::cuda::memory_stats().live_bytes;
  churn();
  CHECK(simulator().sim_gpu_count("streams") == streams);
  CHECK(simulator().sim_gpu_count("events") <= events + 24);  // a stream keeps eight
  churn(), churn();
  CHECK(simulator().sim_gpu_count("events") <= events + 24);
  CHECK(td::cuda::memory_stats().live_bytes == live);
}

TEST_CASE("cuda streams: synchronize, query, wait", "[cuda]") {
  need_device();
  const Stream a, b;
  a.synchronize(), b.synchronize();
  const Lazy late;
  const Tensor x = counting(50);
  td::cuda::synchronize();
  Tensor y;
  {
    const StreamGuard on(a);
    y = x * 2.f;
  }
  Event done;
  CHECK(done.query());  // never recorded
  done.synchronize();
  done.record(a);
  b.wait(done);
  b.wait(a);
  if (simulator().there) {
    CHECK_FALSE(done.query());
    CHECK_FALSE(b.query());
  }
  done.synchronize();
  CHECK(done.query());
  a.synchronize();
  CHECK(a.query());
  b.synchronize();
  CHECK(b.query());
  CHECK(holds(y, 0, 2));
}

TEST_CASE("cuda events: the time between two", "[cuda]") {
  need_device();
  const Stream side;
  Event begin(true), end(true), plain;
  CHECK_THROWS_WITH(begin.elapsed_ms(end), Contains("never recorded") && Contains("streams_test.cpp"));
  {
    const StreamGuard on(side);
    begin.record();
    counting(100).mul_(2.f);
    end.record();
  }
  plain.record();
  CHECK_THROWS_WITH(begin.elapsed_ms(plain), Contains("made without timing"));
  end.synchronize();
  CHECK(begin.elapsed_ms(end) >= 0);
  CHECK(begin.elapsed_ms(end) < 60e3);
}

TEST_CASE("cuda streams: an index out of range is told by the stream that had it, or by who reads it",
          "[cuda]") {
  need_device();
  const Lazy late;
  const Stream a, b;
  const Tensor table = counting(4);
  const Tensor bad = td::tensor({1, 7}, {.dtype = td::int64}).to(kCuda);
  auto f = td::trace([&](const Tensor& index) { return table.index_select(0, index) * 2; });
  f(td::tensor({1, 2}, {.dtype = td::int64}).to(kCuda));
  for (const bool in_trace : {false, true}) {
    CAPTURE(in_trace);
    Tensor picked;
    {
      const StreamGuard on(a);
      picked = in_trace ? f(bad) : table.index_select(0, bad);
    }
    b.synchronize();
    CHECK(holds(table, 0, 1));  // reads on the default stream, which has nothing to do with it
    CHECK_THROWS_WITH(a.synchronize(), Contains("index_select") && Contains("streams_test.cpp"));
    a.synchronize();
    {
      const StreamGuard on(a);
      picked = in_trace ? f(bad) : table.index_select(0, bad);
    }
    CHECK_THROWS_WITH((picked + 1.f).to_vector<float>(), Contains("out of range"));
    td::cuda::synchronize();
  }
}

TEST_CASE("cuda streams: an index out of range of another thread is told to both", "[cuda]") {
  need_device();
  const Tensor table = counting(4);
  const Tensor bad = td::tensor({1, 7}, {.dtype = td::int64}).to(kCuda);
  Tensor picked;
  std::string second;
  std::atomic<int> turn{0};
  std::thread other([&] {
    picked = table.index_select(0, bad);
    turn = 1;
    while (turn != 2) std::this_thread::yield();
    try {
      td::cuda::synchronize();
    } catch (const td::Error& e) {
      second = e.what();
    }
  });
  while (turn != 1) std::this_thread::yield();
  CHECK_THROWS_WITH(picked.to_vector<float>(), Contains("out of range"));
  turn = 2;
  other.join();
  CHECK_THAT(second, Contains("out of range"));
  td::cuda::synchronize();
}

TEST_CASE("cuda streams: every call of a program on several streams may fail", "[cuda]") {
  need_device();
  const Simulator& sim = simulator();
  if (!sim.there) return;
  td::manual_seed(6);
  const auto body = [](const Tensor& a) { return td::matmul(td::softmax(td::matmul(a, a), 1), a); };
  auto f = td::trace(body);
  const Tensor x = td::rand({8, 8}).to(kCuda);
  const std::vector<char> expected = bits_of(td::add(body(x), x));
  f(x), f(x);
  const auto run = [&] {
    const Stream side;
    Tensor y;
    {
      const StreamGuard on(side);
      y = f(x);
    }
    const Tensor z = td::add(y, x);
    Event e;
    e.record(side);
    td::cuda::default_stream().wait(e);
    return bits_of(z);
  };
  run();
  const int64_t live = td::cuda::memory_stats().live_bytes;
  int reached = 0;
  for (long failing = 1; failing < 60; ++failing) {
    const Lazy late;
    sim.sim_gpu_fail_call(failing);
    bool threw = false;
    std::vector<char> found = expected;
    try {
      found = run();
    } catch (const td::Error&) {
      threw = true;
    }
    CHECK(found == expected);
    const std::string failed = sim.sim_gpu_failed_call();
    sim.sim_gpu_fail_call(0);
    if (failed.empty()) break;
    ++reached;
    CAPTURE(failing, failed, threw);
    CHECK(run() == expected);
    // With an allocation each, tensors of products move, and get a block of the graph's.
    if (!td::core::environment().cuda_exact) CHECK(td::cuda::memory_stats().live_bytes == live);
  }
  CHECK(reached > 5);
}

TEST_CASE("cuda streams: threads on streams of their own", "[cuda]") {
  need_device();
  td::manual_seed(8);
  const Tensor w = td::rand({8, 8}).to(kCuda);
  const auto body = [&](const Tensor& x) { return td::softmax(td::matmul(td::relu(x), w), 1) + x; };
  auto shared = td::trace(body);
  std::vector<Tensor> in;
  std::vector<std::vector<char>> expected;
  for (int i = 0; i < 6; ++i)
    in.push_back(td::rand({i % 3 + 2, 8}).to(kCuda)), expected.push_back(bits_of(body(in.back())));
  std::atomic<int> wrong{0};
  const auto work = [&](size_t first) {
    for (size_t turn = 0; turn < 16; ++turn) {
      const Stream side;
      const StreamGuard on(side);
      const size_t i = (turn * 3 + first) % in.size();
      wrong += bits_of(body(in[i])) != expected[i];
      wrong += bits_of(shared(in[i])) != expected[i];
    }
  };
  std::thread a(work, 0), b(work, 1);
  work(2);
  a.join();
  b.join();
  CHECK(wrong == 0);
}

TEST_CASE("cuda streams: a device that is not there is told with the line", "[cuda]") {
  CHECK_THROWS_WITH(Stream({td::DeviceType::cuda, 99}),
                    Contains("Stream: device cuda:99 is not there") && Contains("streams_test.cpp"));
}
