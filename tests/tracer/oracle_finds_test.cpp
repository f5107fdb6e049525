// What random programs have found (tests/tracer/oracle/), reduced, as fixed programs: traced against eager.
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

TEST_CASE("oracle finds: requires_grad_ on a captured tensor that pending ops use", "[tracer]") {
  for (const int uses : {1, 2}) {
    CAPTURE(uses);
    CHECK(same([&](bool traced) {
      Tensor p = range(4);
      bool flag = false;
      auto f = wrapped(traced, [&](Tensor x) {
        const Tensor before = td::tanh(p * x);
        p.requires_grad_(flag);
        if (uses == 1) return before;
        const Tensor after = td::tanh(p) * before;
        if (after.requires_grad()) after.sum().backward();
        return after.detach();
      });
      Values out;
      for (const bool now : {true, true, false, true, false, false, true, true, false}) {
        flag = now;
        const Tensor y = f(range(4, float(out.size())));
        append(out, y.detach());
        out.push_back(y.requires_grad());
        out.push_back(p.requires_grad());
        append(out, p.grad());
      }
      return out;
    }));
  }
}

TEST_CASE("oracle finds: a leaf made in the body keeps its flag when the call goes another way", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor p = range(4), kept = leaf(4);
    bool back = false;
    auto f = wrapped(traced, [&](Tensor x) {
      kept = td::tanh(kept.detach());
      kept.requires_grad_();
      if (back) return x;
      return x * p;
    });
    Values out;
    for (const bool now : {false, false, true, true, false}) {
      back = now;
      append(out, f(range(4)));
      out.push_back(kept.requires_grad());
    }
    p = leaf(4);
    append(out, f(range(4)).detach());
    out.push_back(kept.requires_grad());
    return out;
  }));
}

TEST_CASE("oracle finds: an argument at another offset of its memory", "[tracer]") {
  for (const int kind : {0, 1, 2, 3, 4}) {
    CAPTURE(kind);
    CHECK(same([&](bool traced) {
      Tensor kept, table;
      int row = 0;
      auto f = wrapped(traced, [&](Tensor x) {
        if (kind == 1) kept = x.view({2, 2});
        if (kind == 2) kept = x.slice(0, 1, 3) * 1.f;
        if (kind == 3) kept = x.view({2, 2}).select(0, row);
        if (kind == 4) kept = table.view({4}).slice(0, 1, 3);
        return x;
      });
      Values out;
      for (int i = 0; i < 8; ++i) {
        row = i / 2 % 2;
        table = i % 3 ? range(8).slice(0, 2, 6) : range(4);
        append(out, f(i % 2 ? range(8).slice(0, 4, 8) : range(4)));
        append(out, kept);
      }
      return out;
    }));
  }
}

TEST_CASE("oracle finds: an argument shared memory with a captured tensor when the call was recorded",
          "[tracer]") {
  for (const bool keep_view : {false, true}) {
    CAPTURE(keep_view);
    CHECK(same([&](bool traced) {
      Tensor p = range(4), kept;
      auto f = wrapped(traced, [&](Tensor x) {
        kept = keep_view ? p.view({2, 2}) : p + 0.f;
        return x + kept.view({4});
      });
      Values out;
      for (const bool shared : {true, false, false, true, true, false, false}) {
        append(out, f(shared ? p.detach() : range(4, 7)));
        append(out, kept);
      }
      return out;
    }));
  }
}

// What an error says, or "".
static std::string message_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& e) {
    return e.what();
  }
  return "";
}

TEST_CASE("oracle finds: a change through a view is seen by what was saved of the memory", "[tracer]") {
  for (const int kind : {0, 1, 2, 3}) {
    CAPTURE(kind);
    std::string messages[2];
    for (const bool traced : {false, true}) {
      Tensor w = leaf(4), p = range(4);
      auto f = wrapped(traced, [&](Tensor x) {
        Tensor h = kind == 1 ? x : p;
        if (kind >= 2) h = x * 0.5f;
        if (kind == 3) h.item<float>();
        const Tensor y = w * h;
        h.slice(0, 0, 2).mul_(2.f);
        if (kind != 1) y.sum().backward();
        return y;
      });
      for (int i = 0; i < 4; ++i)
        messages[traced] += message_of([&] {
                              const Tensor y = f(kind == 3 ? range(1) : range(4));
                              if (kind == 1) y.sum().backward();
                            }) +
                            "\n";
    }
    CHECK(messages[0].find("changed in place") != std::string::npos);
    CHECK(messages[0] == messages[1]);
  }
}

TEST_CASE("oracle finds: a view made after a read does not put the version back", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(4);
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor h = x * 2.f;
      h.sum().item<float>();
      const Tensor v = h.detach();
      const Tensor other = x * 3.f;
      other.add_(v);
      h.mul_(0.5f).add_(w);
      return td::autograd::apply(
                 [](td::autograd::Context& c, const td::TensorList& in) {
                   c.save_for_backward(in);
                   return td::TensorList{td::tanh(in[0])};
                 },
                 [](const td::autograd::Context& c, const td::TensorList& g) {
                   return td::TensorList{g[0] * c.saved()[0]};
                 },
                 {h})[0] +
             v.sum();
    });
    Values out;
    for (int i = 0; i < 4; ++i) {
      const Tensor y = f(range(4, float(i)));
      append(out, y.detach());
      y.sum().backward();
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("oracle finds: a history from an earlier call that was used up", "[tracer]") {
  std::string messages[2];
  for (const bool traced : {false, true}) {
    Tensor p = range(4), q = range(4, 3), w = leaf(4);
    bool swap = false;
    auto f = wrapped(traced, [&](Tensor x) {
      if (swap) std::swap(p, q);
      const Tensor loss = td::tanh(p).sum();
      if (loss.requires_grad()) loss.backward();
      if (!q.requires_grad() || !q.is_leaf()) q.mul_(0.5f).add_(td::tanh(w));
      return x;
    });
    for (const bool now : {false, true, true, false, false, true}) {
      swap = now;
      messages[traced] += message_of([&] { f(range(4)); }) + "\n";
    }
  }
  CHECK(messages[0].find("was freed") != std::string::npos);
  CHECK(messages[0] == messages[1]);
}

TEST_CASE("oracle finds: the message names the op that gave a result its history last", "[tracer]") {
  std::string messages[2];
  for (const bool traced : {false, true}) {
    Tensor w = leaf(4);
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor h = td::tanh(x);
      h.add_(w);
      td::tanh(h).sum().backward();
      return h;
    });
    for (int i = 0; i < 4; ++i) messages[traced] += message_of([&] { f(range(4)).sum().backward(); }) + "\n";
  }
  CHECK(messages[0].find("was freed") != std::string::npos);
  CHECK(messages[0] == messages[1]);
}

TEST_CASE("oracle finds: of two captured tensors over one memory one is gone", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor a = range(4), b = a.detach(), kept;
    bool both = true;
    auto f = wrapped(traced, [&](Tensor x) {
      kept = b.slice(0, 1, 3);
      const Tensor y = x * kept.sum();
      if (!both) return y;
      return y + a;
    });
    auto g = wrapped(traced, [&](Tensor x) {
      Tensor y = both ? x * a : x * 2.f;
      kept = b.slice(0, 1, 3);
      return y + kept.sum();
    });
    Values out;
    for (int i = 0; i < 12; ++i) {
      both = i < 4;
      if (i == 6) a = range(4, 5);
      append(out, i % 2 ? f(range(4)) : g(range(4)));
      append(out, kept);
    }
    return out;
  }));
}

TEST_CASE("oracle finds: a base that only its view holds keeps its history", "[tracer]") {
  for (const int reads : {0, 1, 2}) {
    CAPTURE(reads);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(4);
      auto f = wrapped(traced, [&](Tensor x) {
        Tensor v;
        {
          const Tensor h = x * 0.5f;
          v = (h + h).view({2, 2}).t();
        }
        v.mul_(0.5f).add_(td::tanh(w).view({2, 2}));
        for (int i = 0; i < reads; ++i) {
          (x * 2.f).sum().item<float>();
          v.mul_(0.5f).add_(td::tanh(w).view({2, 2}));
        }
        v.sum().backward();
        return v.detach();
      });
      Values out;
      for (int i = 0; i < 5; ++i) {
        append(out, f(range(4, float(i))));
        append(out, w.grad());
      }
      return out;
    }));
  }
}

TEST_CASE("oracle finds: a history from outside leads to another leaf than when it was recorded",
          "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor a = leaf(4), b = leaf(4, 2), c = leaf(4, 3);
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor total = (td::tanh(x) * a).sum() + x.sum();
      total.backward({}, true);
      const Tensor loss = (td::tanh(x) * b).sum();
      loss.backward();
      return total.detach();
    });
    Values out;
    for (int i = 0; i < 12; ++i) {
      append(out, f(td::tanh(i % 3 == 1 ? b : c) * 0.5f));
      for (const Tensor& t : {a, b, c}) append(out, t.grad());
    }
    return out;
  }));
}

TEST_CASE("oracle finds: a history leaves a call that ends where another went on", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(4);
    bool more = true;
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor y = td::square(x * w);
      if (more) return y + td::tanh(y).sum().item<float>();
      return y;
    });
    Values out;
    for (int i = 0; i < 8; ++i) {
      more = i == 0 || i == 6;
      const Tensor y = f(range(4, float(i)));
      y.sum().backward();
      append(out, w.grad());
    }
    return out;
  }));
}

TEST_CASE("oracle finds: a view from before a read, and its memory written after it", "[tracer]") {
  for (const bool captured : {false, true}) {
    CAPTURE(captured);
    CHECK(same([&](bool traced) {
      Tensor w = leaf(4), table = range(8).view({2, 4});
      auto f = wrapped(traced, [&](Tensor x) {
        const Tensor memory = captured ? table : x.view({2, 4});
        const Tensor row = memory.select(0, 0);
        x.sum().item<float>();
        Tensor out = td::tanh(row) * w;
        memory.mul_(0.5f);
        out = out + td::tanh(row) * w;
        memory.view({8}).slice(0, 0, 3).add_(1.f);
        out = out + td::exp(row * 0.1f);
        out.sum().backward();
        return out.detach() + row;
      });
      Values out;
      for (int i = 0; i < 5; ++i) {
        const Tensor x = range(8, float(i));
        append(out, f(x));
        append(out, x);
        append(out, table);
        append(out, w.grad());
      }
      return out;
    }));
  }
}

TEST_CASE("oracle finds: a hook's op equals the op of the gradient that came next", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor w = leaf(4);
    float scale = 0.25f;
    bool halve = false;
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor h = w * scale;
      h.register_hook([&](const Tensor& g) { return halve ? g * 0.5f : g; });
      (h * x).sum().backward();
      return h.detach();
    });
    Values out;
    for (const bool now : {false, false, true, true, false, true}) {
      halve = now;
      scale += 0.125f;
      append(out, f(range(4)));
      append(out, w.grad());
    }
    return out;
  }));
}
