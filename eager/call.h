// Building a Call from typed arguments, for the public functions: operands, number operands and attribute
// words in order. A CallBuilder lives on the stack of one function.
#pragma once

#include "tandem/eager/dispatch.h"
#include "tandem/eager/functions.h"

namespace tandem::eager {

class CallBuilder {
 public:
  CallBuilder(ops::OpId op, Location where) { call_.op = op, call_.where = where; }

  CallBuilder& in(const Tensor& t) { return push(t.impl()); }
  CallBuilder& in(TensorImpl* t) { return push(t); }
  CallBuilder& in(const Operand& o) {
    if (!o.impl) {
      call_.numbers |= 1u << n_in_;
      word(static_cast<int64_t>(o.kind));
      word(o.bits);
    }
    return push(o.impl);
  }
  CallBuilder& word(int64_t w) {
    TANDEM_INTERNAL(n_words_ < kWords, "too many words");
    words_[n_words_++] = w;
    return *this;
  }
  CallBuilder& word(DType t) { return word(static_cast<int64_t>(t)); }
  CallBuilder& floating(double v) { return word(std::bit_cast<int64_t>(v)); }
  CallBuilder& list(const Dims& d) {
    const auto rank = static_cast<uint32_t>(d.rank());
    TANDEM_INTERNAL(n_words_ + 1 + rank <= kWords, "too many words");
    words_[n_words_] = rank;
    copy_words(words_ + n_words_ + 1, d.data(), rank);
    n_words_ += 1 + rank;
    return *this;
  }
  Tensor run() { return call1(finish()); }
  /// The first result of an op whose others are for its gradient.
  Tensor run_first() {
    Ref<TensorImpl> out[ops::kMaxOutputs];
    call_into(finish(), out);
    return Tensor(std::move(out[0]));
  }
  /// An op of two results.
  ValuesIndices run2() {
    Ref<TensorImpl> out[2];
    call_into(finish(), out);
    return {Tensor(std::move(out[0])), Tensor(std::move(out[1]))};
  }
  /// An op of several results.
  void run_into(Ref<TensorImpl>* out) { call_into(finish(), out); }
  void run_in_place() {
    call_.in_place = true;
    call_into(finish(), nullptr);
  }

 private:
  static constexpr uint32_t kOperands = 5, kWords = 24;
  CallBuilder& push(TensorImpl* t) {
    in_[n_in_++] = t;
    return *this;
  }
  const Call& finish() {
    call_.n_in = n_in_;
    call_.n_words = n_words_;
    call_.in = in_;
    call_.words = words_;
    return call_;
  }
  Call call_{};
  uint32_t n_in_ = 0, n_words_ = 0;
  TensorImpl* in_[kOperands];
  int64_t words_[kWords];
};

}  // namespace tandem::eager
