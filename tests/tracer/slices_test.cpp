// R8: slices of what enters a traced call, at positions that change from call to call.
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

/// Ten calls with position i; the values, and what the trace recorded.
template <class F>
Values run(bool traced, const F& body, td::TraceReport* report = nullptr) {
  const Tensor data = range(60).view({20, 3});
  Values seen;
  const auto calls = [&](auto&& f, auto&& position) {
    for (int i = 0; i < 10; ++i) {
      position = (i * 7) % 9;
      append(seen, f(data));
    }
    append(seen, data);
  };
  int position = 0;
  const auto step = [&](const Tensor& x) { return body(data, x, position); };
  if (!traced) {
    calls(step, position);
    return seen;
  }
  auto f = td::trace(step, {.compile = false});
  calls(f, position);
  if (report) *report = f.report();
  return seen;
}

template <class F>
bool same_positions(const F& body, td::TraceReport* report = nullptr) {
  return equal_bits(run(false, body), run(true, body, report));
}

}  // namespace

TEST_CASE("slices: positions of what enters are run-time values", "[tracer]") {
  td::TraceReport r;
  CHECK(same_positions(
      [](const Tensor& data, const Tensor&, int i) {
        return (data.slice(0, i, i + 4) * 2.f).sum({0}) + data[i] + data.select(1, i % 3).sum();
      },
      &r));
  CHECK(r.branches == 1);
  CHECK(r.recorded == 1);
  CHECK(r.op_by_op == 0);
  CHECK(same_positions([](const Tensor&, const Tensor& x, int i) { return td::tanh(x.slice(0, i, i + 2)); },
                       &r));
  CHECK(r.branches == 1);
  CHECK(same_positions(
      [](const Tensor& data, const Tensor&, int i) {
        const Tensor part = data.slice(0, 2 * i, 2 * i + 4, 2).t();
        return part.slice(0, 1, 3).reshape({4}) + part.select(1, -1).sum() -
               data.slice(0, -12 + i, -10 + i).sum();
      },
      &r));
  CHECK(r.branches == 1);
}

TEST_CASE("slices: a position that changes the shape is another branch", "[tracer]") {
  td::TraceReport r;
  CHECK(same_positions(
      [](const Tensor& data, const Tensor&, int i) { return data.slice(0, 2 * i, 2 * i + 6).sum({0}); }, &r));
  CHECK(r.branches <= 2 + 5);
  CHECK(same_positions([](const Tensor& data, const Tensor&, int i) {
    return i == 5 ? td::zeros({3}) : data.slice(0, i, 20).sum({0});
  }));
}

TEST_CASE("slices: moving ones of memory that the call changes", "[tracer]") {
  CHECK(same_positions([](const Tensor& data, const Tensor&, int i) {
    const Tensor part = data.slice(0, i, i + 2), before = part * 1.f;
    part.add_(1.f);
    return before + part;
  }));
  CHECK(same_positions([](const Tensor& data, const Tensor&, int i) {
    const Tensor part = data.slice(0, i, i + 2), before = part * 1.f;
    data.mul_(0.5f);
    return before + part;
  }));
  CHECK(same_positions([](const Tensor& data, const Tensor& x, int i) {
    x.select(0, 3).fill_(static_cast<float>(i));
    return data[i] * 2.f;
  }));
}

TEST_CASE("slices: moving ones that are read, returned, kept", "[tracer]") {
  CHECK(same_positions([](const Tensor& data, const Tensor&, int i) {
    const Tensor part = data.slice(0, i, i + 2);
    return part * part.sum().item<float>();
  }));
  CHECK(same([](bool traced) {
    const Tensor data = range(12);
    std::vector<Tensor> kept;
    int i = 0;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      kept.push_back(data.slice(0, i, i + 3));
      return kept.back().view({3, 1}) + x;
    });
    Values seen;
    for (i = 0; i < 8; ++i) append(seen, f(range(2)));
    data.mul_(2.f);
    for (const Tensor& t : kept) append(seen, t);
    return seen;
  }));
}

TEST_CASE("slices: those that gradients flow through stay structural", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(12).requires_grad_();
    int i = 0;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      const Tensor loss = (w.slice(0, i, i + 3) * x).sum();
      loss.backward();
      return loss;
    });
    Values seen;
    for (int n = 0; n < 9; ++n) {
      i = n * 5 % 8;
      append(seen, f(range(3, static_cast<float>(n))).detach());
      append(seen, w.grad());
    }
    return seen;
  }));
}

TEST_CASE("slices: a position out of range is an error in every call", "[tracer]") {
  const Tensor data = range(12).view({4, 3});
  int i = 0;
  auto f = td::trace([&](const Tensor& x) { return data[i] + x; }, {.compile = false});
  for (i = 0; i < 4; ++i) CHECK(f(range(3)).to_vector<float>()[0] == static_cast<float>(2 + 3 * i));
  i = 4;
  CHECK_THROWS_WITH(f(range(3)), Catch::Contains("select"));
  i = 1;
  CHECK(f(range(3)).to_vector<float>()[0] == 5.f);
}
