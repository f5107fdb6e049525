// Autocast in dispatch: a call whose operands are cast as ops/autocast.def says. The casts are ops of their
// own, which the tape notes and a tracer sees. Lives for the time of a call; one thread.
#pragma once

#include <vector>

#include "tandem/eager/interceptor.h"

namespace tandem::eager {

class AutocastCall {
 public:
  /// Under modes().autocast. Makes the casts.
  explicit AutocastCall(const Call& given);
  AutocastCall(const AutocastCall&) = delete;
  AutocastCall& operator=(const AutocastCall&) = delete;
  const Call& call() const { return call_; }

 private:
  static constexpr uint32_t kFew = 6;
  Call call_;
  core::TensorImpl* few_[kFew];
  core::Ref<core::TensorImpl> few_casts_[kFew];
  std::vector<core::TensorImpl*> many_;
  std::vector<core::Ref<core::TensorImpl>> many_casts_;
};

}  // namespace tandem::eager
