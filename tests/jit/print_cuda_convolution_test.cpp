// Convolutions by kernels of our own on a device give the bits of the CPU's plain loops, in three directions,
// over strides, paddings, dilations, groups, axes and types.
#include "tandem/jit/cudnn.h"
#include "tandem/ops/convolutions/convolutions.h"
#include "tests/catch.h"
#include "tests/jit/device_graphs.h"
#include "tests/jit/graph_judge.h"

using namespace tandem;
using namespace tandem::jit;
using ops::ConvolutionProvider;
using ops::Value;

namespace {

struct Case {
  Dims x, w;
  int64_t groups;
  Dims stride, padding, dilation;
};

Value input(Graph& g, DType type, const Dims& sizes) {
  ops::TensorType t;
  t.dtype = type;
  t.sizes = sizes;
  return {g.add_input(t, contiguous_strides(sizes))};
}

std::vector<int64_t> words(const Case& c, const Dims& more) {
  std::vector<int64_t> w = {c.groups, 0};
  for (const Dims* l : {&c.stride, &c.padding, &c.dilation, &more}) {
    if (l->empty()) continue;
    w.push_back(l->rank());
    w.insert(w.end(), l->begin(), l->end());
  }
  return w;
}

void check(const Case& c, OpId op, DType type, bool biased) {
  CAPTURE(ops::def(op).name, c.x, c.w, type, biased);
  Graph forward;
  GraphEmitter f(forward, false);
  const Value fx = input(forward, type, c.x), fw = input(forward, type, c.w);
  const Dims y = f.type(f.call(OpId::convolution, {fx, fw, Value{}}, words(c, {}))).sizes;
  const int axes = c.x.rank() - 2;
  Dims more;
  for (int i = 0; i < axes && op != OpId::convolution; ++i) {
    const int64_t covered =
        (y[i + 2] - 1) * c.stride[i] - 2 * c.padding[i] + c.dilation[i] * (c.w[i + 2] - 1) + 1;
    more.push_back(op == OpId::convolution_weight ? c.w[i + 2] : c.x[i + 2] - covered);
  }
  Graph g;
  GraphEmitter e(g, false);
  const Value a = input(g, type, op == OpId::convolution_input ? y : c.x),
              b = input(g, type, op == OpId::convolution_weight ? y : c.w);
  Value result;
  if (op == OpId::convolution_weight) {
    result = e.call(op, {a, b}, words(c, more));
  } else {
    const int64_t channels = op == OpId::convolution ? c.w[0] : c.x[1];
    result = e.call(op, {a, b, biased ? input(g, type, {channels}) : Value{}}, words(c, more));
  }
  g.outputs.push_back(result.id);

  const test::GraphArguments arguments = test::some_arguments(g, 17);
  const ops::TensorType& t = g.type(result.id);
  const Node& n = g.node_of(result.id);
  std::vector<ops::TensorType> types;
  std::vector<const void*> data;
  for (const int32_t v : n.in) types.push_back(v < 0 ? ops::TensorType{} : g.type(v));
  for (size_t i = 0; i < 3; ++i)
    data.push_back(i < arguments.inputs.size() ? arguments.inputs[i].data() : nullptr);
  test::GraphRun expected;
  expected.outputs.emplace_back(static_cast<size_t>(numel(t.sizes) * itemsize(type)));
  ops::ConvolutionCall call{ops::convolution_shape(ops::def(op), types, t, n.words)};
  (op == OpId::convolution_input ? call.y : call.x) = data[0];
  (op == OpId::convolution_weight ? call.y : call.w) = data[1];
  call.bias = data[2];
  call.result = expected.outputs[0].data();
  ops::convolve(call, ConvolutionProvider::loops);

  ExecutableOptions options;
  options.compile = false;
  options.device = samples::kCuda;
  const test::GraphRun found = samples::run_on_device(*Executable::make(g, options), g, arguments);
  const auto bytes = [](const test::GuardedBytes& from) { return std::string(from.data(), from.size()); };
  CHECK(bytes(found.outputs[0]) == bytes(expected.outputs[0]));
}

}  // namespace

TEST_CASE("convolutions on a device give the bits of plain loops", "[jit]") {
  struct Off {
    Off() { cudnn_off = true; }
    ~Off() { cudnn_off = false; }
  } without_cudnn;
  const Case cases[] = {
      {{2, 3, 9}, {4, 3, 3}, 1, {2}, {1}, {2}},
      {{3, 4, 7, 6}, {6, 2, 3, 2}, 2, {1, 2}, {1, 0}, {2, 1}},
      {{2, 5, 8, 8}, {5, 1, 3, 3}, 5, {1, 1}, {1, 1}, {1, 1}},
      {{1, 2, 4, 5, 3}, {3, 2, 2, 3, 2}, 1, {1, 2, 1}, {1, 0, 1}, {1, 1, 2}},
      {{5, 6, 9, 9}, {7, 6, 1, 1}, 1, {3, 3}, {0, 0}, {1, 1}},
  };
  for (const Case& c : cases)
    for (const OpId op : {OpId::convolution, OpId::convolution_input, OpId::convolution_weight}) {
      for (const DType type : {DType::float32, DType::float64, DType::bfloat16, DType::float16, DType::int64,
                               DType::int32, DType::uint8})
        check(c, op, type, false);
      if (op != OpId::convolution_weight) check(c, op, DType::float32, true);
      if (op != OpId::convolution_weight) check(c, op, DType::float16, true);
    }
}
