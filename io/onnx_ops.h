// From a graph to an ONNX model: the rows of onnx.def, and what becomes of ops without one. Composites
// without a row are replaced by their bodies, pointwise ops by the nodes of their formulas; what has neither
// is an Error with the program's line. Free functions; any thread.
#pragma once

#include "tandem/io/onnx_call.h"

namespace tandem::io {

/// Appends the graph's nodes. `inputs`: values of the model for Graph::inputs; `numbers`: for its run-time
/// numbers. Returns the values of Graph::outputs; writes are the caller's business.
std::vector<OnnxValue> add_graph(OnnxModel& m, const jit::Graph& g, const std::vector<OnnxValue>& inputs,
                                 const std::vector<OnnxNumber>& numbers);

/// One row an op in onnx.def.
struct OnnxRow {
  ops::OpId op;
  /// Null: always. Else an op that this refuses is treated as one without a row.
  bool (*takes)(const jit::Graph& g, const jit::Node& n);
  void (*convert)(OnnxCall& c);
  const char* text;  // ONNX's operator, where the function serves several
};
/// Null if there is none.
const OnnxRow* find_onnx_row(ops::OpId op);

/// Conversions named in onnx.def.
namespace onnx_row {
#define TANDEM_ONNX(op, takes, convert, text) void convert(OnnxCall& c);
#include "tandem/io/onnx.def"
#undef TANDEM_ONNX
/// Any pointwise op.
void formula(OnnxCall& c);

// What rows ask of the operands.
inline constexpr bool (*always)(const jit::Graph&, const jit::Node&) = nullptr;
/// Floating operands, all of one type that is not float64, whose attributes ONNX keeps in float32.
bool narrow(const jit::Graph& g, const jit::Node& n);
}  // namespace onnx_row

}  // namespace tandem::io
