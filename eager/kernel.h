// A program's own kernels: CUDA text with its plain C++ twin, called like any function on tensors. On the CPU
// the twin runs, on CUDA the text; in a traced call the kernel is a node of the graph. Any thread.
//
//   const td::Kernel scale_rows({
//       .name = "scale_rows",
//       .inputs = {"x", "w"},                    // x (N, D), w (N)
//       .outputs = {"y"},
//       .cuda = "y[thread] = x[thread] * w[thread / x_sizes[1]];",
//       .cpu = [](const td::KernelCall& k) {
//         const auto *x = k.input<float>(0), *w = k.input<float>(1);
//         const int64_t columns = k.in_sizes(0)[1], n = columns * k.in_sizes(0)[0];
//         for (int64_t i = 0; i < n; ++i) k.output<float>()[i] = x[i] * w[i / columns];
//       },
//   });
//   td::Tensor y = scale_rows(x, w);
#pragma once

#include "tandem/eager/autograd.h"
#include "tandem/ops/user_ops.h"

namespace tandem {

/// Dtype and sizes of an operand or a result.
using ops::TensorType;
/// What a twin sees: `input<T>(i)`, `output<T>(j)`, `in_sizes(i)`, `out_sizes(j)`, `in_types`, `out_types`.
/// Memory is row-major and without gaps.
using KernelCall = ops::NativeCall;
using ops::KernelDef;
using ops::KernelLaunch;

/// An op of `def.inputs` operands and `def.outputs` results, made from:
///
///   name      for messages
///   inputs, outputs   names in the text (identifiers); up to 16 inputs and 4 outputs
///   cuda      the body of a __global__ function. It sees, for each operand and result NAME, the pointer NAME
///             (float*, double*, int*, long long*, unsigned char*, bool*; halves as their bits, unsigned
///             short*), its sizes NAME_sizes[] and its number of elements NAME_count; `count`, the elements
///             of the first result; `thread`, the index of this thread over all blocks. May be empty: then
///             the kernel runs on the CPU alone.
///   header    what stands before the function: helpers, marked __device__
///   cpu       the twin: a function (or a lambda without captures) that fills the results. It runs on the
///             calling thread, in a traced call when the segment ends. It may `td::fail`, which names the
///             kernel and the call's line; a traced call then leaves what eager mode leaves, for which the
///             twin may run once more, a frozen one changes nothing.
///   infer     the results' types from the operands'; without it each is that of operand 0. It may
///             `td::fail`. It must depend on its argument alone, as must `launch`.
///   launch    blocks, threads and shared memory, from the types of operands and results; without it one
///             thread for each element of the first result, in blocks of 256, and no more: threads beyond
///             `count` do not enter the text.
///
/// The text is compiled by NVRTC when it is first needed, without contraction (--fmad=false); it must compute
/// what the twin does. A kernel has no gradient: operands that require grad are an Error while gradients are
/// noted; give it one with an autograd::Function around it. A traced function that calls a kernel can be
/// frozen, but not saved.
class Kernel {
 public:
  explicit Kernel(KernelDef def, Location where = Location::here());

  /// Of one result. A number becomes a tensor of rank 0: float64, int64 (exact) or bool.
  Tensor operator()(const Operand& a) const { return one({&a}); }
  Tensor operator()(const Operand& a, const Operand& b) const { return one({&a, &b}); }
  Tensor operator()(const Operand& a, const Operand& b, const Operand& c) const { return one({&a, &b, &c}); }
  Tensor operator()(const Operand& a, const Operand& b, const Operand& c, const Operand& d) const {
    return one({&a, &b, &c, &d});
  }
  /// Of any number of operands and results.
  TensorList call(const TensorList& operands, Location where = Location::here()) const;

 private:
  Tensor one(std::initializer_list<const Operand*> operands) const;
  ops::OpId op_;
};

}  // namespace tandem
