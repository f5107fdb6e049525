// Random programs around convolutions that the library computes in blocks of channels: with values kept in
// blocks, and with several threads, their bits are those of one kernel per op.
#include <algorithm>

#include "tandem/core/thread_pool.h"
#include "tests/jit/convolution_words.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

/// Values (N, C, *in), and what is made of them.
class Maker {
 public:
  Maker(Emitter& e, uint64_t seed, const Values& in)
      : e_(e), random_(seed), axes_(sizes(in[0]).rank() - 2), values_{in[0], in[1]}, numbers_(in[2]) {}

  Values run(bool writes) {
    add_convolution(values_[0]);
    for (int64_t step = 4 + pick(12); step-- > 0;) make();
    add_sum(values_.back());
    if (pick(4) == 0) out_.push_back(latest());
    if (writes) out_.push_back(e_.mul(like(values_[1]), 0.5));
    return out_;
  }

 private:
  struct Pooled {
    Value values, places;
    Dims from, windows;
  };

  int64_t pick(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  Dims sizes(Value v) { return e_.type(v).sizes; }
  Value latest() {
    const auto n = static_cast<int64_t>(values_.size());
    return values_[static_cast<size_t>(n - 1 - pick(std::min<int64_t>(n, 5)))];
  }
  /// One of the same sizes.
  Value like(Value v) {
    const Dims wanted = sizes(v);
    Values all;
    for (const Value x : values_)
      if (sizes(x) == wanted) all.push_back(x);
    return all[static_cast<size_t>(pick(static_cast<int64_t>(all.size())))];
  }
  Value tensor_of(const Dims& wanted) {
    const Value part = e_.slice(numbers_, 0, 0, numel(wanted));
    return e_.reshape(part, wanted);
  }
  Dims positions() const {
    Dims all;
    for (int d = 2; d < axes_ + 2; ++d) all.push_back(d);
    return all;
  }
  Dims every_axis(int64_t n) const { return Dims::filled(axes_, n); }
  Value bounded(Value v) { return pick(2) ? e_.mul(v, 0.125) : e_.tanh(v); }
  std::vector<int64_t> words(int64_t kernel, int64_t stride) const {
    return words_of({1, 0}, {every_axis(stride), every_axis(kernel / 2), every_axis(1)});
  }

  void add_convolution(Value x) {
    constexpr int64_t kOutputs[] = {16, 16, 32, 24, 20};
    const int64_t kernel = pick(3) ? 3 : 1, outputs = kOutputs[pick(5)];
    Dims w = {outputs, sizes(x)[1]};
    for (int d = 0; d < axes_; ++d) w.push_back(kernel);
    const Value weight = tensor_of(w), bias = pick(2) ? tensor_of({outputs}) : Value{};
    values_.push_back(e_.call(OpId::convolution, {x, weight, bias}, words(kernel, pick(4) ? 1 : 2)));
    if (pick(2)) values_.push_back(bounded(values_.back()));
  }
  void add_gradient(Value y) {
    Dims w = {sizes(y)[1], pick(2) ? sizes(y)[1] : 16};
    for (int d = 0; d < axes_; ++d) w.push_back(3);
    std::vector<int64_t> all = words(3, 1);
    const std::vector<int64_t> behind = words_of({}, {every_axis(0)});
    all.insert(all.end(), behind.begin(), behind.end());
    const Value weight = tensor_of(w);
    values_.push_back(bounded(e_.call(OpId::convolution_input, {y, weight, Value{}}, all)));
  }
  void add_weight_gradient(Value x, Value y) {
    std::vector<int64_t> all = words(3, 1);
    const std::vector<int64_t> kernel = words_of({}, {every_axis(3)});
    all.insert(all.end(), kernel.begin(), kernel.end());
    out_.push_back(e_.call(OpId::convolution_weight, {x, y}, all));
  }
  void add_pooling(Value x) {
    constexpr int64_t kWindows[][4] = {{2, 2, 0, 1}, {3, 1, 1, 1}, {3, 2, 1, 1}, {2, 1, 0, 2}, {1, 2, 0, 1}};
    const Dims from = sizes(x);
    if (axes_ > 2 || *std::min_element(from.begin() + 2, from.end()) < 3) return;
    Pooled p{{}, {}, Dims(from.begin() + 2, axes_), {}};
    for (int d = 0; d < axes_; ++d)
      for (const int64_t word : kWindows[pick(5)]) p.windows.push_back(word);
    Value made[2];
    e_.emit(OpId::max_pool, std::vector<Value>{x}, words_of({0, 0, 0}, {p.windows}), made);
    p.values = made[0], p.places = made[1];
    values_.push_back(p.values);
    pooled_.push_back(p);
  }
  void add_pooling_gradient() {
    if (pooled_.empty()) return;
    const Pooled& p = pooled_[static_cast<size_t>(pick(static_cast<int64_t>(pooled_.size())))];
    const Value g = like(p.values);
    values_.push_back(e_.call(OpId::max_pool_backward, {g, p.places}, words_of({0, 0}, {p.windows, p.from})));
  }
  void add_sum(Value x) {
    const Dims axes = pick(4) == 0 ? Dims{axes_ + 1} : positions();
    out_.push_back(e_.sum(pick(2) ? e_.neg(x) : x, axes, pick(4) == 0));
  }

  void make() {
    const Value a = latest(), b = like(a);
    switch (pick(21)) {
      case 0:
      case 1:
      case 2:
      case 3:
        return add_convolution(a);
      case 4:
        return add_gradient(a);
      case 5:
        return add_weight_gradient(a, b);
      case 6:
      case 7:
        return add_pooling(a);
      case 8:
        return add_pooling_gradient();
      case 9:
      case 10:
        return values_.push_back(e_.relu(a));
      case 11:
        return values_.push_back(pick(2) ? e_.add(a, b) : e_.maximum(b, a));
      case 12: {
        const Value above = e_.gt(a, 0.0);
        return values_.push_back(e_.where(above, b, pick(2) ? -0.0 : 0.25));
      }
      case 13: {
        const Value whole = e_.cast(e_.mul(a, 8.0), pick(2) ? DType::int32 : DType::float16);
        return values_.push_back(e_.cast(whole, DType::float32));
      }
      case 14: {
        Dims channels = {sizes(a)[1]};
        for (int d = 0; d < axes_; ++d) channels.push_back(1);
        const Value factors = tensor_of(channels);
        return values_.push_back(e_.mul(a, factors));
      }
      case 15: {
        const Value turned = e_.transpose(a, 0, 1);
        return values_.push_back(e_.transpose(e_.neg(turned), 0, 1));
      }
      case 16: {  // its channels less their means, per image or of all
        const Dims all = sizes(a);
        const int64_t n = numel(all) / std::max<int64_t>(1, all[0] * all[1]);
        Value means = e_.mul(e_.sum(e_.reshape(a, {all[0], all[1], n}), {2}, false), 1.0 / 64);
        Dims channels = {all[0], all[1]};
        if (pick(2)) means = e_.sum(means, {0}, false), channels = {all[1]};
        for (int d = 0; d < axes_; ++d) channels.push_back(1);
        return values_.push_back(e_.sub(a, e_.reshape(means, channels)));
      }
      case 17: {
        Dims factors = {sizes(a)[0], pick(2) ? sizes(a)[1] : 1};
        for (int d = 0; d < axes_; ++d) factors.push_back(1);
        const Value f = tensor_of(factors);
        return values_.push_back(e_.mul(a, pick(2) ? e_.expand(f, sizes(a)) : f));
      }
      case 18:
        return out_.push_back(e_.sum(e_.square(e_.sub(a, b)), positions(), false));
      default:
        return add_sum(a);
    }
  }

  Emitter& e_;
  std::mt19937_64 random_;
  const int axes_;
  Values values_, out_;
  std::vector<Pooled> pooled_;
  const Value numbers_;
};

Program program_of(uint64_t seed) {
  std::mt19937_64 random(seed * 37);
  const auto pick = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  Dims sizes = {1 + pick(3), pick(2) ? 16 : 32};
  switch (pick(8)) {
    case 0:
      sizes.push_back(40 + pick(60));
      break;
    case 1:
      for (int d = 0; d < 3; ++d) sizes.push_back(3 + pick(3));
      break;
    case 2:
      sizes[0] = 90, sizes.push_back(1), sizes.push_back(1 + pick(2));
      break;
    default:
      sizes.push_back(5 + pick(8)), sizes.push_back(5 + pick(8));
  }
  Program p;
  p.inputs = {{DType::float32, sizes}, {DType::float32, sizes}, {DType::float32, {32 * 32 * 27}, -0.5, 0.5}};
  const bool writes = pick(2) == 0;
  p.body = [=](Emitter& e, const Values& in, const Values&) { return Maker(e, seed, in).run(writes); };
  if (!writes) return p;
  std::vector<ops::TensorType> types;
  graph_of(p, &types);
  p.writes.emplace_back(1, static_cast<int>(types.size()) - 1);
  return p;
}

}  // namespace

TEST_CASE("random programs of convolutions give the same bits with channels in blocks", "[jit]") {
  constexpr int kPrograms = 100;
  const int with = check_random_programs(
      kPrograms, program_of,
      [](uint64_t seed, int) { return seed % 10 == 0 ? ExecutableOptions{.compile = true} : kFused; },
      [](const RunResult& r) {
        const std::string rows = ", " + std::to_string(block_here()) + " | ";
        return r.plan.find("_blocks") != std::string::npos || r.plan.find(rows) != std::string::npos;
      });
  CAPTURE(with);
  if (block_here() != 0) CHECK(with >= kPrograms / 10);
}
