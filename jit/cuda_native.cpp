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

/// The result of a scatter before it: the first operand, or zeros where it has no memory; nothing in its own.
Launch begin_scatter(const NativeCallPlan& c, Word base, Word out) {
  if (c.in[0] == c.out[0]) return {};
  const TensorType& result = c.out_types[0];
  return c.in[0].base == Base::none ? fill(out, result) : copy(base, out, result.dtype, numel(result.sizes));
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
  const Word out{NativeWord::kOut, 0};
  const TensorType& result = c.out_types[0];
  std::vector<Launch> all;
  switch (c.op->id) {
    case OpId::cat: {
      const AxisSplit to = split_axis(result.sizes, c.words[0]);
      int64_t start = 0;
      for (size_t i = 0; i < c.in.size(); ++i) {
        const AxisSplit from = split_axis(c.in_types[i].sizes, c.words[0]);
        const int64_t run = from.size * from.inner;
        Address place = c.out[0];
        place.offset += start * to.inner * itemsize(result.dtype);
        if (!(c.in[i] == place))  // else it is there
          all.push_back(copy_runs(in(i), c.in_types[i].dtype, c.steps.empty() ? run : c.steps[i],
                                  element(out, start * to.inner, result.dtype), result.dtype,
                                  to.size * to.inner, to.outer, run));
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
    case OpId::scatter_add:
    case OpId::scatter:
      all.push_back(begin_scatter(c, in(0), out));
      for (Launch& l : scatter_texts(c)) all.push_back(std::move(l));
      return all;
    case OpId::argsort:
      return argsort_texts(c);
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
  std::vector<Launch> all = launches_of(call);
  std::erase_if(all, [](const Launch& l) { return l.count == 0; });
  std::vector<CudaText> texts;
  for (Launch& l : all) texts.push_back({l.symbol, std::move(l.source)});
  const std::vector<cuda::Function> functions = cuda_functions(device, texts);
  std::vector<NativeLaunch> out;
  for (size_t i = 0; i < all.size(); ++i) {
    Launch& l = all[i];
    l.words.push_back(l.count);
    out.push_back({functions[i], std::move(l.words), l.count, {}, l.workspace_bytes});
  }
  return out;
}

}  // namespace tandem::jit
