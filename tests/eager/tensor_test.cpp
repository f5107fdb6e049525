// Tensor: creation, reading, operators, indexing, views, in-place forms, printing, and what is refused.
#include <algorithm>
#include <cmath>
#include <sstream>

#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::Tensor;

namespace {
std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }
using tandem::test::message;
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
}  // namespace

TEST_CASE("one axis and one size need no braces", "[eager]") {
  const Tensor x = td::rand({2, 3});
  CHECK(x.sum(0).to_vector<float>() == x.sum({0}).to_vector<float>());
  CHECK(x.mean(-1, true).sizes() == td::Dims{2, 1});
  CHECK(td::zeros(3).sizes() == td::Dims{3});
  CHECK(td::Dims(x.sum().sizes()).rank() == 0);
}

TEST_CASE("tensor: operators broadcast and promote as in PyTorch", "[eager]") {
  const Tensor a = td::tensor({1.f, 2.f}), i = td::tensor<int64_t>({3, 4});
  CHECK(values(a + i) == std::vector<float>{4, 6});
  CHECK((a + i).dtype() == td::float32);
  CHECK((i + 1).dtype() == td::int64);
  CHECK((i * 0.5).dtype() == td::float32);
  CHECK((i / i).dtype() == td::float32);
  CHECK((a > 1.5).dtype() == td::bool_);
  CHECK(values(2 * a - 1) == std::vector<float>{1, 3});
  CHECK(values(1 / a) == std::vector<float>{1, 0.5});
  CHECK((a.view({2, 1}) + a).sizes() == td::Dims{2, 2});
}

TEST_CASE("tensor: views share memory, and in-place changes show through them", "[eager]") {
  const Tensor a = td::arange(0.f, 6).view({2, 3});
  const Tensor t = a.t();
  t.add_(1.f);
  CHECK(values(a) == std::vector<float>{1, 2, 3, 4, 5, 6});
  a.select(0, -1).zero_();
  CHECK(values(t) == std::vector<float>{1, 0, 2, 0, 3, 0});
  a.index({td::Slice(), td::Slice{0, 2}}).copy_(td::tensor({9.f, 8.f}));
  CHECK(values(a) == std::vector<float>{9, 8, 3, 9, 8, 0});
  CHECK(values(a.index({1, td::Ellipsis()})) == std::vector<float>{9, 8, 0});
  CHECK(a.index({td::NewAxis(), 0}).sizes() == td::Dims{1, 3});
  CHECK(values(a[0][-1]) == std::vector<float>{3});
}

TEST_CASE("tensor: an in-place op that reads what it writes in another order reads the old values",
          "[eager]") {
  const Tensor a = td::arange(0.f, 9).view({3, 3});
  a.add_(a.t());
  CHECK(values(a) == std::vector<float>{0, 4, 8, 4, 8, 12, 8, 12, 16});
}

TEST_CASE("tensor: reading", "[eager]") {
  CHECK(td::scalar_tensor(2.5f).item<double>() == 2.5);
  CHECK(td::tensor<int64_t>({int64_t{1} << 60}).item<int64_t>() == int64_t{1} << 60);
  CHECK(static_cast<bool>(td::scalar_tensor(1.f) > 0.5));
  CHECK(contains(message([] { td::ones({2}).item<float>(); }), "one element"));
  CHECK(contains(message([] { td::ones({2}).data<double>(); }), "float32"));
  float host[3] = {1, 2, 3};
  const Tensor b = td::from_blob(host, {3});
  b.mul_(2.f);
  CHECK(host[2] == 6);
}

TEST_CASE("tensor: reshape copies only where it must", "[eager]") {
  const Tensor a = td::arange(0.f, 6).view({2, 3});
  CHECK(a.reshape({3, -1}).impl()->storage == a.impl()->storage);
  CHECK(a.t().reshape({6}).impl()->storage != a.impl()->storage);
  CHECK(values(a.t().reshape({6})) == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(contains(message([&] { a.t().view({6}); }), "without a copy"));
}

TEST_CASE("tensor: printing", "[eager]") {
  std::ostringstream out;
  out << td::arange(0.f, 4).view({2, 2}) << " " << td::tensor<int64_t>({1, 2}) << " " << Tensor();
  CHECK(out.str() == "[[0., 1.],\n [2., 3.]] float32(2, 2) [1, 2] int64(2,) undefined tensor");
}

TEST_CASE("tensor: random half types are the float32 draws, rounded, and as many", "[eager]") {
  for (const td::DType type : {td::float16, td::bfloat16}) {
    CAPTURE(td::name(type));
    const auto compare = [&](auto&& draw) {
      td::Generator wide(5), narrow(5);
      const Tensor expected = draw(td::float32, &wide), found = draw(type, &narrow);
      CHECK(found.dtype() == type);
      CHECK(values(found) == values(expected.to(type)));
      CHECK(wide.offset() == narrow.offset());
    };
    compare([](td::DType t, td::Generator* g) { return td::randn({1000}, {.dtype = t}, g); });
    compare(
        [](td::DType t, td::Generator* g) { return td::zeros({1000}, {.dtype = t}).normal_(3, 0.01, g); });
    compare([](td::DType t, td::Generator* g) { return td::zeros({1000}, {.dtype = t}).uniform_(-7, 9, g); });
    compare([](td::DType t, td::Generator* g) { return td::zeros({50}, {.dtype = t}).bernoulli_(0.3, g); });
    compare([](td::DType t, td::Generator* g) { return td::randint(0, 100, {50}, {.dtype = t}, g); });
    // [0, 1): what would round to 1 becomes the largest number below.
    td::Generator wide(5), narrow(5);
    const std::vector<float> exact = values(td::rand({20000}, {}, &wide));
    const Tensor rounded = td::rand({20000}, {.dtype = type}, &narrow);
    CHECK(rounded.dtype() == type);
    const std::vector<float> found = values(rounded);
    CHECK(*std::max_element(found.begin(), found.end()) < 1);
    float largest_step = 0;
    for (size_t i = 0; i < found.size(); ++i)
      largest_step = std::max(largest_step, std::abs(found[i] - exact[i]));
    CHECK(largest_step <= (type == td::float16 ? 0x1p-11f : 0x1p-8f));
  }
  CHECK(td::randn({3}, {.dtype = td::bfloat16, .requires_grad = true}).requires_grad());
  CHECK(contains(message([] { td::zeros({2}, {.dtype = td::int64}).normal_(); }), "floating"));
  CHECK(contains(message([] { td::zeros({2}, {.dtype = td::int64}).uniform_(); }), "floating"));
  CHECK(contains(message([] { td::rand({2}, {.dtype = td::int64}); }), "floating"));
}

TEST_CASE("tensor: a handle's autograd state changes through a const handle, as its values do", "[eager]") {
  const Tensor t = td::ones({2});
  const Tensor& same = t.requires_grad_();
  CHECK(&same == &t);
  t.set_grad(td::ones({2}));
  CHECK(values(t.grad()) == std::vector<float>{1, 1});
  t.zero_grad();
  CHECK(!t.grad().defined());
}

TEST_CASE("tensor: bad input is an Error that names the caller's line", "[eager]") {
  const Tensor a = td::ones({2, 3});
  for (const std::string& text :
       {message([&] { a + td::ones({4}); }), message([&] { a.sum({2}); }), message([&] { a.select(0, 2); }),
        message([&] {
          a.matmul(td::ones({2, 3}));
        }),
        message([&] { td::ones({-1}); }), message([&] { a.permute({0}); }), message([&] {
          a.index_select(0, td::tensor<int64_t>({0, 5}));
        }),
        message([&] { td::dropout(a, 1.5); }), message([&] {
          td::cross_entropy(a, td::tensor<int64_t>({0, 3}));
        }),
        message([&] {
          a.expand({2, 4});
        }),
        message([&] {
          td::empty({int64_t{1} << 40, int64_t{1} << 40});
        }),
        message([&] { a.squeeze(5); })}) {
    INFO(text);
    CHECK(contains(text, "tensor_test.cpp:"));
  }
  CHECK(contains(message([] { td::ones({1, 1, 1, 1, 1, 1, 1, 1, 1}); }), "rank"));
  CHECK(contains(message([&] { a.add_(td::ones({2, 2, 3})); }), "does not fit"));
  CHECK(contains(message([&] { td::ones({3, 1}).expand({3, 4}).add_(1.f); }), "clone() it first"));
  CHECK(contains(message([&] { td::tensor<int64_t>({1}).div_(2.f); }), "cannot be stored in place"));
}
