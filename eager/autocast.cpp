#include "tandem/eager/autocast.h"

#include <algorithm>

#include "tandem/eager/dispatch.h"
#include "tandem/ops/autocast.h"

namespace tandem::eager {

namespace {

bool takes_part(const TensorImpl* t) { return t && is_floating(t->dtype) && t->dtype != DType::float64; }

/// The widest type of the operands that take part; bool_ if none does.
DType widest(const Call& call) {
  DType out = DType::bool_;
  for (uint32_t i = 0; i < call.n_in; ++i)
    if (takes_part(call.in[i])) out = promote(out, call.in[i]->dtype);
  return out;
}

}  // namespace

AutocastCall::AutocastCall(const Call& given) : call_(given) {
  const ops::AutocastRule rule = ops::autocast_rule(given.op);
  if (rule == ops::AutocastRule::none || given.in_place) return;
  const DType to = rule == ops::AutocastRule::lower     ? static_cast<DType>(modes().autocast - 1)
                   : rule == ops::AutocastRule::float32 ? DType::float32
                                                        : widest(given);
  const auto word = static_cast<int64_t>(to);
  TensorImpl** in = nullptr;  // once an operand is cast
  Ref<TensorImpl>* casts = few_casts_;
  for (uint32_t i = 0; i < given.n_in; ++i) {
    if (!takes_part(given.in[i]) || given.in[i]->dtype == to) continue;
    if (!in) {
      in = few_;
      if (given.n_in > kFew) {
        many_.resize(given.n_in);
        many_casts_.resize(given.n_in);
        in = many_.data();
        casts = many_casts_.data();
      }
      std::copy(given.in, given.in + given.n_in, in);
    }
    call_into({.op = ops::OpId::cast,
               .n_in = 1,
               .n_words = 1,
               .in = &given.in[i],
               .words = &word,
               .where = given.where},
              &casts[i]);
    in[i] = casts[i].get();
  }
  if (in) call_.in = in;
}

}  // namespace tandem::eager
