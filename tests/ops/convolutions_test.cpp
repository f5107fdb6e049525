// Convolutions: every provider against float64 over strides, paddings, dilations, groups and axes in three
// directions; bits that depend neither on threads nor on where operands lie; the choice of a provider.
#include "tandem/ops/convolutions/convolutions.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "tandem/core/env.h"
#include "tandem/ops/convolutions/providers.h"
#include "tests/catch.h"
#include "tests/elements.h"
#include "tests/error_message.h"
#include "tests/op_samples.h"
#include "tests/ops/products_problem.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

constexpr OpId kOps[] = {OpId::convolution, OpId::convolution_input, OpId::convolution_weight};

struct Case {
  Dims x, w;
  int64_t groups;
  Dims stride, padding, dilation;
  Dims more = {};  // output_padding beyond what the window leaves over; 0 if empty
};

const Case kCases[] = {
    {{2, 3, 9}, {4, 3, 3}, 1, {1}, {0}, {1}},
    {{3, 5, 31}, {7, 5, 4}, 1, {3}, {2}, {2}},
    {{9, 4, 8, 8}, {6, 4, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
    {{2, 3, 13, 11}, {16, 3, 5, 5}, 1, {2, 2}, {2, 2}, {1, 1}},
    {{5, 16, 10, 12}, {32, 16, 1, 1}, 1, {1, 1}, {0, 0}, {1, 1}},
    {{2, 16, 10, 12}, {32, 16, 1, 1}, 1, {2, 2}, {0, 0}, {1, 1}},
    {{2, 32, 9, 9}, {32, 1, 3, 3}, 32, {1, 1}, {1, 1}, {1, 1}},
    {{2, 8, 9, 7}, {16, 1, 3, 3}, 8, {2, 1}, {1, 2}, {1, 1}},
    {{2, 12, 9, 9}, {18, 4, 3, 3}, 3, {1, 2}, {0, 3}, {2, 1}},
    {{1, 2, 7, 6}, {3, 2, 7, 6}, 1, {1, 1}, {0, 0}, {1, 1}},
    {{1, 1, 5, 5}, {1, 1, 5, 5}, 1, {4, 4}, {4, 4}, {2, 2}},
    {{17, 1, 12, 12}, {32, 1, 3, 3}, 1, {1, 1}, {0, 0}, {1, 1}},
    {{2, 3, 4, 5, 6}, {4, 3, 2, 3, 2}, 1, {1, 2, 1}, {1, 0, 2}, {1, 1, 2}},
    {{2, 4, 7, 5, 6}, {4, 2, 3, 1, 2}, 2, {2, 1, 3}, {1, 0, 1}, {1, 1, 1}},
    {{1, 3, 20, 1}, {2, 3, 4, 1}, 1, {2, 1}, {1, 0}, {3, 1}},
    {{2, 2, 6}, {3, 2, 2}, 1, {2}, {0}, {1}, {3}},
    {{3, 32, 14, 14}, {48, 32, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
    {{2, 16, 9, 11}, {32, 16, 3, 3}, 1, {1, 1}, {0, 1}, {1, 1}},
    {{2, 160, 700}, {3, 160, 9}, 1, {2}, {5}, {3}},  // a line in several blocks
    {{0, 2, 6, 6}, {3, 2, 2, 2}, 1, {1, 1}, {0, 0}, {1, 1}},
    {{2, 0, 6}, {3, 0, 2}, 1, {1}, {0}, {1}},
};

/// False where this processor, or this oneDNN, has it not, or the program is told not to have it.
bool takes_winograd(const ConvolutionShape& s) {
  return core::environment().winograd && provider_takes(ConvolutionProvider::winograd, s);
}

TensorType type_of(const Dims& sizes, DType t) { return {t, cpu, false, sizes}; }

std::vector<char> encode(const std::vector<double>& values, DType t, size_t offset = 0) {
  std::vector<char> bytes(values.size() * static_cast<size_t>(itemsize(t)) + offset + 1);
  for (size_t i = 0; i < values.size(); ++i)
    write_element(bytes.data() + offset, t, static_cast<int64_t>(i), values[i]);
  return bytes;
}

/// One of the three ops on random operands of a case.
struct ConvolutionProblem {
  OpId op;
  DType dtype;
  std::vector<TensorType> in;
  std::vector<std::vector<double>> values;
  TensorType result;
  std::vector<int64_t> words;
  std::vector<double> wanted, magnitudes;  // by float64, of the operands and of their absolute values

  ConvolutionProblem(const Case& c, OpId op, DType dtype, bool biased, uint64_t seed = 5)
      : op(op), dtype(dtype) {
    words = {c.groups, 0};
    push(c.stride), push(c.padding), push(c.dilation);
    const Dims y = infer_one(OpId::convolution, {c.x, c.w});
    Dims last = Dims(c.w.data() + 2, c.w.rank() - 2);
    if (op == OpId::convolution_input)
      for (int i = 0; i < last.rank(); ++i)
        last[i] = c.x[i + 2] -
                  ((y[i + 2] - 1) * c.stride[i] - 2 * c.padding[i] + c.dilation[i] * (c.w[i + 2] - 1) + 1) +
                  (c.more.empty() ? 0 : c.more[i]);
    if (op != OpId::convolution) push(last);
    const Dims first = op == OpId::convolution_input ? y : c.x,
               second = op == OpId::convolution_weight ? y : c.w;
    result = type_of(infer_one(op, {first, second}), dtype);
    add(first, seed), add(second, seed + 1);
    if (op != OpId::convolution_weight) {
      if (biased)
        add({result.sizes[1]}, seed + 2);
      else
        in.emplace_back(), values.emplace_back();
    }
    wanted = reference(false), magnitudes = reference(true);
  }

  ConvolutionCall call(const std::vector<std::vector<char>>& bytes, void* to, size_t offset) const {
    const auto at = [&](size_t i) -> const void* {
      return values[i].empty() ? nullptr : bytes[i].data() + offset;
    };
    ConvolutionCall c;
    c.shape = convolution_shape(def(op), in, result, words);
    c.result = to;
    (op == OpId::convolution_input ? c.y : c.x) = at(0);
    (op == OpId::convolution_weight ? c.y : c.w) = at(1);
    if (in.size() > 2) c.bias = at(2);
    return c;
  }
  ConvolutionShape shape() const { return convolution_shape(def(op), in, result, words); }

  std::vector<char> run(ConvolutionProvider provider, size_t offset = 0) const {
    std::vector<std::vector<char>> bytes;
    for (size_t i = 0; i < in.size(); ++i) bytes.push_back(encode(values[i], dtype, offset));
    const auto n = static_cast<size_t>(numel(result.sizes) * itemsize(dtype));
    std::vector<char> to(n + offset + 1, '\x7f');
    convolve(call(bytes, to.data() + offset, offset), provider);
    CHECK(to.back() == '\x7f');
    return {to.begin() + static_cast<int64_t>(offset), to.end()};
  }

  /// Empty, or what is wrong.
  std::string mismatch(const std::vector<char>& found, ConvolutionProvider provider) const {
    // Winograd's errors are relative to neighbours; here to the largest of all.
    const bool winograd = provider == ConvolutionProvider::winograd && !magnitudes.empty();
    const double largest = winograd ? *std::max_element(magnitudes.begin(), magnitudes.end()) : 0;
    // Sums are built in float32 at least and rounded once.
    const bool half = test::is_half(dtype);
    const double wide = epsilon(half ? DType::float32 : dtype), rounding = (half ? 0.51 : 1) * epsilon(dtype);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const double v = read_element(found.data(), dtype, static_cast<int64_t>(i));
      const double off = std::fabs(v - wanted[i]);
      if (!(off <=
            16 * wide * std::max(magnitudes[i], largest) + rounding * std::fabs(wanted[i]) + smallest(dtype)))
        return "element " + std::to_string(i) + " is " + std::to_string(v) + ", not " +
               std::to_string(wanted[i]);
    }
    return "";
  }

 private:
  void push(const Dims& list) {
    words.push_back(list.rank());
    words.insert(words.end(), list.begin(), list.end());
  }
  Dims infer_one(OpId id, const std::vector<Dims>& sizes) const {
    std::vector<TensorType> types, out;
    for (const Dims& s : sizes) types.push_back(type_of(s, dtype));
    const bool three = id != OpId::convolution_weight;
    if (three) types.emplace_back();
    const bool present[] = {true, true, false};
    infer({def(id), types, {present, types.size()}, words, {}}, out);
    return out[0].sizes;
  }
  void add(const Dims& sizes, uint64_t seed) {
    std::vector<double> v = noise(static_cast<size_t>(numel(sizes)), seed);
    for (double& d : v) d = in_type(dtype, d);
    in.push_back(type_of(sizes, dtype));
    values.push_back(std::move(v));
  }
  std::vector<double> reference(bool absolute) const {
    ReferenceEmitter e;
    std::vector<Value> operands;
    for (size_t i = 0; i < in.size(); ++i) {
      if (values[i].empty() && in[i].sizes.empty()) {
        operands.push_back({});
        continue;
      }
      std::vector<double> v = values[i];
      if (absolute)
        for (double& d : v) d = std::fabs(d);
      operands.push_back(e.add(type_of(in[i].sizes, DType::float64), std::move(v)));
    }
    Value out;
    e.emit(op, operands, words, &out);
    return e.values(out);
  }
};

}  // namespace

TEST_CASE("every provider of convolutions agrees with float64", "[ops]") {
  std::array<int, std::size(kConvolutionProviders)> taken{};
  uint64_t seed = 1;
  for (const Case& c : kCases)
    for (const OpId op : kOps)
      for (const DType dtype : {DType::float32, DType::float64, DType::bfloat16, DType::float16})
        for (const bool biased : {false, true}) {
          if (biased && op == OpId::convolution_weight) continue;
          const ConvolutionProblem p(c, op, dtype, biased, ++seed);
          for (const ConvolutionProvider provider : kConvolutionProviders) {
            CAPTURE(def(op).name, c.x, c.w, name(provider), tandem::name(dtype), biased);
            if (!provider_takes(provider, p.shape())) {
              CHECK(provider != ConvolutionProvider::loops);
              continue;
            }
            ++taken[static_cast<size_t>(provider)];
            CHECK(p.mismatch(p.run(provider), provider) == "");
          }
        }
  for (const ConvolutionProvider provider : kConvolutionProviders) {
    const int n = taken[static_cast<size_t>(provider)];
    CAPTURE(name(provider), n);
    std::printf("convolutions: %d by %s\n", n, name(provider));
    const bool of_library = takes_blocks(provider);
    const ConvolutionShape s =
        ConvolutionProblem(kCases[2], OpId::convolution, DType::float32, false).shape();
    CHECK((n > (provider == ConvolutionProvider::winograd ? 20 : 100)) ==
          (!of_library || provider_takes(provider, s)));
  }
}

TEST_CASE("convolutions do not depend on threads or on where operands lie", "[ops]") {
  const Case cases[] = {
      {{5, 16, 50, 50}, {16, 16, 1, 1}, 1, {1, 1}, {0, 0}, {1, 1}},  // blocks of images, the last smaller
      {{19, 16, 8, 9}, {16, 16, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
      {{3, 32, 14, 14}, {32, 32, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},  // blocks of channels, too
      {{3, 16, 8, 8}, {256, 16, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
      {{3, 6, 40, 33}, {12, 2, 3, 5}, 3, {2, 1}, {1, 0}, {1, 2}},
      {{1, 3, 700}, {8, 3, 9}, 1, {1}, {4}, {1}},
  };
  for (const Case& c : cases)
    for (const OpId op : kOps)
      for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const ConvolutionProblem p(c, op, dtype, true);
        for (const ConvolutionProvider provider : kConvolutionProviders) {
          if (!provider_takes(provider, p.shape())) continue;
          CAPTURE(def(op).name, c.x, name(provider), tandem::name(dtype));
          std::vector<char> one;
          {
            const Threads threads(1);
            one = p.run(provider);
          }
          CHECK(p.mismatch(one, provider) == "");
          for (const int n : {2, 5}) {
            const Threads threads(n);
            CHECK(p.run(provider, n == 2 ? 4 : 0) == one);
          }
        }
      }
}

TEST_CASE("long sums of bfloat16 are rounded once", "[ops]") {
  const Case cases[] = {
      {{2, 1040, 3, 4}, {16, 1040, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
      {{2, 16, 3, 4}, {1040, 16, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}},
      {{3, 1040, 4, 4}, {16, 1040, 1, 1}, 1, {1, 1}, {0, 0}, {1, 1}},
      {{3, 16, 4, 4}, {1040, 16, 1, 1}, 1, {1, 1}, {0, 0}, {1, 1}},
      {{16, 16, 20, 20}, {16, 16, 1, 1}, 1, {1, 1}, {0, 0}, {1, 1}},
  };
  for (const Case& c : cases)
    for (const OpId op : kOps) {
      const ConvolutionProblem p(c, op, DType::bfloat16, true);
      const ConvolutionProvider provider = choose_provider(p.shape());
      CAPTURE(def(op).name, c.x, c.w, name(provider));
      CHECK(p.mismatch(p.run(provider), provider) == "");
    }
}

TEST_CASE("oneDNN takes bfloat16 as it is where the processor multiplies it", "[ops]") {
  __builtin_cpu_init();
  const bool limited = std::getenv("ONEDNN_MAX_CPU_ISA") != nullptr;
  for (const OpId op : kOps) {
    ConvolutionShape s = ConvolutionProblem({{9, 16, 8, 8}, {32, 16, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}}, op,
                                            DType::bfloat16, true)
                             .shape();
    const bool native = onednn_convolves(s), taken = provider_takes(ConvolutionProvider::onednn, s);
    s.dtype = DType::float32;
    CHECK(native == (onednn_convolves(s) && !limited && __builtin_cpu_supports("avx512bf16")));
    CHECK(taken == onednn_convolves(s));
  }
}

TEST_CASE("the provider of a convolution follows shape and dtype", "[ops]") {
  ConvolutionShape s;
  s.batch = 64, s.channels = 32, s.outputs = 64;
  for (int d = 1; d < kConvolutionAxes; ++d) s.in[d] = 26, s.out[d] = 24, s.kernel[d] = 3;
  for (const ConvolutionDirection d :
       {ConvolutionDirection::forward, ConvolutionDirection::input, ConvolutionDirection::weight}) {
    s.direction = d;
    s.dtype = DType::float32;
    const auto best = [&] {
      if (takes_winograd(s)) return ConvolutionProvider::winograd;
      return provider_takes(ConvolutionProvider::onednn, s) ? ConvolutionProvider::onednn
                                                            : ConvolutionProvider::tiles;
    }();
    CHECK(choose_provider(s) == best);
    s.dtype = DType::float64;
    CHECK(choose_provider(s) == ConvolutionProvider::tiles);
    CHECK_FALSE(provider_takes(ConvolutionProvider::onednn, s));
    s.dtype = DType::int32;
    CHECK(choose_provider(s) == ConvolutionProvider::loops);
    CHECK_FALSE(provider_takes(ConvolutionProvider::tiles, s));
  }
  s.dtype = DType::float32;
  s.batch = 0;
  CHECK(choose_provider(s) == ConvolutionProvider::loops);
  CHECK_THAT(message([&] { convolve({s}, ConvolutionProvider::tiles); }),
             Contains("tiles does not take this shape of float32"));
}

namespace {

/// A shape that Winograd's way is faster for.
Case windows_of_three() { return {{2, 32, 14, 14}, {64, 32, 3, 3}, 1, {1, 1}, {1, 1}, {1, 1}}; }

}  // namespace

TEST_CASE("Winograd's way is taken where blocks have many tiles", "[ops]") {
  const auto chosen = [](Case c) {
    return choose_provider(ConvolutionProblem(c, OpId::convolution, DType::float32, false).shape());
  };
  const Case c = windows_of_three();
  const ConvolutionShape s = ConvolutionProblem(c, OpId::convolution, DType::float32, false).shape();
  if (!takes_winograd(s)) {
    CHECK(chosen(c) != ConvolutionProvider::winograd);
    return;
  }
  CHECK(chosen(c) == ConvolutionProvider::winograd);
  CHECK(winograd_pays(s));
  Case one_image = c, strided = c, thin = c, grouped = c;
  one_image.x[0] = 1;  // 16 tiles
  strided.stride = {2, 1};
  thin.w = {16, 16, 3, 3}, thin.x[1] = 16;
  grouped.w[1] = 16, grouped.groups = 2;
  for (const Case& other : {one_image, strided, thin, grouped})
    CHECK(chosen(other) == ConvolutionProvider::onednn);
  CHECK_THAT(message([&] {
               convolve({ConvolutionProblem(strided, OpId::convolution, DType::float32, false).shape()},
                        ConvolutionProvider::winograd);
             }),
             Contains("winograd does not take this shape of float32"));
}

TEST_CASE("Winograd's errors are a few times those of sums in order", "[ops]") {
  for (const OpId op : kOps) {
    const ConvolutionProblem p(windows_of_three(), op, DType::float32, false);
    if (!provider_takes(ConvolutionProvider::winograd, p.shape())) return;
    const auto error = [&](ConvolutionProvider provider) {
      const std::vector<char> found = p.run(provider);
      double sum = 0, all = 0;
      for (size_t i = 0; i < p.wanted.size(); ++i) {
        const double off = read_element(found.data(), DType::float32, static_cast<int64_t>(i)) - p.wanted[i];
        sum += off * off, all += p.wanted[i] * p.wanted[i];
      }
      return std::sqrt(sum / all);
    };
    const double direct = error(ConvolutionProvider::onednn), winograd = error(ConvolutionProvider::winograd);
    CAPTURE(def(op).name, direct, winograd);
    std::printf("%s: relative error %.2g by sums, %.2g by Winograd's way\n", def(op).name, direct, winograd);
    CHECK(winograd < 2e-6);
    CHECK(winograd < 16 * direct);
  }
}
