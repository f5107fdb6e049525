#include "tandem/jit/cuda_native.h"

#include <string>
#include <vector>

#include "tandem/jit/cuda_program.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using cuda::Runtime;
using ops::AxisSplit;
using ops::OpId;
using ops::split_axis;
using ops::TensorType;

namespace {

using Word = NativeWord;

/// One launch over `count` threads; `words` are the parameters, all of 8 bytes, but for the count at the end.
struct Launch {
  std::string symbol, source;
  std::vector<Word> words;
  int64_t count = 0;
};

std::string head(const std::string& symbol, const std::string& fields) {
  return "struct td_args_" + symbol + " { " + fields + " td_i64 count; };\nextern \"C\" __global__ void " +
         symbol + "(td_args_" + symbol +
         " a) {\n"
         "  const td_i64 t = (td_i64)blockIdx.x * blockDim.x + threadIdx.x;\n"
         "  if (t >= a.count) return;\n";
}

std::string convert(DType from, DType to, const std::string& value) {
  return from == to ? value : std::string("td_") + c_suffix(from) + "_to_" + c_suffix(to) + "(" + value + ")";
}

/// What a sum of elements of this type is built in.
DType sum_type(DType t) { return t == DType::float16 || t == DType::bfloat16 ? DType::float32 : t; }

/// "x = x + v" for elements in memory.
std::string add_to(DType t, const std::string& x, const std::string& v) {
  const DType sum = sum_type(t);
  if (t == DType::bool_) return x + " = " + x + " || " + v + ";";
  return x + " = " + convert(sum, t, "td_add(" + convert(t, sum, x) + ", " + convert(t, sum, v) + ")") + ";";
}

/// Runs of `run` elements, one every `from_step` and `to_step`.
Launch copy_runs(Word from, DType from_type, int64_t from_step, Word to, DType to_type, int64_t to_step,
                 int64_t outer, int64_t run) {
  Launch l;
  l.symbol = std::string("tandem_runs_") + c_suffix(from_type) + "_" + c_suffix(to_type);
  l.source = head(l.symbol, std::string("const ") + c_scalar(from_type) + "* from; " + c_scalar(to_type) +
                                "* to; td_i64 from_step, to_step, run;") +
             "  const td_i64 o = t / a.run, r = t % a.run;\n  a.to[o * a.to_step + r] = " +
             convert(from_type, to_type, "a.from[o * a.from_step + r]") + ";\n}\n";
  l.count = outer * run;
  l.words = {from, to, from_step, to_step, run};
  return l;
}

Word element(Word base, int64_t index, DType type) {
  base.value += index * itemsize(type);
  return base;
}

/// All bits 0.
Launch fill(Word to, const TensorType& type) {
  Launch l;
  l.symbol = std::string("tandem_fill_") + c_suffix(type.dtype);
  l.source = head(l.symbol, std::string(c_scalar(type.dtype)) + "* to;") + "  a.to[t] = {};\n}\n";
  l.count = numel(type.sizes);
  l.words = {to};
  return l;
}

Launch copy(Word from, Word to, DType type, int64_t count) {
  return copy_runs(from, type, count, to, type, count, 1, count);
}

/// One thread a position beside the axis.
Launch index_add(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const AxisSplit to = split_axis(c.out_types[0].sizes, c.words[0]);
  Launch l;
  l.symbol = std::string("tandem_index_add_") + c_suffix(type) + "_" + c_suffix(index_type);
  l.source =
      head(l.symbol, std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) + "* index; const " +
                         c_scalar(type) + "* added; td_i64 size, inner, n; td_i64* error;") +
      "  const td_i64 o = t / a.inner, i = t % a.inner;\n"
      "  for (td_i64 k = 0; k < a.n; ++k) {\n"
      "    const td_i64 at = a.index[k];\n"
      "    if (at < 0 || at >= a.size) { *a.error = 2; return; }\n"
      "    " +
      std::string(c_scalar(type)) + "& x = a.to[(o * a.size + at) * a.inner + i];\n    " +
      add_to(type, "x", "a.added[(o * a.n + k) * a.inner + i]") + "\n  }\n}\n";
  l.count = to.outer * to.inner;
  l.words = {out, index, added, to.size, to.inner, c.in_types[1].sizes[0], error};
  return l;
}

/// One thread a line of the index along the axis: all that can meet at one element of the result.
Launch scatter_add(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const Dims &sizes = c.out_types[0].sizes, &from = c.in_types[1].sizes;
  const int rank = from.rank(), axis = normalize_axis(c.words[0], rank, "scatter_add");
  const Dims to_strides = contiguous_strides(sizes), from_strides = contiguous_strides(from);
  Launch l;
  l.symbol = std::string("tandem_scatter_add_") + c_suffix(type) + "_" + c_suffix(index_type) + "_" +
             std::to_string(rank) + "_" + std::to_string(axis);
  std::string fields = std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) +
                       "* index; const " + c_scalar(type) + "* added; td_i64* error; td_i64 size, n";
  std::string text = "  td_i64 rest = t, to = 0, from = 0;\n";
  l.count = 1;
  l.words = {out, index, added, error, sizes[axis], from[axis]};
  for (int d = 0; d < rank; ++d) {
    const std::string n = std::to_string(d);
    fields += ", d" + n + ", t" + n + ", f" + n;
    l.words.insert(l.words.end(), {from[d], to_strides[d], from_strides[d]});
    if (d != axis) l.count *= from[d];
  }
  for (int d = rank - 1; d >= 0; --d) {
    if (d == axis) continue;
    const std::string n = std::to_string(d);
    text += "  to += rest % a.d" + n + " * a.t" + n + "; from += rest % a.d" + n + " * a.f" + n +
            "; rest /= a.d" + n + ";\n";
  }
  const std::string n = std::to_string(axis);
  l.source = head(l.symbol, fields + ";") + text + "  for (td_i64 k = 0; k < a.n; ++k, from += a.f" + n +
             ") {\n    const td_i64 at = a.index[from];\n"
             "    if (at < 0 || at >= a.size) { *a.error = 2; return; }\n    " +
             c_scalar(type) + "& x = a.to[to + at * a.t" + n + "];\n    " +
             add_to(type, "x", "a.added[from]") + "\n  }\n}\n";
  if (from[axis] == 0) l.count = 0;
  return l;
}

/// One thread a line; sums of floats in double.
Launch cumsum(const NativeCallPlan& c, Word in, Word out) {
  const DType from = c.in_types[0].dtype, to = c.out_types[0].dtype;
  const AxisSplit s = split_axis(c.in_types[0].sizes, c.words[0]);
  const DType sum = is_floating(from) ? DType::float64 : DType::int64;
  Launch l;
  l.symbol = std::string("tandem_cumsum_") + c_suffix(from) + "_" + c_suffix(to);
  l.source = head(l.symbol, std::string("const ") + c_scalar(from) + "* from; " + c_scalar(to) +
                                "* to; td_i64 size, inner, reverse;") +
             "  const td_i64 first = t / a.inner * a.size * a.inner + t % a.inner;\n  " + c_scalar(sum) +
             " sum = 0;\n  for (td_i64 k = 0; k < a.size; ++k) {\n"
             "    const td_i64 i = first + (a.reverse ? a.size - 1 - k : k) * a.inner;\n"
             "    sum = td_add(sum, " +
             convert(from, sum, "a.from[i]") + ");\n    a.to[i] = " + convert(sum, to, "sum") + ";\n  }\n}\n";
  l.count = s.size == 0 ? 0 : s.outer * s.inner;
  l.words = {in, out, s.size, s.inner, c.words[1]};
  return l;
}

std::vector<Launch> launches_of(const NativeCallPlan& c) {
  const auto in = [](size_t i) { return Word{NativeWord::kInput + static_cast<int32_t>(i), 0}; };
  const Word out{NativeWord::kOut, 0}, error{NativeWord::kError, 0};
  const TensorType& result = c.out_types[0];
  std::vector<Launch> all;
  switch (c.op->id) {
    case OpId::cat: {
      const AxisSplit to = split_axis(result.sizes, c.words[0]);
      int64_t start = 0;
      for (size_t i = 0; i < c.in.size(); ++i) {
        const AxisSplit from = split_axis(c.in_types[i].sizes, c.words[0]);
        const int64_t run = from.size * from.inner;
        all.push_back(copy_runs(in(i), c.in_types[i].dtype, run, element(out, start * to.inner, result.dtype),
                                result.dtype, to.size * to.inner, to.outer, run));
        start += from.size;
      }
      return all;
    }
    case OpId::pad: {
      const AxisSplit from = split_axis(c.in_types[0].sizes, c.words[0]),
                      to = split_axis(result.sizes, c.words[0]);
      all.push_back(fill(out, result));
      all.push_back(copy_runs(in(0), result.dtype, from.size * from.inner,
                              element(out, c.words[1] * to.inner, result.dtype), result.dtype,
                              to.size * to.inner, to.outer, from.size * from.inner));
      return all;
    }
    case OpId::index_add:
      all.push_back(copy(in(0), out, result.dtype, numel(result.sizes)));
      all.push_back(index_add(c, in(1), in(2), out, error));
      return all;
    case OpId::scatter_add:
      all.push_back(copy(in(0), out, result.dtype, numel(result.sizes)));
      all.push_back(scatter_add(c, in(1), in(2), out, error));
      return all;
    case OpId::cumsum:
      all.push_back(cumsum(c, in(0), out));
      return all;
    default:
      internal_error(std::string("no CUDA kernel for the native op ") + c.op->name);
  }
}

}  // namespace

NativeLaunch cuda_copy(Runtime& device, DType dtype, int64_t count) {
  const Launch l = copy({NativeWord::kInput, 0}, {NativeWord::kOut, 0}, dtype, count);
  NativeLaunch out{cuda_function(device, l.symbol, l.source), l.words, l.count};
  out.words.push_back(l.count);
  return out;
}

std::vector<NativeLaunch> cuda_native(Runtime& device, const NativeCallPlan& call) {
  std::vector<NativeLaunch> out;
  for (Launch& l : launches_of(call)) {
    if (l.count == 0) continue;
    l.words.push_back(l.count);
    out.push_back({cuda_function(device, l.symbol, l.source), std::move(l.words), l.count});
  }
  return out;
}

}  // namespace tandem::jit
