// Random programs around sums over columns, large enough that these are made in walks over rows: fused and
// with several threads their bits are those of one kernel per op. Values stay within [-1, 1].
#include "tandem/core/thread_pool.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

namespace {

/// Values of (rows, n), (n), (rows, 1) and (n, n), and what is made of them.
class Maker {
 public:
  Maker(Emitter& e, uint64_t seed, int64_t rows, int64_t n, const Values& in)
      : e_(e),
        random_(seed),
        rows_(rows),
        n_(n),
        full_{in[0], in[1]},
        column_{in[2], in[3]},
        row_{in[4]},
        square_{in[5]} {}

  Values run(bool writes) {
    for (int64_t step = 6 + pick(18); step-- > 0;) make();
    Values out = {e_.sum(latest(full_), {0}, false)};
    for (int64_t more = pick(4); more-- > 0;)
      out.push_back(latest(pick(2) ? full_ : pick(2) ? row_ : column_));
    if (!writes) return out;
    for (const Values* from : {&full_, &full_, &column_, &column_, &row_, &square_})
      out.push_back(e_.mul(latest(*from), 0.5));
    return out;
  }

 private:
  int64_t pick(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  Value latest(const Values& v) {
    const auto n = static_cast<int64_t>(v.size());
    return v[static_cast<size_t>(n - 1 - pick(std::min<int64_t>(n, 6)))];
  }
  Value mixed(Value a, Value b) {
    switch (pick(4)) {
      case 0:
        return e_.tanh(e_.add(a, b));
      case 1:
        return e_.mul(a, b);
      case 2:
        return e_.mul(e_.sub(a, b), 0.5);
      default:
        return e_.maximum(a, b);
    }
  }
  void make() {
    const Value a = latest(full_), b = latest(full_);
    switch (pick(12)) {
      case 0:
        return full_.push_back(e_.tanh(a));
      case 1:
        return full_.push_back(mixed(a, b));
      case 2:
        return full_.push_back(mixed(a, latest(column_)));
      case 3:
        return full_.push_back(mixed(a, latest(row_)));
      case 4:
      case 5:
        return column_.push_back(e_.mul(e_.sum(a, {0}, false), 1 / static_cast<double>(rows_)));
      case 6:
        return row_.push_back(e_.mean(a, {1}, true));
      case 7:
        return full_.push_back(e_.tanh(e_.matmul(a, latest(square_))));
      case 8: {
        const Value turned = e_.permute(rows_ == n_ ? b : latest(square_), {1, 0});
        return rows_ == n_ ? full_.push_back(mixed(a, turned)) : square_.push_back(e_.relu(turned));
      }
      case 9:
        return full_.push_back(mixed(a, e_.slice(b, 0, 0, 1, 1)));
      case 10: {
        const Value c = latest(column_);
        return column_.push_back(mixed(c, latest(column_)));
      }
      default: {
        const Value turned = e_.permute(a, {1, 0});
        return square_.push_back(e_.mul(e_.matmul(turned, b), 1 / static_cast<double>(rows_)));
      }
    }
  }

  Emitter& e_;
  std::mt19937_64 random_;
  const int64_t rows_, n_;
  Values full_, column_, row_, square_;
};

Program program_of(uint64_t seed) {
  std::mt19937_64 random(seed * 31);
  const bool square = seed % 16 == 0, writes = seed % 2 == 0;
  const int64_t n = square ? 520 : 2 + static_cast<int64_t>(random() % 12);
  const int64_t rows = square ? n : 512 + static_cast<int64_t>(random() % 600);
  Program p;
  for (const Dims& sizes : {Dims{rows, n}, Dims{rows, n}, Dims{n}, Dims{n}, Dims{rows, 1}, Dims{n, n}})
    p.inputs.push_back({DType::float32, sizes});
  p.body = [=](Emitter& e, const Values& in, const Values&) {
    return Maker(e, seed, rows, n, in).run(writes);
  };
  if (!writes) return p;
  std::vector<ops::TensorType> types;
  graph_of(p, &types);
  const int first = static_cast<int>(types.size()) - 6;
  for (int i = 0; i < 6; ++i) p.writes.push_back({i, first + i});
  return p;
}

}  // namespace

TEST_CASE("random programs of rows and columns give the same bits in one walk", "[jit]") {
  constexpr int kPrograms = 160;
  const int with = check_random_programs(
      kPrograms, program_of,
      [](uint64_t seed, int threads) { return threads == 1 && seed % 20 == 0 ? kCompiled : kFused; },
      [](const RunResult& r) { return r.stats.joins > 0; });
  CAPTURE(with);
  CHECK(with >= kPrograms / 6);
}
