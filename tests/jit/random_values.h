// What random graphs are made of: chance, values, inputs with odd layouts, numbers, outputs and writes.
// Everything follows from the seed. One owner, one thread.
#pragma once

#include <random>

#include "tests/jit/random_graphs.h"

namespace tandem::test {

inline constexpr int64_t kClasses = 5;  // of labels

class RandomValues {
 protected:
  explicit RandomValues(uint64_t seed) : random_(seed), emitter_(r_.graph, false) { r_.seed = seed; }

  // Chance.
  uint64_t below(uint64_t n) { return random_() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low + 1)));
  }
  DType floating_type();
  DType any_type() { return one_in(4) ? static_cast<DType>(below(kDTypeCount)) : floating_type(); }
  Dims sizes(int rank);
  Dims permutation(int rank);

  /// Sizes that `s` can be expanded to, or shown as.
  Dims expanded(const Dims& s);
  Dims reshaped(const Dims& s);
  /// The list of a pooling of sizes `s`.
  /// Of a list `sizes`; `words`: the attributes before it.
  Dims sizes(const ops::OpDef& op, const std::vector<int64_t>& words, const Dims& s);
  Dims windows(const ops::OpDef& op, bool adaptive, const Dims& s);
  /// Operand 1 of a gradient of maxima, for operand 0 `v`: where another tensor has them. None if no window
  /// fits.
  ops::Value places(const ops::OpDef& op, ops::Value v, const std::vector<int64_t>& words);

  // Values that exist.
  const ops::TensorType& type(ops::Value v) { return r_.graph.type(v.id); }
  ops::Value pick();
  ops::Value keep(ops::Value v);
  /// A value that broadcasts with `sizes`: the first found among some, perhaps transposed or reshaped.
  ops::Value fitted(const Dims& sizes);

  // New ones.
  /// An input with values in range: integers in [low, high), floating ones in [-2, 2].
  ops::Value input(DType t, const Dims& sizes, int64_t low = -3, int64_t high = 9);
  /// An input of the type of `x`; integers may be taken for indices below `least`.
  ops::Value like(ops::Value x, const Dims& sizes, int64_t least);
  /// Indices in [0, n): an input, or something computed that is brought into range.
  ops::Value indices(const Dims& sizes, int64_t n);
  /// Sizes of labels for a tensor of sizes `s`; none where there is nothing to look up.
  Dims labels(const Dims& s);
  ops::Value number(bool integral = false);
  /// An attribute of this name, of an op on a tensor of `rank` axes.
  int64_t integer(const std::string& name, int rank);
  ops::Value run_time(double v);
  ops::Value run_time_int(int64_t v);
  /// Operands and words for a convolution of a value whose elements are arranged as (N, C, positions) or (N,
  /// C, rows, columns); false if it has too many or the window does not fit.
  bool convolution(const ops::OpDef& op, std::vector<ops::Value>& in, std::vector<int64_t>& words);
  /// Ops whose operands' sizes all follow from one of them; `layer` gives these for that one, `x`, or false
  /// if it is no state of an LSTM or a GRU, or no queries.
  static bool is_layer(ops::OpId op) {
    return op == ops::OpId::lstm_gates || op == ops::OpId::gru_gates || op == ops::OpId::attention_backward;
  }
  bool layer(const ops::OpDef& op, ops::Value x, std::vector<ops::Value>& in);
  double some_double() { return static_cast<double>(between(-40, 40)) / 16; }  // exact in every floating type

  /// Chooses outputs, and inputs that are overwritten.
  void finish();

  std::mt19937_64 random_;
  RandomGraph r_;
  jit::GraphEmitter emitter_;
  DType main_type_ = DType::float32;
  int64_t largest_ = 0;  // elements
  int64_t dims_[3] = {};
  Dims base_;
  std::vector<ops::Value> pool_, numbers_;
};

}  // namespace tandem::test
