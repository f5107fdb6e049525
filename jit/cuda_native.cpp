#include "tandem/jit/cuda_native.h"

#include <string>
#include <vector>

#include "tandem/jit/cuda_native_text.h"
#include "tandem/jit/cuda_program.h"
#include "tandem/jit/own_kernel.h"
#include "tandem/jit/type_names.h"
#include "tandem/ops/axis_split.h"

namespace tandem::jit {

using cuda::Runtime;
using ops::AxisSplit;
using ops::OpId;
using ops::split_axis;
using ops::TensorType;

std::string native_head(const std::string& symbol, const std::string& fields) {
  return "struct td_args_" + symbol + " { " + fields + " td_i64 count; };\nextern \"C\" __global__ void " +
         symbol + "(td_args_" + symbol +
         " a) {\n"
         "  const td_i64 t = (td_i64)blockIdx.x * blockDim.x + threadIdx.x;\n"
         "  if (t >= a.count) return;\n";
}

std::string native_convert(DType from, DType to, const std::string& value) {
  return from == to ? value : std::string("td_") + c_suffix(from) + "_to_" + c_suffix(to) + "(" + value + ")";
}

DType native_sum_type(DType t) { return t == DType::float16 || t == DType::bfloat16 ? DType::float32 : t; }

namespace {

using Word = NativeWord;
using Launch = NativeText;

/// "x = x + v" for elements in memory.
std::string add_to(DType t, const std::string& x, const std::string& v) {
  const DType sum = native_sum_type(t);
  if (t == DType::bool_) return x + " = " + x + " || " + v + ";";
  return x + " = " +
         native_convert(sum, t,
                        "td_add(" + native_convert(t, sum, x) + ", " + native_convert(t, sum, v) + ")") +
         ";";
}

/// What a scatter does with element `v` of its source at element `x` of the result.
std::string change(bool adds, DType t, const std::string& v) {
  return adds ? add_to(t, "x", v) : "x = " + v + ";";
}

/// Runs of `run` elements, one every `from_step` and `to_step`.
Launch copy_runs(Word from, DType from_type, int64_t from_step, Word to, DType to_type, int64_t to_step,
                 int64_t outer, int64_t run) {
  Launch l;
  l.symbol = std::string("tandem_runs_") + c_suffix(from_type) + "_" + c_suffix(to_type);
  l.source = native_head(l.symbol, std::string("const ") + c_scalar(from_type) + "* from; " +
                                       c_scalar(to_type) + "* to; td_i64 from_step, to_step, run;") +
             "  const td_i64 o = t / a.run, r = t % a.run;\n  a.to[o * a.to_step + r] = " +
             native_convert(from_type, to_type, "a.from[o * a.from_step + r]") + ";\n}\n";
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
  l.source = native_head(l.symbol, std::string(c_scalar(type.dtype)) + "* to;") + "  a.to[t] = {};\n}\n";
  l.count = numel(type.sizes);
  l.words = {to};
  return l;
}

Launch copy(Word from, Word to, DType type, int64_t count) {
  return copy_runs(from, type, count, to, type, count, 1, count);
}

/// The result of a scatter before it: the first operand, or zeros where it has no memory.
Launch begin_scatter(const NativeCallPlan& c, Word base, Word out) {
  const TensorType& result = c.out_types[0];
  return c.in[0].base == Base::none ? fill(out, result) : copy(base, out, result.dtype, numel(result.sizes));
}

/// The indices are read by each warp, 32 at a time. A warp takes what falls into a segment of the axis, a
/// residue of the index modulo `segments`, in the order of the index; so each element is made by one warp,
/// and long indices cost a walk, not a chain of additions.
std::string scan_text(const std::string& from, const std::string& hit) {
  return "  const td_u32 all = 0xffffffffu, lane = threadIdx.x % 32;\n"
         "  for (td_i64 k = 0; k < a.n; k += 32) {\n"
         "    const bool has = k + lane < a.n;\n"
         "    const td_i64 at = has ? (td_i64)a.index[" +
         from +
         "] : 0;\n"
         "    const bool wrong = has && (at < 0 || at >= a.size);\n"
         "    if (wrong) *a.error = 2;\n"
         "    if (__any_sync(all, wrong)) return;\n"
         "    td_u32 hits = __ballot_sync(all, has && (at & (a.segments - 1)) == segment);\n"
         "    while (hits != 0) {\n"
         "      const int j = __ffs((int)hits) - 1;\n"
         "      hits &= hits - 1;\n" +
         hit + "    }\n  }\n}\n";
}

/// So many segments that `warps` of them, or rather fewer, keep a card busy; a power of 2.
int64_t segments_for(int64_t warps, int64_t size, int64_t n) {
  constexpr int64_t kWarps = 8192, kFewest = 16;  // indices worth a segment
  int64_t segments = 1;
  while (2 * segments * warps <= kWarps && segments < size && 2 * segments * kFewest <= n) segments *= 2;
  return segments;
}

/// index_add and index_copy: 32 positions beside the axis for each warp.
Launch along_index(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const AxisSplit to = split_axis(c.out_types[0].sizes, c.words[0]);
  const int64_t n = c.in_types[1].sizes[0], positions = to.outer * to.inner, warps = (positions + 31) / 32;
  Launch l;
  const bool adds = c.op->id == OpId::index_add;
  l.symbol = std::string("tandem_") + c.op->name + "_" + c_suffix(type) + "_" + c_suffix(index_type);
  l.source =
      native_head(l.symbol,
                  std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) + "* index; const " +
                      c_scalar(type) +
                      "* added; td_i64 size, inner, n; td_i64* error; td_i64 positions, segments;") +
      "  const td_i64 warp = t / 32, segment = warp & (a.segments - 1);\n"
      "  const td_i64 position = warp / a.segments * 32 + threadIdx.x % 32;\n"
      "  const td_i64 o = position / a.inner, i = position % a.inner;\n" +
      scan_text("k + lane",
                "      const td_i64 row = __shfl_sync(all, at, j);\n"
                "      if (position >= a.positions) continue;\n"
                "      " +
                    std::string(c_scalar(type)) + "& x = a.to[(o * a.size + row) * a.inner + i];\n      " +
                    change(adds, type, "a.added[(o * a.n + k + j) * a.inner + i]") + "\n");
  const int64_t segments = segments_for(warps, to.size, n);
  l.count = warps * segments * 32;
  l.words = {out, index, added, to.size, to.inner, n, error, positions, segments};
  return l;
}

/// scatter_add and scatter: a line of the index along the axis (all that can meet at one element of the
/// result) for a thread, or,
/// where there are few and long ones, for a warp of each segment.
Launch at_index(const NativeCallPlan& c, Word index, Word added, Word out, Word error) {
  const DType type = c.out_types[0].dtype, index_type = c.in_types[1].dtype;
  const Dims &sizes = c.out_types[0].sizes, &from = c.in_types[1].sizes;
  const int rank = from.rank(), axis = normalize_axis(c.words[0], rank, c.op->name);
  const Dims to_strides = contiguous_strides(sizes), from_strides = contiguous_strides(from);
  int64_t lines = 1;
  for (int d = 0; d < rank; ++d)
    if (d != axis) lines *= from[d];
  const int64_t segments = segments_for(lines, sizes[axis], from[axis]);
  const bool is_long = segments > 1;
  Launch l;
  l.symbol = std::string("tandem_") + c.op->name + (is_long ? "_long_" : "_") + c_suffix(type) + "_" +
             c_suffix(index_type) + "_" + std::to_string(rank) + "_" + std::to_string(axis);
  std::string fields = std::string(c_scalar(type)) + "* to; const " + c_scalar(index_type) +
                       "* index; const " + c_scalar(type) +
                       "* added; td_i64* error; td_i64 size, n, segments";
  std::string text = is_long ? "  const td_i64 warp = t / 32, segment = warp & (a.segments - 1);\n"
                               "  td_i64 rest = warp / a.segments, to = 0, from = 0;\n"
                             : "  td_i64 rest = t, to = 0, from = 0;\n";
  l.words = {out, index, added, error, sizes[axis], from[axis], segments};
  for (int d = 0; d < rank; ++d) {
    const std::string n = std::to_string(d);
    fields += ", d" + n + ", t" + n + ", f" + n;
    l.words.insert(l.words.end(), {from[d], to_strides[d], from_strides[d]});
  }
  for (int d = rank - 1; d >= 0; --d) {
    if (d == axis) continue;
    const std::string n = std::to_string(d);
    text += "  to += rest % a.d" + n + " * a.t" + n + "; from += rest % a.d" + n + " * a.f" + n +
            "; rest /= a.d" + n + ";\n";
  }
  const bool adds = c.op->id == OpId::scatter_add;
  const std::string n = std::to_string(axis), element = std::string(c_scalar(type)) + "& x = a.to[to + ";
  if (is_long) {
    text += scan_text("from + (k + lane) * a.f" + n,
                      "      if (lane == (td_u32)j) {\n        " + element + "at * a.t" + n + "];\n        " +
                          change(adds, type, "a.added[from + (k + j) * a.f" + n + "]") +
                          "\n      }\n      __syncwarp();  // the next may add to the same\n");
  } else {
    text += "  for (td_i64 k = 0; k < a.n; ++k, from += a.f" + n +
            ") {\n    const td_i64 at = a.index[from];\n"
            "    if (at < 0 || at >= a.size) { *a.error = 2; return; }\n    " +
            element + "at * a.t" + n + "];\n    " + change(adds, type, "a.added[from]") + "\n  }\n}\n";
  }
  l.source = native_head(l.symbol, fields + ";") + text;
  l.count = from[axis] == 0 ? 0 : is_long ? lines * segments * 32 : lines;
  return l;
}

/// One thread an element, which counts those before it in the order: all that are below it, and equal ones in
/// front of it.
Launch argsort(const NativeCallPlan& c, Word in, Word out) {
  const DType type = c.in_types[0].dtype, wide = native_sum_type(type);
  const AxisSplit s = split_axis(c.in_types[0].sizes, c.words[0]);
  const bool descending = c.words[1] != 0;
  Launch l;
  l.symbol = std::string("tandem_argsort_") + c_suffix(type) + (descending ? "_down" : "_up");
  const std::string less = descending ? "(y > x || (y != y && x == x))" : "(y < x || (y == y && x != x))";
  l.source =
      native_head(l.symbol,
                  std::string("const ") + c_scalar(type) + "* from; td_i64* to; td_i64 size, inner;") +
      "  const td_i64 line = t / a.size, k = t % a.size, first = line / a.inner * a.size * a.inner + line % "
      "a.inner;\n"
      "  const " +
      c_scalar(wide) + " x = " + native_convert(type, wide, "a.from[first + k * a.inner]") +
      ";\n  td_i64 place = 0;\n  for (td_i64 j = 0; j < a.size; ++j) {\n    const " + c_scalar(wide) +
      " y = " + native_convert(type, wide, "a.from[first + j * a.inner]") +
      ";\n    const bool same = x == y || (x != x && y != y);\n    place += " + less +
      " || (same && j < k);\n  }\n  a.to[first + place * a.inner] = k;\n}\n";
  l.count = s.outer * s.size * s.inner;
  l.words = {in, out, s.size, s.inner};
  return l;
}

/// One thread a line, or, where there are few and long ones, a block: sums of floats in double, in blocks of
/// kScanBlock elements as on the CPU.
Launch cumsum(const NativeCallPlan& c, Word in, Word out) {
  constexpr int64_t kFewLines = 2048, kLong = 16 * ops::kScanBlock, kThreads = 256;
  const DType from = c.in_types[0].dtype, to = c.out_types[0].dtype;
  const AxisSplit s = split_axis(c.in_types[0].sizes, c.words[0]);
  const int64_t lines = s.size == 0 ? 0 : s.outer * s.inner;
  const bool is_long = lines < kFewLines && s.size > kLong;
  const std::string sum = c_scalar(is_floating(from) ? DType::float64 : DType::int64),
                    block = std::to_string(ops::kScanBlock), threads = std::to_string(kThreads);
  const std::string place =
      "const td_i64 i = first + (a.reverse ? a.size - 1 - k : k) * a.inner;\n"
      "    sum = td_add(sum, " +
      native_convert(from, is_floating(from) ? DType::float64 : DType::int64, "a.from[i]") + ");\n";
  const std::string store =
      "    a.to[i] = " +
      native_convert(is_floating(from) ? DType::float64 : DType::int64, to, "td_add(before, sum)") + ";\n";
  Launch l;
  l.symbol = std::string("tandem_cumsum_") + (is_long ? "long_" : "") + c_suffix(from) + "_" + c_suffix(to);
  l.source = native_head(l.symbol, std::string("const ") + c_scalar(from) + "* from; " + c_scalar(to) +
                                       "* to; td_i64 size, inner, reverse;") +
             "  const td_i64 line = " + (is_long ? "blockIdx.x" : "t") +
             ", first = line / a.inner * a.size * a.inner + line % a.inner;\n";
  if (is_long) {
    l.source += "  __shared__ " + sum + " sums[" + threads + "];\n  " + sum +
                " total = 0;\n"
                "  for (td_i64 tile = 0; tile < a.size; tile += " +
                threads + " * " + block +
                ") {\n"
                "    const td_i64 begin = tile + threadIdx.x * " +
                block + ", end = td_least(begin + " + block + ", a.size);\n    " + sum +
                " sum = 0;\n"
                "    for (td_i64 k = begin; k < end; ++k) {\n    " +
                place +
                "    }\n"
                "    sums[threadIdx.x] = sum;\n"
                "    __syncthreads();\n    " +
                sum +
                " before = 0;\n"
                "    for (int w = 0; w < " +
                threads +
                "; ++w) {\n"
                "      if (w == (int)threadIdx.x) before = total;\n"
                "      total = td_add(total, sums[w]);\n"
                "    }\n"
                "    __syncthreads();\n"
                "    sum = 0;\n"
                "    for (td_i64 k = begin; k < end; ++k) {\n    " +
                place + store + "    }\n  }\n}\n";
  } else {
    l.source += "  " + sum + " before = 0, sum = 0;\n  for (td_i64 k = 0; k < a.size; ++k) {\n    if (k % " +
                block + " == 0) before = td_add(before, sum), sum = 0;\n    " + place + store + "  }\n}\n";
  }
  l.count = is_long ? lines * kThreads : lines;
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
    case OpId::index_copy:
      all.push_back(begin_scatter(c, in(0), out));
      all.push_back(along_index(c, in(1), in(2), out, error));
      return all;
    case OpId::scatter_add:
    case OpId::scatter:
      all.push_back(begin_scatter(c, in(0), out));
      all.push_back(at_index(c, in(1), in(2), out, error));
      return all;
    case OpId::argsort:
      all.push_back(argsort(c, in(0), out));
      return all;
    case OpId::cumsum:
      all.push_back(cumsum(c, in(0), out));
      return all;
    case OpId::convolution:
    case OpId::convolution_input:
    case OpId::convolution_weight:
      all.push_back(convolution_text(c));
      return all;
    case OpId::max_pool:
    case OpId::max_pool_backward:
    case OpId::max_pool_pick:
      all.push_back(max_pool_text(c));
      return all;
    case OpId::avg_pool:
    case OpId::avg_pool_backward:
      all.push_back(avg_pool_text(c));
      return all;
    default:
      internal_error(std::string("no CUDA kernel for the native op ") + c.op->name);
  }
}

}  // namespace

NativeLaunch cuda_copy(Runtime& device, DType dtype, int64_t count) {
  const Launch l = copy({NativeWord::kInput, 0}, {NativeWord::kOut, 0}, dtype, count);
  NativeLaunch out{cuda_function(device, l.symbol, l.source), l.words, l.count, {}};
  out.words.push_back(l.count);
  return out;
}

std::vector<NativeLaunch> cuda_native(Runtime& device, const NativeCallPlan& call) {
  if (const ops::KernelDef* own = ops::user_kernel(call.op->id)) {
    OwnKernel k = own_kernel(call, *own);
    if (k.count == 0) return {};
    NativeLaunch l{cuda_function(device, k.symbol, k.source, "the kernel \"" + own->name + "\""),
                   std::move(k.words), k.count, k.chosen};
    return {std::move(l)};
  }
  std::vector<NativeLaunch> out;
  for (Launch& l : launches_of(call)) {
    if (l.count == 0) continue;
    l.words.push_back(l.count);
    out.push_back({cuda_function(device, l.symbol, l.source), std::move(l.words), l.count, {}});
  }
  return out;
}

}  // namespace tandem::jit
