// Mixed indices: what is a view, what is read, gradients of repeated positions, in-place forms, and what is
// refused. tests/pytorch/indexing_test.cpp compares shapes and values with PyTorch's.
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using tandem::test::message;
using td::Tensor;

namespace {
std::vector<float> values(const Tensor& t) { return t.to_vector<float>(); }
using F = std::vector<float>;
Tensor at(std::initializer_list<int64_t> i) { return td::tensor<int64_t>(i); }
}  // namespace

TEST_CASE("indexing: tensors pick, negative positions count from the end", "[eager]") {
  const Tensor x = td::arange(0.f, 12).view({3, 4});
  CHECK(values(x[at({2, -3})]) == F{8, 9, 10, 11, 0, 1, 2, 3});
  CHECK(values(x.index({at({0, -1}), at({3, -4})})) == F{3, 8});
  CHECK(values(x.index({td::Slice(), at({-1})})) == F{3, 7, 11});
  CHECK(values(x[x > 9.0]) == F{10, 11});
  CHECK(values(x[td::tensor({true, false, true}).to(td::bool_)]) == F{0, 1, 2, 3, 8, 9, 10, 11});
  CHECK(x.index({at({1}), td::None, at({0, 1})}).sizes() == td::Dims{2, 1});
  CHECK(values(x.index({td::scalar_tensor<int64_t>(-1)})) == F{8, 9, 10, 11});
  CHECK(x[x > 99.0].sizes() == td::Dims{0});
  CHECK(values(x.index({td::Slice(td::None, td::None, 2), td::Slice(-2)})) == F{2, 3, 10, 11});
}

TEST_CASE("indexing: numbers and slices alone give views", "[eager]") {
  const Tensor x = td::zeros({3, 4});
  x.index({1, td::Slice(1, 3)}).add_(1.0);
  x.index({td::Ellipsis(), -1}).fill_(2.0);
  CHECK(values(x) == F{0, 0, 0, 2, 0, 1, 1, 2, 0, 0, 0, 2});
  x[at({0})].add_(5.0);  // a copy
  CHECK(x[0][0].item<float>() == 0);
}

TEST_CASE("indexing: rows changed in place by rows of the same memory, or not at all", "[eager]") {
  const Tensor x = td::arange(0.f, 6).view({3, 2});
  x.index_copy_(0, at({2, 1, 0}), x);
  CHECK(values(x) == F{4, 5, 2, 3, 0, 1});
  x.index_add_(0, at({0, 0}), x.narrow(0, 1, 2));
  CHECK(values(x) == F{6, 9, 2, 3, 0, 1});
  x.t().index_copy_(0, at({1}), td::ones({1, 3}));
  CHECK(values(x) == F{6, 1, 2, 1, 0, 1});
  CHECK_THAT(message([&] { x.index_add_(0, at({0, 3}), td::ones({2, 2})); }), Contains("out of range"));
  CHECK(values(x) == F{6, 1, 2, 1, 0, 1});
  const Tensor places = at({2, 0, 1});
  places.scatter_(0, places, places);
  CHECK(places.to_vector<int64_t>() == std::vector<int64_t>{0, 1, 2});
}

TEST_CASE("indexing: gradients add up where a position is named twice", "[eager]") {
  const Tensor x = td::arange(0.f, 6).view({3, 2}).requires_grad_();
  const Tensor weight = td::arange(1.f, 9).view({4, 2});
  (x[at({0, 2, 0, -1})] * weight).sum().backward();
  CHECK(values(x.grad()) == F{1 + 5, 2 + 6, 0, 0, 3 + 7, 4 + 8});
}

TEST_CASE("indexing: putting, adding, in place and through views", "[eager]") {
  const Tensor x = td::zeros({3, 4});
  x.index_put_({at({0, -1}), at({1, 1})}, td::tensor({5.f, 6.f}));
  CHECK(values(x) == F{0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0});
  x.index_put_({at({0, 0}), at({1, 1})}, 1.0, true);
  CHECK(x.index({0, 1}).item<float>() == 7);
  x.index_put_({td::Slice(), at({3})}, 2.0);
  CHECK(values(x.index({td::Slice(), -1})) == F{2, 2, 2});
  x.index_put_({td::Slice(1, 3), at({0, 2})}, td::arange(1.f, 5).view({2, 2}));
  CHECK(values(x) == F{0, 7, 0, 2, 1, 0, 2, 2, 3, 6, 4, 2});
  x.t().index_put_({at({1})}, -1.0);
  CHECK(values(x.index({td::Slice(), 1})) == F{-1, -1, -1});
  x.index_put_({x < 0.0}, 9.0);
  CHECK(values(x.index({td::Slice(), 1})) == F{9, 9, 9});
  x.index_put_({0}, td::ones({4}));
  x.index_put_({0}, 1.5, true);
  CHECK(values(x[0]) == F{2.5, 2.5, 2.5, 2.5});
  const Tensor y = x.index_put({at({2})}, 0.0);
  CHECK(values(y[2]) == F{0, 0, 0, 0});
  CHECK(x[2][0].item<float>() == 3);
}

TEST_CASE("indexing: index_put_ on a leaf's copy has gradients of both sides", "[eager]") {
  const Tensor x = td::ones({4}).requires_grad_(), v = td::full({2}, 3.0).requires_grad_();
  const Tensor y = x * 2.0;
  y.index_put_({at({1, -1})}, v);
  (y * td::arange(1.f, 5)).sum().backward();
  CHECK(values(x.grad()) == F{2, 0, 6, 0});
  CHECK(values(v.grad()) == F{2, 4});
}

TEST_CASE("indexing: integers that no double holds are put as they are", "[eager]") {
  constexpr int64_t kLarge = (int64_t{1} << 53) + 1;
  const std::vector<int64_t> wanted = {0, kLarge, -kLarge, kLarge};
  const Tensor x = at({0, 0, 0, 0});
  x.index_put_({at({1})}, kLarge);
  x.index_put_({td::Slice(2, 3)}, -kLarge);
  x.index_put_({at({3})}, kLarge, true);
  CHECK(x.to_vector<int64_t>() == wanted);
  CHECK(at({0}).index_put({at({0})}, kLarge).item<int64_t>() == kLarge);
  x.slice(0, 1, 3).fill_(-kLarge);
  CHECK(x.to_vector<int64_t>() == std::vector<int64_t>{0, -kLarge, -kLarge, kLarge});
  CHECK(at({0, 0}).fill_(2.75).to_vector<int64_t>() == std::vector<int64_t>{2, 2});
}

TEST_CASE("indexing: what is refused", "[eager]") {
  const Tensor x = td::ones({3, 4});
  const auto read = [](const Tensor& t) { return t.sum().item<float>(); };
  CHECK_THAT(message([&] {
               read(x[at({0, 3})]);
             }),
             Contains("index: index 3 is out of range for axis 0 of float32(3, 4)"));
  CHECK_THAT(message([&] { read(x[at({-4})]); }), Contains("index -4 is out of range for axis 0"));
  CHECK_THAT(message([&] {
               read(x.index({at({0}), at({4})}));
             }),
             Contains("index 4 is out of range for axis 1"));
  CHECK_THAT(message([&] {
               read(x.index_put({at({0}), at({-5})}, 1.0));
             }),
             Contains("index_put: index -5 is out of range for axis 1"));
  CHECK_THAT(message([&] { x[td::ones({2})]; }), Contains("tensors of positions must be int64 or int32"));
  CHECK_THAT(message([&] { x[td::ones({2}, {.dtype = td::bool_})]; }),
             Contains("a mask of shape (2,) does not fit the axes from 0 on of (3, 4)"));
  CHECK_THAT(message([&] { x.index({at({0}), at({1}), at({2})}); }), Contains("3 indices"));
  CHECK_THAT(message([&] { x.index({at({0, 1}), at({0, 1, 2})}); }), Contains("(2,)"));
  CHECK_THAT(message([&] {
               x.index_put({at({0, 1})}, td::ones({3}));
             }),
             Contains("values of shape (3,) do not broadcast to (2, 4)"));
  CHECK_THAT(message([&] { x.index_put({at({0})}, td::ones({4}, {.dtype = td::float64})); }),
             Contains("another type"));
  CHECK_THAT(message([&] { at({1, 2}).index_put({at({0})}, 0.5); }), Contains("does not fit into int64"));
  CHECK_THAT(message([&] { x.index({Tensor()}); }), Contains("undefined tensor"));
}
