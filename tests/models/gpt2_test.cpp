// GPT-2: Hugging Face's names and files, the tied head, what is drawn at first, and writing on from tokens.
#include "samples/models/gpt2.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <future>

#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/error_message.h"
#include "tests/models/hugging_face.h"

namespace td = tandem;
using tandem::test::hugging_face_weights;
using tandem::test::is_turned;
using tandem::test::kSmallGpt2;
using tandem::test::message;
using td::Tensor;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

Tensor ints(const std::vector<int64_t>& list, const td::Dims& sizes) {
  return td::tensor(list).reshape(sizes);
}

std::vector<double> logits(samples::Gpt2& net) {
  net.eval();
  const Tensor ids = ints({3, 14, 15, 9, 2, 6}, {2, 3});
  return values(net.forward(ids).detach());
}

/// The file of `weights` loaded into a fresh net.
std::vector<double> loaded_logits(const std::vector<td::NamedTensor>& weights) {
  const ScratchFolder folder;
  td::save(folder / "model.safetensors", weights);
  samples::Gpt2 net(kSmallGpt2);
  net.load_hugging_face(folder / "model.safetensors");
  return logits(net);
}

/// What loading the file says; the net must be as it was.
std::string refused(const std::vector<td::NamedTensor>& weights) {
  const ScratchFolder folder;
  const std::string path = folder / "model.safetensors";
  td::save(path, weights);
  samples::Gpt2 net(kSmallGpt2);
  const std::vector<double> before = logits(net);
  std::string text = message([&] { net.load_hugging_face(path); });
  CHECK(logits(net) == before);
  const size_t at = text.find(path);
  CHECK(at != std::string::npos);
  if (at != std::string::npos) text.replace(at, path.size(), "FILE");
  return text;
}

/// The losses of two training steps of the model of 124 million parameters.
std::vector<float> train(bool traced) {
  td::manual_seed(1);
  samples::Gpt2 net(samples::Gpt2Config::preset("124M"));
  td::optim::AdamW optimizer(net.parameters(), {.lr = 6e-4});
  const Tensor text = td::randint(0, net.config.vocab_size, {1, 257});
  const auto body = [&](const Tensor& ids, const Tensor& next) {
    const Tensor loss = net.loss(ids, next);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    return loss.detach();
  };
  const Tensor ids = text.narrow(1, 0, 256).contiguous(), next = text.narrow(1, 1, 256).contiguous();
  std::vector<float> losses;
  auto step = td::trace(body);
  for (int i = 0; i < 2; ++i) losses.push_back((traced ? step(ids, next) : body(ids, next)).item<float>());
  return losses;
}

td::NamedTensor& named(std::vector<td::NamedTensor>& all, const std::string& name) {
  return *std::find_if(all.begin(), all.end(), [&](const td::NamedTensor& n) { return n.name == name; });
}

}  // namespace

TEST_CASE("GPT-2 has Hugging Face's parameters") {
  const samples::Gpt2 net(kSmallGpt2);
  const std::vector<td::NamedTensor> mine = net.named_parameters(), theirs = hugging_face_weights();
  REQUIRE(mine.size() == theirs.size());
  for (size_t i = 0; i < mine.size(); ++i) {
    CHECK(mine[i].name == theirs[i].name);
    CHECK(mine[i].tensor.sizes() ==
          (is_turned(mine[i].name) ? theirs[i].tensor.t() : theirs[i].tensor).sizes());
  }
  const samples::Gpt2Config c = samples::Gpt2Config::preset("124M");
  const int64_t block = 12 * c.n_embd * c.n_embd + 13 * c.n_embd;
  CHECK((c.vocab_size + c.n_positions) * c.n_embd + c.n_layer * block + 2 * c.n_embd == 124'439'808);
  CHECK_THAT(message([] { samples::Gpt2Config::preset("125M"); }), Catch::Contains("there is no \"125M\""));
  CHECK_THAT(message([] { samples::Gpt2 net({.n_head = 5}); }),
             Catch::Contains("5 heads do not divide a width of 768"));
  CHECK_THAT(message([] { samples::Gpt2 net({.n_layer = 0}); }), Catch::Contains("at least 1, found 0"));
}

TEST_CASE("GPT-2 begins with normal weights, smaller ones where they are added to the stream") {
  td::manual_seed(1);
  const samples::Gpt2 net(
      samples::Gpt2Config{.n_layer = 2, .n_head = 2, .n_embd = 64, .n_positions = 128, .vocab_size = 256});
  for (const td::NamedTensor& p : net.named_parameters()) {
    INFO(p.name);
    const bool norm = p.name.find("ln_") != std::string::npos;
    const double mean = p.tensor.mean().item<double>(), std = p.tensor.std().item<double>();
    const double expected = p.tensor.dim() == 1 ? 0 : p.name.ends_with("c_proj.weight") ? 0.01 : 0.02;
    CHECK(std == Approx(expected).epsilon(0.05));
    CHECK(std::abs(mean - (norm && p.name.ends_with("weight") ? 1 : 0)) < 0.001);
  }
}

TEST_CASE("GPT-2 takes files with and without prefix, masks and head") {
  td::manual_seed(2);
  const std::vector<td::NamedTensor> weights = hugging_face_weights();
  const std::vector<double> expected = loaded_logits(weights);
  std::vector<td::NamedTensor> bare = weights;
  for (td::NamedTensor& n : bare) n.name = n.name.substr(std::string("transformer.").size());
  for (int i = 0; i < 2; ++i) {
    const std::string attn = "h." + std::to_string(i) + ".attn.";
    bare.push_back({attn + "bias", td::ones({1, 1, 10, 10})});
    bare.push_back({attn + "masked_bias", td::full({}, -1e4)});
  }
  CHECK(loaded_logits(bare) == expected);
  std::vector<td::NamedTensor> tied = weights;
  tied.push_back({"lm_head.weight", weights[0].tensor});
  CHECK(loaded_logits(tied) == expected);
}

TEST_CASE("GPT-2's weights come back from a file that it wrote") {
  td::manual_seed(3);
  const ScratchFolder folder;
  const std::vector<td::NamedTensor> weights = hugging_face_weights();
  td::save(folder / "a.safetensors", weights);
  samples::Gpt2 net(kSmallGpt2);
  net.load_hugging_face(folder / "a.safetensors");
  net.save_hugging_face(folder / "b.safetensors");
  const td::LoadedFile written = td::load(folder / "b.safetensors");
  CHECK(td::find_metadata(written.metadata, "format") == "pt");  // what transformers asks for
  REQUIRE(written.tensors.size() == weights.size());
  for (const td::NamedTensor& n : written.tensors) {
    INFO(n.name);
    const auto same = [&](const td::NamedTensor& w) { return w.name == n.name; };
    const auto at = std::find_if(weights.begin(), weights.end(), same);
    REQUIRE(at != weights.end());
    CHECK(n.tensor.sizes() == at->tensor.sizes());
    CHECK(values(n.tensor) == values(at->tensor));
  }
  // Each matrix counts as it lies: the square ones, too, of which a file cannot tell.
  const std::vector<double> expected = loaded_logits(weights);
  std::vector<td::NamedTensor> other = weights;
  Tensor& square = named(other, "transformer.h.1.attn.c_proj.weight").tensor;
  square = square.t().contiguous();
  CHECK(loaded_logits(other) != expected);
}

TEST_CASE("GPT-2 refuses what is no file of it") {
  td::manual_seed(4);
  const std::vector<td::NamedTensor> weights = hugging_face_weights();
  std::vector<td::NamedTensor> some = weights;
  some.pop_back();
  some.push_back({"score.weight", td::zeros({2, 12})});
  CHECK_THAT(refused(some),
             Catch::Contains("\"FILE\": the state does not fit; missing: transformer.ln_f.bias; "
                             "unexpected: score.weight"));
  some = weights;
  some.push_back({"lm_head.weight", weights[0].tensor + 1});
  CHECK_THAT(refused(some), Catch::Contains("\"FILE\": lm_head.weight differs from the token embedding"));
  some = weights;
  Tensor& turned = named(some, "transformer.h.0.mlp.c_fc.weight").tensor;
  turned = turned.t().contiguous();
  CHECK_THAT(refused(some), Catch::Contains("transformer.h.0.mlp.c_fc.weight is float32(48, 12), given "
                                            "float32(12, 48)"));
  some = weights;
  some.push_back({"wte.weight", weights[0].tensor});
  CHECK_THAT(refused(some), Catch::Contains("given twice: transformer.wte.weight"));
  some = weights;
  some[0].tensor = some[0].tensor.to(td::float16);
  CHECK_THAT(refused(some), Catch::Contains("is float32(31, 12), given float16(31, 12)"));
}

TEST_CASE("GPT-2's head and embedding are one tensor") {
  td::manual_seed(5);
  samples::Gpt2 net(kSmallGpt2);
  net.eval();
  const Tensor ids = ints({1, 2, 3}, {1, 3});
  const Tensor next = ints({2, 3, 4}, {1, 3});
  net.loss(ids, next).backward();
  const Tensor grad = net.transformer.wte.weight.grad();
  // Token 30 is not in the text: what reaches its row came through the head.
  CHECK(grad.select(0, 30).abs().sum().item<double>() > 0);
  const double before = net.forward(ids).index({0, 0, 30}).item<double>();
  {
    const td::NoGrad no_grad;
    net.transformer.wte.weight.select(0, 30).zero_();
  }
  CHECK(net.forward(ids).index({0, 0, 30}).item<double>() == 0);
  CHECK(before != 0);
}

TEST_CASE("GPT-2 looks back, never ahead, and no further than its positions") {
  td::manual_seed(6);
  samples::Gpt2 net(kSmallGpt2);
  net.eval();
  const Tensor ids = td::randint(0, 31, {1, 10});
  Tensor other = ids.clone();
  other.narrow(1, 5, 1).copy_((ids.narrow(1, 5, 1) + 1).remainder(31));
  const Tensor a = net.forward(ids).detach(), b = net.forward(other).detach();
  CHECK(values(a.narrow(1, 0, 5)) == values(b.narrow(1, 0, 5)));
  for (int i = 5; i < 10; ++i) CHECK(values(a.select(1, i)) != values(b.select(1, i)));
  CHECK_THAT(message([&] {
               net.forward(td::zeros({1, 11}, {.dtype = td::int64}));
             }),
             Catch::Contains("T at most 10 are needed, found shape (1, 11)"));
  CHECK_THAT(message([&] { net.forward(td::zeros({4}, {.dtype = td::int64})); }), Catch::Contains("(B, T)"));
}

TEST_CASE("generate writes on: the likeliest at temperature 0, draws otherwise") {
  td::manual_seed(7);
  const ScratchFolder folder;
  td::save(folder / "model.safetensors", hugging_face_weights());
  samples::Gpt2 net(kSmallGpt2);
  net.load_hugging_face(folder / "model.safetensors");
  const Tensor ids = ints({3, 14, 15, 9, 2, 6}, {2, 3});
  const auto tokens = [](const Tensor& t) { return t.to_vector<int64_t>(); };

  // By hand, over more tokens than there are positions.
  net.eval();
  Tensor by_hand = ids;
  for (int i = 0; i < 12; ++i) {
    const int64_t from = std::max<int64_t>(by_hand.size(1) - 10, 0);
    const Tensor seen = by_hand.narrow(1, from, by_hand.size(1) - from);
    by_hand = td::cat({by_hand, net.forward(seen).select(1, -1).argmax(1, true)}, 1);
  }
  net.train();
  net.transformer.drop.eval();  // a mode of its own, which stays
  const td::Generator before = td::default_generator();
  const Tensor greedy = samples::generate(net, ids, 12, 0);
  CHECK(greedy.sizes() == td::Dims{2, 15});
  CHECK(tokens(greedy) == tokens(by_hand));
  CHECK(td::default_generator().offset() == before.offset());
  CHECK(net.is_training());
  CHECK(net.transformer.h[1].mlp.is_training());
  CHECK_FALSE(net.transformer.drop.is_training());
  CHECK_FALSE(greedy.requires_grad());
  CHECK(tokens(samples::generate(net, ids, 12, 1, 1)) == tokens(by_hand));  // the best one of one
  CHECK(tokens(samples::generate(net, ids, 0)) == tokens(ids));

  // The draws: by the generator alone, among the best only, in proportion.
  td::Generator g(11), same(11), another(12);
  const auto drawn = tokens(samples::generate(net, ids, 12, 1, 0, &g));
  CHECK(tokens(samples::generate(net, ids, 12, 1, 0, &same)) == drawn);
  CHECK(tokens(samples::generate(net, ids, 12, 1, 0, &another)) != drawn);
  const int64_t n = 4000, k = 3;
  const Tensor one = ids.narrow(0, 0, 1);
  const double heat = 0.7;
  const Tensor many = samples::generate(net, one.expand({n, 3}), 1, heat, k, &g).select(1, -1);
  net.eval();
  const Tensor scaled = net.forward(one).index({0, 2}).detach() / heat;
  const td::ValuesIndices best = scaled.topk(k);
  const std::vector<double> p = values(td::softmax(best.values, 0));
  double covered = 0;
  for (int64_t i = 0; i < k; ++i) {
    const int64_t token = best.indices.select(0, i).item<int64_t>();
    const double share = (many == token).sum().item<double>() / static_cast<double>(n);
    CHECK(std::abs(share - p[static_cast<size_t>(i)]) <
          4 * std::sqrt(p[static_cast<size_t>(i)] / static_cast<double>(n)));
    covered += share;
  }
  CHECK(covered == Approx(1));

  CHECK_THAT(message([&] { samples::generate(net, ids, -1); }), Catch::Contains("must not be negative"));
  CHECK_THAT(message([&] { samples::generate(net, ids, 1, -1); }), Catch::Contains("must not be negative"));
  CHECK_THAT(message([&] { samples::generate(net, ids.select(0, 0), 1); }), Catch::Contains("tokens (B, T)"));
}

TEST_CASE("generate runs in a traced call", "[generate]") {
  td::manual_seed(8);
  samples::Gpt2 net(kSmallGpt2);
  const Tensor ids = td::randint(0, 31, {2, 4});
  const auto write = [&](const Tensor& t) { return samples::generate(net, t, 5, 0.9, 7); };
  auto traced = td::trace(write, {.compile = false});
  for (int i = 0; i < 3; ++i) {
    td::manual_seed(20 + static_cast<uint64_t>(i));
    const auto expected = write(ids).to_vector<int64_t>();
    td::manual_seed(20 + static_cast<uint64_t>(i));
    CHECK(traced(ids).to_vector<int64_t>() == expected);
  }
  CHECK(traced.report().segments == 1);
}

// docs/status.md has the peaks.
TEST_CASE("GPT-2 124M trains on the CPU, traced as eagerly and in no more memory", "[full]") {
  if (td::default_device().type != td::DeviceType::cpu) return;
  const auto run = [](bool traced) {
    // On a new thread, which keeps no memory of earlier plans.
    return std::async(std::launch::async,
                      [traced] {
                        td::reset_peak_memory(td::cpu);
                        const int64_t before = td::device_memory(td::cpu).live_bytes;
                        const std::vector<float> losses = train(traced);
                        return std::pair{losses, td::device_memory(td::cpu).peak_bytes - before};
                      })
        .get();
  };
  const auto [eager, eager_peak] = run(false);
  const auto [traced, traced_peak] = run(true);
  std::printf("GPT-2 124M, batch 1 of 256 tokens: %lld MiB eager, %lld MiB traced\n",
              static_cast<long long>(eager_peak >> 20), static_cast<long long>(traced_peak >> 20));
  CHECK(eager[1] < eager[0]);
  CHECK(traced == eager);
  CHECK(traced_peak <= eager_peak);
}
