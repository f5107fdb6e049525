// Tensors that begin without history and take one by an in-place op, inside a traced body: what
// requires_grad(), is_leaf() and backward() say of them in recording, in replay, and when the caller kept
// them.
#include "tests/contract/trap.h"

using namespace programs;
using td::Tensor;

TEST_CASE("contract accumulators: a loss accumulated in place into a tensor that the body makes",
          "[contract]") {
  for (const int kind : {0, 1, 2, 3}) {
    CAPTURE(kind);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(3);
      std::vector<Tensor> kept;
      auto f = wrapped(traced, [&](Tensor x) {
        Tensor loss = td::zeros({});
        loss.add_((w * x).sum());
        if (kind & 2) loss.add_((w * x).square().sum());
        w.zero_grad();
        loss.backward();
        return kind & 1 ? loss : loss.detach();
      });
      Values out;
      for (int i = 0; i < 5; ++i) {
        const Tensor y = f(range(3, float(i)));
        append(out, y);
        out.push_back(y.requires_grad());
        append(out, w.grad());
        if (i % 2) kept.push_back(y);
      }
      for (const Tensor& t : kept) append(out, t);
      return out;
    }));
  }
}

TEST_CASE("contract accumulators: the accumulated loss leaves the call and is differentiated outside",
          "[contract]") {
  CHECK(same([&](bool traced) {
    Tensor w = leaf(3);
    std::vector<Tensor> kept;
    auto f = wrapped(traced, [&](Tensor x) {
      Tensor loss = td::zeros({});
      loss.add_((w * x).square().sum());
      loss.mul_(2.f);
      return loss;
    });
    Values out;
    for (int i = 0; i < 5; ++i) {
      w.zero_grad();
      const Tensor y = f(range(3, float(i)));
      append(out, y);
      y.backward();
      append(out, w.grad());
      if (i != 2) kept.push_back(y);
    }
    for (const Tensor& t : kept) append(out, t);
    return out;
  }));
}

TEST_CASE("contract accumulators: requires_grad() of an accumulator tells the truth in every call",
          "[contract]") {
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(3);
      Values out;
      std::vector<Tensor> kept;
      bool learn = true;
      auto f = wrapped(traced, [&](Tensor x) {
        Tensor sum = td::zeros({3});
        out.push_back(sum.requires_grad());
        if (learn) sum.add_(w * x);
        out.push_back(sum.requires_grad());
        if (sum.requires_grad()) {
          w.zero_grad();
          sum.sum().backward();
          return sum * 2.f;
        }
        return sum + x;
      });
      for (int i = 0; i < 10; ++i) {
        learn = i < 4 || i == 6 || i == 9;
        const Tensor y = f(range(3, float(i)));
        out.push_back(y.requires_grad());
        append(out, y.detach());
        append(out, w.grad());
        if (keep) kept.push_back(y);
      }
      return out;
    }));
  }
}

TEST_CASE("contract accumulators: the accumulator itself is kept by the caller", "[contract]") {
  for (const int every : {1, 2, 3}) {
    CAPTURE(every);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(3);
      Values out;
      std::vector<Tensor> kept;
      auto f = wrapped(traced, [&](Tensor x) {
        Tensor sum = td::zeros({});
        out.push_back(sum.requires_grad());
        sum.add_((w * x).sum());
        out.push_back(sum.requires_grad());
        w.zero_grad();
        if (sum.requires_grad()) sum.backward();
        return sum;
      });
      for (int i = 0; i < 8; ++i) {
        Tensor y = f(range(3, float(i)));
        append(out, y);
        append(out, w.grad());
        if (i % every == 0) kept.push_back(y);
      }
      for (const Tensor& t : kept) {
        append(out, t);
        out.push_back(t.requires_grad());
        out.push_back(throws([&] { t.backward(); }, "freed"));
      }
      return out;
    }));
  }
}

TEST_CASE("contract accumulators: a read of the accumulator between two additions", "[contract]") {
  CHECK(same([&](bool traced) {
    Tensor w = leaf(3);
    Values out;
    auto f = wrapped(traced, [&](Tensor x) {
      Tensor sum = td::zeros({});
      sum.add_((w * x).sum());
      out.push_back(sum.item<float>());
      out.push_back(sum.requires_grad());
      sum.add_((w * x).square().sum());
      w.zero_grad();
      sum.backward();
      return sum;
    });
    for (int i = 0; i < 6; ++i) {
      append(out, f(range(3, float(i))));
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("contract accumulators: is_leaf() is that of eager mode in every call", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(3);
    Values out;
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor h = x * w;
      const Tensor none = x * 2.f;
      Tensor sum = td::zeros({});
      for (const Tensor& t : {x, w, h, none, sum}) out.push_back(t.is_leaf());
      sum.add_(h.sum());
      out.push_back(sum.is_leaf());
      w.zero_grad();
      sum.backward();
      return sum.detach();
    });
    for (int i = 0; i < 4; ++i) {
      append(out, f(range(3)));
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("contract accumulators: requires_grad_() refuses results of ops in every call", "[contract]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(3);
    Values out;
    auto f = wrapped(traced, [&](Tensor x) {
      Tensor h = x * w;
      out.push_back(throws([&] { h.requires_grad_(false); }, "result of an op"));
      return h * 2.f;
    });
    for (int i = 0; i < 4; ++i) {
      const Tensor y = f(range(3));
      out.push_back(y.requires_grad());
      append(out, y.detach());
    }
    return out;
  }));
}

TEST_CASE("contract accumulators: a captured total that each call adds to", "[contract]") {
  for (const bool reset : {false, true}) {
    CAPTURE(reset);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(3);
      Tensor total = td::zeros({});
      auto f = wrapped(traced, [&](Tensor x) {
        total.add_((x * w).square().sum());
        return x + 1.f;
      });
      Values out;
      for (int epoch = 0; epoch < 4; ++epoch) {
        for (int i = 0; i < 3; ++i) append(out, f(range(3, float(i))));
        w.zero_grad();
        out.push_back(total.requires_grad());
        total.backward();
        append(out, w.grad());
        append(out, total.detach());
        if (reset)
          total = td::zeros({});
        else
          total = total.detach();
      }
      return out;
    }));
  }
}
