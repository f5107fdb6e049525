// Index maps of the views. Each checks its attributes, so that inference is the same code.
#include <algorithm>

#include "tandem/ops/checks.h"
#include "tandem/ops/rules.h"

namespace tandem::ops {

namespace {

/// Resolves a -1 among `wanted` and checks the number of elements.
Dims resolve_sizes(const InferCall& call, const Dims& from) {
  Dims wanted = call.list(0);
  const int64_t total = checked_numel(from);
  int open = -1;
  int64_t product = 1;
  for (int i = 0; i < wanted.rank(); ++i) {
    if (wanted[i] == -1) {
      if (open >= 0) fail_call(call, "more than one size is -1 in " + to_string(wanted));
      open = i;
    } else if (wanted[i] < 0) {
      fail_call(call, "negative size in " + to_string(wanted));
    } else {
      product = checked_mul(product, wanted[i], "reshape: size", call.where);
    }
  }
  if (open >= 0) {
    if (product == 0 || total % product != 0)
      fail_call(call, to_string(operand(call, 0)) + " does not fill " + to_string(wanted) + ": " +
                          std::to_string(total) + " elements are no multiple of " + std::to_string(product));
    wanted[open] = total / product;
  } else if (product != total) {
    fail_call(call, to_string(operand(call, 0)) + " has " + std::to_string(total) + " elements, " +
                        to_string(wanted) + " has " + std::to_string(product) + "; one size may be -1");
  }
  return wanted;
}

}  // namespace

Layout view::reshape(const InferCall& call, const Layout& in) {
  Layout out{resolve_sizes(call, in.sizes), {}, in.offset};
  out.possible = reshape_strides(in.sizes, in.strides, out.sizes, out.strides);
  return out;
}

Layout view::permute(const InferCall& call, const Layout& in) {
  const Dims axes = call.list(0);
  if (axes.size() != in.sizes.rank())
    fail_call(call, "axes " + to_string(axes) + " do not name each axis of " + to_string(operand(call, 0)) +
                        " once");
  Layout out = in;
  bool seen[kMaxRank] = {};
  for (int i = 0; i < axes.size(); ++i) {
    const int a = normalize_axis(axes[i], in.sizes.rank(), call.op.name, call.where);
    if (seen[a])
      fail_call(call, "axes " + to_string(axes) + " do not name each axis of " + to_string(operand(call, 0)) +
                          " once");
    seen[a] = true;
    out.sizes[i] = in.sizes[a];
    out.strides[i] = in.strides[a];
  }
  return out;
}

Layout view::expand(const InferCall& call, const Layout& in) {
  Layout out{call.list(0), {}, in.offset};
  const int fresh = out.sizes.rank() - in.sizes.rank();
  if (fresh < 0) fail_call(call, to_string(operand(call, 0)) + " has more axes than " + to_string(out.sizes));
  out.strides = Dims::filled(out.sizes.rank(), 0);
  for (int i = 0; i < out.sizes.rank(); ++i) {
    int64_t& size = out.sizes[i];
    const int old = i - fresh;
    if (old >= 0 && (size == -1 || size == in.sizes[old])) {
      size = in.sizes[old];
      out.strides[i] = in.strides[old];
    } else if (size < 0) {
      fail_call(call,
                "negative size in " + to_string(call.list(0)) + "; -1 keeps the size of an axis that exists");
    } else if (old >= 0 && in.sizes[old] != 1) {
      fail_call(call, to_string(operand(call, 0)) + " does not expand to " + to_string(call.list(0)) +
                          "; only axes of size 1 repeat");
    }
  }
  checked_numel(out.sizes);
  return out;
}

Layout view::slice(const InferCall& call, const Layout& in) {
  const int64_t step = call.integer(3);
  if (in.sizes.empty()) fail_call(call, "a tensor of rank 0 has no axis to slice");
  const int axis = axis_of(call, 0, in.sizes.rank());
  if (step <= 0) fail_call(call, "step must be positive, found " + std::to_string(step));
  const int64_t size = in.sizes[axis];
  const auto clamped = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
  const int64_t start = clamped(call.integer(1));
  const int64_t length = std::max<int64_t>(clamped(call.integer(2)) - start, 0);
  Layout out = in;
  out.sizes[axis] = length == 0 ? 0 : (length - 1) / step + 1;
  out.strides[axis] = out.sizes[axis] > 1 ? in.strides[axis] * step : in.strides[axis];
  out.offset += start * in.strides[axis];
  return out;
}

Layout view::select(const InferCall& call, const Layout& in) {
  if (in.sizes.empty()) fail_call(call, "a tensor of rank 0 has no axis to select from");
  const int axis = axis_of(call, 0, in.sizes.rank());
  const int64_t index = call.integer(1), size = in.sizes[axis];
  if (index < -size || index >= size)
    fail_call(call, "index " + std::to_string(index) + " is out of range for axis " + std::to_string(axis) +
                        " of " + to_string(operand(call, 0)));
  Layout out = in;
  out.offset += (index < 0 ? index + size : index) * in.strides[axis];
  out.sizes.erase(axis);
  out.strides.erase(axis);
  return out;
}

Layout view::unsqueeze(const InferCall& call, const Layout& in) {
  const int axis = axis_of(call, 0, in.sizes.rank() + 1);
  Layout out = in;
  const bool last = axis == in.sizes.rank();
  out.strides.insert(axis, last ? 1 : in.strides[axis] * std::max<int64_t>(in.sizes[axis], 1));
  out.sizes.insert(axis, 1);
  return out;
}

Layout view::squeeze(const InferCall& call, const Layout& in) {
  const Dims axes = normalize_axes(call.list(0), in.sizes.rank(), call.op.name, call.where);
  Layout out = in;
  for (int i = axes.size() - 1; i >= 0; --i) {
    const int a = static_cast<int>(axes[i]);
    if (in.sizes[a] != 1) continue;
    out.sizes.erase(a);
    out.strides.erase(a);
  }
  return out;
}

Layout view::diagonal(const InferCall& call, const Layout& in) {
  const int rank = in.sizes.rank();
  if (rank < 2) fail_call(call, "needs two axes, found " + to_string(operand(call, 0)));
  const int a = axis_of(call, 1, rank), b = axis_of(call, 2, rank);
  if (a == b) fail_call(call, "both axes are " + std::to_string(a));
  const int64_t offset = call.integer(0);
  const int64_t rows = in.sizes[a], columns = in.sizes[b];
  const int64_t down = offset < 0 ? (offset < -rows ? rows : -offset) : 0,
                right = std::clamp<int64_t>(offset, 0, columns);
  const int64_t length = std::max<int64_t>(0, std::min(rows - down, columns - right));
  Layout out{{}, {}, in.offset};
  if (length > 0) out.offset += down * in.strides[a] + right * in.strides[b];
  for (int i = 0; i < rank; ++i) {
    if (i == a || i == b) continue;
    out.sizes.push_back(in.sizes[i]);
    out.strides.push_back(in.strides[i]);
  }
  out.sizes.push_back(length);
  out.strides.push_back(in.strides[a] + in.strides[b]);
  return out;
}

Layout view::unfold(const InferCall& call, const Layout& in) {
  const int rank = in.sizes.rank();
  if (rank == 0 || rank == kMaxRank)
    fail_call(call, "needs at least one axis, and room for another, found " + to_string(operand(call, 0)));
  const int axis = axis_of(call, 0, rank);
  const int64_t size = call.integer(1), step = call.integer(2);
  if (size < 0 || size > in.sizes[axis])
    fail_call(call, "windows of " + std::to_string(size) + " positions do not fit axis " +
                        std::to_string(axis) + " of " + to_string(operand(call, 0)));
  if (step <= 0) fail_call(call, "the step must be positive, found " + std::to_string(step));
  Layout out = in;
  const int64_t windows = (in.sizes[axis] - size) / step + 1;
  out.sizes[axis] = windows;
  out.strides[axis] = windows > 1 ? in.strides[axis] * step : in.strides[axis];
  out.sizes.push_back(size);
  out.strides.push_back(in.strides[axis]);
  return out;
}

}  // namespace tandem::ops
