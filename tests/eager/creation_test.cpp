// What types tensors are made of, where options leave it open; and whole numbers at the edges of their ops.
#include <cmath>

#include "tandem/eager/functions.h"
#include "tests/catch.h"

namespace td = tandem;
using td::Tensor;

TEST_CASE("creation: values give their type unless another is asked for", "[eager]") {
  CHECK(td::arange(5).to_vector<int64_t>() == std::vector<int64_t>{0, 1, 2, 3, 4});
  CHECK(td::arange(5, 0, -2).to_vector<int64_t>() == std::vector<int64_t>{5, 3, 1});
  CHECK(td::arange(2.f).dtype() == td::float32);
  CHECK(td::arange(0, 2, 0.5).dtype() == td::float32);
  CHECK(td::arange(3, {.dtype = td::float16}).dtype() == td::float16);
  CHECK(td::full({2}, 3).dtype() == td::int64);
  CHECK(td::full({2}, true).dtype() == td::bool_);
  CHECK(td::full({2}, 3.0).dtype() == td::float32);
  CHECK(td::full({2}, 3, {.dtype = td::float64}).dtype() == td::float64);
  CHECK(td::zeros({2}).dtype() == td::float32);
  CHECK(td::ones({2}, {.device = td::cpu}).dtype() == td::float32);
  CHECK(td::eye(2).dtype() == td::float32);
}

TEST_CASE("creation: options that say nothing of a type leave that of the values", "[eager]") {
  const td::TensorOptions here{.device = td::cpu};
  CHECK(td::tensor<int64_t>({1, 2}, here).dtype() == td::int64);
  CHECK(td::tensor<double>({1, 2}, {.requires_grad = true}).dtype() == td::float64);
  CHECK(td::scalar_tensor(true, here).dtype() == td::bool_);
  CHECK(td::randint(0, 5, {3}, here).dtype() == td::int64);
  CHECK(td::randint(0, 5, {3}, {.dtype = td::float32}).dtype() == td::float32);
}

TEST_CASE("floor_divide: the quotient of what the remainder leaves", "[eager]") {
  const Tensor a = td::tensor({1.f, -1.f, 7.5f, -7.5f, 0.3f, INFINITY, 5.f, -1.f}),
               b = td::tensor({0.1f, 0.1f, -2.f, 2.f, 0.1f, 2.f, INFINITY, INFINITY});
  const std::vector<float> q = td::floor_divide(a, b).to_vector<float>();
  CHECK(std::isnan(q[5]));
  for (const auto& [i, expected] :
       {std::pair(0, 9.f), {1, -10.f}, {2, -4.f}, {3, -4.f}, {4, 3.f}, {6, 0.f}, {7, -1.f}})
    CHECK(q[static_cast<size_t>(i)] == expected);
  CHECK(td::floor_divide(td::tensor({1.f}), 0.f).item<float>() == INFINITY);
  CHECK((td::arange(-2, 3) % 3).to_vector<int64_t>() == std::vector<int64_t>{1, 2, 0, 1, 2});
  CHECK((7 % td::arange(2, 4)).to_vector<int64_t>() == std::vector<int64_t>{1, 1});
}

TEST_CASE("pow: of integers below 0, and of bools", "[eager]") {
  const Tensor a = td::tensor<int64_t>({0, 1, -1, 2, 0});
  CHECK(td::pow(a, td::tensor<int64_t>({-3, -3, -3, -3, 0})).to_vector<int64_t>() ==
        std::vector<int64_t>{0, 1, -1, 0, 1});
  const Tensor flags = td::tensor<bool>({true, false});
  CHECK(td::pow(flags, 2).to_vector<int64_t>() == std::vector<int64_t>{1, 0});
  CHECK(td::pow(flags, 3).to_vector<int64_t>() == std::vector<int64_t>{1, 0});
}

TEST_CASE("t: vectors and numbers are their own transposes", "[eager]") {
  const Tensor v = td::arange(3), s = td::full({}, 2);
  CHECK(v.t().sizes() == v.sizes());
  CHECK(s.t().item<int64_t>() == 2);
}
