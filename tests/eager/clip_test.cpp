// Clipping of gradients: the norms, what is scaled, and that a traced step needs no read.
#include "tandem/eager/nn/clip.h"

#include <cmath>
#include <limits>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;

namespace {

/// Parameters whose gradients are the values given; the last has none.
std::vector<Tensor> parameters(DType type = float32) {
  std::vector<Tensor> out;
  for (const std::vector<float>& values : {std::vector<float>{3, 0}, std::vector<float>{0, -4, 12}}) {
    const Tensor p = zeros({static_cast<int64_t>(values.size())}, {.dtype = type}).requires_grad_();
    (p * tensor(values).to(type)).sum().backward();
    out.push_back(p);
  }
  out.push_back(zeros({2}, {.dtype = type}).requires_grad_());
  return out;
}

std::vector<double> all_gradients(const std::vector<Tensor>& p) {
  std::vector<double> out;
  for (const Tensor& t : p)
    if (t.grad().defined())
      for (const double v : t.grad().to(float64).to_vector<double>()) out.push_back(v);
  return out;
}

using tandem::test::message;

}  // namespace

TEST_CASE("gradients are scaled to a norm, of every kind", "[nn]") {
  const double infinity = std::numeric_limits<double>::infinity();
  struct Kind {
    double type, norm;
  };
  for (const Kind k : {Kind{2, 13}, Kind{1, 19}, Kind{infinity, 12}, Kind{3, std::cbrt(27.0 + 64 + 1728)}}) {
    for (const DType t : {float32, float64, float16}) {
      std::vector<Tensor> p = parameters(t);
      const Tensor norm = nn::utils::clip_grad_norm_(p, 6.5, k.type);
      INFO(k.type << ' ' << name(t));
      CHECK(norm.dtype() == (t == float64 ? float64 : float32));
      CHECK(norm.item<double>() == Approx(k.norm));
      const double factor = 6.5 / (k.norm + 1e-6);
      const std::vector<double> found = all_gradients(p), were = {3, 0, 0, -4, 12};
      REQUIRE(found.size() == were.size());
      for (size_t i = 0; i < were.size(); ++i)
        CHECK(found[i] == Approx(were[i] * factor).epsilon(t == float16 ? 1e-3 : 1e-5));
    }
  }
  std::vector<Tensor> p = parameters();
  CHECK(nn::utils::clip_grad_norm_(p, 13.5).item<float>() == 13);
  CHECK(all_gradients(p) == std::vector<double>{3, 0, 0, -4, 12});
  CHECK(nn::utils::clip_grad_norm_({p.back()}, 1).item<float>() == 0);
}

TEST_CASE("gradients are clamped to a value", "[nn]") {
  std::vector<Tensor> p = parameters();
  nn::utils::clip_grad_value_(p, 3.5);
  CHECK(all_gradients(p) == std::vector<double>{3, 0, 0, -3.5, 3.5});
}

TEST_CASE("impossible clippings are refused with the caller's line", "[nn]") {
  const std::vector<Tensor> p = parameters();
  for (const std::string& text : {message([&] { nn::utils::clip_grad_norm_(p, -1); }),
                                  message([&] { nn::utils::clip_grad_norm_(p, 1, 0); }),
                                  message([&] { nn::utils::clip_grad_value_(p, std::nan("")); })}) {
    INFO(text);
    CHECK_THAT(text, Contains("must be") && Contains("clip_test.cpp"));
  }
}
