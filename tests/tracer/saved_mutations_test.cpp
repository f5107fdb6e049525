// Descriptions of saved functions that are wrong, behind a digest that fits: each is an Error, or a function
// that runs.
#include <cstdlib>
#include <limits>
#include <random>

#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/programs.h"
#include "tests/tracer/saved_files.h"

using namespace programs;
using namespace saved_test;

namespace {

/// A description taken apart: numbers, and texts with their length.
struct Token {
  bool is_text = false;
  std::string value;
  char after = ' ';
};
using Tokens = std::vector<Token>;

Tokens tokens_of(const std::string& s) {
  Tokens out;
  for (size_t at = 0; at < s.size();) {
    if (s[at] == '\n') {  // behind an element of a list
      out.push_back({false, "", '\n'});
      ++at;
      continue;
    }
    const size_t end = s.find_first_of(" \n:", at);
    REQUIRE(end != std::string::npos);
    if (s[end] == ':') {
      const size_t n = std::stoul(s.substr(at, end - at));
      out.push_back({true, s.substr(end + 1, n), ' '});
      at = end + 1 + n + 1;
    } else {
      out.push_back({false, s.substr(at, end - at), s[end]});
      at = end + 1;
    }
  }
  return out;
}

std::string joined(const Tokens& tokens) {
  std::string out;
  for (const Token& t : tokens)
    out += (t.is_text ? std::to_string(t.value.size()) + ":" : "") + t.value + t.after;
  return out;
}

bool is_number(const std::string& s) {
  return !s.empty() && s.find_first_not_of("-0123456789") == std::string::npos;
}

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  Tokens operator()(Tokens t) {
    const uint64_t times = below(8) == 0 ? 3 : 1;
    for (uint64_t i = 0; i < times; ++i) change(t);
    // Compiled kernels for thousands of graphs would take minutes.
    t[1].value = "0";
    return t;
  }

 private:
  uint64_t below(uint64_t n) { return random_() % n; }

  std::string number(const std::string& was) {
    static const char* const values[] = {"0",
                                         "1",
                                         "2",
                                         "3",
                                         "7",
                                         "-1",
                                         "-2",
                                         "-9223372036854775808",
                                         "9223372036854775807",
                                         "4611686018427387904",
                                         "2305843009213693952",
                                         "18446744073709551615",
                                         "4294967296",
                                         "4294967295",
                                         "2147483647",
                                         "-2147483648",
                                         "1000003",
                                         "255",
                                         "256"};
    if (below(3) == 0) {
      const auto v = std::strtoll(was.c_str(), nullptr, 10);
      return std::to_string(static_cast<int64_t>(static_cast<uint64_t>(v) + (below(2) ? 1 : -1)));
    }
    return values[below(std::size(values))];
  }
  size_t pick(const Tokens& t) {
    size_t i = below(t.size());
    while (t[i].value.empty()) i = below(t.size());
    return i;
  }
  /// A number or a word of a text is replaced, or a line moved, doubled or removed.
  void change(std::string& text, const Tokens& all) {
    std::vector<std::pair<size_t, size_t>> words;
    const auto in_word = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    };
    for (size_t i = 0; i < text.size(); ++i) {
      size_t end = i;
      while (end < text.size() && in_word(text[end])) ++end;
      if (end > i) words.emplace_back(i, end - i);
      i = end;
    }
    if (words.empty()) return;
    const auto [at, size] = words[below(words.size())];
    const std::string word = text.substr(at, size);
    if (text.find('\n') != std::string::npos && below(5) == 0) {
      const size_t begin = text.rfind('\n', at) + 1, end = text.find('\n', at);
      if (end == std::string::npos) return;
      const std::string line = text.substr(begin, end - begin + 1);
      if (below(2)) text.erase(begin, line.size());
      if (below(2)) text.insert(text.find('\n', below(text.size() / 2)) + 1, line);
      return;
    }
    std::string other = word;
    if (is_number(word)) {
      other = number(word);
    } else if (below(4)) {
      const auto [from, n] = words[below(words.size())];
      other = text.substr(from, n);
    } else {
      other = all[pick(all)].value.substr(0, 40);
    }
    text.replace(at, size, other);
  }
  void change(Tokens& t) {
    const size_t i = pick(t);
    Token& token = t[i];
    switch (below(8)) {
      case 0:  // as somewhere else
        token.value = t[pick(t)].value;
        return;
      case 1: {  // everywhere where it stands
        if (token.is_text) break;
        const std::string was = token.value, is = number(was);
        for (size_t k = 2; k < t.size(); ++k) {
          if (t[k].value == was) t[k].value = is;
          if (!t[k].is_text || is_number(t[k].value)) continue;
          std::string& text = t[k].value;
          for (size_t at = 0; (at = text.find(was, at)) != std::string::npos; at += is.size()) {
            const auto digit = [&](size_t p) {
              return p < text.size() &&
                     (std::isalnum(static_cast<unsigned char>(text[p])) || text[p] == '%' || text[p] == '_');
            };
            if ((at && digit(at - 1)) || digit(at + was.size())) continue;
            text.replace(at, was.size(), is);
          }
        }
        return;
      }
      case 2:
        t.erase(t.begin() + static_cast<std::ptrdiff_t>(i));
        return;
      case 3:
        t.insert(t.begin() + static_cast<std::ptrdiff_t>(i), t[pick(t)]);
        return;
      default:
        break;
    }
    if (token.is_text)
      change(token.value, t);
    else
      token.value = number(token.value);
  }

  std::mt19937 random_;
};

/// Programs whose functions are saved and changed; each gives the arguments of a call.
using Arguments = std::vector<td::Tensor>;
Arguments training(const std::string& path) {
  td::manual_seed(5);
  td::nn::Linear hidden(3, 4), out(4, 2);
  td::optim::AdamW opt(std::vector<td::Tensor>{hidden.weight, hidden.bias, out.weight}, {.lr = 0.01});
  auto step = td::trace(
      [&](const td::Tensor& x, const td::Tensor& y) {
        const td::Tensor h = td::dropout(td::relu(hidden(x)), 0.25);
        td::Tensor loss = td::cross_entropy(td::matmul(h, out.weight.transpose(0, 1)), y);
        opt.zero_grad();
        loss.backward();
        opt.step();
        return loss;
      },
      {.compile = false});
  const td::Tensor x = range(6).reshape({2, 3}), y = td::tensor({int64_t{0}, int64_t{1}});
  for (int i = 0; i < 3; ++i) step(x, y);
  step.freeze().save(path);
  return {x, y};
}

Arguments views(const std::string& path) {
  const td::Tensor table = range(12).reshape({3, 4}).transpose(0, 1), counts = td::zeros({2, 3});
  auto f = td::trace(
      [&](const td::Tensor& i, const td::Tensor& x) {
        const td::Tensor rows = td::embedding(i, table);
        counts.slice(1, 0, 2).add_(1);
        const td::Tensor part = rows.slice(0, 0, 2, 1).transpose(0, 1);
        return std::tuple(rows, part.reshape({3, 2, 1}).select(0, 1), x.unsqueeze(0).expand({2, 2, 3}), part,
                          (x + counts).sum(0), x);
      },
      {.compile = false});
  const td::Tensor i = td::tensor({int64_t{3}, int64_t{1}}), x = range(6).reshape({2, 3});
  for (int k = 0; k < 3; ++k) f(i, x);
  f.freeze().save(path);
  return {i, x};
}

/// Gradients that are captured tensors, added to in the body.
Arguments gradients(const std::string& path) {
  const td::Tensor w = leaf(3), b = leaf(3);
  w.set_grad(td::ones({3}));
  b.set_grad(td::ones({3}));
  auto f = td::trace(
      [&](const td::Tensor& x) {
        td::Tensor y = ((w * x + b) * td::rand({3})).sum();
        y.backward();
        return y;
      },
      {.compile = false});
  const td::Tensor x = range(3);
  for (int k = 0; k < 3; ++k) f(x);
  f.freeze().save(path);
  return {x};
}

/// What became of a file: an Error, or a function that runs (or says that it does not).
bool loads(const ScratchFolder& folder, const std::string& bytes, const Arguments& arguments) {
  folder.put("bad", bytes);
  try {
    const td::FrozenFunction f = td::load_function(folder / "bad");
    for (int i = 0; i < 2; ++i)
      for (const td::Tensor& t : f(arguments)) t.contiguous().to_vector<double>();
    for (const td::NamedTensor& n : f.state()) {
      n.tensor.contiguous().to_vector<double>();
      if (n.tensor.grad().defined()) n.tensor.grad().to_vector<double>();
    }
    td::to_string(f.report());
    return true;
  } catch (const td::Error&) {
    return false;
  }
}

}  // namespace

TEST_CASE("descriptions that ask for memory wrongly are refused", "[saved]") {
  const ScratchFolder folder;
  const td::Tensor w = leaf(3);
  auto f = td::trace(
      [&](const td::Tensor& x) {
        td::Tensor y = x * w + 1;
        y.sum().backward();
        const td::NoGrad no_grad;
        td::Tensor z = x * 2, part = z.slice(0, 1, 3);
        return std::pair(z, part);
      },
      {.compile = false});
  for (int k = 0; k < 2; ++k) w.zero_grad(), f(range(3));
  f.freeze().save(folder / "f");
  const td::core::SafeTensors file = td::core::SafeTensors::read(folder / "f");
  Entries entries = entries_of(file);
  const Tokens good = tokens_of(text_of(entries));
  CAPTURE(text_of(entries));
  const auto at = [&](const std::string& value, size_t from = 0) {
    for (size_t i = from; i < good.size(); ++i)
      if (good[i].value == value) return i;
    FAIL("no token " + value);
    return size_t{0};
  };
  const auto error_of = [&](const Tokens& tokens) -> std::string {
    text_of(entries) = joined(tokens);
    folder.put("bad", file_bytes(entries, file.metadata()));
    try {
      td::load_function(folder / "bad");
    } catch (const td::Error& e) {
      return e.what();
    }
    return "";
  };
  const auto refused = [&](const Tokens& tokens, const std::string& part) {
    const std::string text = error_of(tokens);
    CAPTURE(part);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(error_of(good).empty());

  // Outputs that nothing uses; of sizes whose bytes are too many to count.
  size_t graph = 0;
  while (good[graph].value.compare(0, 5, "graph")) ++graph;
  const auto with_output = [&](const std::string& size) {
    Tokens t = good;
    std::string& text = t[graph].value;
    const size_t end = text.find("  return ");
    text.insert(text.find('\n', end), ", %big");
    text.insert(end, "  %half = constant 0x1p-1\n  %big = full(%half, dtype=float32, sizes=[" + size +
                         "]) : float32(" + size + ",)\n");
    return t;
  };
  refused(with_output("2"), "the memory of a result");
  refused(with_output("4611686018427387904"), "size in bytes");
  refused(with_output("1152921504606846976"), "size in bytes");

  // The words of a view: (axis 0, start 1, end 3, step 1) behind their number.
  const size_t words = at("slice", graph) + 4;
  REQUIRE(good[words].value == "4");
  REQUIRE(good[words + 3].value == "1");
  const std::string wrong[] = {"0", "2", "-1", "9223372036854775807", "-9223372036854775808"};
  for (size_t i = 0; i < 4; ++i)
    for (const std::string& value : wrong) {
      Tokens t = good;
      std::string& word = t[words + 1 + 2 * i].value;
      // From the end, or further than the end, is another name of the same.
      if (word == value || (i == 0 && value == "-1") || (i == 2 && value == wrong[3])) continue;
      if (i == 3 && value == "-1") continue;
      word = value;
      CAPTURE(i);
      refused(t, "a view");
    }
  for (const char* op : {"permute", "reshape", "expand", "squeeze", "select", "add"}) {
    Tokens t = good;
    t[at("slice", graph)].value = op;
    refused(t, "a view");
  }
  {
    Tokens t = good;  // a word less
    t[words].value = "3";
    t.erase(t.begin() + static_cast<std::ptrdiff_t>(words + 7),
            t.begin() + static_cast<std::ptrdiff_t>(words + 9));
    refused(t, "a view");
  }
}

TEST_CASE("mutated descriptions of saved functions are Errors, or run", "[saved]") {
  const ScratchFolder folder;
  const std::string path = folder / "f";
  int survived = 0;
  // TANDEM_TEST_MUTATIONS=n: so many of each program, for longer runs.
  const char* only = std::getenv("TANDEM_TEST_MUTATIONS");
  const uint32_t count = only ? static_cast<uint32_t>(std::stoul(only)) : 1500;
  for (const auto& make : {training, views, gradients}) {
    const Arguments arguments = make(path);
    const td::core::SafeTensors file = td::core::SafeTensors::read(path);
    const Entries entries = entries_of(file);
    Entries same = entries;
    const Tokens tokens = tokens_of(text_of(same));
    REQUIRE(joined(tokens) == text_of(same));
    REQUIRE(loads(folder, file_bytes(entries, file.metadata()), arguments));
    for (uint32_t seed = 0; seed < count; ++seed) {
      CAPTURE(seed);
      Entries changed = entries;
      text_of(changed) = joined(Mutator(seed)(tokens));
      bool fine = true;
      try {
        survived += loads(folder, file_bytes(changed, file.metadata()), arguments);
      } catch (const std::exception& e) {
        fine = false;
        CAPTURE(e.what());
        CAPTURE(text_of(changed));
        CHECK(fine);
      }
    }
  }
  // Some changes are harmless: lines, names, constants.
  CAPTURE(survived);
  CHECK(survived > 100);
}
