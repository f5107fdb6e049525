// Autocast in eager mode: every row of its table against operands cast by hand, the ops without a row,
// scopes, gradients.
#include <cstring>
#include <thread>

#include "tandem/eager/nn/nn.h"
#include "tandem/ops/autocast.h"
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_calls.h"

using namespace tandem;
using namespace tandem::test;
using ops::AutocastRule;
using ops::OpId;

namespace {

bool equal_bits(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() && a.sizes() == b.sizes() &&
         (a.numel() == 0 || std::memcmp(a.contiguous().impl()->data, b.contiguous().impl()->data,
                                        static_cast<size_t>(a.impl()->nbytes())) == 0);
}

bool castable(const Tensor& t) { return t.defined() && is_floating(t.dtype()) && t.dtype() != float64; }

/// The operands as the documented rule casts them in a region of type `lower`.
std::vector<Tensor> cast_by_hand(AutocastRule rule, DType lower, std::vector<Tensor> in) {
  bool wide = rule == AutocastRule::float32;
  for (const Tensor& t : in) wide |= rule == AutocastRule::widest && castable(t) && t.dtype() == float32;
  if (rule == AutocastRule::none || (rule == AutocastRule::widest && !wide)) return in;
  for (Tensor& t : in)
    if (castable(t)) t = t.to(wide ? float32 : lower);
  return in;
}

struct Outcome {
  std::string error;
  std::vector<Tensor> results;
};
Outcome outcome(const ops::OpDef& op, const ops::Sample& s, std::vector<Tensor> in) {
  Outcome out;
  const std::string text = message([&] { out.results = call_sample(op, s, std::move(in)); });
  if (out.results.empty()) out.error = text;
  return out;
}

/// One sample with operands of these types in a region of type `lower`; true if it ran.
bool compare(const ops::OpDef& op, const ops::Sample& s, DType lower, const std::vector<DType>& types) {
  const AutocastRule rule = ops::autocast_rule(op.id);
  std::vector<Tensor> in;
  for (size_t i = 0; i < s.operands.size(); ++i)
    in.push_back(s.operands[i].is_tensor() ? tensor_of(ops::sample_type(s.operands[i], types[i]),
                                                       ops::sample_values(s.operands[i], i + 1))
                                           : Tensor());
  const Outcome wanted = outcome(op, s, cast_by_hand(rule, lower, in));
  const Autocast region(lower);
  const Outcome found = outcome(op, s, in);
  CHECK(found.error == wanted.error);
  REQUIRE(found.results.size() == wanted.results.size());
  for (size_t j = 0; j < found.results.size(); ++j) {
    CHECK(equal_bits(found.results[j], wanted.results[j]));
    const bool statistic = op.id == OpId::attention_forward && j == 1;  // a number a row, never a half
    if (rule == AutocastRule::lower && types[0] != float64)
      CHECK(found.results[j].dtype() == (statistic ? float32 : lower));
    if (rule == AutocastRule::float32 && types[0] != float64 && is_floating(found.results[j].dtype()))
      CHECK(found.results[j].dtype() == float32);
  }
  return found.error.empty();
}

}  // namespace

TEST_CASE("autocast: every op gives what it gives on operands cast by hand", "[autocast]") {
  int ran = 0, rows = 0;
  for (int id = 0; id < ops::kOpCount; ++id) {
    const ops::OpDef& op = ops::def(static_cast<OpId>(id));
    const bool touched = ops::autocast_rule(op.id) != AutocastRule::none;
    rows += touched;
    const std::vector<ops::Sample> samples = ops::samples(op);
    int of_this = 0;
    for (const ops::Sample& s : samples) {
      if (s.must_throw || s.operands.empty()) continue;
      CAPTURE(op.name, s.text);
      for (const DType lower : {bfloat16, float16}) {
        for (const DType floating : {float32, lower, float64}) {
          if (!touched && floating != lower) continue;
          of_this += compare(op, s, lower, std::vector<DType>(s.operands.size(), floating));
        }
        // Mixed: each operand in turn is narrow while the others are wide.
        for (size_t k = 0; touched && k < s.operands.size(); ++k) {
          std::vector<DType> types(s.operands.size(), float32);
          types[k] = lower;
          of_this += compare(op, s, lower, types);
        }
      }
    }
    if (touched) CHECK(of_this >= 4);
    ran += of_this;
  }
  CHECK(rows > 50);
  CHECK(ran > 1000);
}

TEST_CASE("autocast: the lists are PyTorch's", "[autocast]") {
  const Autocast region(bfloat16);
  const Tensor w = randn({3, 4}), x = randn({4, 4}), n = x.to(bfloat16);
  CHECK(matmul(w, x).dtype() == bfloat16);
  CHECK(linear(x, w).dtype() == bfloat16);
  CHECK(linear(n, w, randn({3})).dtype() == bfloat16);
  CHECK(softmax(n, -1).dtype() == float32);
  CHECK(exp(n).dtype() == float32);
  CHECK(pow(n, 2).dtype() == float32);
  CHECK(pow(n, 3).dtype() == float32);
  CHECK(n.sum().dtype() == float32);
  CHECK(layer_norm(n, 1).dtype() == float32);
  CHECK(mse_loss(n, x).dtype() == float32);
  CHECK(relu(n).dtype() == bfloat16);
  CHECK(n.mean().dtype() == bfloat16);
  CHECK((n + n).dtype() == bfloat16);
  CHECK((n + x).dtype() == float32);
  const std::vector<Tensor> both{n, x};
  CHECK(cat(both).dtype() == float32);
  const std::vector<Tensor> many{n, n, n, x, n, n, n, n};
  CHECK(cat(many).dtype() == float32);
  CHECK(matmul(w.to(float64), x.to(float64)).dtype() == float64);
  CHECK(arange(0, 4, 1, {.dtype = int64}).sum().dtype() == int64);
}

TEST_CASE("autocast: scopes nest, can be switched off inside, and belong to a thread", "[autocast]") {
  const Tensor a = randn({2, 2});
  const auto type = [&] { return matmul(a, a).dtype(); };
  CHECK(type() == float32);
  {
    const autocast outer(DType::bfloat16);
    CHECK(type() == bfloat16);
    {
      const autocast off(bfloat16, false);
      CHECK(type() == float32);
      const Autocast inner(float16);
      CHECK(type() == float16);
    }
    CHECK(type() == bfloat16);
    DType other{};
    std::thread([&] { other = type(); }).join();
    CHECK(other == float32);
    CHECK_THROWS(Autocast(float32));
    CHECK(type() == bfloat16);
  }
  CHECK(type() == float32);
  CHECK_THAT(message([] {
               const Autocast wrong(int64, true, {"user.cpp", 31});
             }),
             Contains("bfloat16 or float16, found int64 at user.cpp:31"));
}

TEST_CASE("autocast: in-place calls keep the type of what they change", "[autocast]") {
  const Tensor x = full({3}, 2.0, {.dtype = bfloat16});
  const Autocast region(bfloat16);
  x.mul_(3.0);
  CHECK(x.dtype() == bfloat16);
  CHECK(x.to_vector<float>() == std::vector<float>{6, 6, 6});
  Tensor sum = zeros({3}, {.dtype = bfloat16});
  sum.add_(x);
  CHECK(sum.dtype() == bfloat16);
}

TEST_CASE("autocast: gradients are those of the casts written out, of float32 for float32 weights",
          "[autocast]") {
  manual_seed(3);
  const Tensor x = randn({5, 4}), y = randint(0, 3, {5}), start = randn({3, 4});
  const auto gradient = [&](bool by_hand, bool backward_inside) {
    Tensor w = start.clone().requires_grad_();
    Tensor loss;
    const auto run = [&] {
      if (by_hand) {
        const Tensor h = linear(x.to(bfloat16), w.to(bfloat16));
        loss = cross_entropy(relu(h).to(float32), y);
      } else {
        const Autocast region(bfloat16);
        loss = cross_entropy(relu(linear(x, w)), y);
        if (backward_inside) loss.backward();
      }
    };
    run();
    CHECK(loss.dtype() == float32);
    if (!backward_inside) loss.backward();
    CHECK(w.grad().dtype() == float32);
    return w.grad();
  };
  const Tensor wanted = gradient(true, false);
  CHECK(equal_bits(gradient(false, false), wanted));
  CHECK(equal_bits(gradient(false, true), wanted));
}

TEST_CASE("autocast: a weight used twice sums its gradients in float32", "[autocast]") {
  // The products' gradients are 256 and 1: their sum is no bfloat16.
  Tensor w = ones({1, 1}).requires_grad_();
  const Tensor a = full({1, 1}, 256.0), b = ones({1, 1});
  {
    const Autocast region(bfloat16);
    const Tensor one = matmul(a, w);
    const Tensor two = matmul(b, w);
    (one.sum() + two.sum()).backward();
  }
  CHECK(w.grad().item<float>() == 257.0f);
}

TEST_CASE("autocast: a second derivative goes through the casts", "[autocast]") {
  Tensor w = full({2, 2}, 0.5).requires_grad_();
  Tensor y;
  {
    const Autocast region(bfloat16);
    y = tanh(matmul(w, w)).sum();
  }
  const std::vector<Tensor> roots{y}, of{w};
  const Tensor g = autograd::grad(roots, of, {}, false, true)[0];
  CHECK(g.dtype() == float32);
  g.sum().backward();
  CHECK(w.grad().dtype() == float32);
  CHECK(w.grad().sum().item<float>() != 0);
}

TEST_CASE("autocast: modules train with float32 weights", "[autocast]") {
  manual_seed(5);
  nn::Linear layer(4, 2);
  nn::LayerNorm norm(Dims{2});
  const Tensor x = randn({3, 4});
  Tensor out;
  {
    const Autocast region(float16);
    const Tensor h = layer(x);
    CHECK(h.dtype() == float16);
    out = norm(h);
    CHECK(out.dtype() == float32);
  }
  out.square().sum().backward();
  for (const Tensor& p : layer.parameters()) {
    CHECK(p.dtype() == float32);
    CHECK(p.grad().dtype() == float32);
  }
}
