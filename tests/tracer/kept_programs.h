// Programs of the tests of what is kept of captured tensors between calls.
#pragma once

#include "tests/log_capture.h"
#include "tests/programs/classifier.h"
#include "tests/tracer/frozen_programs.h"

namespace programs {

inline td::Tensor rows(int seed, int64_t n = 5) {
  td::Generator g(static_cast<uint64_t>(seed) + 1);
  return td::randn({n, 20}, {}, &g);
}

/// A network in evaluation mode and the traced function of it.
struct Inference {
  Classifier net;
  td::NoGrad no_grad;
  decltype(td::trace(std::declval<std::function<td::Tensor(const td::Tensor&)>>())) traced;

  explicit Inference(td::TraceOptions options = {})
      : traced(td::trace(std::function<td::Tensor(const td::Tensor&)>(
                             [this](const td::Tensor& x) { return net.forward(x); }),
                         options)) {
    net.eval();
  }
  /// One call beside eager mode's.
  template <class Called>
  bool same(Called& called, int64_t n = 5) {
    const td::Tensor x = rows(++calls_, n);
    Values got, want;
    append(got, called(x));
    append(want, net.forward(x));
    return equal_bits(got, want);
  }

 private:
  int calls_ = 0;
};

/// A call fails whose second argument, indices into a table of 6 rows, has others.
struct LookUp {
  td::NoGrad no_grad;
  td::nn::Linear linear{20, 24};
  td::Tensor table = td::randn({6, 24});
  int line = 0;  // of the look-up
  td::Tensor operator()(const td::Tensor& x, const td::Tensor& index) {
    const td::Tensor h = linear.forward(x);
    line = __LINE__ + 1;
    return h + td::embedding(index, table);
  }
  static td::Tensor index(int at) { return td::full({5}, at, {.dtype = td::int64}); }
};

}  // namespace programs
