// Histories of tensors that share memory, and what tensors say of their histories, in traced calls.
#include "tandem/core/allocator.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace {

/// Five calls of `body` with new arguments; afterwards the weight's gradient, and results with their
/// histories.
template <class F>
bool same_calls(F body) {
  return same([&](bool traced) {
    const Tensor w = range(4).requires_grad_();
    Values seen;
    const auto step = [&](const Tensor& x) { return body(x, w, seen); };
    const auto f = wrapped(traced, step);
    std::vector<Tensor> kept;
    for (int i = 0; i < 5; ++i) {
      const Tensor r = f(range(4, static_cast<float>(i)));
      append(seen, r.detach());
      seen.push_back(r.requires_grad());
      seen.push_back(r.is_leaf());
      append(seen, w.grad());
      kept.push_back(r);
    }
    for (const Tensor& r : kept)
      if (r.requires_grad()) r.sum().backward();
    append(seen, w.grad());
    return seen;
  });
}

}  // namespace

TEST_CASE("traced: in-place ops on views and bases", "[tracer]") {
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values&) {
    const Tensor t = x * w, v = t.slice(0, 1, 3);
    v.mul_(3.f);
    return t;
  }));
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values&) {
    const Tensor out = td::zeros({4}), other = out.view({2, 2});
    out.slice(0, 0, 2).copy_((w * x).slice(0, 1, 3));
    other.select(0, 1).fill_(2.f);
    return other.t();
  }));
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values&) {
    const Tensor t = x * w * 1.5f, v = t.view({2, 2}).t();
    t.mul_(3.f).add_(w);
    (v * v).sum().backward({}, true);
    return v;
  }));
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values&) {
    const Tensor t = x * w * 1.5f, v = t.slice(0, 0, 2);
    v.add_(w.slice(0, 2, 4));
    if (t.sum().item<float>() > 5.f) v.mul_(2.f);
    t.sum().backward();
    return x;
  }));
}

TEST_CASE("traced: views that leave the call follow each other", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_();
    std::vector<Tensor> parts(2);
    const auto f = wrapped(traced, [&](const Tensor& x) {
      const Tensor t = x * w;
      parts = {t.slice(0, 0, 3), t.slice(0, 1, 4).view({3})};
      return x;
    });
    Values seen;
    for (int i = 0; i < 4; ++i) {
      f(range(4, static_cast<float>(i)));
      parts[0].mul_(3.f);
      seen.push_back(parts[1].requires_grad());
      parts[1].sum().backward();
      append(seen, w.grad());
      append(seen, parts[1].detach());
    }
    return seen;
  }));
}

TEST_CASE("traced: accumulators changed in place say the same of their history", "[tracer]") {
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values& seen) {
    Tensor loss = td::zeros({});
    seen.push_back(loss.requires_grad());
    loss += (w * x).sum();
    seen.push_back(loss.requires_grad());
    seen.push_back(loss.is_leaf());
    loss.backward({}, true);
    return loss;
  }));
  CHECK(same_calls([](const Tensor& x, const Tensor& w, Values& seen) {
    const Tensor y = x * w, d = y.detach();
    seen.push_back(y.is_leaf());
    seen.push_back(d.is_leaf());
    if (!y.is_leaf() && !d.requires_grad()) return y * 2.f;
    return d;
  }));
}

TEST_CASE("traced: a captured tensor gets a history", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_();
    Tensor state = td::zeros({4});
    const auto f = wrapped(traced, [&](const Tensor& x) {
      state.mul_(0.5f).add_(w * x);
      return state * 2.f;
    });
    Values seen;
    for (int i = 0; i < 6; ++i) {
      const Tensor r = f(range(4, static_cast<float>(i)));
      seen.push_back(state.requires_grad());
      seen.push_back(state.is_leaf());
      append(seen, r.detach());
      if (i % 2) {
        r.sum().backward();
        append(seen, w.grad());
        state = td::zeros({4});
      }
    }
    return seen;
  }));
}

TEST_CASE("traced: what detach() gives of changed memory is saved as it is then", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_();
    const auto f = wrapped(traced, [&](Tensor x) {
      x.mul_(2.f);
      return td::tanh(w) * x.detach();
    });
    Values seen;
    for (int i = 0; i < 4; ++i) {
      f(range(4, static_cast<float>(i))).sum().backward();
      append(seen, w.grad());
    }
    return seen;
  }));
}

TEST_CASE("traced: histories change outside between calls", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_(), v = range(4, 2).requires_grad_();
    const Tensor buffer = td::ones({4}), part = buffer.slice(0, 0, 2);
    const auto f =
        wrapped(traced, [&](const Tensor& x) { return (x.slice(0, 0, 2) * part).sum() + x.sum() * w.sum(); });
    Values seen;
    for (int i = 0; i < 6; ++i) {
      if (i == 2) buffer.add_(v);
      if (i == 4) buffer.slice(0, 1, 3).mul_(2.f);
      const Tensor r = f(range(4, static_cast<float>(i)));
      r.backward({}, true);
      append(seen, r.detach());
      append(seen, v.grad());
      append(seen, w.grad());
    }
    return seen;
  }));
}

TEST_CASE("traced: no history owns itself", "[tracer]") {
  constexpr int64_t kMany = 64 * 1024;  // large blocks are counted
  const Tensor w = td::full({kMany}, 0.5f).requires_grad_();
  bool twice = false;
  auto f = td::trace(
      [&](const Tensor& x) {
        const Tensor t = x * w * 1.5f, half = t.slice(0, 0, kMany / 2);
        half.mul_(2.f);
        t.add_(t * w);
        if (twice) t.mul_(td::exp(t));
        return t.view({2, kMany / 2});
      },
      {.compile = false});
  const Tensor x = td::ones({kMany});
  const auto run = [&] {
    for (int i = 0; i < 6; ++i) {
      twice = i % 2 == 1;
      const Tensor r = f(x);
      if (i % 3 == 0) r.select(0, 1).add_(1.f);
    }
  };
  run();
  const int64_t before = td::core::allocator_stats().live_bytes;
  for (int i = 0; i < 3; ++i) run();
  CHECK(td::core::allocator_stats().live_bytes == before);
}

TEST_CASE("traced: a result whose history was used up says so in every call", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_();
    const auto f = wrapped(traced, [&](const Tensor& x) {
      const Tensor loss = (w * x).sum();
      loss.backward();
      return loss;
    });
    Values seen;
    for (int i = 0; i < 6; ++i) {
      const Tensor loss = f(range(4, static_cast<float>(i)));
      seen.push_back(loss.requires_grad());
      seen.push_back(loss.is_leaf());
      CHECK_THROWS_WITH(loss.backward(), Catch::Contains("this sum was freed"));
      append(seen, loss.detach());
    }
    return seen;
  }));
}

TEST_CASE("traced: requires_grad_ on arguments and on values that a read made real", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(4).requires_grad_();
    bool on = false;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      if (on) x.requires_grad_();
      const Tensor d = (x * w).detach();
      if (d.sum().item<float>() > 3.f && on) d.requires_grad_();
      return x * 2.f + d;
    });
    Values seen;
    for (int i = 0; i < 8; ++i) {
      on = i == 3 || i > 5;
      const Tensor x = range(4, static_cast<float>(i));
      const Tensor r = f(x);
      seen.push_back(r.requires_grad());
      seen.push_back(x.requires_grad());
      if (r.requires_grad()) r.sum().backward();
      append(seen, x.grad());
      append(seen, r.detach());
    }
    return seen;
  }));
}

TEST_CASE("traced: views of integers take what has a history, inside of the call and after it", "[tracer]") {
  for (const td::DType dtype : {td::int64, td::int32, td::bool_})
    CHECK(same([&](bool traced) {
      const Tensor w = range(4, 0).requires_grad_();
      const auto inside = wrapped(traced, [&](const Tensor& x) {
        const Tensor a = td::zeros({2, 4}, {.dtype = dtype});
        a.select(0, 0).copy_(w * x);
        return a;
      });
      const auto after = wrapped(traced, [&](const Tensor& x) { return x.to(dtype).slice(0, 0, 4); });
      Values seen;
      for (int i = 0; i < 5; ++i) {
        append(seen, inside(range(4, static_cast<float>(i))).to(td::float32));
        const Tensor r = after(range(6, static_cast<float>(i)));
        r.copy_(w);
        append(seen, r.to(td::float32));
      }
      return seen;
    }));
}
