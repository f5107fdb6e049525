// Saved functions: the same as what was saved, in this program and in another one; bad files.
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/programs/batches.h"
#include "tests/tracer/programs.h"
#include "tests/tracer/saved_files.h"

using namespace programs;
using namespace saved_test;

namespace {

template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const td::Error& e) {
    return e.what();
  }
  return "";
}
bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string bytes_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream s;
  s << in.rdbuf();
  return s.str();
}

struct Net : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 6, 8);
  td::nn::Dropout drop = child<td::nn::Dropout>("drop", 0.3);
  td::nn::Linear out = child<td::nn::Linear>("out", 8, 3);
  td::Tensor forward(const td::Tensor& x) { return out(drop(td::gelu(hidden(x)))); }
};

struct Training {
  Net net;
  td::optim::AdamW opt{net.parameters(), {.lr = 0.01}};
  td::Tensor operator()(const td::Tensor& x, const td::Tensor& y) {
    td::Tensor loss = td::cross_entropy(net.forward(x), y);
    opt.zero_grad();
    loss.backward();
    opt.step();
    return loss;
  }
  std::vector<td::NamedTensor> names() {
    std::vector<td::NamedTensor> out = net.state();
    for (const td::NamedTensor& n : opt.state()) out.push_back({"optimizer." + n.name, n.tensor});
    return out;
  }
};

/// Losses of batches 0 to 19 by the eager program.
Values eager_losses() {
  td::manual_seed(5);
  Training t;
  Values out;
  for (int i = 0; i < 20; ++i) {
    const auto [x, y] = batch(i);
    append(out, t(x, y));
  }
  return out;
}

/// The same, saved after ten; these ten losses.
Values train_and_save(const std::string& path, bool named = true) {
  td::manual_seed(5);
  Training t;
  auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) { return t(x, y); });
  std::optional<decltype(step.freeze())> frozen;
  Values out;
  for (int i = 0; i < 10; ++i) {
    const auto [x, y] = batch(i);
    if (i == 4) frozen.emplace(step.freeze());
    append(out, frozen ? (*frozen)(x, y) : step(x, y));
  }
  td::SaveOptions options{.kernels = true};
  if (named) options.names = t.names();
  frozen->save(path, options);
  return out;
}

std::string digest_of(const td::core::SafeTensors& file) {
  std::vector<const td::core::SafeTensor*> sorted;
  for (const td::core::SafeTensor& e : file.entries()) sorted.push_back(&e);
  std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->name < b->name; });
  td::jit::Sha256 hash;
  for (const td::core::SafeTensor* e : sorted) {
    hash.update(e->name + '\n' + td::name(e->dtype) + td::to_string(e->sizes) + '\n');
    if (e->nbytes()) hash.update(e->data, static_cast<size_t>(e->nbytes()));
  }
  return td::jit::hex(hash.finish());
}

}  // namespace

TEST_CASE("a saved training step continues in this program, bit for bit", "[saved]") {
  const ScratchFolder folder;
  const std::string path = folder / "step.tandem";
  Values losses = train_and_save(path);
  td::manual_seed(999);
  const td::FrozenFunction step = td::load_function(path);
  for (int i = 10; i < 15; ++i) {
    const auto [x, y] = batch(i);
    append(losses, step({x, y})[0]);
  }
  // Saved again, and loaded again.
  step.save(folder / "again.tandem");
  const td::FrozenFunction later = td::load_function(folder / "again.tandem");
  for (int i = 15; i < 20; ++i) {
    const auto [x, y] = batch(i);
    append(losses, later({x, y})[0]);
  }
  CHECK(td::default_generator().offset() == 0);  // a loaded function draws from its own generator
  const Values eager = eager_losses();
  CHECK(eager.front() != eager.back());
  CHECK(equal_bits(losses, eager));
  CHECK(folder.count() == 2);

  CHECK(later.parameters().size() == 4);
  CHECK(later.parameters()[0].name == "hidden.weight");
  CHECK(later.parameters()[0].tensor.grad().defined());
  CHECK(later.state().size() == 12);
  CHECK(has(later.state()[4].name, "optimizer."));
  CHECK(has(later.graph(), "adamw_update"));
  CHECK(has(later.code(), "void"));
  CHECK(has(step.saved_kernels(), "void"));
  CHECK(later.saved_kernels().empty());
  CHECK(has(td::to_string(later.report()), "constant    adamw_update lr = 0.01"));
}

TEST_CASE("a saved training step continues in a program without its source, bit for bit", "[saved]") {
  const ScratchFolder folder;
  const std::string path = folder / "step.tandem";
  Values losses = train_and_save(path);
  const std::string command = std::string(TANDEM_CONTINUE_FUNCTION) + " " + path + " 10 10 2>&1";
  FILE* out = popen(command.c_str(), "r");
  REQUIRE(out);
  std::string text;
  for (int c = std::fgetc(out); c != EOF; c = std::fgetc(out)) text += static_cast<char>(c);
  const int status = pclose(out);
  CAPTURE(text);
  REQUIRE(status == 0);
  std::stringstream lines(text);
  for (std::string line; std::getline(lines, line);) losses.push_back(std::strtof(line.c_str(), nullptr));
  CHECK(equal_bits(losses, eager_losses()));
}

TEST_CASE("weights of a loaded function are its own, and can be changed", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor w = range(6).reshape({2, 3}).transpose(0, 1), flag = td::tensor({true, false});
  auto f = td::trace([&](const td::Tensor& x) {
    return td::where(flag, td::matmul(x, w), td::zeros({1, 2}) + 0.5);
  });
  const td::Tensor x = range(3).reshape({1, 3});
  f(x);
  f(x);
  const auto frozen = f.freeze();
  frozen.save(folder / "f");
  const td::FrozenFunction loaded = td::load_function(folder / "f");
  const Values before = loaded({x})[0].to_vector<float>();
  CHECK(before == Values{14, 0.5});
  for (const td::NamedTensor& n : loaded.state())
    if (n.tensor.dim() == 2) {
      CHECK(n.tensor.strides() == w.strides());
      n.tensor.mul_(2);
    }
  CHECK(loaded({x})[0].to_vector<float>() == Values{28, 0.5});
  CHECK(frozen({x})[0].to_vector<float>() == before);
  CHECK(has(error_of([&] { loaded({range(4).reshape({1, 4})}); }), "frozen for (float32(1, 3))"));
  CHECK(has(error_of([&] { loaded({}); }), "frozen for"));
}

TEST_CASE("several signatures, results that are views, and lines of errors are kept", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor table = range(12).reshape({4, 3});
  const int line = __LINE__ + 2;
  auto f = td::trace([&](const td::Tensor& i) {
    const td::Tensor rows = td::embedding(i, table);
    return std::pair(rows, rows.transpose(0, 1));
  });
  const td::Tensor two = td::tensor({int64_t{1}, int64_t{3}}), one = td::tensor({int64_t{2}});
  for (int k = 0; k < 2; ++k) f(two), f(one);
  f.freeze().save(folder / "f");
  const td::FrozenFunction loaded = td::load_function(folder / "f");
  CHECK(loaded.report().signatures == 2);
  const std::vector<td::Tensor> r = loaded({two});
  CHECK(r[1].sizes() == td::Dims{3, 2});
  r[0].zero_();
  CHECK(r[1].sum().item<float>() == 0);
  CHECK(loaded({one})[0].to_vector<float>() == Values{7, 8, 9});
  const std::string text = error_of([&] { loaded({td::tensor({int64_t{4}})}); });
  CHECK(has(text, "embedding: index out of range"));
  CHECK(has(text, "saved_function_test.cpp:" + std::to_string(line)));
}

TEST_CASE("a function frozen under other modes is loaded, and runs under them alone", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor w = range(6).reshape({3, 2}), x = range(3).reshape({1, 3});
  const auto under_modes = [](const auto& run) {
    const td::OnDevice device({td::DeviceType::cuda, 1});
    const td::AllowTf32 allow;
    return run();
  };
  auto f = td::trace([&](const td::Tensor& in) { return td::matmul(in, w); });
  under_modes([&] {
    f(x), f(x);
    f.freeze().save(folder / "f");
    return 0;
  });
  const td::FrozenFunction loaded = td::load_function(folder / "f");
  CHECK(under_modes([&] { return loaded({x})[0].to_vector<float>(); }) == Values{22, 28});
  const std::string text = error_of([&] { loaded({x}); });
  CHECK(has(text, "mode tf32 yes before, no now"));
}

TEST_CASE("a loaded function inside a traced call", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor w = range(3);
  auto f = td::trace([&](const td::Tensor& x) {
    w.add_(1);
    return x * w;
  });
  f(range(3));
  f(range(3));
  f.freeze().save(folder / "f");
  const td::FrozenFunction loaded = td::load_function(folder / "f");
  auto outer = td::trace([&](const td::Tensor& x) { return loaded({x + 1})[0] * 2; });
  for (int i = 0; i < 4; ++i) {
    const float k = static_cast<float>(i);
    CHECK(outer(range(3)).to_vector<float>() == Values{4 * (4 + k), 6 * (5 + k), 8 * (6 + k)});
  }
}

TEST_CASE("what cannot be saved is refused, and leaves the old file", "[saved]") {
  const ScratchFolder folder;
  folder.put("f", "old");
  std::optional<td::Tensor> w = range(3);
  const td::Tensor base = range(6), part = base.slice(0, 0, 3);
  auto shared = td::trace([&](const td::Tensor& x) { return x * part + base.slice(0, 3, 6); });
  auto f = td::trace([&](const td::Tensor& x) { return x * *w; });
  for (int k = 0; k < 2; ++k) shared(range(3)), f(range(3));
  CHECK(has(error_of([&] { shared.freeze().save(folder / "f"); }), "shares memory"));
  const auto frozen = f.freeze();
  const std::string text = error_of([&] { frozen.save(folder / "none/f"); });
  CAPTURE(text);
  CHECK(has(text, "none"));
  w.reset();
  CHECK(has(error_of([&] { frozen.save(folder / "f"); }), "is gone"));
  CHECK(bytes_of(folder / "f") == "old");
  CHECK(folder.count() == 1);
}

TEST_CASE("foreign and damaged files are refused", "[saved]") {
  const ScratchFolder folder;
  const std::string path = folder / "f", bad = folder / "bad";
  const td::Tensor w = range(3);
  auto f = td::trace([&](const td::Tensor& x) { return x * w + 1; }, {.compile = false});
  f(range(3));
  f(range(3));
  f.freeze().save(path);
  CAPTURE(td::load_function(path).graph());
  const auto refused = [&](const std::string& part) {
    const std::string text = error_of([&] { td::load_function(bad); });
    CAPTURE(text);
    CHECK(has(text, part));
    CHECK(has(text, bad));
  };
  CHECK(has(error_of([&] { td::load_function(folder / "absent"); }), "absent"));
  td::save(bad, std::vector<td::NamedTensor>{{"w", w}});
  refused("no saved function");
  change_file(path, bad, [](auto&, auto& m) { m["tandem.function"] = "2"; });
  refused("version 1/2");
  change_file(path, bad, [](auto& e, auto&) { replace(text_of(e), "mul(", "mil("); });
  refused("expected an op");
  change_file(path, bad, [](auto& e, auto&) { replace(text_of(e), "float32(3,)", "float32(4,)"); });
  refused("");
  change_file(path, bad, [](auto& e, auto&) { text_of(e) += "1 "; });
  refused("follows the description");
  change_file(path, bad,
              [](auto& e, auto&) { std::erase_if(e, [](auto& n) { return n.first.name == "steps"; }); });
  refused("\"steps\" is missing");
  change_file(path, bad, [](auto& e, auto&) {
    std::erase_if(e, [](auto& n) { return n.first.name == "state.slot2"; });
  });
  refused("state.slot2");

  // Every byte changed, and every length cut: an Error, or (spaces of the header) the same function.
  const std::string good = bytes_of(path);
  const Values expected = {2, 5, 10};
  const auto try_bytes = [&](const std::string& bytes) {
    folder.put("bad", bytes);
    try {
      const td::FrozenFunction loaded = td::load_function(bad);
      CHECK(loaded({range(3)})[0].to_vector<float>() == expected);
      return true;
    } catch (const td::Error&) {
      return false;
    }
  };
  CHECK(try_bytes(good));
  int survived = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bytes = good;
    bytes[i] = static_cast<char>(bytes[i] ^ (1 << (i % 8)));
    survived += try_bytes(bytes);
    if (i % 5 == 0 || i + 20 > good.size()) CHECK_FALSE(try_bytes(good.substr(0, i)));
  }
  CHECK(survived < 10);

  // Damage with a digest that fits: every digit of the description, changed.
  const td::core::SafeTensors file = td::core::SafeTensors::read(path);
  const std::string digest = file.metadata().at("tandem.digest");
  const td::core::SafeTensor* text = file.find("function");
  const std::string description(static_cast<const char*>(text->data), static_cast<size_t>(text->nbytes()));
  const size_t at = good.find(description), digest_at = good.find(digest);
  REQUIRE(at != std::string::npos);
  REQUIRE(digest_at != std::string::npos);
  int loaded_anyway = 0, tried = 0;
  for (size_t i = 0; i < description.size(); ++i) {
    for (const char c : {'7', '-'}) {
      if (description[i] < '0' || description[i] > '9' || description[i] == c) continue;
      std::string bytes = good;
      bytes[at + i] = c;
      const td::core::SafeTensors changed = td::core::SafeTensors::parse(td::core::bytes_of(bytes));
      bytes.replace(digest_at, digest.size(), digest_of(changed));
      folder.put("bad", bytes);
      ++tried;
      try {
        const td::FrozenFunction loaded = td::load_function(bad);
        ++loaded_anyway;
        loaded({range(3)});
      } catch (const td::Error&) {
      }
    }
  }
  CHECK(tried > 200);
  CHECK(loaded_anyway < tried);
}

TEST_CASE("captured tensors that do not lie row by row are loaded as they lay", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor base = range(24).reshape({2, 3, 4}), row = range(3), one = td::full({}, 7.f);
  const td::Tensor wide = td::zeros({300, 100});
  wide.select(1, 5).copy_(td::arange(0.f, 300));
  const std::pair<const char*, td::Tensor> samples[] = {
      {"transposed", base.transpose(0, 2)},
      {"permuted", base.permute({1, 2, 0})},
      {"sliced", base.slice(2, 1, 4, 2)},
      {"column", wide.select(1, 5)},
      {"expanded", row.unsqueeze(0).expand({4, 3})},
      {"expanded at the end", row.unsqueeze(1).expand({3, 5})},
      {"expanded twice", row.unsqueeze(1).expand({2, 3, 5})},
      {"expanded and sliced", row.slice(0, 1, 3).unsqueeze(0).expand({2, 2})},
      {"of one element", one.expand({2, 2})},
      {"of no element", base.slice(0, 1, 1)},
      {"integers", td::tensor({int64_t{1}, int64_t{2}}).unsqueeze(0).expand({3, 2})},
      {"flags", td::tensor({true, false}).unsqueeze(0).expand({3, 2})},
  };
  for (const auto& [name, w] : samples) {
    CAPTURE(name);
    auto f = td::trace([&](const td::Tensor& x) { return x + w; }, {.compile = false});
    const td::Tensor x = td::full({}, 0.5);
    for (int i = 0; i < 2; ++i) f(x);
    f.freeze().save(folder / "f");
    const td::FrozenFunction loaded = td::load_function(folder / "f");
    REQUIRE(loaded.state().size() == 1);
    const td::Tensor t = loaded.state()[0].tensor;
    CHECK(t.strides() == w.strides());
    CHECK(t.sizes() == w.sizes());
    CHECK(t.to_vector<double>() == w.to_vector<double>());
    CHECK(loaded({x})[0].to_vector<double>() == f(x).to_vector<double>());
    loaded.save(folder / "again");
    CHECK(td::load_function(folder / "again")({x})[0].to_vector<double>() == f(x).to_vector<double>());
  }
}

TEST_CASE("a captured tensor whose elements lie too far apart is refused when it is saved", "[saved]") {
  const ScratchFolder folder;
  // 600 MB that are never touched.
  const td::Tensor far = td::empty({2, int64_t{150} << 20}).select(1, 0).zero_();
  auto f = td::trace([&](const td::Tensor& x) { return x + far; }, {.compile = false});
  for (int i = 0; i < 2; ++i) f(td::ones({2}));
  CHECK(has(error_of([&] { f.freeze().save(folder / "f"); }), "contiguous()"));
  CHECK(folder.count() == 0);
}
