// The shortest way for the most frequent eager calls, which needs no key, no plan and no inference: on small
// contiguous float tensors a pointwise op of one scalar function, also in place or with a number, and a
// reduction of all elements; of any contiguous tensor a view of other sizes, of any tensor one of axes in
// another order or of a part along an axis; and gradients that are one such op for each operand. Bit-equal to
// the general way, whose chunk functions it calls; what it does not know, errors included, is left to that.
// Any thread: its tables are made once and never change.
#pragma once

#include <span>
#include <vector>

#include "tandem/eager/dispatch.h"

namespace tandem::eager {

struct Node;
enum class GradientMemory : uint8_t;  // tape.h

/// Runs the call if it is such a one.
bool direct(const Call& call, Ref<TensorImpl>* results);
/// The same while a profile runs, for a caller that times it.
bool direct_timed(const Call& call, Ref<TensorImpl>* results);

/// Runs the gradient rule of `n` (tape.h, run_gradient) if it is such a one: for each operand one function of
/// the gradient that flows and a saved value, or that gradient itself.
bool direct_gradient(const Node& n, std::span<const Ref<TensorImpl>> grads, std::vector<Ref<TensorImpl>>& out,
                     std::vector<GradientMemory>& memory);

}  // namespace tandem::eager
