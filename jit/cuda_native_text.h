// The text of hand-written kernels of native ops (cuda_native.cpp, cuda_scatter.cpp,
// cuda_sorted_scatter.cpp, cuda_sort.cpp, cuda_argsort.cpp, cuda_convolution.cpp, cuda_pool.cpp), in the
// dialect of the printed ones. Values only, any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/cuda_native.h"

namespace tandem::jit {

/// One launch over `count` threads; `words` are the parameters, all of 8 bytes, but for the count at the end.
struct NativeText {
  std::string symbol, source;
  std::vector<NativeWord> words;
  int64_t count = 0;
  int64_t workspace_bytes = 0;
};

/// The parameters `a.field` and the head of a kernel, whose threads are numbered by `t`.
std::string native_head(const std::string& symbol, const std::string& fields);
/// `value` of type `from` as type `to`.
std::string native_convert(DType from, DType to, const std::string& value);
/// What a sum of elements of this type is built in.
DType native_sum_type(DType t);
/// What a scatter does with element `v` of its source at element `x` of the result.
std::string native_change(bool adds, DType t, const std::string& v);

/// index_add, index_copy, scatter_add and scatter behind what their results begin with (cuda_scatter.cpp).
std::vector<NativeText> scatter_texts(const NativeCallPlan& c);
/// argsort (cuda_argsort.cpp).
std::vector<NativeText> argsort_texts(const NativeCallPlan& c);
/// A convolution in any direction (cuda_convolution.cpp): a thread an element of the result, in the order of
/// the CPU's plain loops. Where a library takes the call, it does so before.
NativeText convolution_text(const NativeCallPlan& c);
/// Pooling (cuda_pool.cpp): a thread an element of the result; the CPU's order of additions.
NativeText max_pool_text(const NativeCallPlan& c);
NativeText avg_pool_text(const NativeCallPlan& c);

}  // namespace tandem::jit
