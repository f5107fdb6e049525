// ONNX files of frozen functions: what they compute, how they name things, what is refused.
#include "tandem/io/onnx.h"

#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

#include "tandem/io/onnx_model.h"
#include "tandem/tandem.h"
#include "tests/error_message.h"
#include "tests/io/onnx_judge.h"

namespace td = tandem;
using td::Tensor;
using td::test::message;

namespace {

using Tensors = std::vector<Tensor>;
using Function = std::function<Tensors(const Tensors&)>;
const td::TraceOptions kInterpreted{.compile = false};

std::string contents(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::string here(int line) { return "onnx_test.cpp:" + std::to_string(line); }

/// Traced twice, without gradients.
auto traced(const Function& body, const Tensors& arguments) {
  auto f = td::trace(
      [body](const Tensors& in) {
        const td::NoGrad no_grad;
        return body(in);
      },
      kInterpreted);
  f(arguments), f(arguments);
  return f;
}

/// Exports `body`, and has the judge compare it with an eager call.
void ask(td::test::OnnxJudge& judge, const std::string& name, const Tensors& arguments, const Function& body,
         const td::onnx::SaveOptions& options = {}, double off = 1e-4) {
  INFO(name);
  const auto f = traced(body, arguments);
  td::onnx::save(judge.path(name), f, options);
  const td::NoGrad no_grad;
  judge.ask(name, arguments, body(arguments), off);
}

Tensor noise(const td::Dims& sizes, int64_t seed = 3) {
  td::Generator g(static_cast<uint64_t>(seed));
  return td::randn(sizes, {}, &g);
}

struct Cnn : td::nn::Module {
  td::nn::Conv2d first = child<td::nn::Conv2d>("first", 3, 4, 3, 1, 1);
  td::nn::BatchNorm2d norm = child<td::nn::BatchNorm2d>("norm", 4);
  td::nn::Conv2d second = child<td::nn::Conv2d>("second", 4, 6, 3, 2);
  td::nn::GroupNorm groups = child<td::nn::GroupNorm>("groups", 2, 6);
  td::nn::Dropout drop = child<td::nn::Dropout>("drop", 0.5);
  td::nn::Linear out = child<td::nn::Linear>("out", 6 * 4, 5);
  Tensor forward(const Tensor& x) {
    Tensor y = td::max_pool2d(td::relu(norm(first(x))), 3, 2, 1, 1, true);
    y = td::silu(groups(second(y)));
    y = td::adaptive_avg_pool2d(td::avg_pool2d(y, 2, 1, 1), 2);
    return td::log_softmax(out(drop(y.flatten(1))), -1);
  }
};

struct Block : td::nn::Module {
  td::nn::Embedding tokens = child<td::nn::Embedding>("tokens", 11, 8);
  td::nn::LayerNorm norm = child<td::nn::LayerNorm>("norm", 8);
  td::nn::MultiheadAttention attention = child<td::nn::MultiheadAttention>(
      "attention", 8, 2, td::nn::MultiheadAttentionOptions{.batch_first = true});
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 8, 16);
  td::nn::Linear out = child<td::nn::Linear>("out", 16, 8);
  Tensor forward(const Tensor& ids) {
    const Tensor x = tokens(ids);
    const Tensor y = norm(x);
    const Tensor seen = x + attention(y, y, y, {.need_weights = false, .is_causal = true}).output;
    return td::softmax(seen + out(td::gelu(hidden(norm(seen)))), -1);
  }
};

template <class Net>
std::vector<td::NamedTensor> fill(Net& net) {
  int64_t seed = 20;
  const td::NoGrad no_grad;
  for (const td::NamedTensor& n : net.named_buffers())
    if (td::is_floating(n.tensor.dtype())) n.tensor.copy_(noise(n.tensor.sizes(), ++seed).abs() + 0.5);
  net.eval();
  return net.state();
}

}  // namespace

TEST_CASE("A network's file gives its results, with its names") {
  if (!td::test::have_onnx()) return;
  td::manual_seed(5);
  td::test::OnnxJudge judge;
  Cnn cnn;
  const td::onnx::SaveOptions names{.names = fill(cnn), .inputs = {"image"}, .outputs = {"scores"}};
  ask(
      judge, "cnn", {noise({2, 3, 11, 9})}, [&](const Tensors& in) { return Tensors{cnn.forward(in[0])}; },
      names);
  const std::string text = contents(judge.path("cnn"));
  for (const char* name : {"first.weight", "norm.running_mean", "out.bias", "image", "scores",
                           "BatchNormalization", "MaxPool", "AveragePool", "Gemm", "LogSoftmax"}) {
    INFO(name);
    CHECK(has(text, name));
  }
  CHECK(!has(text, "GatherElements"));  // the maxima are MaxPool's own
  CHECK(!has(text, "num_batches_tracked"));

  Block block;
  const td::onnx::SaveOptions of_block{.names = fill(block)};
  const Tensor ids = td::arange(0, 10, 1, {.dtype = td::int64}).reshape({2, 5});
  ask(
      judge, "block", {ids}, [&](const Tensors& in) { return Tensors{block.forward(in[0])}; }, of_block);
  CHECK(has(contents(judge.path("block")), "LayerNormalization"));
  judge.run();
  CHECK(judge.verdict("cnn") == "");
  CHECK(judge.verdict("block") == "");
}

TEST_CASE("Recurrent layers, halves, and functions of every type are exported") {
  if (!td::test::have_onnx()) return;
  td::manual_seed(6);
  td::test::OnnxJudge judge;
  td::nn::LSTM lstm(3, 4, {.num_layers = 2, .bidirectional = true});
  td::nn::GRU gru(3, 4);
  lstm.eval(), gru.eval();
  ask(judge, "lstm", {noise({5, 2, 3})}, [&](const Tensors& in) {
    const auto [y, state] = lstm(in[0]);
    return Tensors{y, state.h, state.c};
  });
  ask(judge, "gru", {noise({4, 2, 3})}, [&](const Tensors& in) {
    const auto [y, h] = gru(in[0]);
    return Tensors{y, h};
  });
  Cnn half;
  fill(half);
  half.to(td::float16);
  ask(
      judge, "half", {noise({1, 3, 11, 9}).to(td::float16)},
      [&](const Tensors& in) { return Tensors{half.forward(in[0])}; }, {}, 2e-2);
  const Tensor x = noise({3, 7}), k = td::arange(0, 21, 1, {.dtype = td::int64}).reshape({3, 7}).remainder(5);
  ask(judge, "choices", {x, k}, [](const Tensors& in) {
    const Tensor mask = in[0] > 0.25;
    const auto top = in[0].topk(3, 1);
    return Tensors{td::where(mask, in[0], in[1].to(td::float32)),
                   in[0].argmax(1),
                   top.values,
                   top.indices,
                   mask.logical_not(),
                   in[1] * 3 - 7,
                   in[1].remainder(3),
                   td::floor_divide(in[1], 2),
                   in[0].cumsum(0),
                   in[0].gather(1, in[1]),
                   (in[1] == 2).any(1),
                   in[1].to(td::uint8) + 250,
                   in[0].std(1),
                   in[0].sort(0, true).values};
  });
  auto wave = td::pointwise([](auto v, auto a) { return v * td::tanh(a * v); });
  ask(judge, "own_formula", {x, x.exp()}, [&](const Tensors& in) { return Tensors{wave(in[0], in[1])}; });
  judge.run();
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}

TEST_CASE("Maxima are MaxPool's own only where they are what is looked up") {
  if (!td::test::have_onnx()) return;
  td::test::OnnxJudge judge;
  const Tensor x = noise({2, 3, 4, 6});
  // A position counts within its channel: among all channels in one row it is one of the first's.
  ask(judge, "all_channels", {x}, [](const Tensors& in) {
    const td::ValuesIndices p = td::max_pool2d_with_indices(in[0], 2);
    return Tensors{in[0].flatten(1).gather(1, p.indices.flatten(1)), p.values};
  });
  ask(judge, "three_axes", {noise({1, 2, 4, 4, 6})}, [](const Tensors& in) {
    const td::ValuesIndices p = td::max_pool3d_with_indices(in[0], 2);
    return Tensors{p.values, p.indices, in[0].flatten(2).gather(2, p.indices.flatten(2))};
  });
  ask(judge, "one_axis", {noise({2, 3, 8})}, [](const Tensors& in) {
    const td::ValuesIndices p = td::max_pool1d_with_indices(in[0], 3, 2, 1);
    return Tensors{p.values, p.indices, in[0].flatten(1).gather(1, p.indices.flatten(1))};
  });
  judge.run();
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}

TEST_CASE("Functions at the edges of their ranges are exported as they are") {
  if (!td::test::have_onnx()) return;
  td::test::OnnxJudge judge;
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor a =
      td::tensor({0.0, -0.0, 1.0, -1.0, inf, -inf, 1e-30, -3.0, 5.0, 88.0, -88.0, 0.5}).to(td::float32);
  const Tensor y = a.unsqueeze(1).expand({12, 12}).contiguous(),
               x = a.unsqueeze(0).expand({12, 12}).contiguous();
  ask(judge, "edges", {y, x}, [](const Tensors& in) {
    return Tensors{td::atan2(in[0], in[1]), td::expm1(in[0]),
                   td::log1p(in[0].abs()),  td::copysign(in[0], in[1]),
                   td::erfc(in[0]),         td::trunc(in[0]),
                   td::round(in[0]),        td::hypot(in[0], in[1]),
                   td::sigmoid(in[0]),      td::silu(in[0].clamp(-90, 90)),
                   td::softplus(in[0]),     td::sinc(in[0].clamp(-5, 5))};
  });
  judge.run();
  CHECK(judge.verdict("edges") == "");
}

TEST_CASE("Views, arguments, captured tensors and one value twice may be results") {
  if (!td::test::have_onnx()) return;
  td::test::OnnxJudge judge;
  const Tensor w = noise({4, 3}).transpose(0, 1), apart = noise({2, 2}), v = noise({4, 2});
  const Tensor x = noise({3, 4}, 8);
  ask(judge, "results", {x, noise({5})}, [&](const Tensors& in) {
    const Tensor sum = in[0] + w;
    return Tensors{sum,
                   sum,
                   sum.transpose(0, 1),
                   sum.select(1, 2),
                   in[0],
                   w,
                   in[0].slice(1, 1, 3),
                   apart,
                   apart.unsqueeze(0),
                   sum.sum()};
  });
  ask(judge, "strided", {noise({4, 6}).transpose(0, 1).slice(0, 0, 6, 2)},
      [&](const Tensors& in) { return Tensors{in[0].matmul(v) * 2.5}; });
  ask(judge, "in_place_inside", {x}, [&](const Tensors& in) {
    Tensor y = in[0].clone();
    y.mul_(3), y.select(0, 1).add_(w.select(0, 0));
    return Tensors{y};
  });
  judge.run();
  for (const auto& [name, verdict] : judge.verdicts()) {
    INFO(name << ": " << verdict);
    CHECK(verdict.empty());
  }
}

TEST_CASE("What is no inference is refused with its line, and leaves nothing behind") {
  const ScratchFolder folder;
  const std::string path = folder / "model.onnx";
  const auto refusal = [&](const auto& f, const td::onnx::SaveOptions& options = {}) {
    const std::string text = message([&] { td::onnx::save(path, f, options); });
    CHECK(folder.count() == 0);
    return text;
  };
  const Tensor x = noise({2, 3});

  td::nn::Linear net(3, 2);
  td::optim::SGD opt(net.parameters(), {.lr = 0.1});
  int line = 0;
  auto step = td::trace(
      [&](const Tensor& in) {
        const Tensor loss = net(in).square().mean();
        opt.zero_grad();
        loss.backward();
        opt.step(), line = __LINE__;
        return loss.detach();
      },
      kInterpreted);
  step(x), step(x);
  std::string text = refusal(step, {.names = net.state()});
  INFO(text);
  CHECK(has(text,
            "captured tensor \"weight\" is changed in place; export a function that computes results alone"));
  CHECK(has(text, here(line)));

  auto gradients = td::trace(
      [&](const Tensor& in) {
        const Tensor loss = net(in).sum();
        opt.zero_grad();
        loss.backward();
        return loss.detach();
      },
      kInterpreted);
  gradients(x), gradients(x);
  CHECK(has(refusal(gradients), "gradients of captured tensor"));

  const auto dropped = traced(
      [&](const Tensors& in) {
        line = __LINE__ + 1;
        return Tensors{td::dropout(in[0], 0.5, true)};
      },
      {x});
  text = refusal(dropped);
  CHECK(has(text, "dropout: random numbers are not exported; call eval() on layers with dropout"));
  CHECK(has(text, here(line)));

  const Tensor k = td::arange(0, 6, 1, {.dtype = td::int64});
  const auto bits = traced([](const Tensors& in) { return Tensors{td::bitwise_xor(in[0], in[0] + 1)}; }, {k});
  text = refusal(bits);
  CHECK(has(text, "onnx: bitwise_xor: operators of version 17 have no bits of signed integers"));
  CHECK(has(text, here(__LINE__ - 3)));

  const td::Kernel twice(
      {.name = "twice",
       .inputs = {"x"},
       .outputs = {"y"},
       .cpu =
           [](const td::KernelCall& c) {
             for (int64_t i = 0; i < td::numel(c.in_sizes()); ++i)
               c.output<float>()[i] = 2 * c.input<float>()[i];
           },
       .infer = [](std::span<const td::TensorType> in) { return std::vector<td::TensorType>{in[0]}; }});
  const auto own = traced([&](const Tensors& in) { return Tensors{twice(in[0])}; }, {x});
  text = refusal(own);
  CHECK(has(text, "\"twice\" is a kernel of this program's own"));
  CHECK(has(text, here(__LINE__ - 3)));

  const auto pair = traced([](const Tensors& in) { return Tensors{in[0] + in[1]}; }, {x, x});
  CHECK(has(refusal(pair), "arguments 0 and 1 share memory"));
}

TEST_CASE("Names and signatures that cannot be are refused") {
  const ScratchFolder folder;
  const std::string path = folder / "model.onnx";
  const Tensor w = noise({3}), v = noise({3}, 9), x = noise({2, 3});
  auto f = traced([&](const Tensors& in) { return Tensors{in[0] * w + v}; }, {x});
  const auto refusal = [&](const td::onnx::SaveOptions& options) {
    return message([&] { td::onnx::save(path, f, options); });
  };
  CHECK(has(refusal({.inputs = {"a", "b"}}), "2 names were given for 1 arguments at "));
  CHECK(has(refusal({.outputs = {"a", "b", "c"}}), "3 names were given for 1 results"));
  CHECK(has(refusal({.names = {{"x", w}}, .inputs = {"x"}}), "are named \"x\""));
  CHECK(has(refusal({.names = {{"x", w}, {"x", v}}}), "are named \"x\""));
  CHECK(has(refusal({.inputs = {"x"}, .outputs = {"x"}}), "are named \"x\""));
  CHECK(has(refusal({.inputs = {""}}), "an empty name"));
  CHECK(has(refusal({.outputs = {"\xff"}}), "is not UTF-8"));
  CHECK(folder.count() == 0);

  f(Tensors{noise({4, 3})}), f(Tensors{noise({4, 3})});
  CHECK(has(refusal({}),
            "a file holds one signature, and 2 are frozen: (float32(2, 3)) (float32(4, 3)); choose"));
  CHECK(has(refusal({.signature = 2}), "signature 2 was asked for, of 2"));
  CHECK(folder.count() == 0);
  td::onnx::save(path, f, {.signature = 1});
  CHECK(folder.count() == 1);

  // The old file stays what it was.
  const std::string before = contents(path);
  CHECK(refusal({.inputs = {"a", "b"}, .signature = 0}) != "");
  CHECK(contents(path) == before);
  const std::string text = message([&] { td::onnx::save(folder / "none/model.onnx", f, {.signature = 0}); });
  INFO(text);
  CHECK(has(text, "/none\""));
}

TEST_CASE("A captured tensor that is gone is named") {
  const ScratchFolder folder;
  const std::string path = folder / "model.onnx";
  std::optional<Tensor> w = noise({3});
  const auto f = traced([&](const Tensors& in) { return Tensors{in[0] * *w}; }, {noise({2, 3})});
  const auto frozen = f.freeze();
  w.reset();
  CHECK(has(message([&] { td::onnx::save(path, frozen); }), "is gone"));
}

TEST_CASE("Weights that a file has no room for lie beside it") {
  if (!td::test::have_onnx()) return;
  td::test::OnnxJudge judge;
  const Tensor first = noise({20, 30}), second = noise({30, 50}), x = noise({2, 20}), small = noise({50});
  const auto write = [&](int64_t most) {
    td::io::OnnxModel m("large");
    const td::io::OnnxValue in = m.input("x", {td::float32, {2, 20}});
    const td::io::OnnxValue w1 = m.tensor("first", first), w2 = m.tensor("second", second),
                            b = m.tensor("b", small);
    const td::io::OnnxValue y = m.node("MatMul", {in, w1}, {td::float32, {2, 30}});
    m.output(m.node("Add", {m.node("MatMul", {y, w2}, {td::float32, {2, 50}}), b}, {td::float32, {2, 50}}),
             "y");
    m.write(judge.path("large"), {"user.cpp", 31}, most);
  };
  CHECK(has(message([&] { write(300); }), "the model has 0 MiB without its weights"));
  CHECK(!std::ifstream(judge.path("large")));
  write(2000);
  CHECK(contents(judge.path("large")).size() < 1000);
  CHECK(contents(judge.path("large") + ".data").size() == 4096 + 4 * 30 * 50);
  judge.ask("large", {x}, {x.matmul(first).matmul(second) + small});
  judge.run();
  CHECK(judge.verdict("large") == "");
}

TEST_CASE("A loaded function is exported as the frozen one was") {
  const ScratchFolder folder;
  td::nn::Linear net(3, 2);
  const auto f = traced([&](const Tensors& in) { return Tensors{td::relu(net(in[0]))}; }, {noise({2, 3})});
  const auto frozen = f.freeze();
  frozen.save(folder / "f.tandem", {.names = net.state()});
  td::onnx::save(folder / "a.onnx", frozen, {.names = net.state()});
  td::onnx::save(folder / "b.onnx", td::load_function(folder / "f.tandem"));
  CHECK(contents(folder / "a.onnx") == contents(folder / "b.onnx"));
}
