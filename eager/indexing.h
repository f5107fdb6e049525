// The indices of `x.index({...})`, with LibTorch's kinds. Included by tensor.h. Values; an index holds its
// tensor.
#pragma once

#include "tandem/eager/tensor.h"

namespace tandem {

/// A range of positions along an axis, as in PyTorch: Slice() is everything, Slice(None, None, 2) every
/// second.
struct Slice {
  static constexpr int64_t kNone = INT64_MIN;
  int64_t start = kNone, stop = kNone, step = 1;
  constexpr explicit Slice(std::optional<int64_t> start = {}, std::optional<int64_t> stop = {},
                           std::optional<int64_t> step = {})
      : start(start.value_or(kNone)), stop(stop.value_or(kNone)), step(step.value_or(1)) {}
};
/// A new axis of size 1, or the bound of a Slice that is left out.
inline constexpr std::nullopt_t None = std::nullopt;
struct NewAxis {};
/// As many whole axes as the other indices leave.
struct Ellipsis {};

/// One index of `x.index({0, Slice(1, 3), Ellipsis(), None, positions, mask})`. Numbers, slices, None and
/// Ellipsis give a view. Tensors of positions (int64 or int32; negative ones count from the end) broadcast
/// with each other; their common sizes stand where their axes stood, or in front if another index but a
/// number is between them. A mask (bool, or uint8 as in older PyTorch) has the sizes of the axes that it
/// covers and stands for the positions where it holds: it is read, like nonzero(). A bool is a mask over a
/// new axis. A tensor of rank 0 is a number that is not read (PyTorch reads it and gives a view). A position
/// out of range is an Error where values are next read.
struct Index {
  enum class Kind : uint8_t { position, range, new_axis, ellipsis, boolean, tensor } kind;
  int64_t position = 0;  // or the bool
  Slice range = Slice();
  Tensor tensor;
  Index(std::integral auto i)  // NOLINT: implicit by design, as the others
      : kind(std::same_as<decltype(i), bool> ? Kind::boolean : Kind::position),
        position(static_cast<int64_t>(i)) {}
  Index(Slice s) : kind(Kind::range), range(s) {}                // NOLINT
  Index(NewAxis) : kind(Kind::new_axis) {}                       // NOLINT
  Index(std::nullopt_t) : kind(Kind::new_axis) {}                // NOLINT
  Index(Ellipsis) : kind(Kind::ellipsis) {}                      // NOLINT
  Index(Tensor t) : kind(Kind::tensor), tensor(std::move(t)) {}  // NOLINT
};

}  // namespace tandem
