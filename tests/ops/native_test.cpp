// Native kernels against the reference, for every type that an op takes, and their index errors.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/catch.h"
#include "tests/ops/sample_call.h"

using namespace tandem;
using namespace tandem::ops;
using namespace tandem::test;

namespace {

std::vector<char> encode(const std::vector<double>& values, DType t) {
  std::vector<char> bytes(values.size() * static_cast<size_t>(itemsize(t)) + 1);
  for (size_t i = 0; i < values.size(); ++i) {
    char* to = bytes.data() + i * static_cast<size_t>(itemsize(t));
    const auto put = [&](auto v) { std::memcpy(to, &v, sizeof(v)); };
    switch (t) {
      case DType::bool_:
        put(static_cast<uint8_t>(values[i] != 0));
        break;
      case DType::uint8:
        put(static_cast<uint8_t>(values[i]));
        break;
      case DType::int32:
        put(static_cast<int32_t>(values[i]));
        break;
      case DType::int64:
        put(static_cast<int64_t>(values[i]));
        break;
      case DType::float16:
        put(float_to_half(static_cast<float>(values[i])));
        break;
      case DType::bfloat16:
        put(float_to_bfloat(static_cast<float>(values[i])));
        break;
      case DType::float32:
        put(static_cast<float>(values[i]));
        break;
      case DType::float64:
        put(values[i]);
        break;
    }
  }
  return bytes;
}

std::vector<double> decode(const std::vector<char>& bytes, size_t n, DType t) {
  std::vector<double> values(n);
  for (size_t i = 0; i < n; ++i) {
    const char* from = bytes.data() + i * static_cast<size_t>(itemsize(t));
    const auto get = [&](auto v) {
      std::memcpy(&v, from, sizeof(v));
      return v;
    };
    switch (t) {
      case DType::bool_:
      case DType::uint8:
        values[i] = get(uint8_t{});
        break;
      case DType::int32:
        values[i] = get(int32_t{});
        break;
      case DType::int64:
        values[i] = static_cast<double>(get(int64_t{}));
        break;
      case DType::float16:
        values[i] = half_to_float(get(uint16_t{}));
        break;
      case DType::bfloat16:
        values[i] = bfloat_to_float(get(uint16_t{}));
        break;
      case DType::float32:
        values[i] = get(float{});
        break;
      case DType::float64:
        values[i] = get(double{});
        break;
    }
  }
  return values;
}

struct NativeRun {
  std::vector<std::vector<char>> in;
  std::vector<char> out;                // of the first result
  std::vector<std::vector<char>> more;  // of the others
  int64_t error = 0;

  NativeRun(const OpDef& op, const std::vector<TensorType>& types,
            const std::vector<std::vector<double>>& values, Words words, const TensorType& result)
      : NativeRun(op, types, values, words, std::vector{result}) {}
  NativeRun(const OpDef& op, const std::vector<TensorType>& types,
            const std::vector<std::vector<double>>& values, Words words,
            const std::vector<TensorType>& results) {
    std::vector<const void*> addresses;
    for (size_t i = 0; i < types.size(); ++i) in.push_back(encode(values[i], types[i].dtype));
    for (size_t i = 0; i < in.size(); ++i)
      addresses.push_back(values[i].empty() && types[i].sizes.empty() ? nullptr : in[i].data());  // absent
    std::vector<void*> to;
    more.resize(results.size() - 1);
    for (size_t j = 0; j < results.size(); ++j) {
      std::vector<char>& bytes = j == 0 ? out : more[j - 1];
      bytes.assign(static_cast<size_t>(numel(results[j].sizes) * itemsize(results[j].dtype)) + 1, '\x7f');
      to.push_back(bytes.data());
    }
    op.native({addresses, to, types, results, words, &error});
    CHECK(out.back() == '\x7f');
    for (const std::vector<char>& bytes : more) CHECK(bytes.back() == '\x7f');
  }
};

}  // namespace

TEST_CASE("native kernels equal the reference in every type", "[ops]") {
  int kernels = 0;
  for_each_op([&](const OpDef& op) {
    if (!op.native) return;
    ++kernels;
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      for (int t = 0; t < kDTypeCount; ++t) {
        const auto dtype = static_cast<DType>(t);
        CAPTURE(op.name, s.text, name(dtype));
        // Small whole numbers: exact in every type, in any order of addition.
        std::vector<std::vector<double>> values = operand_values(s, 3);
        for (size_t i = 0; i < values.size(); ++i)
          for (double& v : values[i])
            if (takes_gradient(s.operands[i])) v = dtype == DType::bool_ ? v > 0 : std::floor(v + 2);
        ReferenceEmitter e;
        const SampleCall call = make_call(e, op, s, dtype, values);
        Value expected[kMaxOutputs];
        try {
          e.emit(op.id, call.in, call.words, expected);
        } catch (const Error&) {  // some are for floating types alone
          CHECK_FALSE(is_floating(dtype));
          continue;
        }
        std::vector<TensorType> types;
        for (const Value v : call.in) types.push_back(v ? e.type(v) : TensorType{});
        std::vector<TensorType> results;
        for (int j = 0; j < op.n_out; ++j) results.push_back(e.type(expected[j]));
        const NativeRun run(op, types, values, call.words, results);
        CHECK(run.error == 0);
        for (size_t j = 0; j < results.size(); ++j)
          CHECK(decode(j == 0 ? run.out : run.more[j - 1], e.values(expected[j]).size(), results[j].dtype) ==
                e.values(expected[j]));
      }
    }
  });
  CHECK(kernels >= 5);
}

TEST_CASE("an index out of range is reported and nothing else promised", "[ops]") {
  for (const OpId id : {OpId::index_add, OpId::scatter_add}) {
    for (const double bad : {-1.0, 3.0}) {
      const TensorType x{DType::float32, cpu, false, {3}}, index{DType::int64, cpu, false, {2}},
          src{DType::float32, cpu, false, {2}};
      const std::vector<int64_t> words = {0};
      const NativeRun run(def(id), {x, index, src}, {{1, 2, 3}, {0, bad}, {1, 1}}, words, x);
      CHECK(run.error == 2);
    }
  }
}

TEST_CASE("a place outside of its window takes and gives nothing", "[ops]") {
  const TensorType x{DType::float32, cpu, false, {1, 5}}, y{DType::float32, cpu, false, {1, 3}};
  const std::vector<double> from = {1, 2, 3, 4, 5};
  // Windows of 3 positions from -1, 1 and 3 on.
  struct {
    DType type;
    std::vector<double> places, shares, picked;
  } const cases[] = {{DType::uint8, {2, 2, 1}, {0, 0, 0, 20, 30}, {0, 4, 5}},
                     {DType::uint8, {255, 3, 2}, {0, 0, 0, 0, 0}, {0, 0, 0}},
                     {DType::int64, {1, 4, 2}, {0, 10, 0, 0, 0}, {2, 0, 0}},
                     {DType::int64, {-1, 1e15, 3}, {0, 0, 0, 30, 0}, {0, 0, 4}}};
  for (const auto& c : cases) {
    const TensorType at{c.type, cpu, false, {1, 3}};
    const std::vector<int64_t> words = {0, 0, 4, 3, 2, 1, 1}, with_size = {0, 0, 4, 3, 2, 1, 1, 1, 5};
    const NativeRun back(def(OpId::max_pool_backward), {y, at}, {{10, 20, 30}, c.places}, with_size, x);
    CHECK(decode(back.out, 5, DType::float32) == c.shares);
    const NativeRun pick(def(OpId::max_pool_pick), {x, at}, {from, c.places}, words, y);
    CHECK(decode(pick.out, 3, DType::float32) == c.picked);
  }
}

TEST_CASE("large scatters do not depend on how threads split them", "[ops]") {
  const int64_t n = 3000, width = 40, rows = 7;
  std::vector<double> index, added;
  std::vector<double> expected(static_cast<size_t>(rows * width), 1);
  for (int64_t i = 0; i < n; ++i) index.push_back(static_cast<double>(i * i % rows));
  for (int64_t i = 0; i < n * width; ++i) added.push_back(static_cast<double>(i % 5));
  for (int64_t i = 0; i < n * width; ++i)
    expected[static_cast<size_t>(static_cast<int64_t>(index[static_cast<size_t>(i / width)]) * width +
                                 i % width)] += added[static_cast<size_t>(i)];
  const TensorType x{DType::float32, cpu, false, {rows, width}}, at{DType::int32, cpu, false, {n}},
      src{DType::float32, cpu, false, {n, width}};
  const std::vector<int64_t> words = {0};
  const NativeRun run(def(OpId::index_add), {x, at, src},
                      {std::vector<double>(static_cast<size_t>(rows * width), 1), index, added}, words, x);
  CHECK(decode(run.out, expected.size(), DType::float32) == expected);
}

TEST_CASE("large scatters along any axis are shared by positions beside it", "[ops]") {
  const Dims sizes{7, 40, 5};
  for (const int axis : {0, 1, 2}) {
    Dims from{7, 37, 4};
    from[axis] = 3000 / 7 * (axis + 1);
    const auto n = static_cast<size_t>(numel(from));
    std::vector<double> index, added, expected(static_cast<size_t>(numel(sizes)), 1);
    for (size_t i = 0; i < n; ++i)
      index.push_back(static_cast<double>((i * i + i / 3) % static_cast<size_t>(sizes[axis])));
    for (size_t i = 0; i < n; ++i) added.push_back(static_cast<double>(i % 5));
    for (size_t i = 0; i < n; ++i) {
      auto rest = static_cast<int64_t>(i);
      int64_t at[3];
      for (int d = 2; d >= 0; --d) at[d] = rest % from[d], rest /= from[d];
      at[axis] = static_cast<int64_t>(index[i]);
      expected[static_cast<size_t>((at[0] * 40 + at[1]) * 5 + at[2])] += added[i];
    }
    const TensorType x{DType::float32, cpu, false, sizes}, at{DType::int64, cpu, false, from},
        src{DType::float32, cpu, false, from};
    const std::vector<int64_t> words = {axis};
    const NativeRun run(def(OpId::scatter_add), {x, at, src},
                        {std::vector<double>(expected.size(), 1), index, added}, words, x);
    CAPTURE(axis);
    CHECK(run.error == 0);
    CHECK(decode(run.out, expected.size(), DType::float32) == expected);
  }
}

TEST_CASE("long running sums go on from block to block", "[ops]") {
  const int64_t n = 1000;
  for (const int64_t reverse : {0, 1}) {
    std::vector<double> values, expected(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(i * i % 17 - 5));
    double sum = 0;
    for (int64_t k = 0; k < n; ++k) {
      const auto i = static_cast<size_t>(reverse ? n - 1 - k : k);
      expected[i] = sum += values[i];
    }
    const TensorType x{DType::float32, cpu, false, {n}};
    const std::vector<int64_t> words = {0, reverse};
    const NativeRun run(def(OpId::cumsum), {x}, {values}, words, x);
    CHECK(decode(run.out, expected.size(), DType::float32) == expected);
  }
}

TEST_CASE("sorting long lines is stable, NaN above all and zeros of both signs alike", "[ops]") {
  const OpDef& op = def(OpId::argsort);
  for (int t = 0; t < kDTypeCount; ++t)
    for (const int64_t n : {100, 191, 192, 5000})
      for (const int64_t count : {int64_t{-1}, int64_t{1}, int64_t{7}, n / 2, n})
        for (const bool descending : {false, true}) {
          const auto dtype = static_cast<DType>(t);
          CAPTURE(name(dtype), n, count, descending);
          const bool floating = is_floating(dtype), is_signed = floating || dtype > DType::uint8;
          std::vector<double> values(static_cast<size_t>(2 * n));
          for (size_t i = 0; i < values.size(); ++i) {
            const auto spread = static_cast<double>(i * i * 7919 % 1601 % 200);
            values[i] = dtype == DType::bool_ ? i % 3 == 0 : is_signed ? spread - 100 : spread;
            if (floating && i % 11 == 0)
              values[i] = std::array<double, 5>{NAN, -0.0, 0.0, INFINITY, -INFINITY}[i / 11 % 5];
          }
          const TensorType x{dtype, Device{}, false, {n, 2}};
          TensorType order{DType::int64, Device{}, false, {count < 0 ? n : count, 2}};
          const NativeRun run(op, {x}, {values}, std::array<int64_t, 3>{0, descending, count}, order);
          const std::vector<double> found =
              decode(run.out, static_cast<size_t>(numel(order.sizes)), DType::int64);
          std::vector<double> expected(found.size());
          for (size_t column = 0; column < 2; ++column) {
            std::vector<size_t> places(static_cast<size_t>(n));
            std::iota(places.begin(), places.end(), size_t{0});
            const auto below = [&](size_t i, size_t j) {
              const double a = values[2 * i + column], b = values[2 * j + column];
              return a < b || (a == a && b != b);
            };
            std::stable_sort(places.begin(), places.end(),
                             [&](size_t i, size_t j) { return descending ? below(j, i) : below(i, j); });
            for (size_t k = 0; 2 * k < expected.size(); ++k)
              expected[2 * k + column] = static_cast<double>(places[k]);
          }
          CHECK(found == expected);
        }
}
