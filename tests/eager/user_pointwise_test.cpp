// A program's own pointwise ops against the same functions called on tensors: values bit for bit, gradients
// of two orders, types, sizes, errors.
#include "tandem/eager/pointwise.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>

#include "tandem/eager/autograd.h"
#include "tandem/eager/call.h"
#include "tandem/eager/functions.h"
#include "tandem/ops/user_ops.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::Tensor;
using td::test::message;

namespace {

/// Functions that both symbols and tensors take.
// clang-format off
struct Polynomial { auto operator()(const auto& x) const { return (x * 2.0 + 1.0) * x - 3.0 / (x * x + 1.0); } };
struct Exponentials { auto operator()(const auto& x) const { return td::exp(-td::abs(x)) + td::log1p(x * x) * td::tanh(x); } };
struct Gates { auto operator()(const auto& x) const { return td::sigmoid(x) * td::softplus(x, 2.0, 20.0) + td::erf(x) - td::silu(x); } };
struct Choices { auto operator()(const auto& x) const { return td::where(x > 0.25, td::sqrt(td::maximum(x, 0.1)), td::minimum(x, -0.5) * x); } };
struct Chosen { auto operator()(const auto& x) const { return td::clamp(x, -1.0, 1.0) + td::gelu(x, false) * td::leaky_relu(x, 0.2); } };
struct Mixed { auto operator()(const auto& x, const auto& y) const { return x * y - td::pow(td::abs(x) + 0.5, y) / (1.0 + td::exp(-y)); } };
struct Distances { auto operator()(const auto& x, const auto& y) const { return td::hypot(x, y) + td::atan2(x, y) * td::maximum(x, y); } };
struct Three { auto operator()(const auto& x, const auto& y, const auto& z) const { return td::lerp(x, y, z) + td::where(x < y, z, x * y); } };
struct Four { auto operator()(const auto& a, const auto& b, const auto& c, const auto& d) const { return (a - b) / (td::square(c) + 1.0) * d; } };
// clang-format on

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }
bool equal_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0);
}

Tensor sample(const td::Dims& sizes, td::DType dtype, int seed) {
  td::Generator g(static_cast<uint64_t>(seed));
  return td::randn(sizes, {.dtype = dtype}, &g);
}

/// Values, first and second derivatives of `f` at these operands: all that can be seen of it.
template <class F>
std::vector<std::vector<double>> seen(F f, const std::vector<Tensor>& operands) {
  std::vector<Tensor> in;
  for (const Tensor& t : operands) in.push_back(t.detach().clone().requires_grad_());
  Tensor y;
  if constexpr (std::is_invocable_v<F, Tensor, Tensor, Tensor, Tensor>)
    y = f(in[0], in[1], in[2], in[3]);
  else if constexpr (std::is_invocable_v<F, Tensor, Tensor, Tensor>)
    y = f(in[0], in[1], in[2]);
  else if constexpr (std::is_invocable_v<F, Tensor, Tensor>)
    y = f(in[0], in[1]);
  else
    y = f(in[0]);
  std::vector<std::vector<double>> out = {values(y.detach())};
  const Tensor loss = (y * y).sum();
  const td::TensorList first = td::autograd::grad({{loss}}, in, {}, true, true);
  Tensor norm = td::zeros({}, {.dtype = loss.dtype()});
  for (const Tensor& g : first) {
    out.push_back(values(g.detach()));
    CHECK(g.sizes() == in[out.size() - 2].sizes());
    norm = norm + (g * g).sum();
  }
  for (const Tensor& g : td::autograd::grad({{norm}}, in, {}, false, false, true))
    out.push_back(g.defined() ? values(g) : std::vector<double>{});
  return out;
}

template <class F>
void check_function(F f, const std::vector<td::Dims>& sizes) {
  const auto op = td::pointwise(f);
  for (const td::DType dtype : {td::float32, td::float64}) {
    std::vector<Tensor> operands;
    for (size_t i = 0; i < sizes.size(); ++i)
      operands.push_back(sample(sizes[i], dtype, static_cast<int>(i) + 3));
    const auto expected = seen(f, operands);
    const auto found = seen(op, operands);
    REQUIRE(found.size() == expected.size());
    CHECK(equal_bits(found[0], expected[0]));
    for (size_t k = 1; k < found.size(); ++k) {
      CAPTURE(k);
      REQUIRE(found[k].size() == expected[k].size());
      for (size_t i = 0; i < found[k].size(); ++i)
        CHECK(found[k][i] ==
              Approx(expected[k][i]).epsilon(dtype == td::float32 ? 2e-4 : 1e-10).margin(1e-5));
    }
  }
}

}  // namespace

TEST_CASE("user pointwise: values and two derivatives are those of the same function on tensors", "[eager]") {
  check_function(Polynomial{}, {{3, 4}});
  check_function(Exponentials{}, {{3, 4}});
  check_function(Gates{}, {{7}});
  check_function(Choices{}, {{3, 4}});
  check_function(Chosen{}, {{2, 3}});
  check_function(Mixed{}, {{2, 1, 3}, {4, 1}});
  check_function(Distances{}, {{3, 4}, {4}});
  check_function(Three{}, {{3, 4}, {4}, {3, 1}});
  check_function(Four{}, {{2, 3}, {3}, {2, 1}, {}});
}

TEST_CASE("user pointwise: numbers are run-time, on either side", "[eager]") {
  const auto scale = td::pointwise([](auto x, auto a) { return a * x + 1.0; });
  const Tensor x = td::tensor({1.f, 2.f, 3.f});
  for (const double a : {2.0, -3.0, 0.5}) {
    CHECK(values(scale(x, a)) == std::vector<double>{a + 1, 2 * a + 1, 3 * a + 1});
    CHECK(values(scale(a, x)) == std::vector<double>{a + 1, 2 * a + 1, 3 * a + 1});
  }
  Tensor w = td::tensor({1.f, 2.f, 3.f}).requires_grad_();
  scale(w, 4).sum().backward();
  CHECK(values(w.grad()) == std::vector<double>{4, 4, 4});
}

TEST_CASE("user pointwise: arithmetic of numbers alone keeps double precision", "[eager]") {
  const auto f = td::pointwise([](auto x, auto a, auto b) { return x * (1.0 - a / b) + td::exp(-a) * 0.0; });
  const Tensor x = td::tensor({1.0, 2.0}, {.dtype = td::float64});
  CHECK(values(f(x, 1.0, 3.0)) == std::vector<double>{1.0 - 1.0 / 3.0, 2.0 * (1.0 - 1.0 / 3.0)});
  CHECK(f(td::tensor({1.f}), 1.0, 3.0).dtype() == td::float32);
  const auto wave = td::pointwise([](auto x, auto a) { return x + td::exp(a); });
  CHECK(values(wave(td::zeros({1}, {.dtype = td::float64}), 1.0))[0] == Approx(std::exp(1.0)).epsilon(1e-15));
  CHECK(wave(td::zeros({1}), 1.0).dtype() == td::float32);
  CHECK(values(wave(td::tensor({1, 2}), 0.0)) == std::vector<double>{2, 3});
}

TEST_CASE("user pointwise: types are promoted as in the functions that it is made of", "[eager]") {
  const auto twice = td::pointwise([](auto x) { return x * 2 + 1; });
  for (const td::DType t :
       {td::uint8, td::int32, td::int64, td::float16, td::bfloat16, td::float32, td::float64}) {
    const Tensor x = td::tensor({1.f, 2.f}).to(t);
    CHECK(twice(x).dtype() == t);
    CHECK(values(twice(x)) == std::vector<double>{3, 5});
  }
  CHECK(twice(td::tensor({true, false})).dtype() == td::int64);
  const auto half = td::pointwise([](auto x) { return x * 0.5; });
  CHECK(half(td::tensor({1, 2})).dtype() == td::float32);
  CHECK(values(half(td::tensor({1, 3}))) == std::vector<double>{0.5, 1.5});
  const auto positive = td::pointwise([](auto x) { return x > 0 && !(x > 2); });
  CHECK(positive(td::tensor({-1, 1, 3})).dtype() == td::bool_);
  CHECK(values(positive(td::tensor({-1, 1, 3}))) == std::vector<double>{0, 1, 0});
  const auto sign = td::pointwise([](auto x) { return td::where(x > 0, 1, td::where(x < 0, -1, 0)); });
  CHECK(sign(td::tensor({-2.f, 0.f, 5.f})).dtype() == td::int64);
  CHECK(values(sign(td::tensor({-2.f, 0.f, 5.f}))) == std::vector<double>{-1, 0, 1});
  const auto cast = td::pointwise([](auto x) { return (x * 2.5).to(td::int32); });
  CHECK(cast(td::tensor({1.f, 2.f})).dtype() == td::int32);
  CHECK(values(cast(td::tensor({1.f, 2.f}))) == std::vector<double>{2, 5});
  const auto bits = td::pointwise([](auto x, auto y) { return (x & y) | (x ^ ~y); });
  CHECK(values(bits(td::tensor({5, 12}), td::tensor({3, 10}))) ==
        std::vector<double>{double((5 & 3) | (5 ^ ~3)), double((12 & 10) | (12 ^ ~10))});
}

TEST_CASE("user pointwise: halves are computed in float32 and rounded once", "[eager]") {
  const auto f = td::pointwise([](auto x) { return (x + 1.0) - 1.0; });
  const float tiny = 0.001953125f;  // 2^-9, lost in 1 + x of bfloat16
  const Tensor x = td::tensor({tiny}).to(td::bfloat16);
  CHECK(values(f(x)) == std::vector<double>{tiny});
  CHECK(values((x + 1.0) - 1.0) == std::vector<double>{0});
  Tensor w = td::tensor({2.f}).to(td::bfloat16).requires_grad_();
  const auto cube = td::pointwise([](auto x) { return x * x * x; });
  cube(w).sum().backward();
  CHECK(w.grad().dtype() == td::bfloat16);
  CHECK(values(w.grad()) == std::vector<double>{12});
}

TEST_CASE("user pointwise: the result has the sizes of all operands, also of unused ones", "[eager]") {
  const auto first = td::pointwise([](auto x, auto) { return x; });
  const Tensor x = td::tensor({1.f, 2.f}), y = td::zeros({3, 1});
  CHECK(first(x, y).sizes() == td::Dims{3, 2});
  CHECK(values(first(x, y)) == std::vector<double>{1, 2, 1, 2, 1, 2});
  const Tensor same = first(x, 0);
  CHECK(same.impl()->storage != x.impl()->storage);
  Tensor w = td::tensor({1.f, 2.f}).requires_grad_(), v = td::zeros({3, 1}).requires_grad_();
  first(w, v).sum().backward();
  CHECK(values(w.grad()) == std::vector<double>{3, 3});
  CHECK_FALSE(v.grad().defined());
  const auto constant = td::pointwise([](auto, auto a) { return a + 1.0; });
  CHECK(values(constant(td::zeros({2, 2}), 3.0)) == std::vector<double>{4, 4, 4, 4});
  CHECK(td::pointwise([](auto x) { return x * x; })(td::zeros({0, 3})).sizes() == td::Dims{0, 3});
}

TEST_CASE("user pointwise: strided operands and views of them", "[eager]") {
  const auto f = td::pointwise([](auto x, auto y) { return x * 3.0 - y; });
  const Tensor x = td::arange(0.f, 12).reshape({3, 4}).transpose(0, 1),
               y = td::arange(0.f, 8).index({td::Slice{0, 8, 2}});
  CHECK(values(f(x, y.unsqueeze(1))) == values(x * 3.0 - y.unsqueeze(1)));
}

TEST_CASE("user pointwise: errors name the op and the line of the call", "[eager]") {
  const auto f = td::pointwise("blend", [](auto x, auto y) { return x * y; });
  std::string text = message([&] { f(td::zeros({3}), td::zeros({4})); });
  CHECK_THAT(text, Contains("blend: shapes do not broadcast: float32(3,), float32(4,)") &&
                       Contains("user_pointwise_test.cpp:" + std::to_string(__LINE__ - 2)));
  CHECK_THAT(message([&] { f(1.0, 2.0); }), Contains("blend: at least one operand must be a tensor"));
  CHECK_THAT(message([&] { f(Tensor(), 2.0); }), Contains("undefined tensor"));
  const auto minus = td::pointwise("minus", [](auto x) { return -x; });
  text = message([&] { minus(td::tensor({true})); });
  CHECK_THAT(text, Contains("minus: neg: is not defined for bool") && Contains("user_pointwise_test.cpp:"));
  const auto unnamed = td::pointwise([](auto x) { return x & 3; });
  const int line = __LINE__ - 1;
  CHECK_THAT(message([&] { unnamed(td::zeros({2})); }),
             Contains("pointwise (") &&
                 Contains("user_pointwise_test.cpp:" + std::to_string(line) + "): bitwise_and"));
  Tensor w = td::zeros({2}).requires_grad_();
  const Tensor y = f(w, w);
  {
    const td::NoGrad no_grad;
    w.add_(1.f);
  }
  CHECK_THAT(message([&] { y.sum().backward(); }),
             Contains("the gradient of blend needs was changed in place"));
}

TEST_CASE("user pointwise: a symbol that leaves its call is refused", "[eager]") {
  static std::optional<td::Symbol> kept;
  td::pointwise([](auto x) {
    kept = x;
    return x * 1.0;
  });
  CHECK_THAT(message([&] { td::pointwise([](auto x) { return x * *kept; }); }),
             Contains("pointwise: a symbol"));
  CHECK_THAT(message([&] { *kept + 1; }), Contains("pointwise: a symbol"));
  CHECK_THAT(
      message([] { td::pointwise([](auto x) { return x + 18446744073709551615ull; }); }),
      Contains("integers beyond 2^53 cannot stand in a formula") && Contains("user_pointwise_test.cpp:"));
}

TEST_CASE("user pointwise: the same function and name are the same op", "[eager]") {
  using td::ops::OpId;
  td::ops::Formula f;
  f.n_in = 1;
  f.nodes.resize(1);
  f.result = 0;
  const OpId a = td::ops::register_formula("same", f), b = td::ops::register_formula("same", f);
  CHECK(a == b);
  CHECK(td::ops::register_formula("other", f) != a);
  CHECK(td::ops::is_user(a));
  CHECK(td::ops::def(a).name == std::string("same"));
  CHECK(td::ops::find_op("same") == nullptr);
  const auto make = [](const std::string& name) {
    return td::pointwise(name, [](auto x) { return x * 5.0; });
  };
  make("make");
  const OpId next = td::ops::register_formula("next", f);
  make("make");
  CHECK(td::ops::register_formula("after", f) == static_cast<OpId>(static_cast<int>(next) + 1));
}

TEST_CASE("user pointwise: the order in which a compiler evaluates arguments does not matter", "[eager]") {
  const auto name = [] { return std::string("ordered"); };
  const auto one = td::pointwise(name(), [](auto x, auto y) {
    const auto a = td::exp(x), b = td::tanh(y);
    return a * b;
  });
  const td::ops::OpId next = td::ops::register_formula("between", {.n_in = 1, .nodes = {{}}, .result = 0});
  const auto two = td::pointwise(name(), [](auto x, auto y) {
    [[maybe_unused]] const auto b = td::tanh(y), a = td::exp(x), unused = td::log(x);
    return a * b;
  });
  CHECK(td::ops::register_formula("behind", {.n_in = 1, .nodes = {{}}, .result = 0}) ==
        static_cast<td::ops::OpId>(static_cast<int>(next) + 1));
  const Tensor x = td::tensor({0.5f});
  CHECK(values(one(x, x)) == values(two(x, x)));
}

TEST_CASE("user pointwise: broadcast gradients of halves are summed in float32", "[eager]") {
  const auto f = td::pointwise([](auto x, auto y) { return x * y; });
  Tensor w = td::ones({1}).to(td::bfloat16).requires_grad_();
  const Tensor x = td::full({300}, 1.0078125).to(td::bfloat16);  // 1 + 2^-7
  const Tensor y = f(x, w);
  y.backward(td::full({300}, 1.0078125).to(td::bfloat16));
  CHECK(values(w.grad())[0] == values(td::tensor({300 * 1.0078125 * 1.0078125}).to(td::bfloat16))[0]);
}

TEST_CASE("user pointwise: a global variable has the value of when the op was made", "[eager]") {
  static double scale = 2;
  const auto make = [] { return td::pointwise([](auto x) { return x * scale; }); };
  const auto two = make();
  scale = 3;
  const auto three = make();
  CHECK(values(two(td::ones({1}))) == std::vector<double>{2});
  CHECK(values(three(td::ones({1}))) == std::vector<double>{3});
}

TEST_CASE("user pointwise: threads may make and call ops at the same time", "[eager]") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const auto f =
            td::pointwise("threads" + std::to_string((t + i) % 20), [](auto x, auto a) { return x * a; });
        if (values(f(td::ones({2}), i)) != std::vector<double>{double(i), double(i)}) ++wrong;
      }
    });
  for (std::thread& t : threads) t.join();
  CHECK(wrong == 0);
}

TEST_CASE("user pointwise: compound assignment and helpers of C++ names", "[eager]") {
  const auto f = td::pointwise([](auto x, auto y) {
    auto z = x;
    z += y;
    z *= 2;
    z -= min(x, 0.5);
    z /= max(fabs(y), 1.0);
    return select(z != 0.0, z, -1.0);
  });
  const Tensor x = td::tensor({1.f, -2.f}), y = td::tensor({3.f, 0.25f});
  const Tensor z = ((x + y) * 2 - td::minimum(x, 0.5)) / td::maximum(td::abs(y), 1.0);
  CHECK(values(f(x, y)) == values(td::where(z != 0.0, z, -1.0)));
}

TEST_CASE("user pointwise: random formulas give the bits and types of their steps on tensors", "[eager]") {
  using namespace td::ops;
  std::vector<const OpDef*> rows;
  for (int i = 0; i < kOpCount; ++i) {
    const OpDef& op = def(static_cast<OpId>(i));
    if (op.kind == OpKind::pointwise && op.n_attrs == 0) rows.push_back(&op);
  }
  REQUIRE(rows.size() > 60);
  std::mt19937 random(20);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  const Tensor operands[] = {sample({3, 4}, td::float32, 1), td::tensor({-2, 0, 3, 7}),
                             sample({}, td::float64, 2), td::tensor({true, false, true, true}),
                             td::tensor({250, 3, 0, 9}).to(td::uint8)};
  int equal = 0, refused = 0;
  for (int trial = 0; trial < 600; ++trial) {
    const Tensor in[] = {operands[below(5)], operands[below(5)]};
    Formula f;
    f.n_in = 2;
    f.nodes.resize(2);
    std::vector<Tensor> known = {in[0], in[1]};  // by node; undefined: a constant
    std::string why, text;
    for (size_t steps = 1 + below(5); steps > 0 && why.empty(); --steps) {
      const OpDef& op = *rows[below(rows.size())];
      FormulaNode n{.kind = FormulaNode::Kind::step, .op = op.id};
      td::eager::CallBuilder call(op.id, td::Location::here());
      const size_t tensor = below(static_cast<size_t>(op.n_in));  // at least this one
      text += std::string(op.name) + " ";
      for (size_t i = 0; i < static_cast<size_t>(op.n_in); ++i) {
        if (i != tensor && below(3) == 0) {
          const bool integer = below(2) == 0;
          const int64_t value = static_cast<int64_t>(below(7)) - 3;
          const double floating = 0.75 * static_cast<double>(value);
          f.nodes.push_back({.kind = integer ? FormulaNode::Kind::integer : FormulaNode::Kind::floating,
                             .bits = integer ? value : std::bit_cast<int64_t>(floating)});
          known.emplace_back();
          n.in.push_back(static_cast<int32_t>(known.size()) - 1);
          call.in(integer ? td::Operand(value) : td::Operand(floating));
          continue;
        }
        size_t from = below(known.size());
        while (!known[from].defined()) from = (from + 1) % known.size();
        n.in.push_back(static_cast<int32_t>(from));
        call.in(known[from]);
      }
      f.nodes.push_back(std::move(n));
      why = message([&] { known.push_back(call.run()); });
      if (why == "no error") why.clear();
    }
    f.result = static_cast<int32_t>(f.nodes.size()) - 1;
    CAPTURE(trial, text, td::name(in[0].dtype()), td::name(in[1].dtype()));
    td::eager::CallBuilder call(register_formula("random", f), td::Location::here());
    call.in(in[0]).in(in[1]);
    if (!why.empty()) {
      CHECK(message([&] { call.run(); }) != "no error");
      ++refused;
      continue;
    }
    const Tensor found = call.run(), expected = known.back().expand(found.sizes());
    CHECK(found.dtype() == expected.dtype());
    const std::vector<double> a = values(found), b = values(expected);
    bool same = a.size() == b.size();
    for (size_t i = 0; i < a.size() && same; ++i)
      same = std::memcmp(&a[i], &b[i], sizeof a[i]) == 0 || (std::isnan(a[i]) && std::isnan(b[i]));
    CAPTURE(a, b);
    CHECK(same);
    equal += same;
  }
  CHECK(equal > 200);
  CHECK(refused > 20);
}
