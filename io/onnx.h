// ONNX files (onnx.ai) of frozen functions, to be run by ONNX Runtime and others, or looked at with Netron:
// IR version 8, operators of version 17. What is exported is inference: a function of its arguments and of
// captured tensors, which become the model's initializers. Sizes are those of the frozen signature. Nothing
// but Tandem is needed to write one. Any thread; calls of one function take turns.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tandem/tracer/trace.h"

namespace tandem::onnx {

struct SaveOptions {
  /// Names for captured tensors, such as `net.state()`; others are "slot0", "slot1", ...
  std::vector<NamedTensor> names = {};
  /// Names for arguments and results in the order in which they are taken apart; empty: "arg0", "arg1", ...
  /// and "output0", ...
  std::vector<std::string> inputs = {}, outputs = {};
  /// Which of the frozen signatures, in the order of freezing; needed where there are several.
  std::optional<int64_t> signature = {};
};

/// Writes one signature of `f` to `path`, which is replaced in one step. Layers that ONNX has operators for
/// are these (Conv, BatchNormalization, MaxPool, LayerNormalization, Softmax, Gemm, ...), other ops are made
/// of several. Results agree with Tandem's up to rounding. Left to who runs the file are indices out of range
/// (an Error in Tandem), floating values that do not fit into the integer type that they are cast to,
/// integers that overflow, and what choosing ops make of NaN. An Error, with the line of the op where there
/// is one: for ops that have no form in ONNX (docs/status.md), random numbers, gradients, in-place changes of
/// captured tensors or arguments, kernels of the program's own, two arguments that share memory. The weights
/// of a model of more than 2 GiB lie in `<path>.data`.
void save(const std::string& path, const FrozenFunction& f, const SaveOptions& options = {},
          Location where = Location::here());

/// Freezes `f` first (TracedFunction::freeze: after two calls that did the same).
template <class F>
void save(const std::string& path, const TracedFunction<F>& f, const SaveOptions& options = {},
          Location where = Location::here()) {
  save(path, f.freeze(where), options, where);
}

}  // namespace tandem::onnx
