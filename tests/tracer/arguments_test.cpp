// Arguments and results taken apart: what becomes part of a signature, in which order and under which name;
// what is a host value; results of any type are real; a trace holds no argument between calls, and none that
// was moved in for longer than it is needed.
#include "tandem/tracer/arguments.h"

#include <any>
#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <variant>

#include "tandem/eager/nn/module.h"
#include "tests/catch.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

namespace shapes {

struct Batch {
  std::vector<Tensor> images;
  Tensor labels;
  std::string name;
  double weight = 1;
};
struct Nested {
  Batch batch;
  std::optional<Tensor> mask;
  std::array<Tensor, 2> pair;
  Tensor rows[2];
  float means[3] = {};
  char text[16] = {};
};
struct Sixteen {
  Tensor a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p;
};
struct References {
  const Tensor& x;
  std::span<const Tensor> list;
};
struct Node {
  Tensor value;
  std::unique_ptr<Node> next;
  std::vector<Node> children;
};
struct Empty {};
struct Bits {
  unsigned low : 3 = 1;
  Tensor x;
};
struct Unusual {
  Empty none;
  std::any anything;
  std::function<void()> call;
  std::unordered_map<int, int> counts;
  Tensor x;
};
/// Cannot be seen into; says itself what it holds.
class Private {
 public:
  explicit Private(Tensor t) : t_(std::move(t)) {}
  template <class Visit>
  void tensors_of(Visit&& visit) const {
    visit("inside", t_);
  }

 private:
  Tensor t_;
};
class Foreign {
 public:
  explicit Foreign(Tensor t) : list{t, t} {}
  std::vector<Tensor> list;
};
template <class Visit>
void tensors_of(const Foreign& f, Visit&& visit) {
  visit(f.list);
}
class Opaque {
 public:
  explicit Opaque(Tensor t) : t_(std::move(t)) {}
  const Tensor& get() const { return t_; }

 private:
  Tensor t_;
};
struct Base {
  Tensor in_base;
};
struct Derived : Base {
  Tensor x;
};
struct Model : td::nn::Module {
  Tensor w = parameter("w", range(3));
  Tensor forward(const Tensor& x) { return x * w; }
};
struct Undeclared;

}  // namespace shapes

namespace {

using namespace shapes;

/// The paths of all tensors, in order.
template <class... Args>
std::string paths(const Args&... args) {
  td::tracer::Arguments list;
  (td::tracer::collect(list, args), ...);
  std::string out;
  for (size_t i = 0; i < list.list().size(); ++i)
    out += (i ? " " : "") + td::tracer::argument_name(i, args...);
  return out;
}

#if defined(__clang__)
constexpr bool kNames = false;  // told by number
#else
constexpr bool kNames = true;
#endif

Tensor x3() { return range(3); }

}  // namespace

TEST_CASE("arguments: containers and standard types", "[tracer]") {
  const Tensor t = x3();
  CHECK(paths(t, 3, "text", std::string("s"), td::float32, nullptr) == "arg0");
  CHECK(paths(Tensor(), t) == "arg1");
  CHECK(paths(std::vector<Tensor>{t, {}, t}) == "arg0[0] arg0[2]");
  CHECK(paths(std::vector<std::vector<Tensor>>{{t}, {t, t}}) == "arg0[0][0] arg0[1][0] arg0[1][1]");
  CHECK(paths(std::array<Tensor, 2>{t, t}) == "arg0[0] arg0[1]");
  CHECK(paths(std::deque<Tensor>{t}) == "arg0[0]");
  CHECK(paths(std::pair(1, t)) == "arg0.second");
  CHECK(paths(std::tuple(t, 1, std::vector{t})) == "arg0.0 arg0.2[0]");
  CHECK(paths(std::optional<Tensor>(), std::optional(t)) == "arg1");
  CHECK(paths(std::variant<int, Tensor>(3), std::variant<int, Tensor>(t)) == "arg1");
  CHECK(paths(std::make_unique<Tensor>(t), std::make_shared<Tensor>(t), std::shared_ptr<Tensor>()) ==
        "arg0 arg1");
  CHECK(paths(std::shared_ptr<void>(), std::make_unique<Tensor[]>(2)) == "");
  CHECK(paths(std::ref(t)) == "arg0");
  CHECK(paths(std::map<std::string, Tensor>{{"b", t}, {"a", t}}) == "arg0[\"a\"] arg0[\"b\"]");
  const Tensor plain[2] = {t, t};
  CHECK(paths(plain, std::span<const Tensor>(plain)) == "arg0[0] arg0[1] arg1[0] arg1[1]");
  CHECK(paths(std::vector<float>(1000), std::vector<bool>(8), std::string("abc")) == "");
}

TEST_CASE("arguments: unordered maps in the order of their keys", "[tracer]") {
  std::unordered_map<int, Tensor> m;
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    m[(i * 37) % 100] = x3();
    expected += (i ? " arg0[" : "arg0[") + std::to_string(i) + "]";
  }
  CHECK(paths(m) == expected);
}

TEST_CASE("arguments: aggregates", "[tracer]") {
  const Tensor t = x3();
  CHECK(paths(Batch{{t, t}, t, "name", 2}) ==
        (kNames ? "arg0.images[0] arg0.images[1] arg0.labels" : "arg0.0[0] arg0.0[1] arg0.1"));
  Nested n{{{t}, t, "", 1}, t, {t, t}, {t, t}};
  CHECK(paths(1, n) == (kNames ? "arg1.batch.images[0] arg1.batch.labels arg1.mask arg1.pair[0] arg1.pair[1] "
                                 "arg1.rows[0] arg1.rows[1]"
                               : "arg1.0.0[0] arg1.0.1 arg1.1 arg1.2[0] arg1.2[1] arg1.3[0] arg1.3[1]"));
  const Sixteen s{t, t, t, t, t, t, t, t, t, t, t, t, t, t, t, t};
  CHECK(paths(s).ends_with(kNames ? "arg0.o arg0.p" : "arg0.14 arg0.15"));
  CHECK(td::tracer::count_fields<Sixteen>() == 16);
  const std::vector<Tensor> list{t};
  CHECK(paths(References{t, list}) ==
        "arg0.0 arg0.1[0]");  // references and bit-fields have no name to be found
  CHECK(paths(Bits{1, t}) == "arg0.1");
  Unusual u{};
  u.x = t;
  CHECK(paths(u) == (kNames ? "arg0.x" : "arg0.4"));
  CHECK(paths(Empty()) == "");
  Node node{t, std::make_unique<Node>(), {}};
  node.next->value = t;
  node.children.resize(2);
  node.children[1].value = t;
  CHECK(paths(node) ==
        (kNames ? "arg0.value arg0.next.value arg0.children[1].value" : "arg0.0 arg0.1.0 arg0.2[1].0"));
}

TEST_CASE("arguments: classes that say how they are taken apart, and those that are host values",
          "[tracer]") {
  const Tensor t = x3();
  CHECK(paths(Private(t)) == "arg0.inside");
  CHECK(paths(std::vector<Private>{Private(t)}) == "arg0[0].inside");
  CHECK(paths(Foreign(t)) == "arg0[0] arg0[1]");
  CHECK(paths(Opaque(t), [t] { return t; }) == "");
  CHECK(paths(Derived{{t}, t}) == "");
  Model model;
  CHECK(paths(model, &model) == "");
  CHECK(paths(reinterpret_cast<const Undeclared&>(t)) == "");
}

TEST_CASE("arguments: a circle of shared pointers is an error", "[tracer]") {
  struct Link {
    std::shared_ptr<Link> next;
  };
  const auto link = std::make_shared<Link>();
  link->next = link;
  CHECK_THROWS_WITH(paths(link), Contains("points to itself"));
  link->next.reset();
}

TEST_CASE("arguments: each part selects its record, and host values are followed", "[tracer]") {
  CHECK(same([](bool traced) {
    const auto body = [](const Batch& b, const std::map<std::string, Tensor>& more) {
      Tensor sum = b.labels * static_cast<float>(b.weight);
      for (const Tensor& i : b.images) sum = sum + i.sum();
      if (b.name == "twice") sum = sum * 2.f;
      for (const auto& [key, value] : more) sum = sum + value * static_cast<float>(key.size());
      return sum;
    };
    auto f = td::trace(body, {.compile = false});
    Values out;
    const auto call = [&](int64_t n, int images, double weight, const char* name, const char* key) {
      Batch b{{}, range(2), name, weight};
      for (int i = 0; i < images; ++i) b.images.push_back(range(n, float(i)));
      const std::map<std::string, Tensor> more{{key, range(2)}};
      append(out, traced ? f(b, more) : body(b, more));
    };
    for (int round = 0; round < 3; ++round) {
      call(3, 2, 1, "", "a");
      call(3, 2, 2.5, "", "long");
      call(4, 2, 1, "twice", "a");
      call(3, 3, 1, "", "a");
    }
    if (traced) {
      CHECK(f.report().signatures == 3);  // (3, 2), (4, 2) and (3, 3): sizes and number of images
      CHECK(f.report().calls == 12);
    }
    return out;
  }));
}

TEST_CASE("arguments: an opaque class is captured, and followed all the same", "[tracer]") {
  CHECK(same([](bool traced) {
    const auto body = [](const Opaque& o) { return o.get() * 2.f; };
    auto f = td::trace(body, {.compile = false});
    Values out;
    for (int i = 0; i < 6; ++i) {
      const Opaque o(range(3 + i % 2, float(i)));
      append(out, traced ? f(o) : body(o));
    }
    return out;
  }));
}

TEST_CASE("results: tensors inside any type are real after the call", "[tracer]") {
  struct Result {
    Tensor loss;
    std::vector<Tensor> list;
    std::map<std::string, Tensor> named;
    std::unique_ptr<Tensor> owned;
    std::variant<int, Tensor> either;
    std::function<Tensor()> later;
    int host = 0;
  };
  int calls = 0;
  auto f = td::trace(
      [&](Tensor x) {
        Tensor a = x + 1.f, b = x * 2.f, c = x * 3.f, d = x * 4.f, e = x * 5.f, g = x * 6.f;
        return Result{a, {b, b}, {{"c", c}}, std::make_unique<Tensor>(d), e, [g] { return g; }, ++calls};
      },
      {.compile = false});
  std::vector<Result> kept;
  for (int i = 0; i < 5; ++i) kept.push_back(f(range(2, float(i))));
  for (int i = 0; i < 5; ++i) {
    const Result& r = kept[static_cast<size_t>(i)];
    const float x = float(i);
    const auto first = [](const Tensor& t) { return t.to_vector<float>()[0]; };
    CHECK(first(r.loss) == x + 1);
    CHECK(first(r.list[1]) == x * 2);
    CHECK(r.list[0].impl() == r.list[1].impl());
    CHECK(first(r.named.at("c")) == x * 3);
    CHECK(first(*r.owned) == x * 4);
    CHECK(first(std::get<Tensor>(r.either)) == x * 5);
    CHECK(first(r.later()) == x * 6);
    CHECK(r.host == i + 1);
  }
}

TEST_CASE("results: a reference stays one", "[tracer]") {
  Tensor kept = range(3);
  auto f = td::trace([&](Tensor x) -> Tensor& { return kept = x * 2.f; }, {.compile = false});
  CHECK(&f(range(3)) == &kept);
  CHECK(f(range(3, 5)).to_vector<float>()[0] == 10);
  auto member = td::trace(&Opaque::get, {.compile = false});
  const Opaque o(range(3));
  CHECK(&member(o) == &o.get());
}

TEST_CASE("arguments: a trace holds none between calls", "[tracer]") {
  auto f = td::trace([](const std::vector<Tensor>& list, Tensor y) { return list[0] + list[1] * y; },
                     {.compile = false});
  std::vector<Tensor> list{range(3), range(3, 4)};
  const Tensor y = range(3);
  for (int i = 0; i < 3; ++i) {
    f(list, y);
    CHECK(list[0].impl()->refs.get() == 1);
    CHECK(list[1].impl()->refs.get() == 1);
    CHECK(y.impl()->refs.get() == 1);
    CHECK(y.impl()->storage->refs.get() == 1);
  }
}

TEST_CASE("arguments: what is moved in is given up", "[tracer]") {
  auto f = td::trace([](Tensor x) { return x * 2.f; }, {.compile = false});
  auto by_reference = td::trace([](const Tensor& x) { return x * 2.f; }, {.compile = false});
  for (int i = 0; i < 3; ++i) {
    Tensor x = range(3);
    const auto memory = x.impl()->storage;
    f(std::move(x));
    CHECK(memory->refs.get() == 1);  // this test's alone
    CHECK_THROWS_WITH(x + 1.f, Contains("undefined tensor"));
    Tensor y = range(3);
    by_reference(std::move(y));
    CHECK(y.defined());  // nobody took it, as without trace
  }
}

namespace {
bool alive = false;
float block[3];
/// A tensor of memory that tells when it is let go.
Tensor told(float first) {
  for (int i = 0; i < 3; ++i) block[i] = first + float(i);
  alive = true;
  td::core::Ref<td::core::TensorImpl> t(td::core::new_impl());
  t->dtype = td::float32;
  td::core::set_contiguous_layout(*t, {3});
  td::core::set_storage(*t, td::core::borrow_storage(
                                block, sizeof(block), [](void*) { alive = false; }, nullptr));
  return Tensor(std::move(t));
}
}  // namespace

TEST_CASE("arguments: memory of a moved argument is free after a read if nothing needs it later",
          "[tracer]") {
  for (const bool gradient : {false, true})
    for (const bool traced : {false, true}) {
      INFO("gradient " << gradient << ", traced " << traced);
      Tensor w = range(3);
      if (gradient) w.requires_grad_();
      int alive_after_read = 0, calls = 0;
      const auto body = [&](Tensor x) {
        Tensor y = (x * w).sum();
        x = Tensor();
        const float v = y.item<float>();
        alive_after_read += alive;
        Tensor z = y * v;
        if (gradient) {
          w.zero_grad();
          z.backward();
        }
        return z.detach();
      };
      auto f = td::trace(body, {.compile = false});
      for (int i = 0; i < 4; ++i, ++calls) {
        Tensor x = told(float(i));
        const Tensor z = traced ? f(std::move(x)) : body(std::move(x));
        CHECK_FALSE(alive);
        const float sum = float(i) * 1 + float(i + 1) * 2 + float(i + 2) * 3;
        CHECK(z.to_vector<float>()[0] == sum * sum);
        if (gradient) CHECK(w.grad().to_vector<float>()[1] == float(i + 1) * sum);
      }
      CHECK(alive_after_read == (gradient ? calls : 0));  // a gradient to come needs x, in eager mode too
      if (traced) CHECK(f.report().recorded == 1);
    }
}

TEST_CASE("arguments: after an early release another tensor at the same address is another tensor",
          "[tracer]") {
  CHECK(same([](bool traced) {
    auto f = wrapped(traced, [](Tensor x) {
      Tensor y = x * 2.f;
      x = Tensor();
      const float v = y.sum().item<float>();
      Tensor fresh = td::full({3}, v);  // may take x's place
      return y + fresh * range(3, v);
    });
    Values out;
    for (int i = 0; i < 6; ++i) append(out, f(range(3, float(i))));
    return out;
  }));
}

TEST_CASE("arguments: a view of a moved argument keeps its memory, wherever it begins", "[tracer]") {
  CHECK(same([](bool traced) {
    int64_t at = 0;
    auto f = wrapped(traced, [&](Tensor x) {
      const Tensor v = x.slice(0, at, at + 2);
      const float s = x.sum().item<float>();
      x = Tensor();
      const float again = (v * 0.f + s).sum().item<float>();
      return v * again;
    });
    Values out;
    for (int i = 0; i < 6; ++i, at = (at + 1) % 3) append(out, f(range(4, float(i))));
    return out;
  }));
}

TEST_CASE("arguments: a branch after the early release still makes its tape", "[tracer]") {
  CHECK(same([](bool traced) {
    Tensor w = range(4).requires_grad_();
    int way = 0;
    auto f = wrapped(traced, [&](Tensor x) {
      Tensor z = w * 3.f;
      Tensor s = (x.view({2, 2}) * 2.f).sum() + x.sum();
      x = Tensor();
      z = z * s.item<float>();
      if (way == 1) z = td::tanh(z);
      w.zero_grad();
      z.sum().backward();
      return w.grad() + 0.f;
    });
    Values out;
    for (int i = 0; i < 9; ++i, way = (i / 3) % 2) append(out, f(range(4, float(i))));
    return out;
  }));
}

TEST_CASE("arguments: an optional operand that died is not taken for one that is absent", "[tracer]") {
  CHECK(same([](bool traced) {
    const Tensor w = range(6).view({2, 3});
    Tensor bias = range(2);
    auto f = wrapped(traced, [&](Tensor x) { return td::linear(x, w, bias); });
    Values out;
    for (int i = 0; i < 3; ++i) append(out, f(range(3).view({1, 3})));
    bias = Tensor();
    for (int i = 0; i < 3; ++i) append(out, f(range(3).view({1, 3})));
    return out;
  }));
}
