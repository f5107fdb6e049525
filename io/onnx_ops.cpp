#include "tandem/io/onnx_ops.h"

#include <array>

#include "tandem/core/error.h"
#include "tandem/jit/expand.h"

namespace tandem::io {

namespace {

constexpr OnnxRow kRows[] = {
#define TANDEM_ONNX(op, takes, convert, text) {ops::OpId::op, onnx_row::takes, onnx_row::convert, text},
#include "tandem/io/onnx.def"
#undef TANDEM_ONNX
};

/// Rows by op.
const auto& rows() {
  static const auto table = [] {
    std::array<const OnnxRow*, ops::kOpCount> t{};
    for (const OnnxRow& r : kRows) t[static_cast<size_t>(r.op)] = &r;
    return t;
  }();
  return table;
}

bool takes(const jit::Graph& g, const jit::Node& n) {
  const OnnxRow* row = find_onnx_row(n.op);
  return row && (!row->takes || row->takes(g, n));
}

class Converter {
 public:
  Converter(OnnxModel& m, const jit::Graph& g, const std::vector<OnnxValue>& inputs,
            const std::vector<OnnxNumber>& numbers)
      : m_(m), g_(g), inputs_(inputs), numbers_(numbers) {}

  std::vector<OnnxValue> run() {
    values_.tensors.resize(g_.values.size());
    const std::vector<char> needed = this->needed();
    for (size_t i = 0; i < g_.nodes.size(); ++i)
      if (needed[i]) node(g_.nodes[i]);
    std::vector<OnnxValue> out;
    for (const int32_t v : g_.outputs) out.push_back(values_.tensors[static_cast<size_t>(v)]);
    return out;
  }

 private:
  /// Nodes that an output needs: what was only expanded is not refused.
  std::vector<char> needed() const {
    std::vector<char> values(g_.values.size(), 0), nodes(g_.nodes.size(), 0);
    for (const int32_t v : g_.outputs) values[static_cast<size_t>(v)] = 1;
    for (size_t i = g_.nodes.size(); i-- > 0;) {
      for (const int32_t v : g_.nodes[i].out) nodes[i] |= values[static_cast<size_t>(v)];
      for (const int32_t v : g_.nodes[i].in)
        if (nodes[i] && v >= 0) values[static_cast<size_t>(v)] = 1;
    }
    return nodes;
  }

  /// Results without elements are constants: runtimes differ in how operators treat an axis of 0.
  bool empty(const jit::Node& n) {
    for (const int32_t v : n.out)
      if (numel(g_.type(v).sizes) != 0) return false;
    for (const int32_t v : n.out)
      values_.tensors[static_cast<size_t>(v)] = m_.constant({g_.type(v).dtype, g_.type(v).sizes}, {});
    return true;
  }

  void node(const jit::Node& n) {
    const int32_t out = n.out[0];
    switch (n.leaf) {
      case jit::Leaf::input:
        values_.tensors[static_cast<size_t>(out)] = inputs_[static_cast<size_t>(n.index)];
        return;
      case jit::Leaf::number:
        values_.numbers[out] = numbers_[static_cast<size_t>(n.index)];
        return;
      case jit::Leaf::constant:
        values_.numbers[out] = {DType::float64, n.bits};
        return;
      case jit::Leaf::count: {
        double count = 1;
        for (const int64_t a : n.words)
          count *= static_cast<double>(g_.type(n.in[0]).sizes[static_cast<int>(a)]);
        values_.numbers[out] = OnnxNumber::of(count);
        return;
      }
      case jit::Leaf::number_op: {
        double in[2] = {};
        for (size_t i = 0; i < n.in.size(); ++i) in[i] = values_.numbers.at(n.in[i]).floating();
        const double y = ops::number_arithmetic(static_cast<ops::ScalarOp>(n.words[0]), in[0], in[1]);
        values_.numbers[out] = OnnxNumber::of(y);
        return;
      }
      case jit::Leaf::op:
        break;
    }
    if (empty(n)) return;
    const ops::OpDef& op = ops::def(n.op);
    m_.origin = op.name;
    if (n.where.known()) m_.origin += " at " + to_string(n.where);
    const OnnxRow* row = find_onnx_row(n.op);
    OnnxCall c{m_, g_, n, op, row ? row->text : "", values_};
    if (takes(g_, n)) return row->convert(c);
    if (op.kind == ops::OpKind::pointwise) return onnx_row::formula(c);
    if (op.kind == ops::OpKind::random)
      c.refuse("random numbers are not exported; call eval() on layers with dropout before tracing");
    if (op.kind == ops::OpKind::kernel) c.refuse("a kernel of the program's own cannot be exported");
    c.refuse("this op has no form in ONNX");
  }

  OnnxModel& m_;
  const jit::Graph& g_;
  const std::vector<OnnxValue>& inputs_;
  const std::vector<OnnxNumber>& numbers_;
  OnnxValues values_;
};

}  // namespace

const OnnxRow* find_onnx_row(ops::OpId op) {
  return op < ops::OpId::count_ ? rows()[static_cast<size_t>(op)] : nullptr;
}

std::vector<OnnxValue> add_graph(OnnxModel& m, const jit::Graph& g, const std::vector<OnnxValue>& inputs,
                                 const std::vector<OnnxNumber>& numbers) {
  return Converter(m, jit::expand_composites(g, takes), inputs, numbers).run();
}

}  // namespace tandem::io
