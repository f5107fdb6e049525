// The updates of one optimizer's step, gathered as far as they are alike. Made by an optimizer for the time
// of a step.
#pragma once

#include <algorithm>
#include <bit>
#include <initializer_list>

#include "tandem/eager/dispatch.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/interceptor.h"
#include "tandem/eager/optim/optimizer.h"

namespace tandem::optim {

using core::TensorImpl;

/// Updates of parameters in a row that share group and earlier steps, as nearly all do: their calls differ in
/// the operands alone. An interceptor that compares calls takes many at once. The step count is the host's,
/// or the device's, and then updates have a guard (ops/update.def).
class UpdateRun {
 public:
  static constexpr size_t kMost = 32, kOperands = 6, kWords = 8;

  /// `most`: so many are gathered before they are called.
  UpdateRun(size_t most, Location where) : most_(most) { call_.in_place = true, call_.where = where; }
  /// What updates share.
  struct Before {
    size_t group = 0;
    int64_t steps = -1;  // -1: of no update; or which count of the device
    double product = 1;  // of NAdam's momenta
    friend bool operator==(const Before&, const Before&) = default;
  };
  bool goes_on(const Before& b) const { return b == before_; }
  /// `product`: what this step makes of it.
  void start(const Before& b, double product = 1) { before_ = b, product_ = product, n_ = 0; }
  /// The op of the updates to come, whose operands are parameter, gradient, these moments and a guard or
  /// none; its words follow.
  void op(ops::OpId op, std::initializer_list<uint8_t> moments) {
    call_.op = op, call_.n_in = static_cast<uint32_t>(3 + moments.size()), call_.n_words = 0;
    std::copy(moments.begin(), moments.end(), moments_);
  }
  void words(std::initializer_list<double> values) {
    for (const double v : values) words_[call_.n_words++] = std::bit_cast<int64_t>(v);
  }
  void flag(bool v) { words_[call_.n_words++] = v; }
  /// `count` and `product` move; null: the device counts, there is no product.
  void add(const Optimizer::Slot& s, TensorImpl* gradient, int64_t* count, double* product,
           TensorImpl* guard = nullptr) {
    TensorImpl** in = in_ + n_ * call_.n_in;
    in[0] = s.parameter.impl(), in[1] = gradient;
    for (size_t k = 0; k < Optimizer::kMoments; ++k)  // in the next update's place, where they are not used
      in[2 + k] = s.moments[moments_[k]].impl();
    in[call_.n_in - 1] = guard;
    counts_[n_] = count, products_[n_++] = product;
    if (n_ == most_) flush();
  }
  /// The same up the gradient. It is called at once: the order of ops is the same however many are gathered.
  void add_up(const Optimizer::Slot& s, TensorImpl* gradient, int64_t* count, double* product,
              TensorImpl* guard = nullptr) {
    const Tensor down = neg(Tensor(core::Ref<TensorImpl>(gradient)), call_.where);
    add(s, down.impl(), count, product, guard);
    flush();
  }
  /// Calls what was gathered. The counts of complete updates have moved, also if one throws.
  void flush() {
    call_.words = words_;
    for (size_t done = 0; done < n_;) {
      call_.in = in_ + done * call_.n_in;
      size_t now = 0;
      if (eager::Interceptor* i = n_ > 1 ? eager::interceptor() : nullptr) now = i->op_run(call_, n_ - done);
      if (now == 0) eager::call_into(call_, nullptr), now = 1;
      for (; now > 0; --now, ++done) {
        if (counts_[done]) *counts_[done] = before_.steps + 1;
        if (products_[done]) *products_[done] = product_;
      }
    }
    n_ = 0;
  }

 private:
  const size_t most_;
  size_t n_ = 0;
  Before before_;
  double product_ = 1;
  eager::Call call_{};
  TensorImpl* in_[(kMost + 1) * kOperands];
  int64_t words_[kWords];
  int64_t* counts_[kMost];
  double* products_[kMost];
  uint8_t moments_[Optimizer::kMoments] = {0, 1, 2};
};

}  // namespace tandem::optim
