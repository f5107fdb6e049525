// A program's own ops in traced functions: what they become, how they are saved or refused, and memory that
// another library shares.
#include <fstream>
#include <iterator>

#include "tandem/eager/autograd_function.h"
#include "tandem/eager/dlpack.h"
#include "tandem/eager/kernel.h"
#include "tandem/eager/pointwise.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"
#include "tests/tracer/programs.h"

namespace td = tandem;
using namespace programs;
using td::Tensor;
using td::test::message;

namespace {

const td::Kernel& doubled() {
  static const td::Kernel k(
      {.name = "doubled", .inputs = {"x"}, .outputs = {"y"}, .cpu = [](const td::KernelCall& c) {
         for (int64_t i = 0; i < c.in_sizes()[0]; ++i) c.output<float>()[i] = 2 * c.input<float>()[i];
       }});
  return k;
}

/// Doubles, and throws where the first element is negative.
const td::Kernel& picky() {
  static const td::Kernel k(
      {.name = "picky", .inputs = {"x"}, .outputs = {"y"}, .cpu = [](const td::KernelCall& c) {
         if (c.input<float>()[0] < 0) td::fail("negative");
         for (int64_t i = 0; i < c.in_sizes()[0]; ++i) c.output<float>()[i] = 2 * c.input<float>()[i];
       }});
  return k;
}

struct Stop {};  // no std::exception

const td::Kernel& stopping() {
  static const td::Kernel k(
      {.name = "stopping", .inputs = {"x"}, .outputs = {"y"}, .cpu = [](const td::KernelCall& c) {
         if (c.input<float>()[0] < 0) throw Stop();
         c.output<float>()[0] = c.input<float>()[0];
       }});
  return k;
}

/// What five calls of `body(state, argument, kept)` leave, the one at `bad` (and the last) with a negative
/// argument.
template <class Body>
Values after_throws(Body body, bool traced, int bad, td::TraceOptions options = {}) {
  Values out;
  Tensor s = td::zeros({3}), t = td::ones({3}), kept;
  const auto f = [&](Tensor a) { return body(s, t, a, kept); };
  auto step = td::trace(f, options);
  td::manual_seed(3);
  for (int i = 0; i < 6; ++i) {
    const Tensor a = td::full({3}, i == bad || i == 5 ? -1.0 : 1.0 + i);
    bool threw = false;
    try {
      append(out, traced ? step(a) : f(a));
    } catch (const td::Error& e) {
      threw = true;
      CHECK_THAT(e.what(), Contains("picky: negative at ") && Contains("user_ops_test.cpp:"));
    }
    CHECK(threw == (i == bad || i == 5));
    append(out, s), append(out, t);
    if (kept.defined()) append(out, kept);
  }
  append(out, td::rand({3}));
  return out;
}

}  // namespace

TEST_CASE("user ops: a formula fuses with its neighbours, and another number compiles nothing", "[tracer]") {
  const auto f = td::pointwise("bend", [](auto x, auto a) { return x * td::tanh(x * a); });
  double a = 0.5;
  auto step = td::trace([&](Tensor x) { return (f(x + 1.f, a) * 2.f).sum({1}); });
  const auto eager = [&](const Tensor& x) { return (f(x + 1.f, a) * 2.f).sum({1}); };
  const Tensor x = range(12).reshape({3, 4});
  for (int i = 0; i < 4; ++i) {
    a = 0.25 * i;
    CHECK(step(x).to_vector<float>() == eager(x).to_vector<float>());
  }
  const td::TraceReport r = step.report();
  CHECK(r.kernels == 1);
  CHECK(r.signatures == 1);
  CHECK(step.graph().find("bend") == std::string::npos);
  CHECK(step.graph().find("tanh") != std::string::npos);
}

TEST_CASE("user ops: training with a formula is the same traced, eager and in its own words", "[tracer]") {
  const auto f = td::pointwise([](auto x) { return x * td::sigmoid(x * 1.5) + 0.25 * x; });
  const auto train = [&](int way) {
    Tensor w = leaf(6);
    const auto body = [&, way](Tensor x) {
      const Tensor h = x * w;
      const Tensor y = way == 2 ? h * td::sigmoid(h * 1.5) + 0.25 * h : f(h);
      w.zero_grad();
      y.square().sum().backward();
      const td::NoGrad no_grad;
      w.sub_(w.grad() * 0.01f);
      return y.detach();
    };
    Values out;
    auto step = wrapped(way == 1, body);
    for (int i = 0; i < 5; ++i) append(out, step(range(6) * (0.1f * static_cast<float>(i))));
    append(out, w);
    return out;
  };
  const Values eager = train(0), traced = train(1), words = train(2);
  CHECK(equal_bits(eager, traced));
  for (size_t i = 0; i < words.size(); ++i) CHECK(eager[i] == Approx(words[i]).epsilon(1e-5));
}

TEST_CASE("user ops: a saved function keeps a formula, and its gradient, as what it is made of", "[tracer]") {
  const ScratchFolder folder;
  const std::string path = folder / "bend.tandem";
  const auto f = td::pointwise("bend2", [](auto x, auto a) { return td::exp(-x * a) + 3.0; });
  Tensor w = leaf(4);
  auto step = td::trace([&](Tensor x) {
    const Tensor y = f(x * w, 0.5);
    w.zero_grad();
    y.sum().backward();
    return y.detach();
  });
  const Tensor x = range(4);
  step(x), step(x);
  const Values expected = step(x).to_vector<float>(), gradient = w.grad().to_vector<float>();
  auto frozen = step.freeze();
  frozen.save(path);
  td::FrozenFunction loaded = td::load_function(path);
  CHECK(loaded({x})[0].to_vector<float>() == expected);
  int gradients = 0;
  for (const td::NamedTensor& n : loaded.state())
    if (n.tensor.requires_grad()) {
      ++gradients;
      CHECK(n.tensor.grad().to_vector<float>() == gradient);
    }
  CHECK(gradients == 1);
}

TEST_CASE("user ops: a saved function may give a result whose history was a formula's", "[tracer]") {
  const ScratchFolder folder;
  const std::string path = folder / "history.tandem";
  const auto f = td::pointwise("bend3", [](auto x) { return x * x; });
  Tensor w = leaf(4);
  auto step = td::trace([&](Tensor x) {
    const Tensor y = f(x * w);
    w.zero_grad();
    y.sum().backward();
    return y;
  });
  const Tensor x = range(4);
  for (int i = 0; i < 3; ++i) step(x);
  auto frozen = step.freeze();
  frozen.save(path);
  td::FrozenFunction loaded = td::load_function(path);
  const Tensor y = loaded({x})[0];
  CHECK(y.to_vector<float>() == step(x).to_vector<float>());
  CHECK_THAT(message([&] { y.sum().backward(); }), Contains("was freed by an earlier backward"));
}

TEST_CASE("user ops: a kernel is one entry of the plan, frozen too, and cannot be saved", "[tracer]") {
  const ScratchFolder folder;
  auto step = td::trace([](Tensor x) { return doubled()(x * 3.f) + 1.f; });
  const Tensor x = range(4);
  for (int i = 0; i < 3; ++i) CHECK(step(x).to_vector<float>() == (x * 6.f + 1.f).to_vector<float>());
  const td::TraceReport r = step.report();
  CHECK(r.natives == 1);
  CHECK(r.kernels == 2);
  CHECK_THAT(step.graph(), Contains("= kernel \"doubled\"(%"));
  CHECK(step.code().find("mul") != std::string::npos);
  step.draw(folder / "k.html");
  std::ifstream page(folder / "k.html");
  CHECK_THAT(std::string(std::istreambuf_iterator<char>(page), {}), Contains("doubled"));
  auto frozen = step.freeze();
  CHECK(frozen(x).to_vector<float>() == (x * 6.f + 1.f).to_vector<float>());
  CHECK_THAT(message([&] { frozen.save(folder / "k.tandem"); }),
             Contains("save: ") && Contains("\"doubled\" is a kernel of this program's own") &&
                 Contains("user_ops_test.cpp:"));
}

TEST_CASE("user ops: a twin that throws leaves what eager mode leaves", "[tracer]") {
  const auto check = [](const char* what, auto body) {
    for (const int bad : {0, 1, 3})
      for (const int verify : {0, -1}) {
        INFO(what << ", call " << bad << ", verify " << verify);
        CHECK(equal_bits(after_throws(body, true, bad, {.verify = verify}), after_throws(body, false, bad)));
      }
  };
  check("writes before and after", [](Tensor s, Tensor, Tensor a, Tensor& kept) {
    kept = a * 3.f;
    s.add_(1.f);
    Tensor r = picky()(a);
    s.add_(10.f);
    return r;
  });
  check("two writes, one of them the twin's result", [](Tensor s, Tensor t, Tensor a, Tensor&) {
    t.mul_(2.f);
    s.copy_(picky()(a + td::rand({3}) * 0.f));
    t.add_(s);
    return t.sum({0});
  });
  check("the twin reads what was written", [](Tensor s, Tensor t, Tensor a, Tensor&) {
    s.copy_(a);
    t.add_(1.f);
    Tensor r = picky()(s);
    t.add_(r);
    return r + t;
  });
  check("two twins and a read between", [](Tensor s, Tensor t, Tensor a, Tensor& kept) {
    s.add_(picky()(td::abs(a)));
    if (s.sum().item<float>() < 0) s.zero_();
    t.add_(a);
    kept = t * 3.f;
    t.add_(picky()(a));
    return t * 2.f;
  });
}

TEST_CASE("user ops: what a twin throws goes through as it is", "[tracer]") {
  Tensor s = td::zeros({1});
  auto step = td::trace([&](Tensor a) {
    s.add_(1.f);
    return stopping()(a);
  });
  for (int i = 0; i < 4; ++i) {
    if (i == 2)
      CHECK_THROWS_AS(step(td::full({1}, -1.0)), Stop);
    else
      step(td::ones({1}));
    CHECK(s.item<float>() == static_cast<float>(i + 1));
  }
}

TEST_CASE("user ops: a frozen call whose twin throws changes nothing", "[tracer]") {
  Tensor s = td::zeros({3});
  auto step = td::trace([&](Tensor a) {
    s.add_(1.f);
    Tensor r = picky()(a + td::rand({3}) * 0.f);
    s.add_(10.f);
    return r;
  });
  const Tensor a = td::ones({3});
  for (int i = 0; i < 3; ++i) step(a);
  auto frozen = step.freeze();
  const int line = __LINE__ - 7;
  for (int i = 0; i < 3; ++i) {
    const Values before = s.to_vector<float>();
    const uint64_t offset = td::default_generator().offset();
    CHECK_THAT(message([&] { frozen(a * -1.f); }),
               Contains("picky: negative at ") && Contains("user_ops_test.cpp:" + std::to_string(line)));
    CHECK(s.to_vector<float>() == before);
    CHECK(td::default_generator().offset() == offset);
    frozen(a);
    CHECK(s.to_vector<float>()[0] == before[0] + 11);
  }
}

TEST_CASE("user ops: a round trip through dlpack is known to share memory", "[tracer]") {
  for (const bool old : {false, true}) {
    Values results[2];
    for (const bool traced : {false, true}) {
      Tensor x = td::zeros({4});
      const Tensor y =
          old ? td::from_dlpack(td::to_dlpack_unversioned(x)) : td::from_dlpack(td::to_dlpack(x));
      auto step = wrapped(traced, [&](Tensor a) {
        x.add_(a);
        Tensor r = y * 2.f;
        x.add_(a);
        return r;
      });
      for (int i = 0; i < 4; ++i) append(results[traced], step(td::ones({4})));
    }
    CHECK(equal_bits(results[0], results[1]));
    CHECK(results[0][4] == 6);
  }
}

TEST_CASE("user ops: a result that another library holds is never written over", "[tracer]") {
  auto step = td::trace([](Tensor x) { return x * 2.f; });
  const Tensor x = range(1000);
  for (int i = 0; i < 3; ++i) step(x);
  td::dlpack::ManagedTensorVersioned* m = nullptr;
  {
    const Tensor y = step(x);
    m = td::to_dlpack(y);
  }
  const auto* data = static_cast<const float*>(m->dl_tensor.data);
  for (int i = 0; i < 5; ++i) step(x + 100.f);
  CHECK(data[0] == 2);
  CHECK(data[999] == 2000);
  m->deleter(m);
}

TEST_CASE("user ops: another library's memory as an argument and as a captured tensor", "[tracer]") {
  alignas(64) float data[4] = {1, 2, 3, 4};
  int64_t shape = 4, stride = 1;
  int deleted = 0;
  td::dlpack::ManagedTensorVersioned m{
      {1, 1},
      &deleted,
      [](td::dlpack::ManagedTensorVersioned* self) { ++*static_cast<int*>(self->manager_ctx); },
      0,
      {data, {1, 0}, 1, {2, 32, 1}, &shape, &stride, 0}};
  {
    const Tensor t = td::from_dlpack(&m);
    auto by_argument = td::trace([](Tensor x) { return x + 1.f; });
    auto captured = td::trace([&](Tensor x) { return x * t; });
    auto changed = td::trace([](Tensor x) { x.mul_(2.f); });
    for (int i = 0; i < 4; ++i) {
      data[0] = static_cast<float>(10 * i);
      CHECK(by_argument(t).to_vector<float>()[0] == data[0] + 1);
      CHECK(captured(range(4)).to_vector<float>()[0] == data[0]);
      const float before = data[3];
      changed(t);
      CHECK(data[3] == 2 * before);
    }
    CHECK(deleted == 0);
  }
  CHECK(deleted == 1);
}

TEST_CASE("user ops: verify compares formulas and kernels, too", "[tracer]") {
  const auto f = td::pointwise([](auto x) { return td::sqrt(x * x + 1.0); });
  auto step = td::trace([&](Tensor x) { return f(doubled()(x)); }, {.verify = -1});
  for (int i = 0; i < 4; ++i)
    CHECK(step(range(4)).to_vector<float>() == f(range(4) * 2.f).to_vector<float>());
}

TEST_CASE("user ops: the examples of docs/extending.md are those that samples/custom_ops.cpp runs",
          "[tracer]") {
  const auto text = [](const char* file) {
    std::ifstream in(std::string(TANDEM_SOURCE_DIR) + "/" + file);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const std::string page = text("docs/extending.md"), sample = text("samples/custom_ops.cpp");
  int examples = 0;
  for (size_t at = page.find("```cpp\n"); at != std::string::npos; at = page.find("```cpp\n", at + 1)) {
    const size_t begin = at + 7, end = page.find("```", begin);
    const std::string code = page.substr(begin, end - begin);
    INFO(code);
    CHECK(sample.find(code) != std::string::npos);
    ++examples;
  }
  CHECK(examples == 5);
}
