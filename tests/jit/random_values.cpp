#include "tests/jit/random_values.h"

#include <bit>

#include "tandem/core/error.h"
#include "tandem/ops/windows.h"
#include "tests/jit/program.h"

namespace tandem::test {

using jit::Graph;
using ops::TensorType;
using ops::Value;

namespace {

bool broadcasts(const Dims& a, const Dims& b) {
  for (int i = 1; i <= std::min(a.rank(), b.rank()); ++i) {
    const int64_t x = a[a.rank() - i], y = b[b.rank() - i];
    if (x != y && x != 1 && y != 1) return false;
  }
  return true;
}

bool writable(const Dims& sizes, const Dims& strides) {
  for (int i = 0; i < sizes.rank(); ++i)
    if (sizes[i] > 1 && strides[i] == 0) return false;
  return true;
}

}  // namespace

DType RandomValues::floating_type() {
  static constexpr DType kTypes[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16};
  return one_in(8) ? kTypes[below(std::size(kTypes))] : main_type_;
}

Dims RandomValues::sizes(int rank) {
  Dims d;
  for (int i = 0; i < rank; ++i) d.push_back(one_in(6) ? 1 : dims_[below(std::size(dims_))]);
  return d;
}

Dims RandomValues::permutation(int rank) {
  std::vector<int64_t> axes;
  for (int i = 0; i < rank; ++i)
    axes.insert(axes.begin() + static_cast<std::ptrdiff_t>(below(axes.size() + 1)), i);
  return Dims(axes.data(), rank);
}

Value RandomValues::pick() {
  // Young values are likely, so that chains grow.
  const size_t n = pool_.size();
  return pool_[one_in(2) ? n - 1 - below(std::min<size_t>(n, 3)) : below(n)];
}

Value RandomValues::keep(Value v) {
  if (!type(v).number) pool_.push_back(v);
  return v;
}

Value RandomValues::fitted(const Dims& sizes) {
  for (int trial = 0; trial < 8; ++trial) {
    Value v = pick();
    const Dims s = type(v).sizes;
    if (broadcasts(s, sizes)) return v;
    if (s.rank() > 1) {
      Dims axes;
      for (int i = s.rank() - 1; i >= 0; --i) axes.push_back(i);
      Dims reversed;
      for (const int64_t a : axes) reversed.push_back(s[static_cast<int>(a)]);
      if (broadcasts(reversed, sizes)) return emitter_.permute(v, axes);
    }
    if (numel(s) == numel(sizes) && one_in(2)) return emitter_.reshape(v, sizes);
  }
  return input(floating_type(), sizes);
}

Value RandomValues::input(DType t, const Dims& sizes, int64_t low, int64_t high) {
  Dims strides = contiguous_strides(sizes);
  const int rank = sizes.rank();
  switch (below(8)) {
    case 0: {  // permuted
      std::vector<int> order;
      for (int i = 0; i < rank; ++i)
        order.insert(order.begin() + static_cast<std::ptrdiff_t>(below(order.size() + 1)), i);
      int64_t step = 1;
      for (const int i : order) {
        strides[i] = step;
        step *= std::max<int64_t>(1, sizes[i]);
      }
      break;
    }
    case 1: {  // with gaps, as a slice of something larger
      int64_t step = between(1, 2);
      for (int i = rank - 1; i >= 0; --i) {
        strides[i] = step;
        step *= std::max<int64_t>(1, sizes[i] + between(0, 1));
      }
      break;
    }
    case 2:  // repeated along an axis
      if (rank > 0 && one_in(2)) {
        const int axis = static_cast<int>(below(static_cast<uint64_t>(rank)));
        for (int i = 0; i < axis; ++i) strides[i] /= std::max<int64_t>(1, sizes[axis]);
        strides[axis] = 0;
      }
      break;
    default:
      break;
  }
  const int32_t v =
      r_.graph.add_input({t, cpu, false, sizes}, strides, "x" + std::to_string(r_.graph.inputs.size()));
  GuardedBytes bytes(static_cast<size_t>(span_of(sizes, strides) * itemsize(t)), 0);
  if (t == DType::bool_) low = 0, high = 2;
  if (t == DType::uint8) low = std::max<int64_t>(low, 0);
  const int64_t n = static_cast<int64_t>(bytes.size()) / itemsize(t);
  const bool coarse = one_in(4);  // equal values, for ties
  for (int64_t i = 0; i < n; ++i) {
    double x = static_cast<double>(
        low + static_cast<int64_t>(below(static_cast<uint64_t>(std::max<int64_t>(1, high - low)))));
    if (is_floating(t))
      x = coarse ? static_cast<double>(between(-4, 4)) / 2
                 : static_cast<double>(between(-(1 << 24), 1 << 24)) * 0x1p-23;
    write_element(bytes.data(), t, i, x);
  }
  r_.arguments.inputs.push_back(std::move(bytes));
  return keep({v});
}

Value RandomValues::like(Value x, const Dims& sizes, int64_t least) {
  const DType t = type(x).dtype;
  return is_floating(t) ? input(t, sizes) : input(t, sizes, 0, least);
}

Value RandomValues::indices(const Dims& sizes, int64_t n) {
  if (one_in(3)) {
    const Value raw = input(one_in(2) ? DType::int64 : DType::int32, sizes, -5, 50);
    const Value index = emitter_.remainder(raw, run_time_int(n));
    return index;
  }
  return input(one_in(2) ? DType::int64 : DType::int32, sizes, 0, n);
}

Dims RandomValues::labels(const Dims& s) {
  if (numel(s) == 0) return {0};
  if (s.empty()) return s;
  return one_in(2) ? Dims{s[0]} : sizes(2);
}

Value RandomValues::number(bool integral) {
  if (!integral) switch (below(6)) {
      case 0:
        return emitter_.number(some_double());
      case 1:
        return emitter_.number(one_in(2) ? 0 : 1);
      case 2:
        if (!pool_.empty()) {
          const Value v = pick();
          Dims axes;
          for (int i = 0; i < type(v).sizes.rank(); ++i)
            if (one_in(2)) axes.push_back(i);
          const Value n = emitter_.count(v, axes);
          return one_in(2) ? n : emitter_.number_op(ops::ScalarOp::sqrt, n, {});
        }
        break;
      case 3: {
        static constexpr ops::ScalarOp kOps[] = {ops::ScalarOp::add, ops::ScalarOp::sub, ops::ScalarOp::mul,
                                                 ops::ScalarOp::max};
        const Value a = run_time(some_double());
        const Value b = one_in(2) ? emitter_.number(some_double()) : run_time(some_double());
        return emitter_.number_op(kOps[below(std::size(kOps))], a, b);
      }
      default:
        break;
    }
  if (!numbers_.empty() && one_in(4)) {
    const Value n = numbers_[below(numbers_.size())];
    if ((type(n).dtype == DType::int64) == integral) return n;
  }
  if (integral) return run_time_int(between(0, 5));
  return run_time(some_double());
}

Value RandomValues::run_time(double v) {
  r_.arguments.numbers.push_back(std::bit_cast<int64_t>(v));
  numbers_.push_back({r_.graph.add_number(DType::float64)});
  return numbers_.back();
}

Value RandomValues::run_time_int(int64_t v) {
  r_.arguments.numbers.push_back(v);
  numbers_.push_back({r_.graph.add_number(DType::int64)});
  return numbers_.back();
}

void RandomValues::finish() {
  Graph& g = r_.graph;
  std::vector<char> used(g.values.size(), 0);
  for (const jit::Node& n : g.nodes)
    for (const int32_t v : n.in)
      if (v >= 0) used[static_cast<size_t>(v)] = 1;
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    if (!one_in(3) || !writable(g.type(g.inputs[i].value).sizes, g.inputs[i].strides)) continue;
    std::vector<int32_t> values;
    for (const Value v : pool_)
      if (v.id != g.inputs[i].value && g.type(v.id) == g.type(g.inputs[i].value)) values.push_back(v.id);
    if (values.empty()) continue;
    const int32_t v = values[one_in(2) ? 0 : below(values.size())];
    used[static_cast<size_t>(v)] = 1;
    g.writes.push_back({static_cast<int32_t>(i), v});
  }
  for (const Value v : pool_) {
    const bool leaf = g.node_of(v.id).leaf != jit::Leaf::op;
    if (leaf ? one_in(20) : (!used[static_cast<size_t>(v.id)] || one_in(6))) g.outputs.push_back(v.id);
  }
  if (g.outputs.empty()) g.outputs.push_back(pool_.back().id);
  if (one_in(8)) g.outputs.push_back(g.outputs[0]);
}

Dims RandomValues::expanded(const Dims& s) {
  Dims l = s;
  for (int i = 0; i < l.rank(); ++i)
    if (l[i] == 1 && one_in(2)) l[i] = between(1, 5);
  if (l.rank() < kMaxRank && one_in(2)) l.insert(0, between(1, 3));
  return l;
}

Dims RandomValues::reshaped(const Dims& s) {
  Dims l = s;
  if (l.rank() > 0 && one_in(3)) {
    l = {-1};
  } else if (l.rank() > 1 && one_in(2)) {
    const int i = static_cast<int>(below(static_cast<uint64_t>(l.rank() - 1)));
    l[i] *= l[i + 1];
    l.erase(i + 1);
  } else if (l.rank() > 0 && l.rank() < kMaxRank) {
    const int i = static_cast<int>(below(static_cast<uint64_t>(l.rank())));
    for (const int64_t f : {7, 5, 3, 2, 1})
      if (l[i] % f == 0) {
        l.insert(i, f);
        l[i + 1] /= f;
        break;
      }
  }
  return l;
}

int64_t RandomValues::integer(const std::string& name, int rank) {
  if (name == "axis") return rank == 0 ? 0 : between(-rank, rank - 1);
  if (name == "start" || name == "index") return between(-3, 3);
  if (name == "end") return one_in(3) ? between(-3, 6) : 1 << 20;
  if (name == "step") return between(1, 3);
  if (name == "classes") return kClasses;
  return name == "axis2" ? between(-1, 1) : between(0, 2);
}

bool RandomValues::layer(const ops::OpDef& op, Value x, std::vector<Value>& in) {
  const Dims s = type(x).sizes;
  const int gates = op.id == ops::OpId::lstm_gates ? 4 : op.id == ops::OpId::gru_gates ? 3 : 0;
  if (s.rank() < (gates > 0 ? 1 : 2) || numel(s) == 0 || !is_floating(type(x).dtype)) return false;
  if (gates > 0) {
    Dims sums = s;
    sums[s.rank() - 1] *= gates;
    in = {like(x, sums, 1), like(x, sums, 1), x};
    return true;
  }
  Dims rows = s;
  rows.erase(s.rank() - 1);
  in = {x};
  for (int i = 1; i < 7; ++i) {
    const bool stats = i == 4 || i == 6;
    in.push_back(i == 6 && one_in(2) ? Value{} : like(x, stats ? rows : s, 1));
  }
  return true;
}

bool RandomValues::convolution(const ops::OpDef& op, std::vector<ops::Value>& in,
                               std::vector<int64_t>& words) {
  ops::Value x = pick();
  Dims s = type(x).sizes;
  if (type(x).dtype == DType::bool_ || numel(s) > 2000) return false;
  while (s.rank() < 3) s.insert(0, 1);
  while (s.rank() > 4) {
    s[1] *= s[0];
    s.erase(0);
  }
  if (s != type(x).sizes) x = emitter_.reshape(x, s);
  const int axes = s.rank() - 2;
  const int64_t groups = one_in(3) ? s[1] : 1;
  Dims stride, padding, dilation, last, other{s[0], groups * between(1, 3)};
  const bool forward = op.id == ops::OpId::convolution, weight = op.id == ops::OpId::convolution_weight;
  for (int i = 0; i < axes; ++i) {
    stride.push_back(between(1, 3));
    padding.push_back(between(0, 2));
    dilation.push_back(between(1, 2));
    const int64_t kernel = between(1, 3);
    last.push_back(weight ? kernel : between(0, 2));
    const int64_t room = s[i + 2] + 2 * padding[i] - dilation[i] * (kernel - 1) - 1;
    other.push_back(weight ? room / stride[i] + 1 : kernel);
  }
  if (!weight) {
    other[0] = forward ? groups * between(1, 3) : s[1];
    other[1] = forward ? s[1] / std::max<int64_t>(1, groups) : between(1, 3);
  }
  for (const int64_t d : other)
    if (d < 0) return false;
  if (numel(other) > 2000) return false;
  const DType t = type(x).dtype;
  in = {x, input(t, other)};
  if (!weight) in.push_back(one_in(2) ? input(t, {forward ? other[0] : other[1] * groups}) : ops::Value{});
  words = {groups, static_cast<int64_t>(below(2))};
  for (const Dims* l : {&stride, &padding, &dilation, &last}) {
    if (forward && l == &last) break;
    words.push_back(axes);
    words.insert(words.end(), l->begin(), l->end());
  }
  return true;
}

Dims RandomValues::sizes(const ops::OpDef& op, const std::vector<int64_t>& words, const Dims& s) {
  if (op.id == ops::OpId::expand) return expanded(s);
  if (op.id == ops::OpId::interpolate) return Dims::filled(std::max(s.rank() - 2, 1), between(1, 5));
  if (op.id == ops::OpId::max_pool_backward) {  // what its windows fit
    const size_t each = words[1] != 0 ? 1 : 4, rank = static_cast<size_t>(words[2]) / each;
    Dims l;
    for (size_t i = 0; i < rank; ++i)
      l.push_back(words[1] != 0 || s.rank() < static_cast<int>(rank)
                      ? between(1, 9)
                      : s[s.rank() - static_cast<int>(rank - i)] * words[3 + i * each]);
    return l;
  }
  if (op.n_out == 1 || s.empty()) return reshaped(s);
  const int64_t axis = words[0];  // into parts
  int64_t left = s[static_cast<int>(axis < 0 ? axis + s.rank() : axis)];
  Dims l;
  for (int j = 1; j < op.n_out; ++j) {
    l.push_back(between(0, static_cast<int>(left)));
    left -= l.back();
  }
  l.push_back(left);
  return l;
}

Dims RandomValues::windows(const ops::OpDef& op, bool adaptive, const Dims& s) {
  const int rank = s.rank() > 2 && one_in(2) ? 2 : 1;
  const bool backward = ops::pools_backward(op.id);
  Dims list, in;
  for (int i = 0; i < rank; ++i) {
    const int64_t n = s.rank() >= rank ? s[s.rank() - rank + i] : 1, kernel = between(1, 3);
    if (adaptive) {
      list.push_back(backward ? n : between(1, 4));
      in.push_back(between(1, 9));
      continue;
    }
    const int64_t stride = backward ? kernel : between(1, 3),
                  padding = backward || kernel == 1 ? 0 : between(0, 1);
    for (const int64_t v : {kernel, stride, padding}) list.push_back(v);
    if (ops::pools_maxima(op.id)) list.push_back(backward ? 1 : between(1, 2));
    in.push_back(n * kernel);
  }
  const bool joined = backward && op.id != ops::OpId::max_pool_backward;
  for (int i = 0; joined && i < rank; ++i) list.push_back(in[i]);
  return list;
}

ops::Value RandomValues::places(const ops::OpDef& op, ops::Value v, const std::vector<int64_t>& words) {
  Dims s = type(v).sizes;
  const ops::Windows w = ops::windows_of(op, s, words);
  if (w.rank == 0 || s.rank() < w.rank + 1) return {};
  if (ops::pools_backward(op.id))
    for (int i = 0; i < w.rank; ++i) s[s.rank() - w.rank + i] = w.axis[ops::kMaxSpatial - w.rank + i].in;
  if (numel(s) > 4 * largest_) return {};
  std::vector<int64_t> of_pool = {words[0], words[1], one_in(2)};
  of_pool.insert(of_pool.end(), words.begin() + 2, words.begin() + 3 + words[2]);
  const ops::Value x = input(type(v).dtype, s);
  ops::Value out[2];
  try {
    emitter_.emit(ops::OpId::max_pool, std::vector<ops::Value>{x}, of_pool, out);
  } catch (const Error&) {
    return {};
  }
  return out[1];
}

}  // namespace tandem::test
