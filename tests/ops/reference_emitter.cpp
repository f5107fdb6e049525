#include "tests/ops/reference_emitter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <memory>
#include <numbers>

#include "tandem/core/error.h"
#include "tandem/core/generator.h"
#include "tests/ops/reference_windows.h"

namespace tandem::test {

using ops::OpId;
using ops::OpKind;
using ops::ScalarOp;
using ops::TensorType;

namespace {

using Values = std::vector<double>;

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// Calls visit(index, linear) for every index of `sizes` in row-major order.
template <class Visit>
void for_each_index(const Dims& sizes, Visit visit) {
  const int64_t n = numel(sizes);
  Dims index = Dims::filled(sizes.rank(), 0);
  for (int64_t i = 0; i < n; ++i) {
    visit(index, i);
    for (int d = sizes.rank() - 1; d >= 0 && ++index[d] == sizes[d]; --d) index[d] = 0;
  }
}

int64_t linear(const Dims& index, const Dims& sizes) {
  int64_t i = 0;
  for (int d = 0; d < sizes.rank(); ++d) i = i * sizes[d] + index[d];
  return i;
}

/// Where the element `index` of a broadcast result lies in an operand.
int64_t broadcast_linear(const Dims& index, const Dims& sizes) {
  int64_t i = 0;
  const int skipped = index.rank() - sizes.rank();
  for (int d = 0; d < sizes.rank(); ++d) i = i * sizes[d] + (sizes[d] == 1 ? 0 : index[skipped + d]);
  return i;
}

Values reduce(ops::ReduceOp op, const ReferenceTensor& x, const Dims& axes) {
  Dims kept = x.type.sizes;
  for (const int64_t a : axes) kept[static_cast<int>(a)] = 1;
  Values result(at(numel(kept)), op == ops::ReduceOp::prod ? 1 : 0);
  Values best(result.size());  // argmax, argmin
  std::vector<int64_t> seen(
      result.size());  // elements met so far: the position along the axis, or in row-major order
  for_each_index(x.type.sizes, [&](const Dims& index, int64_t i) {
    const size_t to = at(broadcast_linear(index, kept));
    const double v = x.values[at(i)];
    double& r = result[to];
    const bool first = seen[to] == 0;
    switch (op) {
      case ops::ReduceOp::sum:
        r += v;
        break;
      case ops::ReduceOp::prod:
        r *= v;
        break;
      case ops::ReduceOp::max:
        r = first || std::isnan(v) || v > r ? v : r;
        break;
      case ops::ReduceOp::min:
        r = first || std::isnan(v) || v < r ? v : r;
        break;
      case ops::ReduceOp::argmax:
      case ops::ReduceOp::argmin: {
        double& b = best[to];
        const bool better = op == ops::ReduceOp::argmax ? v > b : v < b;
        if (first || (!std::isnan(b) && (std::isnan(v) || better))) b = v, r = static_cast<double>(seen[to]);
        break;
      }
    }
    ++seen[to];
  });
  return result;
}

/// C (batch, m, n) of one pair of operands that are matrices or vectors, with broadcast batches.
Values product(const ReferenceTensor& a, const ReferenceTensor& b, const Dims& sizes) {
  const Dims& as = a.type.sizes;
  const Dims& bs = b.type.sizes;
  const bool rows = as.rank() >= 2, columns = bs.rank() >= 2;
  const int64_t k = as.back();
  Values result(at(numel(sizes)));
  const int batch_rank = sizes.rank() - rows - columns;
  for_each_index(sizes, [&](const Dims& index, int64_t i) {
    double sum = 0;
    for (int64_t j = 0; j < k; ++j) {
      Dims ai(index.data(), batch_rank), bi(index.data(), batch_rank);
      if (rows) ai.push_back(index[batch_rank]);
      ai.push_back(j);
      bi.push_back(j);
      if (columns) bi.push_back(index[sizes.rank() - 1]);
      while (ai.rank() > as.rank()) ai.erase(0);
      while (bi.rank() > bs.rank()) bi.erase(0);
      sum += a.values[at(broadcast_linear(ai, as))] * b.values[at(broadcast_linear(bi, bs))];
    }
    result[at(i)] = sum;
  });
  return result;
}

struct Call {
  const ops::OpDef& op;
  std::vector<const ReferenceTensor*> in;  // null: absent
  std::vector<double> numbers;
  ops::Words words;
  const TensorType& out;
  const TensorType* out2;  // of an op with two results, whose values go to more
  Values* more;

  int axis() const { return normalize_axis(words[0], in[0]->type.sizes.rank(), op.name); }
  const Dims& sizes(size_t i) const { return in[i]->type.sizes; }
};

int64_t checked_index(double v, int64_t size, const char* op) {
  if (v < 0 || v >= static_cast<double>(size)) fail(std::string(op) + ": index out of range");
  return static_cast<int64_t>(v);
}

Values run_formula(const Call& c, const ops::InferCall& infer) {
  ops::ScalarGraph graph;
  std::vector<ops::S> in;
  const bool pointwise = c.op.kind == OpKind::pointwise;
  DType compute = DType::float32;
  if (pointwise) {
    compute = ops::compute_type(infer);
    if (compute == DType::float16 || compute == DType::bfloat16) compute = DType::float32;
    for (size_t i = 0; i < c.in.size(); ++i) {
      const bool condition = c.op.types == ops::TypeRule::select && i == 0;
      in.push_back(graph.node(ScalarOp::load, condition ? DType::bool_ : compute, {}, {}, {},
                              static_cast<int64_t>(i)));
    }
  } else {
    in.push_back(graph.node(ScalarOp::index, DType::int64));
  }
  for (int k = 0, n = 0; k < c.op.n_attrs; ++k) {
    if (!c.op.attrs[k].run_time()) continue;
    const DType t = c.op.attrs[k].type == ops::AttrType::floating ? DType::float64 : DType::int64;
    in.push_back(graph.node(ScalarOp::number, t, {}, {}, {}, n++));
  }
  ops::S out[1];
  c.op.formula(graph, in.data(), out);
  Values result(at(numel(c.out.sizes)));
  ScalarLeaves leaves;
  leaves.numbers = c.numbers;
  leaves.loads.resize(c.in.size());
  for_each_index(c.out.sizes, [&](const Dims& index, int64_t i) {
    leaves.index = i;
    for (size_t k = 0; k < c.in.size(); ++k) {
      const double v = c.in[k]->values[at(broadcast_linear(index, c.sizes(k)))];
      leaves.loads[k] = to_type(v, graph[in[k].id].type);
    }
    result[at(i)] = to_type(interpret(graph, out[0].id, leaves), c.out.dtype);
  });
  return result;
}

Values run_view(const Call& c, const ops::InferCall& infer) {
  const ops::Layout layout = c.op.view(infer, {c.sizes(0), contiguous_strides(c.sizes(0))});
  Values result(at(numel(layout.sizes)));
  for_each_index(layout.sizes, [&](const Dims& index, int64_t i) {
    int64_t from = layout.offset;
    for (int d = 0; d < index.rank(); ++d) from += index[d] * layout.strides[d];
    result[at(i)] = c.in[0]->values[at(from)];
  });
  return result;
}

/// cat and pad: each operand has its place along the axis, what is left is zero.
Values run_piecewise(const Call& c) {
  Values result(at(numel(c.out.sizes)));
  int64_t start = c.op.id == OpId::pad ? c.words[1] : 0;
  for (const ReferenceTensor* t : c.in) {
    for_each_index(t->type.sizes, [&](Dims index, int64_t i) {
      index[c.axis()] += start;
      result[at(linear(index, c.out.sizes))] = t->values[at(i)];
    });
    start += t->type.sizes[c.axis()];
  }
  return result;
}

/// The index of operand 0 that an index of the other side means: `index` holds coordinates along the axis.
Dims indexed(const Call& c, Dims index, bool rank_1) {
  const double v = c.in[1]->values[at(rank_1 ? index[c.axis()] : linear(index, c.sizes(1)))];
  index[c.axis()] = checked_index(v, c.sizes(0)[c.axis()], c.op.name);
  return index;
}

Values run_gather(const Call& c) {
  Values result(at(numel(c.out.sizes)));
  for_each_index(c.out.sizes, [&](const Dims& index, int64_t i) {
    result[at(i)] = c.in[0]->values[at(linear(indexed(c, index, c.op.id == OpId::index_select), c.sizes(0)))];
  });
  return result;
}

Values run_scatter(const Call& c) {
  Values result = c.in[0]->values;
  for_each_index(c.sizes(2), [&](const Dims& index, int64_t i) {
    const bool list = c.op.id == OpId::index_add || c.op.id == OpId::index_copy;
    double& to = result[at(linear(indexed(c, index, list), c.sizes(0)))];
    to = (c.op.id == OpId::index_add || c.op.id == OpId::scatter_add ? to : 0) + c.in[2]->values[at(i)];
  });
  return result;
}

/// The place of each element is the number of those before it.
Values run_argsort(const Call& c) {
  Values result(at(numel(c.out.sizes)));
  const int axis = c.out.sizes.empty() ? -1 : c.axis();
  for_each_index(c.sizes(0), [&](Dims index, int64_t i) {
    if (axis < 0) return;
    const int64_t here = index[axis];
    const double x = c.in[0]->values[at(i)];
    int64_t place = 0;
    for (int64_t k = 0; k < c.sizes(0)[axis]; ++k) {
      index[axis] = k;
      const double y = c.in[0]->values[at(linear(index, c.sizes(0)))];
      const auto below = [](double u, double v) { return u < v || (u == u && v != v); };  // NaN is above all
      const bool same = y == x || (y != y && x != x);
      place += (c.words[1] ? below(x, y) : below(y, x)) || (same && k < here);
    }
    index[axis] = place;
    if (place < c.out.sizes[axis]) result[at(linear(index, c.out.sizes))] = static_cast<double>(here);
  });
  return result;
}

Values run_scan(const Call& c) {
  if (c.op.id == OpId::argsort) return run_argsort(c);
  switch (c.op.id) {
    case OpId::avg_pool:
    case OpId::avg_pool_backward:
      return reference_pool(c.op, {&c.in[0]->values}, c.sizes(0), c.words, c.out.sizes);
    case OpId::max_pool:
      return reference_pool(c.op, {&c.in[0]->values}, c.sizes(0), c.words, c.out.sizes,
                            c.out2->dtype == DType::uint8, c.more);
    case OpId::max_pool_backward:
    case OpId::max_pool_pick:
      return reference_pool(c.op, {&c.in[0]->values, &c.in[1]->values}, c.sizes(0), c.words, c.out.sizes,
                            c.in[1]->type.dtype == DType::uint8);
    default:
      break;
  }
  if (c.out.sizes.empty()) return c.in[0]->values;
  Values result(at(numel(c.out.sizes)));
  const int64_t size = c.out.sizes[c.axis()];
  for_each_index(c.out.sizes, [&](Dims index, int64_t i) {
    const int64_t here = index[c.axis()];
    for (int64_t k = c.words[1] ? here : 0; k < (c.words[1] ? size : here + 1); ++k) {
      index[c.axis()] = k;
      result[at(i)] += c.in[0]->values[at(linear(index, c.out.sizes))];
    }
  });
  return result;
}

Values run_contraction(const Call& c) {
  if (c.op.id == OpId::matmul) return product(*c.in[0], *c.in[1], c.out.sizes);
  Values result(at(numel(c.out.sizes)));
  const int64_t k = c.sizes(1)[1], n = c.sizes(1)[0];
  for (int64_t i = 0; i < static_cast<int64_t>(result.size()); ++i) {
    for (int64_t j = 0; j < k; ++j)
      result[at(i)] += c.in[0]->values[at(i / n * k + j)] * c.in[1]->values[at(i % n * k + j)];
    if (c.in[2]) result[at(i)] += c.in[2]->values[at(i % n)];
  }
  return result;
}

/// Adds up x * w * y over all places where a tap of the kernel meets x, into the one that is the result.
Values run_convolution(const Call& c, const ops::InferCall& infer) {
  const bool input = c.op.id == OpId::convolution_input, weight = c.op.id == OpId::convolution_weight;
  const Dims &xs = input ? c.out.sizes : c.sizes(0), &ws = weight ? c.out.sizes : c.sizes(1),
             &ys = input    ? c.sizes(0)
                   : weight ? c.sizes(1)
                            : c.out.sizes;
  const Dims stride = infer.list(2), padding = infer.list(3), dilation = infer.list(4);
  Values result(at(numel(c.out.sizes)));
  const Dims taps(ws.data() + 1, ws.rank() - 1);  // of one output: channels and kernel
  for_each_index(ys, [&](const Dims& y, int64_t iy) {
    for_each_index(taps, [&](const Dims& w, int64_t tap) {
      Dims x{y[0], y[1] / (ys[1] / infer.integer(0)) * ws[1] + w[0]};
      for (int d = 0; d < stride.rank(); ++d) {
        x.push_back(y[d + 2] * stride[d] + w[d + 1] * dilation[d] - padding[d]);
        if (x.back() < 0 || x.back() >= xs[d + 2]) return;
      }
      const int64_t iw = y[1] * numel(taps) + tap;
      const int64_t ix = linear(x, xs);
      if (input)
        result[at(ix)] += c.in[0]->values[at(iy)] * c.in[1]->values[at(iw)];
      else if (weight)
        result[at(iw)] += c.in[0]->values[at(ix)] * c.in[1]->values[at(iy)];
      else
        result[at(iy)] += c.in[0]->values[at(ix)] * c.in[1]->values[at(iw)];
    });
  });
  if (c.in.size() > 2 && c.in[2])
    for_each_index(c.out.sizes,
                   [&](const Dims& index, int64_t i) { result[at(i)] += c.in[2]->values[at(index[1])]; });
  return result;
}

Values run(const Call& c, const ops::InferCall& infer) {
  switch (c.op.kind) {
    case OpKind::pointwise:
    case OpKind::random:
    case OpKind::fill:
      return run_formula(c, infer);
    case OpKind::reduction: {
      const Dims axes = ops::normalize_axes(infer.list(1), c.sizes(0).rank(), c.op.name);
      return reduce(c.op.reduce, *c.in[0], axes);
    }
    case OpKind::view:
      return run_view(c, infer);
    case OpKind::piecewise:
      return run_piecewise(c);
    case OpKind::gather:
      return run_gather(c);
    case OpKind::scatter:
      return run_scatter(c);
    case OpKind::scan:
      return run_scan(c);
    case OpKind::contraction:
      return run_contraction(c);
    case OpKind::convolution:
      return run_convolution(c, infer);
    case OpKind::composite:
    case OpKind::kernel:
      break;
  }
  internal_error(std::string("no reference for ") + c.op.name);
}

}  // namespace

const ReferenceTensor& ReferenceEmitter::at(ops::Value v) const {
  TANDEM_INTERNAL(v.id >= 0 && static_cast<size_t>(v.id) < tensors_.size(),
                  "a value that was not given to this emitter");
  return tensors_[static_cast<size_t>(v.id)];
}

ops::Value ReferenceEmitter::add(const TensorType& type, std::vector<double> values) {
  TANDEM_INTERNAL(static_cast<int64_t>(values.size()) == numel(type.sizes),
                  "values do not fill " + to_string(type));
  tensors_.push_back({type, std::move(values)});
  return {static_cast<int32_t>(tensors_.size()) - 1};
}

ops::Value ReferenceEmitter::number(double value) {
  TensorType t;
  t.dtype = DType::float64;
  t.number = true;
  return add(t, {value});
}

ops::Value ReferenceEmitter::count(ops::Value v, const Dims& axes) {
  double n = 1;
  for (const int64_t a : axes) n *= static_cast<double>(type(v).sizes[static_cast<int>(a)]);
  return number(n);
}

ops::Value ReferenceEmitter::number_op(ScalarOp op, ops::Value a, ops::Value b) {
  return number(ops::number_arithmetic(op, values(a)[0], b ? values(b)[0] : 0));
}

void ReferenceEmitter::emit(OpId id, std::span<const ops::Value> in, ops::Words words, ops::Value* out) {
  const ops::OpDef& op = ops::def(id);
  const size_t n = in.size() - static_cast<size_t>(op.n_numbers());
  std::vector<TensorType> types(n);
  const auto present = std::make_unique<bool[]>(n);
  for (size_t i = 0; i < n; ++i) {
    present[i] = static_cast<bool>(in[i]);
    if (in[i]) types[i] = type(in[i]);
  }
  const ops::InferCall infer{op, types, {present.get(), n}, words, location};
  std::vector<TensorType> results;
  ops::infer(infer, results);
  TANDEM_INTERNAL(static_cast<int>(results.size()) == op.n_out,
                  std::string("inference of ") + op.name + " gave too few types");
  if (op.kind == OpKind::composite) {
    ops::emit_body(*this, op, in, words, out);
    for (size_t j = 0; j < results.size(); ++j)
      TANDEM_INTERNAL(type(out[j]) == results[j], std::string("the body of ") + op.name + " gave " +
                                                      to_string(type(out[j])) + ", inference " +
                                                      to_string(results[j]));
    return;
  }
  Values more;
  Call call{op, {}, {}, words, results[0], results.size() > 1 ? &results[1] : nullptr, &more};
  for (size_t i = 0; i < n; ++i) call.in.push_back(in[i] ? &at(in[i]) : nullptr);
  for (size_t i = n; i < in.size(); ++i) call.numbers.push_back(values(in[i])[0]);
  Values result = run(call, infer);
  for (double& v : result) v = to_type(v, results[0].dtype);
  out[0] = add(results[0], std::move(result));
  if (results.size() > 1) out[1] = add(results[1], std::move(more));
}

}  // namespace tandem::test
