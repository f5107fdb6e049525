// Types of results, promotion, view layouts, and what wrong calls are told.
#include <memory>

#include "tandem/core/error.h"
#include "tandem/ops/op.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::ops;

namespace {

TensorType tensor(const Dims& sizes, DType t = DType::float32) { return {t, cpu, false, sizes}; }
TensorType number(DType t) { return {t, cpu, true, {}}; }

struct Call {
  std::vector<TensorType> in;
  std::vector<int64_t> words;
  std::unique_ptr<bool[]> present;
  InferCall call;
  Call(OpId op, std::vector<TensorType> operands, std::vector<int64_t> w)
      : in(std::move(operands)),
        words(std::move(w)),
        present(new bool[in.size() + 1]),
        call{def(op), in, {present.get(), in.size()}, words, {"train.cpp", 31}} {
    for (size_t i = 0; i < in.size(); ++i) present[i] = true;
  }
};

std::vector<TensorType> infer_all(OpId op, std::vector<TensorType> in, std::vector<int64_t> words = {}) {
  const Call c(op, std::move(in), std::move(words));
  std::vector<TensorType> out;
  infer(c.call, out);
  return out;
}
TensorType infer1(OpId op, std::vector<TensorType> in, std::vector<int64_t> words = {}) {
  return infer_all(op, std::move(in), std::move(words)).at(0);
}
std::string error_of(OpId op, std::vector<TensorType> in, std::vector<int64_t> words = {}) {
  try {
    infer_all(op, std::move(in), std::move(words));
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}
Layout view(OpId op, const Layout& in, std::vector<int64_t> words) {
  const Call c(op, {tensor(in.sizes)}, std::move(words));
  return def(op).view(c.call, in);
}

}  // namespace

TEST_CASE("pointwise types promote as in PyTorch", "[ops]") {
  const auto add = [](const TensorType& a, const TensorType& b) { return infer1(OpId::add, {a, b}).dtype; };
  CHECK(add(tensor({2}, float16), tensor({2}, float32)) == float32);
  CHECK(add(tensor({2}, float16), tensor({2}, bfloat16)) == float32);
  CHECK(add(tensor({2}, int64), tensor({2}, float16)) == float16);
  CHECK(add(tensor({2}, uint8), tensor({2}, int32)) == int32);
  // A scalar tensor changes the category, never the width.
  CHECK(add(tensor({2}, float16), tensor({}, float64)) == float16);
  CHECK(add(tensor({2}, int32), tensor({}, int64)) == int32);
  CHECK(add(tensor({2}, int64), tensor({}, float64)) == float64);
  CHECK(add(tensor({}, int64), tensor({}, int32)) == int64);
  // So does a number; a floating one alone means float32.
  CHECK(add(tensor({2}, float16), number(float64)) == float16);
  CHECK(add(tensor({2}, int32), number(float64)) == float32);
  CHECK(add(tensor({2}, uint8), number(int64)) == uint8);
  CHECK(add(tensor({2}, bool_), number(int64)) == int64);
  CHECK(add(tensor({}, float64), number(float64)) == float64);
  CHECK(infer1(OpId::div, {tensor({2}, int64), tensor({2}, int64)}).dtype == float32);
  CHECK(infer1(OpId::exp, {tensor({2}, bfloat16)}).dtype == bfloat16);
  CHECK(infer1(OpId::eq, {tensor({2}, int64), number(float64)}).dtype == bool_);
  CHECK(infer1(OpId::where, {tensor({2}, bool_), tensor({2}, int64), number(float64)}).dtype == float32);
  CHECK(infer1(OpId::where, {tensor({2}, bool_), number(float64), number(int64)}).dtype == float32);
  CHECK(infer1(OpId::cast, {tensor({2})}, {static_cast<int64_t>(int32)}).dtype == int32);
}

TEST_CASE("pointwise shapes broadcast", "[ops]") {
  CHECK(infer1(OpId::add, {tensor({3, 4}), tensor({4})}).sizes == Dims{3, 4});
  CHECK(infer1(OpId::add, {tensor({4}), tensor({2, 3, 1})}).sizes == Dims{2, 3, 4});
  CHECK(infer1(OpId::add, {tensor({0, 1}), tensor({5})}).sizes == Dims{0, 5});
  CHECK(infer1(OpId::where, {tensor({2, 1, 1}, bool_), tensor({3, 1}), tensor({4})}).sizes == Dims{2, 3, 4});
  CHECK(infer1(OpId::add, {tensor({3}), number(float64)}).sizes == Dims{3});
}

TEST_CASE("pointwise mistakes are explained", "[ops]") {
  CHECK(error_of(OpId::add, {tensor({3, 4}), tensor({5})}) ==
        "add: shapes do not broadcast: float32(3, 4), float32(5,); sizes, counted from the right, must be "
        "equal or 1 at train.cpp:31");
  CHECK(error_of(OpId::sub, {tensor({3}, bool_), tensor({3}, bool_)}) ==
        "sub: is not defined for bool, found bool(3,), bool(3,); cast, or use logical_xor at train.cpp:31");
  CHECK_THAT(error_of(OpId::add, {number(float64), number(int64)}),
             Contains("at least one must be a tensor"));
  CHECK_THAT(error_of(OpId::add, {tensor({3})}), Contains("add: takes 2 operands, found 1"));
  TensorType far = tensor({3});
  far.device = {DeviceType::cuda, 1};
  CHECK(error_of(OpId::add, {tensor({3}), far}) ==
        "add: operands on cpu and cuda:1; move one of them with to(device) at train.cpp:31");
  CHECK_THAT(error_of(OpId::cast, {tensor({3})}, {99}), Contains("cast: no such type: 99"));
}

TEST_CASE("reductions", "[ops]") {
  CHECK(infer1(OpId::sum, {tensor({2, 3, 4}, float16)}, {0, 0}) == tensor({}, float16));
  CHECK(infer1(OpId::sum, {tensor({2, 3, 4}, bool_)}, {1, 2, 0, -1}) == tensor({1, 3, 1}, int64));
  CHECK(infer1(OpId::prod, {tensor({2, 3}, uint8)}, {0, 1, 1}) == tensor({2}, int64));
  CHECK(infer1(OpId::amax, {tensor({2, 3}, uint8)}, {0, 1, 1}) == tensor({2}, uint8));
  CHECK(infer1(OpId::argmax, {tensor({2, 3})}, {1, 1, -1}) == tensor({2, 1}, int64));
  CHECK(infer1(OpId::sum, {tensor({})}, {0, 1, -1}) == tensor({}));
  CHECK(infer1(OpId::sum, {tensor({0, 3})}, {0, 1, 0}) == tensor({3}));
  CHECK(infer1(OpId::amax, {tensor({0, 3})}, {0, 1, 1}) == tensor({0}));
  CHECK(infer1(OpId::any, {tensor({2, 3})}, {0, 1, 1}) == tensor({2}, bool_));
  CHECK(error_of(OpId::sum, {tensor({2, 3})}, {0, 1, 2}) ==
        "sum: axis 2 is out of range for rank 2; expected -2 to 1 at train.cpp:31");
  CHECK_THAT(error_of(OpId::sum, {tensor({2, 3})}, {0, 2, 0, -2}),
             Contains("sum: axis -2 is listed twice in (0, -2)"));
  CHECK(error_of(OpId::amax, {tensor({0, 3})}, {0, 0}) ==
        "amax: no elements to choose from along axis 0 of float32(0, 3) at train.cpp:31");
  CHECK_THAT(error_of(OpId::argmin, {tensor({2, 3})}, {0, 2, 0, 1}),
             Contains("argmin: takes one axis or none, found (0, 1)"));
  CHECK(error_of(OpId::mean, {tensor({3}, int64)}, {0, 0}) ==
        "mean: needs a floating type, found int64(3,); cast with to(float32) at train.cpp:31");
  CHECK_THAT(error_of(OpId::sum, {number(float64)}, {0, 0}),
             Contains("sum: operand 0 must be a tensor, found a number"));
}

TEST_CASE("views map memory", "[ops]") {
  const Layout rows{{3, 4}, {4, 1}, 5};
  Layout v = view(OpId::permute, rows, {2, 1, 0});
  CHECK((v.sizes == Dims{4, 3} && v.strides == Dims{1, 4} && v.offset == 5));
  v = view(OpId::slice, rows, {-1, -3, 99, 2});
  CHECK((v.sizes == Dims{3, 2} && v.strides == Dims{4, 2} && v.offset == 6));
  v = view(OpId::slice, rows, {0, 5, 2, 1});
  CHECK((v.sizes == Dims{0, 4}));
  v = view(OpId::select, rows, {0, -1});
  CHECK((v.sizes == Dims{4} && v.strides == Dims{1} && v.offset == 13));
  v = view(OpId::expand, {{3, 1}, {1, 1}, 0}, {3, 2, -1, 4});
  CHECK((v.sizes == Dims{2, 3, 4} && v.strides == Dims{0, 1, 0}));
  v = view(OpId::unsqueeze, rows, {-1});
  CHECK((v.sizes == Dims{3, 4, 1} && is_contiguous(v.sizes, v.strides)));
  v = view(OpId::squeeze, {{1, 3, 1}, {3, 1, 1}, 0}, {0});
  CHECK((v.sizes == Dims{3} && v.strides == Dims{1}));
}

TEST_CASE("reshape is a view where runs of axes allow it", "[ops]") {
  Layout v = view(OpId::reshape, {{3, 4}, {4, 1}, 5}, {2, 2, -1});
  CHECK((v.possible && v.sizes == Dims{2, 6} && v.strides == Dims{6, 1} && v.offset == 5));
  v = view(OpId::reshape, {{3, 4}, {1, 3}, 0}, {1, 12});  // transposed: the rows are gone
  CHECK_FALSE(v.possible);
  CHECK(v.sizes == Dims{12});
  v = view(OpId::reshape, {{3, 4}, {1, 3}, 0}, {3, 3, 2, 2});  // but each axis may be cut
  CHECK((v.possible && v.strides == Dims{1, 6, 3}));
  v = view(OpId::reshape, {{2, 3, 4}, {24, 4, 1}, 0}, {2, 2, 12});  // a slice: the last two axes are one run
  CHECK((v.possible && v.strides == Dims{24, 1}));
  v = view(OpId::reshape, {{2, 3, 4}, {24, 4, 1}, 0}, {2, 6, 4});
  CHECK_FALSE(v.possible);
  v = view(OpId::reshape, {{3, 4}, {0, 1}, 0}, {2, 1, 12});  // expanded rows
  CHECK_FALSE(v.possible);
  v = view(OpId::reshape, {{1, 4, 1}, {77, 2, 99}, 0}, {3, 2, 1, 2});
  CHECK((v.possible && v.strides[0] == 4 && v.strides[2] == 2));
  CHECK(infer1(OpId::reshape, {tensor({0, 3})}, {2, 5, 0}).sizes == Dims{5, 0});
}

TEST_CASE("wrong views are explained", "[ops]") {
  CHECK(error_of(OpId::reshape, {tensor({3, 4})}, {2, 5, -1}) ==
        "reshape: float32(3, 4) does not fill (5, -1): 12 elements are no multiple of 5 at train.cpp:31");
  CHECK_THAT(error_of(OpId::reshape, {tensor({3})}, {1, 4}), Contains("has 3 elements, (4,) has 4"));
  CHECK_THAT(error_of(OpId::reshape, {tensor({3})}, {2, -1, -1}), Contains("more than one size is -1"));
  CHECK_THAT(error_of(OpId::reshape, {tensor({0})}, {2, -1, 0}), Contains("does not fill"));
  CHECK_THAT(error_of(OpId::reshape, {tensor({3})}, {2, int64_t{1} << 62, 4}), Contains("overflows"));
  CHECK_THAT(error_of(OpId::expand, {tensor({3})}, {1, 4}),
             Contains("expand: float32(3,) does not expand to (4,)"));
  CHECK_THAT(error_of(OpId::expand, {tensor({1})}, {2, int64_t{1} << 62, 8}),
             Contains("more elements than fit"));
  CHECK_THAT(error_of(OpId::select, {tensor({3, 4})}, {1, 4}),
             Contains("select: index 4 is out of range for axis 1 of float32(3, 4)"));
  CHECK_THAT(error_of(OpId::slice, {tensor({3})}, {0, 0, 3, -1}),
             Contains("step must be positive, found -1"));
  CHECK_THAT(error_of(OpId::permute, {tensor({3, 4})}, {2, 0, 0}), Contains("do not name each axis"));
  CHECK_THAT(error_of(OpId::unsqueeze, {tensor({1, 1, 1, 1, 1, 1, 1, 1})}, {0}),
             Contains("rank 9 is too high"));
}

TEST_CASE("products", "[ops]") {
  CHECK(infer1(OpId::matmul, {tensor({2, 1, 3, 4}), tensor({5, 4, 6})}).sizes == Dims{2, 5, 3, 6});
  CHECK(infer1(OpId::matmul, {tensor({4}), tensor({4})}).sizes == Dims{});
  CHECK(error_of(OpId::matmul, {tensor({64, 784}), tensor({512, 784})}) ==
        "matmul: inner sizes differ: (64, 784) x (512, 784); transpose the second? at train.cpp:31");
  CHECK_THAT(error_of(OpId::matmul, {tensor({64, 784}), tensor({512, 256})}),
             Contains("inner sizes differ: (64, 784) x (512, 256)"));
  CHECK_THAT(error_of(OpId::matmul, {tensor({2, 3, 4}), tensor({3, 4, 5})}),
             Contains("batch sizes do not broadcast: (2, 3, 4) x (3, 4, 5)"));
  CHECK_THAT(error_of(OpId::matmul, {tensor({2, 2}), tensor({2, 2}, float64)}),
             Contains("different types: float32(2, 2), float64(2, 2)"));
  CHECK_THAT(error_of(OpId::matmul, {tensor({}), tensor({2})}), Contains("rank 0"));
  CHECK(infer1(OpId::linear, {tensor({2, 3, 4}), tensor({5, 4}), tensor({5})}).sizes == Dims{2, 3, 5});
  CHECK_THAT(error_of(OpId::linear, {tensor({3, 4}), tensor({4, 5}), tensor({5})}),
             Contains("linear: inner sizes differ: x (3, 4), weight (4, 5)"));
  CHECK_THAT(error_of(OpId::linear, {tensor({3, 4}), tensor({5, 4}), tensor({4})}),
             Contains("the bias must have sizes (5,)"));
}

TEST_CASE("index ops, losses and updates", "[ops]") {
  CHECK(infer1(OpId::cat, {tensor({2, 3}), tensor({2, 5}, float64)}, {-1}) == tensor({2, 8}, float64));
  CHECK_THAT(error_of(OpId::cat, {tensor({2, 3}), tensor({3, 3})}, {1}),
             Contains("cat: tensor 1 is float32(3, 3), the first is float32(2, 3)"));
  CHECK_THAT(error_of(OpId::cat, {}, {0}), Contains("cat: needs at least one tensor"));
  CHECK(infer1(OpId::embedding, {tensor({10, 4}), tensor({2, 3}, int64)}).sizes == Dims{2, 3, 4});
  CHECK_THAT(error_of(OpId::index_select, {tensor({3}), tensor({2}, float32)}, {0}),
             Contains("indices must be int64 or int32, found float32(3,), float32(2,)"));
  CHECK(infer1(OpId::cross_entropy, {tensor({8, 5}), tensor({8}, int64)}, {0}).sizes == Dims{8});
  CHECK(infer1(OpId::cross_entropy, {tensor({8, 5}), tensor({8}, int64)}, {1}).sizes == Dims{});
  CHECK_THAT(error_of(OpId::cross_entropy, {tensor({8, 5}), tensor({8, 5})}, {1}),
             Contains("indices must be int64 or int32"));
  CHECK_THAT(error_of(OpId::cross_entropy, {tensor({8, 5}), tensor({7}, int64)}, {1}),
             Contains("labels must be (N) for logits (N, C)"));
  CHECK_THAT(error_of(OpId::cross_entropy, {tensor({8, 5}), tensor({8}, int64)}, {3}),
             Contains("no such reduction: 3"));
  const std::vector<TensorType> state = {tensor({4}, bfloat16), tensor({4}, bfloat16), tensor({4}),
                                         tensor({4}), tensor({3})};
  const std::vector<TensorType> out = infer_all(OpId::adamw_update, state);
  REQUIRE(out.size() == 3);
  CHECK((out[0] == state[0] && out[1] == state[2] && out[2] == state[3]));
  CHECK_THAT(error_of(OpId::sgd_update, {state[0], state[1], tensor({3})}),
             Contains("the guard must have the sizes (1,), found (3,)"));
  CHECK(infer1(OpId::full, {}, {static_cast<int64_t>(int64), 2, 3, 0}) == tensor({3, 0}, int64));
  CHECK_THAT(error_of(OpId::full, {}, {static_cast<int64_t>(int64), 1, -3}),
             Contains("full: negative size in (-3,)"));
  CHECK_THAT(error_of(OpId::rand, {}, {static_cast<int64_t>(float16), 1, 3}),
             Contains("rand: draws float32 or float64, not float16"));
}
