// Tensor: creation, reading, operators, indexing, views, in-place forms, printing, and what is refused.
#include <sstream>

#include "tandem/eager/functions.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

namespace {
std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }
std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const td::Error& e) {
    return e.what();
  }
  return "no error";
}
bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
}  // namespace

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
  const Tensor a = td::arange(0, 6).view({2, 3});
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
  const Tensor a = td::arange(0, 9).view({3, 3});
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
  const Tensor a = td::arange(0, 6).view({2, 3});
  CHECK(a.reshape({3, -1}).impl()->storage == a.impl()->storage);
  CHECK(a.t().reshape({6}).impl()->storage != a.impl()->storage);
  CHECK(values(a.t().reshape({6})) == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(contains(message([&] { a.t().view({6}); }), "without a copy"));
}

TEST_CASE("tensor: printing", "[eager]") {
  std::ostringstream out;
  out << td::arange(0, 4).view({2, 2}) << " " << td::tensor<int64_t>({1, 2}) << " " << Tensor();
  CHECK(out.str() == "[[0., 1.],\n [2., 3.]] float32(2, 2) [1, 2] int64(2,) undefined tensor");
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
