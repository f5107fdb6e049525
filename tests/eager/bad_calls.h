// Calls that must be refused, as rows: a name, the code, and what the message must say. Each must throw a
// tandem::Error whose message holds all parts and ends with the code's own file and line.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"

namespace bad_input {

namespace td = tandem;
using td::Slice;
using td::Tensor;
using td::TensorOptions;

struct BadCall {
  std::string name;
  std::string parts;  // of the message, separated by '|'
  td::Location where;
  std::function<void()> code;
};

/// What is wrong with the message that `text` is; empty if nothing.
inline std::string wrong_message(const BadCall& call, const std::string& text) {
  for (size_t at = 0; at <= call.parts.size();) {
    const size_t end = std::min(call.parts.find('|', at), call.parts.size());
    const std::string part = call.parts.substr(at, end - at);
    if (text.find(part) == std::string::npos) return "no \"" + part + "\" in: " + text;
    at = end + 1;
  }
  const std::string place = std::string(" at ") + call.where.file + ":" + std::to_string(call.where.line);
  if (!text.ends_with(place)) return "not" + place + ": " + text;
  return {};
}

/// Runs the code; what is wrong with how it fails; empty if nothing.
inline std::string wrong_failure(const BadCall& call, const std::function<void()>& run) {
  try {
    run();
  } catch (const td::Error& e) {
    return wrong_message(call, e.what());
  } catch (const std::exception& e) {
    return std::string("not a tandem::Error: ") + e.what();
  }
  return "no error";
}

// The whole row is one macro call, so that its location is that of every call in the code.
#define TANDEM_BAD(name, parts, ...)                                                     \
  BadCall {                                                                              \
    name, parts, td::Location::here(), [=]() mutable { static_cast<void>(__VA_ARGS__); } \
  }

inline std::vector<BadCall> shape_rows() {
  const auto a = [] { return td::ones({2, 3}); };
  return {
      TANDEM_BAD("add shapes", "add|(2, 3)|(4,)|broadcast", a() + td::ones({4})),
      TANDEM_BAD("sub shapes", "sub|(2, 3)|(2, 2)", a() - td::ones({2, 2})),
      TANDEM_BAD("method shapes", "maximum|(2, 3)|(5,)", a().maximum(td::ones({5}))),
      TANDEM_BAD("compare shapes", "lt|(2, 3)|(5,)", a() < td::ones({5})),
      TANDEM_BAD("equality shapes", "eq|(2, 3)|(5,)", a() == td::ones({5})),
      TANDEM_BAD("inequality shapes", "ne|(2, 3)|(5,)", a() != td::ones({5})),
      TANDEM_BAD("where shapes", "where|(2, 3)|(7,)", td::where(a() > 0, a(), td::ones({7}))),
      TANDEM_BAD("in-place shapes", "add_|(2, 2, 3)|(2, 3)", a().add_(td::ones({2, 2, 3}))),
      TANDEM_BAD("compound in-place shapes", "mul|(4,)|(2, 3)", a() *= td::ones({4})),
      TANDEM_BAD("copy shapes", "copy|(4,)|(2, 3)", a().copy_(td::ones({4}))),
      TANDEM_BAD("matmul inner", "matmul|inner sizes differ|(2, 3) x (2, 3)", a().matmul(a())),
      TANDEM_BAD("matmul hint", "transpose the second?", td::matmul(a(), td::ones({4, 3}))),
      TANDEM_BAD("matmul batch", "matmul|batch|(5, 2, 3) x (4, 3, 2)",
                 td::matmul(td::ones({5, 2, 3}), td::ones({4, 3, 2}))),
      TANDEM_BAD("matmul rank 0", "matmul|rank 0|use mul", td::matmul(a(), td::ones({}))),
      TANDEM_BAD("linear inner", "linear|(2, 3)|(5, 4)", td::linear(a(), td::ones({5, 4}))),
      TANDEM_BAD("linear bias", "linear|bias|(5,)|(4,)", td::linear(a(), td::ones({5, 3}), td::ones({4}))),
      TANDEM_BAD("layer_norm weight", "layer_norm|weight|(3,)|(2,)", td::layer_norm(a(), 1, td::ones({2}))),
      TANDEM_BAD("layer_norm rank", "layer_norm|rank 3|(2, 3)", td::layer_norm(a(), 3)),
      TANDEM_BAD("layer_norm rank 0", "layer_norm|rank 0|(2, 3)", td::layer_norm(a(), 0)),
      TANDEM_BAD("mse_loss", "mse_loss|(2, 3)|(3,)", td::mse_loss(a(), td::ones({3}))),
      TANDEM_BAD("cross_entropy labels", "cross_entropy|labels|int64(5,)",
                 td::cross_entropy(a(), td::zeros({5}, {.dtype = td::int64}))),
      TANDEM_BAD("cross_entropy logits", "cross_entropy|(N, C)|(3,)",
                 td::cross_entropy(td::ones({3}), td::zeros({3}, {.dtype = td::int64}))),
      TANDEM_BAD("cross_entropy places", "cross_entropy|(2, 3, 4)|(2, 3)",
                 td::cross_entropy(td::ones({2, 3, 4}), td::zeros({2, 3}, {.dtype = td::int64}))),
      TANDEM_BAD("cross_entropy ignored probabilities", "cross_entropy|ignore_index 1|probabilities",
                 td::cross_entropy(a(), a(), td::Reduction::mean, 1)),
      TANDEM_BAD("cross_entropy weight of probabilities", "cross_entropy|weight|(3,)|(2,)",
                 td::cross_entropy(a(), a(), {.weight = td::ones({2})})),
      TANDEM_BAD("cross_entropy no classes", "cross_entropy|no classes|(2, 0)",
                 td::cross_entropy(td::ones({2, 0}), td::zeros({2}, {.dtype = td::int64}))),
      TANDEM_BAD("cat shapes", "cat|(2, 3)|(2, 4)|axis 0", td::cat({a(), td::ones({2, 4})})),
      TANDEM_BAD("cat ranks", "cat|(2, 3)|(3,)", td::cat({a(), td::ones({3})})),
      TANDEM_BAD("cat rank 0", "cat|rank 0|stack", td::cat({td::ones({}), td::ones({})})),
      TANDEM_BAD("cat nothing", "cat|at least one", td::cat(std::span<const Tensor>())),
      TANDEM_BAD("stack shapes", "stack|(2, 3)|(3,)", td::stack({a(), td::ones({3})})),
      TANDEM_BAD("stack nothing", "stack|at least one", td::stack(std::span<const Tensor>())),
      TANDEM_BAD("view", "view|(3, 2)|(6,)|reshape()", a().t().view({6})),
      TANDEM_BAD("view count", "(2, 3)|6|(4,)|4", a().view({4})),
      TANDEM_BAD("reshape count", "reshape|(2, 3)|(5, -1)", a().reshape({5, -1})),
      TANDEM_BAD("reshape two open", "reshape|-1", a().reshape({-1, -1})),
      TANDEM_BAD("expand", "expand|(2, 3)|(2, 4)", a().expand({2, 4})),
      TANDEM_BAD("expand fewer axes", "expand|(2, 3)|(3,)", a().expand({3})),
      TANDEM_BAD("t of rank 3", "t:|matrix|(1, 2, 3)", td::ones({1, 2, 3}).t()),
      TANDEM_BAD("gather ranks", "gather|(2, 3)|int64(1,)",
                 a().gather(0, td::zeros({1}, {.dtype = td::int64}))),
      TANDEM_BAD("scatter_add sizes", "scatter_add|(1, 3)|(1, 2)",
                 a().scatter_add(0, td::zeros({1, 3}, {.dtype = td::int64}), td::ones({1, 2}))),
      TANDEM_BAD("index_select rank", "index_select|rank 1|(2, 2)",
                 a().index_select(0, td::zeros({2, 2}, {.dtype = td::int64}))),
      TANDEM_BAD("masked_fill shapes", "masked_fill|(2, 3)|(4,)", a().masked_fill(td::ones({4}) > 0, 1.f)),
      TANDEM_BAD("masked_fill value", "masked_fill|one element|(2,)",
                 a().masked_fill(a() > 0, td::ones({2}))),
      TANDEM_BAD("item of many", "item|one element|(2, 3)", a().item<float>()),
      TANDEM_BAD("truth of many", "item|one element|(2, 3)", td::ones({2, 3}).item<double>() != 0),
      TANDEM_BAD("amax of nothing", "amax|no elements|axis 0|(0, 3)", td::ones({0, 3}).amax({0})),
      TANDEM_BAD("argmax of nothing", "argmax|no elements|(0,)", td::ones({0}).argmax()),
      TANDEM_BAD("item of nothing", "item|one element|(0,)", td::ones({0}).item<float>()),
      TANDEM_BAD("values for another shape", "tensor|3 values|(2, 2)",
                 td::tensor(std::span<const float>(std::vector<float>{1, 2, 3}), {2, 2})),
  };
}

inline std::vector<BadCall> type_rows() {
  const auto a = [] { return td::ones({2, 3}); };
  const auto i = [] { return td::zeros({2, 3}, {.dtype = td::int64}); };
  return {
      TANDEM_BAD("matmul types", "matmul|different types|float32|int64", td::matmul(a(), i().t())),
      TANDEM_BAD("matmul of bool", "matmul|bool", td::matmul(a() > 0, a().t() > 0)),
      TANDEM_BAD("linear types", "linear|different types|float64",
                 td::linear(a(), td::ones({4, 3}, {.dtype = td::float64}))),
      TANDEM_BAD("sub of bool", "sub|bool|logical_xor", (a() > 0) - (a() > 1)),
      TANDEM_BAD("softmax of integers", "softmax|floating|int64", td::softmax(i(), 0)),
      TANDEM_BAD("mean of integers", "mean|floating|int64", i().mean()),
      TANDEM_BAD("var of integers", "var|floating|int64", i().var()),
      TANDEM_BAD("gelu of integers", "gelu|floating|int64", td::gelu(i())),
      TANDEM_BAD("dropout of integers", "dropout|floating|int64", td::dropout(i())),
      TANDEM_BAD("layer_norm of integers", "layer_norm|floating|int64", td::layer_norm(i(), 1)),
      TANDEM_BAD("mse_loss of integers", "mse_loss|floating|int64", td::mse_loss(a(), i())),
      TANDEM_BAD("labels that are floats", "cross_entropy|int64|float32(2,)",
                 td::cross_entropy(a(), td::zeros({2}))),
      TANDEM_BAD("index that is float", "index_select|int64|float32(2,)",
                 a().index_select(0, td::zeros({2}))),
      TANDEM_BAD("gather by floats", "gather|int64|float32", a().gather(0, a())),
      TANDEM_BAD("embedding by floats", "embedding|int64|float32", td::embedding(a(), a())),
      TANDEM_BAD("scatter_add types", "scatter_add|different types|float64",
                 a().scatter_add(0, i(), td::ones({2, 3}, {.dtype = td::float64}))),
      TANDEM_BAD("mask that is float", "masked_fill|mask|bool|float32", a().masked_fill(a(), 1.f)),
      TANDEM_BAD("float value in integers", "masked_fill|floating value|int64",
                 i().masked_fill(i() > 0, td::ones({}))),
      TANDEM_BAD("in-place float into integers", "div_|float32|int64", i().div_(2.f)),
      TANDEM_BAD("compound float into integers", "add_|float32|int64", i() += a()),
      TANDEM_BAD("data of another type", "data|float32|float64", a().data<double>()),
      TANDEM_BAD("requires_grad of integers", "requires_grad_|floating|int64", i().requires_grad_()),
      TANDEM_BAD("random integers by rand", "rand|floating|int64", td::rand({3}, {.dtype = td::int64})),
      TANDEM_BAD("randn of bool", "randn|floating|bool", td::randn({3}, {.dtype = td::bool_})),
      TANDEM_BAD("item beyond integers", "item|does not fit", td::full({}, 1e30).item<int64_t>()),
      TANDEM_BAD("numbers alone", "add|tensor", td::add(1.f, 2.f)),
      TANDEM_BAD("other device", "cuda:99|is not there", a().to(td::Device{td::DeviceType::cuda, 99})),
      TANDEM_BAD("made on another device", "cuda:99|is not there",
                 td::ones({2}, {.device = td::Device{td::DeviceType::cuda, 99}})),
      TANDEM_BAD("empty on another device", "cuda:99|is not there",
                 td::empty({2}, {.device = td::Device{td::DeviceType::cuda, 99}})),
      TANDEM_BAD("host data on another device", "cuda:99|is not there",
                 td::tensor<float>({1.f}, {.device = td::Device{td::DeviceType::cuda, 99}})),
      TANDEM_BAD("random on another device", "cuda:99|is not there",
                 td::randn({2}, {.device = td::Device{td::DeviceType::cuda, 99}})),
      TANDEM_BAD("set_grad type", "set_grad|float32(2, 3)|int64(2, 3)", a().set_grad(i())),
      TANDEM_BAD("set_grad shape", "set_grad|(2, 3)|(3,)", a().set_grad(td::ones({3}))),
  };
}

inline std::vector<BadCall> range_rows() {
  const auto a = [] { return td::ones({2, 3}); };
  constexpr int64_t kLarge = int64_t{1} << 40;
  return {
      TANDEM_BAD("sum axis", "sum|axis 2|rank 2", a().sum({2})),
      TANDEM_BAD("sum axis twice", "sum|1", a().sum({1, -1})),
      TANDEM_BAD("mean axis", "mean|axis -3|rank 2", a().mean({-3})),
      TANDEM_BAD("amax axis", "amax|axis 5", a().amax({5})),
      TANDEM_BAD("any axis", "any|axis 5", (a() > 0).any({5})),
      TANDEM_BAD("argmax axis", "argmax|axis 2", a().argmax(2)),
      TANDEM_BAD("cumsum axis", "cumsum|axis 2", a().cumsum(2)),
      TANDEM_BAD("softmax axis", "softmax|axis 2", a().softmax(2)),
      TANDEM_BAD("log_softmax axis", "log_softmax|axis -3", a().log_softmax(-3)),
      TANDEM_BAD("size axis", "size|axis 2|rank 2", a().size(2)),
      TANDEM_BAD("size of scalar", "size|scalar|axis 0", td::ones({}).size(0)),
      TANDEM_BAD("permute axes", "permute|(0,)|(2, 3)", a().permute({0})),
      TANDEM_BAD("permute twice", "permute|(1, 1)", a().permute({1, 1})),
      TANDEM_BAD("permute range", "permute|axis 4", a().permute({0, 4})),
      TANDEM_BAD("transpose axis", "transpose|axis 2", a().transpose(0, 2)),
      TANDEM_BAD("unsqueeze axis", "unsqueeze|axis 3", a().unsqueeze(3)),
      TANDEM_BAD("squeeze axis", "squeeze|axis 5", a().squeeze(5)),
      TANDEM_BAD("flatten axes", "flatten|1|0", a().flatten(1, 0)),
      TANDEM_BAD("flatten range", "flatten|axis 7", a().flatten(0, 7)),
      TANDEM_BAD("select index", "select|index 2|axis 0|(2, 3)", a().select(0, 2)),
      TANDEM_BAD("select axis", "select|axis 2", a().select(2, 0)),
      TANDEM_BAD("bracket index", "select|index -3|axis 0|(2, 3)", a()[-3]),
      TANDEM_BAD("bracket of scalar", "select|rank 0", td::ones({})[0]),
      TANDEM_BAD("slice axis", "slice|axis 2", a().slice(2, 0, 1)),
      TANDEM_BAD("slice step", "slice|step|0", a().slice(0, 0, 1, 0)),
      TANDEM_BAD("slice of scalar", "slice|rank 0", td::ones({}).slice(0, 0, 1)),
      TANDEM_BAD("index too many", "index|3 indices|(2, 3)", a().index({0, 0, 0})),
      TANDEM_BAD("index range", "index 5|(2, 3)", a().index({5})),
      TANDEM_BAD("index two ellipses", "index|Ellipsis", a().index({td::Ellipsis(), td::Ellipsis()})),
      TANDEM_BAD("index step", "step|-1", a().index({Slice{0, 2, -1}})),
      TANDEM_BAD("narrow", "narrow|1|2|axis 0|2", a().narrow(0, 1, 2)),
      TANDEM_BAD("narrow length", "narrow|-1", a().narrow(0, 0, -1)),
      TANDEM_BAD("cat axis", "cat|axis 2", td::cat({a(), a()}, 2)),
      TANDEM_BAD("stack axis", "axis 4", td::stack({a(), a()}, 4)),
      TANDEM_BAD("index_select axis", "index_select|axis 2",
                 a().index_select(2, td::zeros({1}, {.dtype = td::int64}))),
      TANDEM_BAD("gather axis", "gather|axis -3", a().gather(-3, td::zeros({1, 1}, {.dtype = td::int64}))),
      TANDEM_BAD("negative size", "negative size|(-1,)", td::ones({-1})),
      TANDEM_BAD("negative size of empty", "negative size|(2, -3)", td::empty({2, -3})),
      TANDEM_BAD("negative size of rand", "negative size|(-2,)", td::rand({-2})),
      TANDEM_BAD("negative size of randint", "negative size|(-2,)", td::randint(0, 5, {-2})),
      TANDEM_BAD("negative randperm", "randperm|-1", td::randperm(-1)),
      TANDEM_BAD("negative expand", "expand|-2", a().expand({-2, 2, 3})),
      TANDEM_BAD("negative reshape", "reshape|negative size|(-2, 3)", a().reshape({-2, 3})),
      TANDEM_BAD("overflowing count", "overflow|64 bits", td::empty({kLarge, kLarge})),
      TANDEM_BAD("overflowing bytes", "overflow|64 bits", td::ones({kLarge, kLarge / 1024 / 128})),
      TANDEM_BAD("overflowing zeros", "overflow|64 bits", td::zeros({kLarge, 0, kLarge})),
      TANDEM_BAD("overflowing reshape", "overflow", a().reshape({kLarge, kLarge})),
      TANDEM_BAD("overflowing expand", "overflow|64 bits", td::ones({1, 1}).expand({kLarge, kLarge})),
      TANDEM_BAD("overflowing broadcast", "overflow",
                 td::ones({1}).expand({kLarge}) + td::ones({1, 1}).expand({kLarge, 1})),
      TANDEM_BAD("overflowing product", "overflow|64 bits",
                 td::matmul(td::ones({1, 2}).expand({kLarge, 2}), td::ones({2, 1}).expand({2, kLarge}))),
      TANDEM_BAD("overflowing cat", "overflow",
                 td::cat({td::ones({1}).expand({INT64_MAX / 2}), td::ones({1}).expand({INT64_MAX / 2}),
                          td::ones({1}).expand({INT64_MAX / 2})})),
      TANDEM_BAD("rank 9", "rank 9|8", td::ones({1, 1, 1, 1, 1, 1, 1, 1, 1})),
      TANDEM_BAD("rank 9 by reshape", "rank 9|8", a().reshape({1, 1, 1, 1, 1, 1, 1, 2, 3})),
      TANDEM_BAD("rank 9 by unsqueeze", "unsqueeze|rank 9|8",
                 td::ones({1, 1, 1, 1, 1, 1, 1, 1}).unsqueeze(0)),
      TANDEM_BAD("rank 9 by embedding", "embedding|rank 9|8",
                 td::embedding(td::zeros({1, 1, 1, 1, 1, 1, 1, 1}, {.dtype = td::int64}), a())),
      TANDEM_BAD("rank 9 by stack", "rank 9|8",
                 td::stack({td::ones({1, 1, 1, 1, 1, 1, 1, 1}), td::ones({1, 1, 1, 1, 1, 1, 1, 1})})),
      TANDEM_BAD("rank 9 by NewAxis", "rank 9|8", td::ones({1, 1, 1, 1, 1, 1, 1, 1}).index({td::NewAxis()})),
      TANDEM_BAD("arange step", "arange|step", td::arange(0, 3, 0)),
      TANDEM_BAD("arange infinite", "arange|finite", td::arange(0, HUGE_VAL)),
      TANDEM_BAD("arange too long", "arange|elements", td::arange(0, 1e300)),
      TANDEM_BAD("randint bounds", "randint|5|5", td::randint(5, 5, {2})),
      TANDEM_BAD("dropout probability", "dropout|1.5", td::dropout(a(), 1.5)),
      TANDEM_BAD("dropout NaN", "dropout|nan", td::dropout(a(), NAN)),
      TANDEM_BAD("bernoulli probability", "bernoulli_|-1", a().bernoulli_(-1)),
  };
}

inline std::vector<BadCall> undefined_rows() {
  const Tensor none;
  const auto a = [] { return td::ones({2, 3}); };
  return {
      TANDEM_BAD("add undefined", "undefined tensor", a() + none),
      TANDEM_BAD("undefined add", "undefined tensor", none + a()),
      TANDEM_BAD("undefined minus number", "undefined tensor", none - 1),
      TANDEM_BAD("undefined equality", "undefined tensor", none == a()),
      TANDEM_BAD("equality with undefined", "undefined tensor", a() == none),
      TANDEM_BAD("negative of undefined", "undefined tensor", -none),
      TANDEM_BAD("undefined function", "tanh|undefined tensor", td::tanh(none)),
      TANDEM_BAD("undefined method", "undefined tensor", none.sum()),
      TANDEM_BAD("undefined matmul", "matmul|undefined tensor", td::matmul(a(), none)),
      TANDEM_BAD("undefined weight", "linear|undefined tensor", td::linear(a(), none)),
      TANDEM_BAD("undefined labels", "cross_entropy|undefined tensor", td::cross_entropy(a(), none)),
      TANDEM_BAD("undefined in cat", "undefined tensor", td::cat({a(), none})),
      TANDEM_BAD("undefined in stack", "undefined tensor", td::stack({none, a()})),
      TANDEM_BAD("undefined sizes", "undefined tensor", none.sizes()),
      TANDEM_BAD("undefined size", "undefined tensor", none.size(0)),
      TANDEM_BAD("undefined dtype", "undefined tensor", none.dtype()),
      TANDEM_BAD("undefined values", "undefined tensor", none.to_vector<float>()),
      TANDEM_BAD("undefined item", "undefined tensor", none.item<float>()),
      TANDEM_BAD("undefined data", "undefined tensor", none.data<float>()),
      TANDEM_BAD("undefined view", "undefined tensor", none.view({3})),
      TANDEM_BAD("undefined reshape", "undefined tensor", none.reshape({3})),
      TANDEM_BAD("undefined t", "undefined tensor", none.t()),
      TANDEM_BAD("undefined transpose", "undefined tensor", none.transpose(0, 1)),
      TANDEM_BAD("undefined flatten", "undefined tensor", none.flatten()),
      TANDEM_BAD("undefined index", "undefined tensor", none.index({0})),
      TANDEM_BAD("undefined bracket", "undefined tensor", none[0]),
      TANDEM_BAD("undefined detach", "undefined tensor", none.detach()),
      TANDEM_BAD("undefined clone", "undefined tensor", none.clone()),
      TANDEM_BAD("undefined contiguous", "undefined tensor", none.contiguous()),
      TANDEM_BAD("undefined to", "undefined tensor", none.to(td::float64)),
      TANDEM_BAD("undefined to device", "undefined tensor", none.to(td::cpu)),
      TANDEM_BAD("undefined in place", "undefined tensor", none.add_(a())),
      TANDEM_BAD("in place by undefined", "undefined tensor", a().add_(none)),
      TANDEM_BAD("undefined compound", "undefined tensor", none += 1.f),
      TANDEM_BAD("undefined zero_", "undefined tensor", none.zero_()),
      TANDEM_BAD("undefined fill_", "undefined tensor", none.fill_(1.f)),
      TANDEM_BAD("fill_ by undefined", "undefined tensor", a().fill_(none)),
      TANDEM_BAD("undefined copy_", "undefined tensor", none.copy_(a())),
      TANDEM_BAD("copy_ of undefined", "undefined tensor", a().copy_(none)),
      TANDEM_BAD("undefined relu_", "undefined tensor", none.relu_()),
      TANDEM_BAD("undefined normal_", "undefined tensor", none.normal_()),
      TANDEM_BAD("undefined uniform_", "undefined tensor", none.uniform_()),
      TANDEM_BAD("undefined bernoulli_", "undefined tensor", none.bernoulli_()),
      TANDEM_BAD("undefined masked_fill", "undefined tensor", none.masked_fill(a() > 0, 1.f)),
      TANDEM_BAD("undefined mask", "undefined tensor", a().masked_fill(none, 1.f)),
      TANDEM_BAD("undefined where", "undefined tensor", td::where(none, a(), a())),
      TANDEM_BAD("undefined dropout", "undefined tensor", td::dropout(none)),
      TANDEM_BAD("undefined zeros_like", "undefined tensor", td::zeros_like(none)),
      TANDEM_BAD("undefined gather", "undefined tensor", none.gather(0, a())),
      TANDEM_BAD("gather by undefined", "undefined tensor", a().gather(0, none)),
      TANDEM_BAD("index_select by undefined", "undefined tensor", a().index_select(0, none)),
      TANDEM_BAD("undefined embedding", "undefined tensor", td::embedding(none, a())),
      TANDEM_BAD("undefined backward", "undefined tensor", none.backward()),
      TANDEM_BAD("undefined requires_grad_", "undefined tensor", Tensor(none).requires_grad_()),
      TANDEM_BAD("undefined set_grad", "undefined tensor", Tensor(none).set_grad(a())),
      TANDEM_BAD("undefined hook", "undefined tensor", none.register_hook([](const Tensor&) {})),
      TANDEM_BAD("null blob", "from_blob|null|24 bytes", td::from_blob(nullptr, {2, 3})),
  };
}

/// Functions of arrange.h and losses.h, and their methods.
inline std::vector<BadCall> arrange_rows() {
  const Tensor none;
  const auto a = [] { return td::ones({2, 3}); };
  const auto i = [] { return td::zeros({2, 3}, {.dtype = td::int64}); };
  return {
      TANDEM_BAD("unflatten sizes", "unflatten|(2, 2)|(2, 3)", a().unflatten(1, {2, 2})),
      TANDEM_BAD("movedim axis", "movedim|3", a().movedim(3, 0)),
      TANDEM_BAD("diagonal axes", "diagonal|both axes are 1", a().diagonal(0, 1, -1)),
      TANDEM_BAD("unfold size", "unfold|4|(2, 3)", a().unfold(1, 4, 1)),
      TANDEM_BAD("unfold step", "unfold|step|0", a().unfold(1, 2, 0)),
      TANDEM_BAD("flip axis", "flip|2", a().flip({2})),
      TANDEM_BAD("roll axis", "roll|-3", a().roll(1, -3)),
      TANDEM_BAD("repeat axes", "repeat|(2,)|(2, 3)", a().repeat({2})),
      TANDEM_BAD("repeat_interleave", "repeat_interleave|-1", a().repeat_interleave(-1)),
      TANDEM_BAD("tril of a vector", "tril|(3,)", td::ones({3}).tril()),
      TANDEM_BAD("diag of three axes", "diag|(1, 1, 1)", td::diag(td::ones({1, 1, 1}))),
      TANDEM_BAD("rot90 axes", "rot90|both axes", td::rot90(a(), 1, 0, -2)),
      TANDEM_BAD("split sizes", "split|(1, 1)|(2, 3)", td::split(a(), {1, 1}, 1)),
      TANDEM_BAD("split size", "split|0", td::split(a(), 0)),
      TANDEM_BAD("chunks", "chunk|0", td::chunk(a(), 0)),
      TANDEM_BAD("unbind axis", "2", td::unbind(a(), 2)),
      TANDEM_BAD("sort axis", "argsort|2", a().sort(2)),
      TANDEM_BAD("topk", "topk|[0, 3]|4", a().topk(4)),
      TANDEM_BAD("kthvalue", "kthvalue|[1, 3]|0", a().kthvalue(0)),
      TANDEM_BAD("median of nothing", "median|(0,)", td::ones({0}).median(0)),
      TANDEM_BAD("quantile share", "quantile|1.5", a().quantile(1.5)),
      TANDEM_BAD("quantile of integers", "quantile|int64", i().quantile(0.5, 1)),
      TANDEM_BAD("cummax axis", "cummax|2", a().cummax(2)),
      TANDEM_BAD("norm p", "norm|p", a().norm(NAN)),
      TANDEM_BAD("norm of integers", "norm|int64", i().norm()),
      TANDEM_BAD("std of integers", "std|int64", i().std()),
      TANDEM_BAD("scatter sizes", "scatter|(2, 3)|(1, 3)", a().scatter(0, i(), td::ones({1, 3}))),
      TANDEM_BAD("index_copy index", "index_copy|rank 1|(2, 3)", a().index_copy(0, i(), a())),
      TANDEM_BAD("index_put indices", "index_put|0|(2, 3)", a().index_put(std::vector<Tensor>{}, a())),
      TANDEM_BAD("masked_select mask", "masked_select|bool|float32", td::masked_select(a(), a())),
      TANDEM_BAD("searchsorted axes", "searchsorted|(2, 3)|(4, 1)", td::searchsorted(a(), td::ones({4, 1}))),
      TANDEM_BAD("one_hot classes", "one_hot|-2", td::one_hot(i(), -2)),
      TANDEM_BAD("eye size", "eye|-1", td::eye(-1)),
      TANDEM_BAD("linspace steps", "linspace|-1", td::linspace(0, 1, -1)),
      TANDEM_BAD("normal deviation", "normal|-1", td::normal(0, -1, {2})),
      TANDEM_BAD("multinomial", "multinomial|4 of 3|replacement", td::multinomial(a(), 4)),
      TANDEM_BAD("bmm ranks", "bmm|rank 3|(2, 3)", td::bmm(a(), a())),
      TANDEM_BAD("dot ranks", "dot|(2, 3)", td::dot(a(), a())),
      TANDEM_BAD("einsum sizes", "einsum|letter 'j'|3 and 2", td::einsum("ij,jk->ik", {a(), a()})),
      TANDEM_BAD("einsum letters", "einsum|letter 'z'", td::einsum("ij->z", {a()})),
      TANDEM_BAD("bits of floats", "bitwise_and|integers and bool|float32", a() & a()),
      TANDEM_BAD("shift of bools", "bitwise_left_shift|bool", td::bitwise_left_shift(a() > 0, a() > 0)),
      TANDEM_BAD("prelu weights", "prelu|(4,)|(2, 3)", td::prelu(a(), td::ones({4}))),
      TANDEM_BAD("glu size", "glu|even|(2, 3)", td::glu(a())),
      TANDEM_BAD("huber delta", "huber_loss|delta|0", td::huber_loss(a(), a(), td::Reduction::mean, 0)),
      TANDEM_BAD("smooth_l1 beta", "smooth_l1_loss|beta|-1",
                 td::smooth_l1_loss(a(), a(), td::Reduction::mean, -1)),
      TANDEM_BAD("l1 sizes", "l1_loss|(2, 3)|(3,)", td::l1_loss(a(), td::ones({3}))),
      TANDEM_BAD("batchmean", "mse_loss|reduction", td::mse_loss(a(), a(), td::Reduction::batchmean)),
      TANDEM_BAD("label smoothing", "cross_entropy|label_smoothing|2",
                 td::cross_entropy(a(), td::zeros({2}, {.dtype = td::int64}), {.label_smoothing = 2})),
      TANDEM_BAD("group_norm groups", "group_norm|2 groups|3 channels", td::group_norm(a(), 2)),
      TANDEM_BAD("batch_norm statistics", "batch_norm|mean|(3,)",
                 td::batch_norm(a(), td::ones({2}), td::ones({3}))),
      TANDEM_BAD("instance_norm rank", "instance_norm|(2, 3)", td::instance_norm(a())),
      TANDEM_BAD("batch_norm without statistics", "batch_norm|running statistics",
                 td::batch_norm(a(), none, none)),
      TANDEM_BAD("batch_norm with one of them", "batch_norm|both",
                 td::batch_norm(a(), td::ones({3}), none, {}, {}, true)),
      TANDEM_BAD("batch_norm of one row", "batch_norm_train|more than one value|(1, 3)",
                 td::batch_norm(td::ones({1, 3}), none, none, {}, {}, true)),
      TANDEM_BAD("batch_norm weight", "batch_norm_train|weight|(3,)|(2,)",
                 td::batch_norm(a(), none, none, td::ones({2}), {}, true)),
      TANDEM_BAD("instance_norm of points", "instance_norm|more than one value|(2, 3, 1)",
                 td::instance_norm(td::ones({2, 3, 1}))),
      TANDEM_BAD("dropout2d axes", "dropout2d|(2, 3)", td::dropout2d(a())),
      TANDEM_BAD("dropout1d probability", "dropout1d|2", td::dropout1d(a(), 2)),
      TANDEM_BAD("embedding padding", "embedding|padding_idx 7|(2, 3)",
                 td::embedding(td::zeros({1}, {.dtype = td::int64}), a(), 7)),
      TANDEM_BAD("max_pool size", "max_pool|no window fits|(2, 3)|kernel 4", td::max_pool1d(a(), 4)),
      TANDEM_BAD("max_pool padding", "padding|half|2", td::max_pool1d(a(), 2, 1, 2)),
      TANDEM_BAD("max_pool stride", "positive|0", td::max_pool1d(a(), 2, 0)),
      TANDEM_BAD("max_pool rank", "max_pool|2 axes|(2, 3)", td::max_pool2d(a(), 1)),
      TANDEM_BAD("max_pool kernel", "max_pool1d|kernel_size|(2, 2)", td::max_pool1d(a(), {2, 2})),
      TANDEM_BAD("max_pool large", "below 2^31", td::max_pool1d(a(), int64_t{1} << 40)),
      TANDEM_BAD("avg_pool of integers", "avg_pool|floating|int64", td::avg_pool1d(i(), 2)),
      TANDEM_BAD("avg_pool divisor", "avg_pool2d|divisor_override|0",
                 td::avg_pool2d(td::ones({1, 2, 2}), 1, {}, 0, false, true, 0)),
      TANDEM_BAD("adaptive size", "avg_pool|at least one|found 0|(2, 3)", td::adaptive_avg_pool1d(a(), 0)),
      TANDEM_BAD("undefined max_pool", "undefined tensor", td::max_pool2d(none, 2)),
      TANDEM_BAD("interpolate rank", "interpolate|(2, 3)", td::interpolate(a(), {.size = {2}})),
      TANDEM_BAD("interpolate without size", "interpolate|either", td::interpolate(td::ones({1, 1, 2}), {})),
      TANDEM_BAD("interpolate mode", "interpolate|bilinear|(1, 1, 2)",
                 td::interpolate(td::ones({1, 1, 2}), {.size = {2}, .mode = td::Interpolation::bilinear})),
      TANDEM_BAD("interpolate scale", "interpolate|positive|-1",
                 td::interpolate(td::ones({1, 1, 2}), {.scale_factor = {-1}})),
      TANDEM_BAD("interpolate to nothing", "interpolate|positive|(1, 1, 2)",
                 td::interpolate(td::ones({1, 1, 2}), {.scale_factor = {0.3}})),
      TANDEM_BAD("interpolate corners", "interpolate|align_corners",
                 td::interpolate(td::ones({1, 1, 2}), {.size = {3}, .align_corners = true})),
      TANDEM_BAD("undefined sort", "undefined tensor", none.sort()),
      TANDEM_BAD("undefined norm", "undefined tensor", none.norm()),
      TANDEM_BAD("undefined split", "undefined tensor", td::split(none, 2)),
      TANDEM_BAD("undefined masked_select", "undefined tensor", td::masked_select(none, none)),
      TANDEM_BAD("undefined in einsum", "undefined tensor", td::einsum("i", {none})),
      TANDEM_BAD("undefined loss", "undefined tensor", td::l1_loss(none, a())),
      TANDEM_BAD("undefined index_put", "undefined tensor", none.index_put(std::vector<Tensor>{}, a())),
  };
}

inline std::vector<BadCall> autograd_rows() {
  const auto w = [] { return td::ones({3}).detach().clone().requires_grad_(); };
  const auto grad = [](const Tensor& out, const Tensor& in, td::Location where) {
    const Tensor outs[] = {out}, ins[] = {in};
    return td::autograd::grad(outs, ins, {}, false, false, false, where);
  };
  return {
      TANDEM_BAD("backward without history", "backward|require grad", td::ones({}).backward()),
      TANDEM_BAD("backward of many", "backward|(3,)|one element", (w() * 2.f).backward()),
      TANDEM_BAD("backward gradient shape", "backward|(2,)|(3,)", (w() * 2.f).backward(td::ones({2}))),
      TANDEM_BAD("grad not reached", "grad|not reached", grad((w() * 2.f).sum(), w(), td::Location::here())),
      TANDEM_BAD("grad without history", "grad|require grad",
                 grad(w().sum(), td::ones({3}), td::Location::here())),
      TANDEM_BAD("hook without history", "register_hook|require grad",
                 td::ones({3}).register_hook([](const Tensor&) {})),
      TANDEM_BAD("in-place change of a leaf", "add_|leaf|NoGrad", w().add_(1.f)),
      TANDEM_BAD("in-place change of an expanded tensor", "add_|clone()",
                 td::ones({3, 1}).expand({3, 4}).add_(1.f)),
      TANDEM_BAD("requires_grad_ of a result", "requires_grad_|detach()", (w() * 2.f).requires_grad_(false)),
  };
}

/// All rows that can stand inside of a traced body, too.
inline std::vector<BadCall> bad_calls() {
  std::vector<BadCall> all;
  for (const auto& rows :
       {shape_rows(), type_rows(), range_rows(), undefined_rows(), arrange_rows(), autograd_rows()})
    all.insert(all.end(), rows.begin(), rows.end());
  return all;
}

/// Indices and labels that only their values make wrong.
inline std::vector<BadCall> value_rows() {
  const auto a = [] { return td::ones({2, 3}); };
  const auto at = [](int64_t i) { return td::tensor<int64_t>({0, i}); };
  return {
      TANDEM_BAD("index_select", "index_select|index|out of range",
                 a().index_select(0, at(2)).sum().item<float>()),
      TANDEM_BAD("negative index", "index_select|index|out of range",
                 a().index_select(0, at(-1)).sum().item<float>()),
      TANDEM_BAD("gather", "gather|index|out of range",
                 a().gather(1, at(3).view({2, 1})).sum().item<float>()),
      TANDEM_BAD("embedding", "embedding|index|out of range", td::embedding(at(5), a()).sum().item<float>()),
      TANDEM_BAD("scatter_add", "scatter_add|index|out of range",
                 a().scatter_add(0, at(7).view({2, 1}), td::ones({2, 1})).sum().item<float>()),
      TANDEM_BAD("one_hot", "one_hot|out of range", td::one_hot(at(2), 2).sum().item<float>()),
      TANDEM_BAD("scatter", "scatter|index|out of range",
                 a().scatter(0, at(7).view({2, 1}), td::ones({2, 1})).sum().item<float>()),
      TANDEM_BAD("index_fill", "index_fill|index|out of range",
                 a().index_fill(0, at(2), 1).sum().item<float>()),
      TANDEM_BAD("index_put", "index_put|out of range",
                 a().index_put(std::vector<Tensor>{at(2)}, td::ones({3})).sum().item<float>()),
      TANDEM_BAD("nll label", "nll_loss|out of range", td::nll_loss(a(), at(3)).item<float>()),
      TANDEM_BAD("label", "cross_entropy|out of range", td::cross_entropy(a(), at(3)).item<float>()),
      TANDEM_BAD("negative label", "cross_entropy|out of range",
                 td::cross_entropy(a(), at(-1)).item<float>()),
  };
}

/// What the machine has no memory for; read, since a traced call makes only what is used.
inline std::vector<BadCall> memory_rows() {
  constexpr int64_t kLarge = int64_t{1} << 40;
  return {
      TANDEM_BAD("too much memory", "full|no memory|bytes", td::ones({kLarge, 1024}).data<float>()),
      TANDEM_BAD("too much memory for a result", "add|no memory|bytes",
                 (td::ones({1}).expand({kLarge}) + td::ones({1})).data<float>()),
      TANDEM_BAD("too much memory, empty", "empty|no memory|bytes", td::empty({kLarge, 1024}).data<float>()),
      TANDEM_BAD("huge randperm", "randperm|no memory", td::randperm(kLarge * 1024)),
      TANDEM_BAD("huge randint", "no memory|randint", td::randint(0, 5, {kLarge})),
  };
}

}  // namespace bad_input
