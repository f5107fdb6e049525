// Pinned memory and copies that the host does not wait for: reading or changing either side waits by itself.
// On a device that is as late as it may be.
#include "tandem/core/cuda/pinned.h"

#include "tandem/core/cuda/stream_order.h"
#include "tests/core/scratch_folder.h"
#include "tests/cuda/lazy.h"
#include "tests/cuda/on_device.h"

namespace td = tandem;
using namespace tandem::test;
using td::Tensor;
using td::cuda::Stream;
using td::cuda::StreamGuard;

namespace {

Tensor pinned_range(int64_t n) { return td::arange(0, double(n)).pin_memory(); }

std::vector<float> range(int64_t n, float begin = 0) {
  std::vector<float> out;
  for (int64_t i = 0; i < n; ++i) out.push_back(begin + float(i));
  return out;
}

}  // namespace

TEST_CASE("cuda pinned: a tensor in pinned memory is one of the host", "[cuda]") {
  need_device();
  const Tensor x = td::arange(0.f, 6).reshape({2, 3});
  CHECK_FALSE(x.is_pinned());
  const Tensor p = x.transpose(0, 1).pin_memory();
  CHECK(p.is_pinned());
  CHECK(p.device() == td::cpu);
  CHECK(p.pin_memory().impl() == p.impl());
  CHECK(p[1].is_pinned());
  CHECK(p.to_vector<float>() == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(td::add(p, p).to_vector<float>()[5] == 10);
  CHECK_FALSE(td::add(p, p).is_pinned());
  CHECK(td::zeros({3}, {.pin_memory = true}).is_pinned());
  CHECK(td::empty({0}).pin_memory().numel() == 0);
  const Tensor on = x.to(kCuda);
  CHECK_FALSE(on.is_pinned());
  CHECK_THROWS_WITH(on.pin_memory(), Contains("pin_memory: a tensor of the host") && Contains("cuda:0"));
  const Tensor w = td::ones({2}).requires_grad_();
  (w.pin_memory().to(kCuda, true) * 3.f).sum().backward();
  CHECK(w.grad().to_vector<float>() == std::vector<float>{3, 3});
}

namespace {

bool changed_source() {
  const Tensor p = pinned_range(300);
  const Tensor on = p.to(kCuda, true);
  p.add_(1000.f);  // in place on the host
  return on.to_vector<float>() == range(300) && p.to_vector<float>() == range(300, 1000);
}

bool changed_by_pointer() {
  const Tensor p = pinned_range(300);
  const Tensor on = p.to(kCuda, true);
  p.data<float>()[0] = -1;  // the copy is over when the pointer is handed out
  return on.to_vector<float>() == range(300);
}

bool sources_that_die() {
  std::vector<Tensor> on;
  for (int i = 0; i < 4; ++i) on.push_back((td::arange(0.f, 200) + float(i)).pin_memory().to(kCuda, true));
  for (size_t i = 0; i < on.size(); ++i)
    if (on[i].to_vector<float>() != range(200, float(i))) return false;
  return true;
}

/// Values that no block holds from another call.
float fresh_values() {
  static float last = 0;
  return last += 1000;
}

bool read_back() {
  const float first = fresh_values();
  return (td::arange(0.f, 400).to(kCuda) + first).to(td::cpu, true).to_vector<float>() == range(400, first);
}

bool computed_with() {
  const float first = fresh_values();
  const Tensor y = td::arange(0.f, 400).to(kCuda) + first;
  return (y.to(td::cpu, true) + 1.f).to_vector<float>() == range(400, first + 1);
}

bool traced_with() {
  auto f = td::trace([](const Tensor& x) { return x * 2.f + 1.f; });
  bool right = true;
  for (int i = 0; i < 3; ++i) {
    const float first = fresh_values();
    right &=
        f((td::arange(0.f, 9).to(kCuda) + first).to(td::cpu, true)).to_vector<float>()[4] == 2 * first + 9;
  }
  return right;
}

}  // namespace

TEST_CASE("cuda pinned: no result depends on when copies run, and without the waits all would", "[cuda]") {
  need_device();
  const Lazy late;
  for (const bool wait : {true, false}) {
    if (!wait && !simulator().there) break;  // a card may be quick enough
    td::cuda::streams_wait = wait;
    for (bool (*const program)() :
         {changed_source, changed_by_pointer, sources_that_die, read_back, computed_with, traced_with}) {
      CHECK(program() == wait);
      td::cuda::synchronize();
    }
  }
  td::cuda::streams_wait = true;
}

TEST_CASE("cuda pinned: a copy that is waited for is over when it returns", "[cuda]") {
  need_device();
  const Lazy late;
  const Tensor p = pinned_range(8);
  float* const values = p.data<float>();
  const Tensor on = p.to(kCuda);
  values[1] = -1;
  CHECK(on[1].item<float>() == 1);
}

TEST_CASE("cuda pinned: a copy to the host is pinned, and who reads it waits", "[cuda]") {
  need_device();
  const Lazy late;
  const Tensor on = td::arange(0.f, 250).to(kCuda) * 2.f;
  const auto copy = [&] { return on.to(td::cpu, true); };
  CHECK(copy().is_pinned());
  CHECK(copy().to_vector<float>()[200] == 400);
  CHECK(copy()[7].item<float>() == 14);
  CHECK((copy() + 1.f).to_vector<float>()[3] == 7);  // a short op
  CHECK(copy().sum().item<double>() == 62250);
  const Tensor a = copy();
  CHECK(td::matmul(a.reshape({1, 250}), td::ones({250, 1})).item<double>() == 62250);
  const Tensor b = copy();
  CHECK(b.data<float>()[9] == 18);
  const Tensor c = copy();
  c.mul_(3.f);
  CHECK(c[5].item<float>() == 30);
  const Tensor d = copy();
  CHECK((d.to(kCuda, true) + 1.f).to_vector<float>()[100] == 201);  // and back
  auto f = td::trace([](const Tensor& x) { return x * 2.f + 1.f; });
  for (int i = 0; i < 3; ++i) CHECK(f(copy()).to_vector<float>()[10] == 41);
  const ScratchFolder folder;
  td::data::write_npy(folder / "x.npy", copy());
  CHECK(td::data::read_npy(folder / "x.npy")[249].item<float>() == 498);
  const Tensor e = copy();
  const Tensor g = e.pin_memory().clone();
  CHECK(g[11].item<float>() == 22);
}

TEST_CASE("cuda pinned: an index out of range is told by who reads the copy", "[cuda]") {
  need_device();
  const Lazy late;
  const Tensor table = td::arange(0.f, 4).to(kCuda);
  const Tensor bad = td::tensor({1, 7}, {.dtype = td::int64}).to(kCuda);
  const Tensor copy = table.index_select(0, bad).to(td::cpu, true);
  CHECK_THROWS_WITH(copy.to_vector<float>(), Contains("index_select") && Contains("pinned_test.cpp"));
  td::cuda::synchronize();
}

TEST_CASE("cuda pinned: who reads a copy waits for nothing behind it, though an index may be out of range",
          "[cuda]") {
  need_device();
  if (!simulator().there) return;  // a card may have done all by then
  const Tensor table = td::arange(0.f, 4).to(kCuda);
  const auto at = [](int64_t i) { return td::tensor({int64_t{1}, i}, {.dtype = td::int64}).to(kCuda); };
  const Tensor good = at(3), bad = at(9);
  const auto run = [&] {
    const Lazy late;
    const Tensor copy = table.index_select(0, good).to(td::cpu, true);
    const Tensor failing = table.index_select(0, bad);
    const Tensor behind = (failing * 2.f).to(td::cpu, true);
    const long launches = simulator().sim_gpu_count("launches");
    CHECK(copy.to_vector<float>() == std::vector<float>{1, 3});
    CHECK(!td::cuda::current_stream().query());
    CHECK(simulator().sim_gpu_count("launches") <= launches + 1);
    CHECK_THROWS_WITH(behind.to_vector<float>(), Contains("index_select") && Contains("pinned_test.cpp"));
    td::cuda::synchronize();
  };
  run();
  const Stream second;
  run();
  const StreamGuard on(second);
  run();
}

TEST_CASE("cuda pinned: an index out of range is told, though the step runs again meanwhile", "[cuda]") {
  need_device();
  const Lazy late;
  const Stream side;
  const Tensor table = td::arange(0.f, 4).to(kCuda);
  const auto at = [](int64_t i) { return td::tensor({int64_t{1}, i}, {.dtype = td::int64}).to(kCuda); };
  auto f = td::trace([&](const Tensor& index) { return table.index_select(0, index) * 2; });
  f(at(2));
  const Tensor good = at(3), bad = at(9);
  td::cuda::synchronize();
  const Tensor y = f(bad);
  Tensor copy;
  {
    const StreamGuard guard(side);
    copy = y.to(td::cpu, true);
  }
  const Tensor next = f(good);
  CHECK_THROWS_WITH(copy.to_vector<float>(), Contains("index_select"));
  try {
    td::cuda::synchronize();  // may tell it again: the word was not cleared while the step ran
  } catch (const td::Error&) {
  }
  td::cuda::synchronize();
  CHECK(next.to_vector<float>() == std::vector<float>{2, 6});
}

TEST_CASE("cuda pinned: copies on streams of their own", "[cuda]") {
  need_device();
  const Lazy late;
  const Stream in, out;
  const Tensor p = pinned_range(400);
  Tensor on, back;
  {
    const StreamGuard guard(in);
    on = p.to(kCuda, true);
  }
  const Tensor y = on + 1.f;
  {
    const StreamGuard guard(out);
    back = y.to(td::cpu, true);
  }
  y.mul_(2.f);
  CHECK(back.to_vector<float>() == range(400, 1));
  {
    const StreamGuard guard(out);
    back = y.to(td::cpu, true);
  }
  const Tensor there = back.to(kCuda, true);  // on another stream than the copy that it follows
  CHECK(there[3].item<float>() == 8);
}

TEST_CASE("cuda pinned: blocks are used again when their copies are done; none leak", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  td::cuda::synchronize();
  td::cuda::empty_cache();
  const auto before = td::cuda::pinned_stats();
  const long blocks = simulator().sim_gpu_count("host_allocations");
  {
    const Lazy late;
    for (int i = 0; i < 6; ++i) {
      const Tensor on = pinned_range(500).to(kCuda, true);
      if (i % 2) td::cuda::synchronize();
    }
    CHECK(simulator().sim_gpu_count("host_allocations") > blocks);
  }
  td::cuda::synchronize();
  CHECK(td::cuda::pinned_stats().live_bytes == before.live_bytes);
  const long now = simulator().sim_gpu_count("host_allocations"),
             events = simulator().sim_gpu_count("events");
  for (int i = 0; i < 20; ++i) pinned_range(500).to(kCuda, true);
  CHECK(simulator().sim_gpu_count("host_allocations") == now);
  CHECK(simulator().sim_gpu_count("events") == events);
  td::cuda::synchronize();
  td::cuda::empty_cache();
  CHECK(td::cuda::pinned_stats().cached_bytes == 0);
  CHECK(simulator().sim_gpu_count("host_allocations") <= blocks);
}

TEST_CASE("cuda pinned: every call of copies there and back may fail", "[cuda]") {
  need_device();
  const Simulator& sim = simulator();
  if (!sim.there) return;
  const Tensor p = pinned_range(64);
  const auto run = [&] {
    const Tensor on = td::arange(0.f, 64).pin_memory().to(kCuda, true);
    const Tensor back = (on + p.to(kCuda, true)).to(td::cpu, true);
    return back.to_vector<float>()[63];
  };
  CHECK(run() == 126);
  int reached = 0;
  for (long failing = 1; failing < 60; ++failing) {
    const Lazy late;
    sim.sim_gpu_fail_call(failing);
    float found = 126;
    try {
      found = run();
    } catch (const td::Error&) {
    }
    const std::string failed = sim.sim_gpu_failed_call();
    sim.sim_gpu_fail_call(0);
    if (failed.empty()) break;
    ++reached;
    CAPTURE(failing, failed);
    CHECK(found == 126);
    CHECK(run() == 126);
  }
  CHECK(reached > 5);
}

TEST_CASE("cuda pinned: inside a traced step", "[cuda]") {
  need_device();
  const Lazy late;
  td::manual_seed(3);
  const Tensor w = td::rand({4, 4}).to(kCuda);
  auto f = td::trace([&](const Tensor& host) { return td::matmul(host.to(kCuda, true), w) * 2.f; });
  for (int i = 0; i < 4; ++i) {
    const Tensor x = td::rand({3, 4}).pin_memory();
    CHECK(bits_of(f(x)) == bits_of(td::matmul(x.to(kCuda), w) * 2.f));
  }
  CHECK(f.report().recorded == 1);
}

TEST_CASE("cuda pinned: a loader's batches", "[cuda]") {
  need_device();
  const Tensor x = td::arange(0.f, 12).reshape({6, 2}), y = td::arange(0.f, 6);
  td::data::DataLoader loader(td::data::TensorDataset(x, y), {.batch_size = 4, .pin_memory = true});
  int64_t rows = 0;
  for (const auto& [a, b] : loader) {
    CHECK(a.is_pinned());
    CHECK(b.is_pinned());
    CHECK(a.to(kCuda, true)[0][0].item<float>() == float(2 * rows));
    rows += a.size(0);
  }
  CHECK(rows == 6);
}
