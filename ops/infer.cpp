// Types of results by kind of op. Promotion follows PyTorch: operands fall into three classes, tensors with
// axes, tensors of rank 0 and numbers; a lower class changes the result only if its category (bool, integer,
// floating) is higher.
#include <algorithm>

#include "tandem/ops/checks.h"

namespace tandem::ops {

namespace {

int category(DType t) { return is_floating(t) ? 2 : is_integral(t) ? 1 : 0; }

struct Promotion {
  bool any = false;
  DType type = DType::bool_;
  void add(DType t) {
    type = any ? promote(type, t) : t;
    any = true;
  }
};

/// Lets a lower class of operands change the type that a higher one has.
Promotion combine(const Promotion& high, const Promotion& low) {
  if (!high.any) return low;
  if (!low.any || category(high.type) >= category(low.type)) return high;
  return low;
}

void infer_pointwise(const InferCall& call, std::vector<TensorType>& out) {
  const OpDef& op = call.op;
  TensorType result;
  result.dtype =
      op.types == TypeRule::compare || op.types == TypeRule::logical ? DType::bool_ : compute_type(call);
  result.number = true;
  for (const TensorType& t : call.in) {
    if (t.number) continue;
    if (result.number) {
      result.number = false;
      result.device = t.device;
      result.sizes = t.sizes;
      continue;
    }
    Dims& sizes = result.sizes;
    if (sizes == t.sizes) continue;
    if (t.sizes.rank() > sizes.rank()) {
      Dims longer = Dims::filled(t.sizes.rank(), 1);
      std::copy(sizes.begin(), sizes.end(), longer.end() - sizes.rank());
      sizes = longer;
    }
    const int skipped = sizes.rank() - t.sizes.rank();
    for (int i = 0; i < t.sizes.rank(); ++i) {
      int64_t& size = sizes[skipped + i];
      if (size == 1) {
        size = t.sizes[i];
      } else if (t.sizes[i] != 1 && t.sizes[i] != size) {
        fail_call(call, "shapes do not broadcast: " + operand_text(call) +
                            "; sizes, counted from the right, must be equal or 1");
      }
    }
  }
  if (result.number) fail_call(call, "all operands are numbers; at least one must be a tensor");
  checked_numel(result.sizes);
  out.push_back(result);
}

void infer_reduction(const InferCall& call, std::vector<TensorType>& out) {
  const TensorType& x = operand(call, 0);
  const Dims listed = call.list(1);
  const Dims axes = normalize_axes(listed, x.sizes.rank(), call.op.name, call.where);
  DType type = x.dtype;
  switch (call.op.reduce) {
    case ReduceOp::sum:
    case ReduceOp::prod:
      if (!is_floating(type)) type = DType::int64;
      break;
    case ReduceOp::argmax:
    case ReduceOp::argmin:
      if (listed.size() > 1) fail_call(call, "takes one axis or none, found " + to_string(listed));
      type = DType::int64;
      [[fallthrough]];
    case ReduceOp::max:
    case ReduceOp::min:
      for (const int64_t a : axes)
        if (x.sizes[static_cast<int>(a)] == 0)
          fail_call(call,
                    "no elements to choose from along axis " + std::to_string(a) + " of " + to_string(x));
      break;
  }
  out.push_back(result_like(call, 0, type, reduced_sizes(x.sizes, axes, call.integer(0) != 0)));
}

}  // namespace

std::string to_string(const TensorType& t) {
  if (t.number) return std::string("number:") + name(t.dtype);
  return name(t.dtype) + to_string(t.sizes);
}

void fail_call(const InferCall& call, const std::string& text) {
  fail(std::string(call.op.name) + ": " + text, call.where);
}

std::string operand_text(const InferCall& call) {
  std::string text;
  for (size_t i = 0; i < call.in.size(); ++i) {
    if (!call.present[i]) continue;
    text += (text.empty() ? "" : ", ") + to_string(call.in[i]);
  }
  return text;
}

void need_tensor(const InferCall& call, int i) {
  if (operand(call, i).number)
    fail_call(call, "operand " + std::to_string(i) + " must be a tensor, found a number");
}

void need_floating(const InferCall& call, int i) {
  need_tensor(call, i);
  if (!is_floating(operand(call, i).dtype))
    fail_call(call, "needs a floating type, found " + operand_text(call) + "; cast with to(float32)");
}

void need_index(const InferCall& call, int i) {
  need_tensor(call, i);
  const DType t = operand(call, i).dtype;
  if (t != DType::int64 && t != DType::int32)
    fail_call(call, "indices must be int64 or int32, found " + operand_text(call) + "; cast with to(int64)");
}

Dims reduced_sizes(const Dims& sizes, const Dims& axes, bool keepdim) {
  Dims result;
  int next = 0;
  for (int i = 0; i < sizes.rank(); ++i) {
    if (next >= axes.size() || axes[next] != i) {
      result.push_back(sizes[i]);
      continue;
    }
    ++next;
    if (keepdim) result.push_back(1);
  }
  return result;
}

DType promoted_type(const InferCall& call, int first, int last) {
  Promotion tensors, scalars, numbers;
  for (int i = first; i < last; ++i) {
    const TensorType& t = operand(call, i);
    if (t.number) {
      numbers.add(t.dtype == DType::float64 ? DType::float32 : t.dtype);
    } else {
      (t.sizes.empty() ? scalars : tensors).add(t.dtype);
    }
  }
  return combine(tensors, combine(scalars, numbers)).type;
}

DType compute_type(const InferCall& call) {
  const auto n = static_cast<int>(call.in.size());
  switch (call.op.types) {
    case TypeRule::same:
    case TypeRule::compare:
      return promoted_type(call, 0, n);
    case TypeRule::arithmetic: {
      const DType t = promoted_type(call, 0, n);
      if (t == DType::bool_)
        fail_call(call,
                  "is not defined for bool, found " + operand_text(call) + "; cast, or use logical_xor");
      return t;
    }
    case TypeRule::bits:
    case TypeRule::integers: {
      const DType t = promoted_type(call, 0, n);
      if (is_floating(t) || (t == DType::bool_ && call.op.types == TypeRule::integers))
        fail_call(call, std::string("is defined for integers") +
                            (call.op.types == TypeRule::bits ? " and bool" : "") + ", found " +
                            operand_text(call) + "; cast with to(int64)");
      return t;
    }
    case TypeRule::floating: {
      const DType t = promoted_type(call, 0, n);
      return is_floating(t) ? t : DType::float32;
    }
    case TypeRule::logical:
      return DType::bool_;
    case TypeRule::select:
      return promoted_type(call, 1, n);
    case TypeRule::cast: {
      const int64_t t = call.integer(0);
      if (t < 0 || t >= kDTypeCount) fail_call(call, "no such type: " + std::to_string(t));
      return static_cast<DType>(t);
    }
  }
  internal_error(std::string("no type rule of ") + call.op.name);
}

namespace {

void infer_checked(const InferCall& call, std::vector<TensorType>& out) {
  const OpDef& op = call.op;
  const auto n = static_cast<int>(call.in.size());
  if (op.n_in >= 0 && n != op.n_in)
    fail_call(call, "takes " + std::to_string(op.n_in) + " operands, found " + std::to_string(n));
  if (op.n_in < 0 && n == 0) fail_call(call, "needs at least one tensor");
  const TensorType* first = nullptr;
  const bool numbers = op.kind == OpKind::pointwise || op.kind == OpKind::composite;
  for (int i = 0; i < n; ++i) {
    const TensorType& t = operand(call, i);
    if (!call.present[static_cast<size_t>(i)]) {
      if (op.n_in < 0 || i < op.n_in - op.n_optional)
        fail_call(call, "operand " + std::to_string(i) + " is missing");
      continue;
    }
    if (t.number) {
      if (!numbers) need_tensor(call, i);
      continue;
    }
    if (first && !(first->device == t.device))
      fail_call(call, "operands on " + to_string(first->device) + " and " + to_string(t.device) +
                          "; move one of them with to(device)");
    if (!first) first = &t;
  }
  if (op.infer) return op.infer(call, out);
  switch (op.kind) {
    case OpKind::pointwise:
      return infer_pointwise(call, out);
    case OpKind::reduction:
      return infer_reduction(call, out);
    case OpKind::view: {
      const TensorType& x = operand(call, 0);
      out.push_back(
          result_like(call, 0, x.dtype, op.view(call, {x.sizes, contiguous_strides(x.sizes)}).sizes));
      return;
    }
    case OpKind::piecewise:
    case OpKind::gather:
    case OpKind::scatter:
    case OpKind::scan:
    case OpKind::random:
    case OpKind::fill:
    case OpKind::contraction:
    case OpKind::convolution:
    case OpKind::composite:
    case OpKind::kernel:
      break;  // the table holds a check for each of these
  }
  internal_error(std::string("no inference for ") + op.name);
}

}  // namespace

void infer(const InferCall& call, std::vector<TensorType>& out) {
  try {
    infer_checked(call, out);
  } catch (const Error& e) {
    fail_again(e, call.op.name, call.where);
  }
}

}  // namespace tandem::ops
