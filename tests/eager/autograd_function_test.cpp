// autograd::Function: classes with a gradient of their own.
#include "tandem/eager/autograd_function.h"

#include <array>
#include <optional>

#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::Tensor;
using td::TensorList;
using td::autograd::Context;
using td::test::message;

namespace {

std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }
Tensor leaf(std::initializer_list<float> v) { return td::tensor(v).requires_grad_(); }

struct Swish : td::autograd::Function<Swish> {
  static Tensor forward(Context& c, const Tensor& x, double beta) {
    c.save_for_backward({x});
    c.saved_data["beta"] = beta;
    return x * td::sigmoid(x * beta);
  }
  static TensorList backward(Context& c, const TensorList& grads) {
    const Tensor& x = c.get_saved_variables()[0];
    const double beta = std::any_cast<double>(c.saved_data.at("beta"));
    const Tensor s = td::sigmoid(x * beta);
    return {grads[0] * (s + x * beta * s * (1.0 - s)), Tensor()};
  }
};
Tensor swish(const Tensor& x, double beta) { return x * td::sigmoid(x * beta); }

struct Straight : td::autograd::Function<Straight> {  // rounds; the gradient passes
  static Tensor forward(Context&, const Tensor& x) { return td::round(x); }
  static Tensor backward(Context&, const TensorList& grads) { return grads[0]; }
};

struct Needs : td::autograd::Function<Needs> {
  static inline std::string seen;
  static Tensor forward(Context& c, const Tensor& a, int, const Tensor& b) {
    seen = note(c);
    return a * b;
  }
  static TensorList backward(Context& c, const TensorList& grads) {
    seen += " " + note(c);
    return {grads[0], Tensor(), grads[0] * 2.f};
  }
  static std::string note(Context& c) {
    std::string s;
    for (size_t i = 0; i < 4; ++i) s += c.needs_input_grad(i) ? '1' : '0';
    return s;
  }
};

struct Parts : td::autograd::Function<Parts> {
  static inline bool materialize = true;
  static inline std::vector<bool> defined;
  static TensorList forward(Context& c, const Tensor& x) {
    c.set_materialize_grads(materialize);
    const Tensor where = td::gt(x, 0.0).to(td::float32);
    c.mark_non_differentiable({where});
    return {x * 2.f, x * 3.f, where};
  }
  static TensorList backward(Context&, const TensorList& grads) {
    defined.clear();
    for (const Tensor& g : grads) defined.push_back(g.defined());
    Tensor sum = td::zeros({2});
    if (grads[0].defined()) sum = sum + grads[0] * 2.f;
    if (grads[1].defined()) sum = sum + grads[1] * 3.f;
    return {sum};
  }
};

template <int which>
struct Wrong : td::autograd::Function<Wrong<which>> {
  static Tensor forward(Context& c, const Tensor& x, double) {
    c.save_for_backward({x});
    return x * 2.f;
  }
  static TensorList backward(Context& c, const TensorList& grads) {
    if (which == 0) return {grads[0]};
    if (which == 1) return {grads[0], grads[0]};
    if (which == 2) return {grads[0].sum(), Tensor()};
    return {grads[0] * c.saved()[0], Tensor()};
  }
};

struct Exponential : td::autograd::Function<Exponential> {  // saves its result
  static Tensor forward(Context& c, const Tensor& x) {
    const Tensor y = td::exp(x);
    c.save_for_backward({y});
    return y;
  }
  static Tensor backward(Context& c, const TensorList& grads) { return grads[0] * c.saved()[0]; }
};

template <td::DType dtype>
struct Other : td::autograd::Function<Other<dtype>> {  // a gradient of this dtype
  static Tensor forward(Context&, const Tensor& x) { return x * 2.f; }
  static Tensor backward(Context&, const TensorList& grads) { return (grads[0] * 2.f).to(dtype); }
};

struct Passes : td::autograd::Function<Passes> {  // an input comes back, without gradient
  static TensorList forward(Context& c, const Tensor& x) {
    c.mark_non_differentiable({x});
    return {x, x * 2.f};
  }
  static Tensor backward(Context&, const TensorList& grads) { return grads[1] * 2.f; }
};

using td::autograd::hides_tensors;
static_assert(hides_tensors<TensorList>() && hides_tensors<std::optional<Tensor>>() &&
              hides_tensors<std::array<Tensor, 2>>() && hides_tensors<Tensor[2]>() &&
              hides_tensors<std::pair<int, Tensor>>() && hides_tensors<std::tuple<int, TensorList>>() &&
              hides_tensors<std::vector<std::optional<Tensor>>>() && hides_tensors<std::map<int, Tensor>>());
static_assert(!hides_tensors<Tensor>() && !hides_tensors<double>() && !hides_tensors<std::string>() &&
              !hides_tensors<std::vector<int>>() && !hides_tensors<std::optional<double>>() &&
              !hides_tensors<td::Dims>() && !hides_tensors<std::tuple<>>() && !hides_tensors<int[3]>());

}  // namespace

TEST_CASE("autograd function: a gradient of another dtype becomes the argument's", "[eager]") {
  const auto check = [](auto f, td::DType dtype) {
    Tensor x = td::tensor({1.f, 2.f}).to(dtype).requires_grad_();
    f(x).sum().backward();
    CHECK(x.grad().dtype() == dtype);
    CHECK(x.grad().to(td::float32).to_vector<float>() == std::vector<float>{2, 2});
  };
  check([](const Tensor& x) { return Other<td::float64>::apply(x); }, td::float32);
  check([](const Tensor& x) { return Other<td::float16>::apply(x); }, td::float32);
  check([](const Tensor& x) { return Other<td::float32>::apply(x); }, td::bfloat16);
  check([](const Tensor& x) { return Other<td::float64>::apply(x * 1.f); }, td::float32);
  CHECK_THAT(message([] {
               Other<td::int64>::apply(leaf({1, 2})).sum().backward();
             }),
             Contains("the gradient of input 0 is int64, the input float32") &&
                 Contains("autograd_function_test.cpp:"));
  Tensor x = leaf({1, 2});  // differentiable through the cast
  const Tensor g =
      td::autograd::grad({{Other<td::float64>::apply(x).square().sum()}}, {{x}}, {}, true, true)[0];
  CHECK(g.dtype() == td::float32);
  CHECK(values(td::autograd::grad({{g.sum()}}, {{x}})[0]) == std::vector<float>{8, 8});
}

TEST_CASE("autograd function: an input that is marked and returned does not require grad", "[eager]") {
  Tensor x = leaf({1, 2});
  const TensorList r = Passes::apply(x);
  CHECK_FALSE(r[0].requires_grad());
  CHECK(r[0].impl()->data == x.impl()->data);
  CHECK(x.requires_grad());
  (r[0] * r[1]).sum().backward();
  CHECK(values(x.grad()) == std::vector<float>{2, 4});
}

TEST_CASE("autograd function: forward and gradient are what the class says", "[eager]") {
  Tensor w = leaf({1, -2, 0.5}), v = leaf({1, -2, 0.5});
  const Tensor y = Swish::apply(w, 1.5), z = swish(v, 1.5);
  CHECK(values(y) == values(z));
  y.square().sum().backward();
  z.square().sum().backward();
  for (size_t i = 0; i < 3; ++i) CHECK(values(w.grad())[i] == Approx(values(v.grad())[i]));
  Tensor r = leaf({1.4f, -2.6f});
  const Tensor rounded = Straight::apply(r);
  CHECK(values(rounded) == std::vector<float>{1, -3});
  (rounded * 5.f).sum().backward();
  CHECK(values(r.grad()) == std::vector<float>{5, 5});
}

TEST_CASE("autograd function: no node where no gradient is wanted", "[eager]") {
  CHECK_FALSE(Swish::apply(td::ones({2}), 1.0).requires_grad());
  const td::NoGrad no_grad;
  CHECK_FALSE(Swish::apply(leaf({1, 2}), 1.0).requires_grad());
}

TEST_CASE("autograd function: backward can be differentiated again", "[eager]") {
  const auto second = [](auto f) {
    Tensor w = leaf({1, -2, 0.5});
    const Tensor y = f(w);
    const Tensor g = td::autograd::grad({{y.square().sum()}}, {{w}}, {}, true, true)[0];
    return values(td::autograd::grad({{g.square().sum()}}, {{w}})[0]);
  };
  const auto own = second([](const Tensor& w) { return Swish::apply(w, 1.5); });
  const auto plain = second([](const Tensor& w) { return swish(w, 1.5); });
  for (size_t i = 0; i < 3; ++i) CHECK(own[i] == Approx(plain[i]).epsilon(1e-4));
  const auto saved_result = second([](const Tensor& w) { return Exponential::apply(w); });
  const auto exponential = second([](const Tensor& w) { return td::exp(w); });
  for (size_t i = 0; i < 3; ++i) CHECK(saved_result[i] == Approx(exponential[i]).epsilon(1e-4));
}

TEST_CASE("autograd function: needs_input_grad counts the arguments of forward", "[eager]") {
  Tensor a = leaf({1, 2}), b = td::ones({2});
  Needs::apply(a, 7, b).sum().backward();
  CHECK(Needs::seen == "1000 1000");
  CHECK(values(a.grad()) == std::vector<float>{1, 1});
  Needs::apply(b, 7, a).sum().backward();
  CHECK(Needs::seen == "0010 0010");
  CHECK(values(a.grad()) == std::vector<float>{3, 3});
  Needs::apply(b, 7, b);
  CHECK(Needs::seen == "0000");
}

TEST_CASE("autograd function: gradients that did not flow are zeros, unless undefined ones are asked for",
          "[eager]") {
  for (const bool materialize : {true, false}) {
    Parts::materialize = materialize;
    Tensor x = leaf({1, -2});
    const TensorList parts = Parts::apply(x);
    CHECK(parts[1].requires_grad());
    CHECK_FALSE(parts[2].requires_grad());
    parts[1].sum().backward();
    CHECK(values(x.grad()) == std::vector<float>{3, 3});
    CHECK(Parts::defined == std::vector<bool>{materialize, true, materialize});
  }
}

TEST_CASE("autograd function: wrong gradients and changed values are errors with the line of the call",
          "[eager]") {
  Tensor x = leaf({1, 2});
  const std::string here = "autograd_function_test.cpp:";
  CHECK_THAT(message([&] { Wrong<0>::apply(x, 1.0).sum().backward(); }),
             Contains("backward returned 1 gradients for 2 arguments of forward") && Contains(here));
  CHECK_THAT(message([&] { Wrong<1>::apply(x, 1.0).sum().backward(); }),
             Contains("a gradient for argument 1, which is no tensor") && Contains(here));
  CHECK_THAT(message([&] { Wrong<2>::apply(x, 1.0).sum().backward(); }),
             Contains("the gradient of input 0 has shape (), the input (2,)") && Contains(here));
  const Tensor y = Wrong<3>::apply(x, 1.0);
  {
    const td::NoGrad no_grad;
    x.add_(1.f);
  }
  CHECK_THAT(message([&] { y.sum().backward(); }), Contains("was changed in place") && Contains(here));
}

TEST_CASE("autograd function: neither saved results nor contexts keep themselves alive", "[eager]") {
  struct Counted {
    int* alive;
    explicit Counted(int* a) : alive(a) { ++*alive; }
    Counted(const Counted& c) : alive(c.alive) { ++*alive; }
    ~Counted() { --*alive; }
  };
  static int alive = 0;
  struct Keeps : td::autograd::Function<Keeps> {
    static Tensor forward(Context& c, const Tensor& x) {
      const Tensor y = x * 2.f;
      c.save_for_backward({x, y});
      c.saved_data["counted"] = Counted(&alive);
      return y;
    }
    static Tensor backward(Context&, const TensorList& grads) { return grads[0]; }
  };
  Tensor x = leaf({1, 2});
  {
    const Tensor y = Keeps::apply(x);
    CHECK(alive == 1);
  }
  CHECK(alive == 0);
  Keeps::apply(x).sum().backward();
  CHECK(alive == 0);
}
