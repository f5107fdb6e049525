#include "tandem/eager/padding.h"

#include <algorithm>

#include "tandem/eager/call.h"
#include "tandem/eager/functions.h"

namespace tandem {

using eager::CallBuilder;
using ops::OpId;

namespace {

constexpr const char* kModes[] = {"constant", "reflect", "replicate", "circular"};

Tensor with_zeros(const Tensor& x, int axis, int64_t before, int64_t after, Location where) {
  if (before == 0 && after == 0) return x;
  return CallBuilder(OpId::pad, where).in(x).word(axis).word(before).word(after).run();
}

/// What stands before and after an axis of n elements.
Tensor around(const Tensor& x, int axis, int64_t before, int64_t after, PadMode mode, Location where) {
  const int64_t n = x.size(axis), most = mode == PadMode::reflect ? n - 1 : n;
  if (mode == PadMode::replicate ? n == 0 : std::max(before, after) > most)
    fail(std::string("pad: ") + kModes[static_cast<int>(mode)] + " cannot put " + std::to_string(before) +
             " and " + std::to_string(after) + " positions around axis " + std::to_string(axis) + " of " +
             to_string(x.sizes()),
         where);
  const auto part = [&](int64_t from, int64_t many) { return x.narrow(axis, from, many, where); };
  const auto edge = [&](int64_t at, int64_t many) {
    Dims sizes = x.sizes();
    sizes[axis] = many;
    return part(at, 1).expand(sizes, where);
  };
  std::vector<Tensor> parts;
  if (before > 0)
    parts.push_back(mode == PadMode::reflect     ? part(1, before).flip({axis}, where)
                    : mode == PadMode::replicate ? edge(0, before)
                                                 : part(n - before, before));
  parts.push_back(x);
  if (after > 0)
    parts.push_back(mode == PadMode::reflect     ? part(n - 1 - after, after).flip({axis}, where)
                    : mode == PadMode::replicate ? edge(n - 1, after)
                                                 : part(0, after));
  return parts.size() == 1 ? x : cat(parts, axis, where);
}

}  // namespace

Tensor pad(const Tensor& x, const Dims& sizes, PadMode mode, AnyNumber value, Location where) {
  const int rank = x.dim(where), axes = sizes.rank() / 2;
  if (sizes.rank() % 2 != 0 || axes > rank)
    fail("pad: pairs of sizes for at most " + std::to_string(rank) + " axes are needed, found " +
             to_string(sizes) + " for " + to_string(x.sizes()),
         where);
  Tensor out = x;
  bool widened = false;
  for (int i = 0; i < axes; ++i) {  // what is cut off first
    const int axis = rank - 1 - i;
    const int64_t front = std::max<int64_t>(0, -sizes[2 * i]), end = std::max<int64_t>(0, -sizes[2 * i + 1]);
    if (front + end > x.size(axis))
      fail("pad: " + std::to_string(front) + " and " + std::to_string(end) +
               " positions cannot be cut off axis " + std::to_string(axis) + " of " + to_string(x.sizes()),
           where);
    if (front + end > 0) out = out.narrow(axis, front, x.size(axis) - front - end, where);
    widened = widened || sizes[2 * i] > 0 || sizes[2 * i + 1] > 0;
  }
  if (!widened) return out.impl() == x.impl() ? x.clone(where) : out.clone(where);
  const bool number = mode == PadMode::constant && value.to_double() != 0;
  Tensor inside = number ? ones(out.sizes(), {.dtype = bool_, .device = x.device()}, where) : Tensor();
  for (int i = 0; i < axes; ++i) {
    const int axis = rank - 1 - i;
    const int64_t before = std::max<int64_t>(0, sizes[2 * i]), after = std::max<int64_t>(0, sizes[2 * i + 1]);
    out = mode == PadMode::constant ? with_zeros(out, axis, before, after, where)
                                    : around(out, axis, before, after, mode, where);
    if (number) inside = with_zeros(inside, axis, before, after, where);
  }
  return number ? out.masked_fill(logical_not(inside, where), Operand(value, where)) : out;
}

}  // namespace tandem
