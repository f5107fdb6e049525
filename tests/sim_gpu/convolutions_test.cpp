// The simulated cuDNN: what it refuses, what it proposes, and that it computes convolutions.
#include <cmath>

#include "tests/sim_gpu/device.h"

using sim_gpu::Device;
using sim_gpu::Memory;
using sim_gpu::sim;
using Dnn = tandem::cuda::Cudnn;
using A = Dnn::Attribute;
using K = Dnn::Kind;
using T = Dnn::Type;

namespace {

using Sizes = std::vector<int64_t>;

/// A descriptor that is destroyed with its scope.
class Made {
 public:
  explicit Made(int kind) { REQUIRE(sim().cudnn.descriptor_create(kind, &made_) == 0); }
  ~Made() { sim().cudnn.descriptor_destroy(made_); }
  Made(const Made&) = delete;
  Made& operator=(const Made&) = delete;

  int set(int attribute, int type, int64_t count, const void* values) {
    return sim().cudnn.set(made_, attribute, type, count, values);
  }
  int number(int attribute, int64_t value) { return set(attribute, T::int64, 1, &value); }
  int list(int attribute, const Sizes& v) {
    return set(attribute, T::int64, static_cast<int64_t>(v.size()), v.data());
  }
  int word(int attribute, int type, int value) { return set(attribute, type, 1, &value); }
  int part(int attribute, const Made& value) { return set(attribute, T::descriptor, 1, &value.made_); }
  int finalize() { return sim().cudnn.finalize(made_); }
  Dnn::Descriptor get() const { return made_; }

 private:
  Dnn::Descriptor made_ = nullptr;
};

Sizes rows(const Sizes& sizes) {
  Sizes out(sizes.size(), 1);
  for (size_t d = sizes.size() - 1; d-- > 0;) out[d] = out[d + 1] * sizes[d + 1];
  return out;
}

/// Sets all but attribute `without`.
void fill_tensor(Made& t, int64_t id, const Sizes& sizes, int without = -1, int type = Dnn::kFloat) {
  if (without != A::tensor_type) REQUIRE(t.word(A::tensor_type, T::data_type, type) == 0);
  if (without != A::tensor_sizes) REQUIRE(t.list(A::tensor_sizes, sizes) == 0);
  if (without != A::tensor_strides) REQUIRE(t.list(A::tensor_strides, rows(sizes)) == 0);
  if (without != A::tensor_id) REQUIRE(t.number(A::tensor_id, id) == 0);
  if (without != A::tensor_alignment) REQUIRE(t.number(A::tensor_alignment, 16) == 0);
}

void fill_convolution(Made& c, int without = -1, int64_t stride = 1) {
  if (without != A::convolution_axes) REQUIRE(c.number(A::convolution_axes, 1) == 0);
  if (without != A::convolution_compute_type)
    REQUIRE(c.word(A::convolution_compute_type, T::data_type, Dnn::kFloat) == 0);
  if (without != A::convolution_mode)
    REQUIRE(c.word(A::convolution_mode, T::convolution_mode, Dnn::kCrossCorrelation) == 0);
  if (without != A::convolution_pads_before) REQUIRE(c.list(A::convolution_pads_before, {1}) == 0);
  if (without != A::convolution_pads_after) REQUIRE(c.list(A::convolution_pads_after, {1}) == 0);
  if (without != A::convolution_strides) REQUIRE(c.list(A::convolution_strides, {stride}) == 0);
  if (without != A::convolution_dilations) REQUIRE(c.list(A::convolution_dilations, {1}) == 0);
}

int finalized_tensor(const Sizes& sizes, const Sizes& strides, int64_t alignment) {
  Made t(K::tensor);
  fill_tensor(t, 1, sizes, A::tensor_strides);
  REQUIRE(t.list(A::tensor_strides, strides) == 0);
  REQUIRE(t.number(A::tensor_alignment, alignment) == 0);
  return t.finalize();
}

struct Tensors {
  Made x{K::tensor}, w{K::tensor}, y{K::tensor}, convolution{K::convolution};
  Tensors(const Sizes& sx, const Sizes& sw, const Sizes& sy, int type = Dnn::kFloat) {
    fill_tensor(x, 'x', sx, -1, type), fill_tensor(w, 'w', sw, -1, type), fill_tensor(y, 'y', sy, -1, type);
    fill_convolution(convolution);
    for (Made* const each : {&x, &w, &y, &convolution}) REQUIRE(each->finalize() == 0);
  }
  void fill(Made& op, int without = -1) const {
    const float one = 1, zero = 0;
    if (without != A::forward_alpha) REQUIRE(op.set(A::forward_alpha, T::float32, 1, &one) == 0);
    if (without != A::forward_beta) REQUIRE(op.set(A::forward_beta, T::float32, 1, &zero) == 0);
    if (without != A::forward_convolution) REQUIRE(op.part(A::forward_convolution, convolution) == 0);
    if (without != A::forward_x) REQUIRE(op.part(A::forward_x, x) == 0);
    if (without != A::forward_w) REQUIRE(op.part(A::forward_w, w) == 0);
    if (without != A::forward_y) REQUIRE(op.part(A::forward_y, y) == 0);
  }
};

int finalized_operation(const Sizes& x, const Sizes& w, const Sizes& y) {
  const Tensors t(x, w, y);
  Made op(K::convolution_forward);
  t.fill(op);
  return op.finalize();
}

}  // namespace

TEST_CASE("cudnn: descriptors that are wrong are refused") {
  const Device device;
  for (const int without :
       {A::tensor_type, A::tensor_sizes, A::tensor_strides, A::tensor_id, A::tensor_alignment}) {
    CAPTURE(without);
    Made t(K::tensor);
    fill_tensor(t, 1, {2, 3, 4}, without);
    CHECK(t.finalize() == Dnn::kBadParam);
  }
  CHECK(finalized_tensor({2, 3, 4}, {12, 4, 1}, 4) == 0);
  CHECK(finalized_tensor({2, 3, 4}, {12, 4, 1}, 2) == Dnn::kBadParam);
  CHECK(finalized_tensor({2, 3, 4}, {12, 4}, 4) == Dnn::kBadParam);
  CHECK(finalized_tensor({2, 0, 4}, {12, 4, 1}, 4) == Dnn::kBadParam);
  CHECK(finalized_tensor({2, 3, 4}, {12, -4, 1}, 4) == Dnn::kBadParam);

  for (int without = A::convolution_compute_type; without <= A::convolution_axes; ++without) {
    CAPTURE(without);
    Made c(K::convolution);
    fill_convolution(c, without);
    CHECK(c.finalize() == Dnn::kBadParam);
  }
  Made still(K::convolution);
  fill_convolution(still, -1, 0);
  CHECK(still.finalize() == Dnn::kBadParam);

  const Tensors t({2, 4, 8}, {6, 2, 3}, {2, 6, 8});
  for (int without = A::forward_alpha; without <= A::forward_y; ++without) {
    CAPTURE(without);
    Made op(K::convolution_forward);
    t.fill(op, without);
    CHECK(op.finalize() == Dnn::kBadParam);
  }
  CHECK(finalized_operation({2, 4, 8}, {6, 2, 3}, {2, 6, 8}) == 0);
  CHECK(finalized_operation({2, 4, 8}, {6, 2, 3}, {2, 6, 7}) == Dnn::kBadParam);
  CHECK(finalized_operation({2, 4, 8}, {6, 2, 3}, {3, 6, 8}) == Dnn::kBadParam);
  CHECK(finalized_operation({2, 4, 8}, {6, 3, 3}, {2, 6, 8}) == Dnn::kBadParam);
  CHECK(finalized_operation({2, 4, 8}, {5, 2, 3}, {2, 5, 8}) == Dnn::kBadParam);
}

TEST_CASE("cudnn: attributes that are wrong are refused, and what is wrong is told") {
  const Device device;
  const auto& dnn = sim().cudnn;
  Made t(K::tensor);
  const int64_t two[] = {1, 2};
  CHECK(t.set(A::tensor_id, T::float32, 1, two) == Dnn::kAttributeType);
  CHECK(t.set(A::tensor_id, T::int64, 2, two) == Dnn::kBadParam);
  CHECK(t.set(A::tensor_id, T::int64, 1, nullptr) == Dnn::kBadParam);
  CHECK(t.set(A::convolution_axes, T::int64, 1, two) == Dnn::kBadParam);
  char text[100];
  dnn.last_error(text, sizeof text);
  CHECK_THAT(text, Contains("attribute 106"));
  CHECK(dnn.set(nullptr, A::tensor_id, T::int64, 1, two) == Dnn::kNullPointer);
  int64_t count = 0;
  CHECK(dnn.get(t.get(), A::tensor_id, T::int64, 1, &count, &count) == Dnn::kNotInitialized);

  Made op(K::convolution_forward), plan(K::plan), graph(K::graph);
  CHECK(op.part(A::forward_x, t) == Dnn::kNotFinalized);
  fill_tensor(t, 1, {2, 3, 4});
  REQUIRE(t.finalize() == 0);
  CHECK(t.finalize() == Dnn::kBadParam);
  CHECK(t.number(A::tensor_id, 2) == Dnn::kBadParam);
  CHECK(op.part(A::forward_x, t) == 0);
  CHECK(op.part(A::forward_convolution, t) == Dnn::kBadParam);
  CHECK(graph.finalize() == Dnn::kBadParam);
  CHECK(plan.finalize() == Dnn::kBadParam);
  Dnn::Descriptor gone = nullptr;
  REQUIRE(dnn.descriptor_create(K::tensor, &gone) == 0);
  REQUIRE(dnn.descriptor_destroy(gone) == 0);
  CHECK(dnn.descriptor_destroy(gone) == Dnn::kBadParam);
  CHECK(dnn.finalize(gone) == Dnn::kBadParam);
  CHECK(dnn.descriptor_create(12345, &gone) != 0);
}

TEST_CASE("cudnn: from a heuristic to a result, and what execution refuses") {
  const Device device;
  const auto& dnn = sim().cudnn;
  const Tensors t({1, 1, 4}, {1, 1, 3}, {1, 1, 4});
  Dnn::Handle handle = nullptr;
  REQUIRE(dnn.create(&handle) == 0);
  Made op(K::convolution_forward), graph(K::graph), heuristic(K::heuristic);
  t.fill(op);
  REQUIRE(op.finalize() == 0);
  REQUIRE(graph.part(A::graph_operations, op) == 0);
  CHECK(graph.finalize() == Dnn::kBadParam);  // no handle
  REQUIRE(graph.set(A::graph_handle, T::handle, 1, &handle) == 0);
  REQUIRE(graph.finalize() == 0);
  REQUIRE(heuristic.part(A::heuristic_graph, graph) == 0);
  REQUIRE(heuristic.word(A::heuristic_mode, T::heuristic_mode, Dnn::kHeuristicFallback) == 0);
  REQUIRE(heuristic.finalize() == 0);
  Made first(K::engine_config), second(K::engine_config), plan(K::plan);
  Dnn::Descriptor into[] = {first.get(), second.get()};
  int64_t count = 0;
  REQUIRE(dnn.get(heuristic.get(), A::heuristic_results, T::descriptor, 2, &count, into) == 0);
  REQUIRE(count == 2);
  REQUIRE(plan.part(A::plan_config, second) == 0);
  REQUIRE(plan.set(A::plan_handle, T::handle, 1, &handle) == 0);
  REQUIRE(plan.finalize() == 0);
  int64_t bytes = -1;
  CHECK(dnn.get(plan.get(), A::plan_workspace, T::int64, 1, &count, &bytes) == 0);
  CHECK(bytes == 0);

  const Memory<float> x({1, 2, 3, 4}), w({1, 10, 100}), y(4);
  alignas(16) float outside[4] = {};
  const auto execute = [&](const Sizes& ids, std::vector<const void*> pointers) {
    Made pack(K::pack);
    REQUIRE(pack.list(A::pack_ids, ids) == 0);
    REQUIRE(pack.set(A::pack_pointers, T::pointer, static_cast<int64_t>(pointers.size()), pointers.data()) ==
            0);
    if (const int status = pack.finalize(); status != 0) return status;
    return dnn.execute(handle, plan.get(), pack.get());
  };
  REQUIRE(execute({'x', 'w', 'y'}, {x.pointer(), w.pointer(), y.pointer()}) == 0);
  CHECK(y.get() == std::vector<float>{210, 321, 432, 43});
  CHECK(execute({'x', 'w'}, {x.pointer(), w.pointer(), y.pointer()}) == Dnn::kBadParam);
  CHECK(execute({'x', 'w', 'z'}, {x.pointer(), w.pointer(), y.pointer()}) == Dnn::kNullPointer);
  CHECK(execute({'x', 'w', 'y'}, {x.pointer(), w.pointer(), y.pointer() + 1}) == Dnn::kMisaligned);
  CHECK(execute({'x', 'w', 'y'}, {x.pointer(), w.pointer(), outside}) == Dnn::kBadParam);
  sim().sim_gpu_fail_call(5);  // making a pack, two attributes, finalizing it, the execution
  CHECK(execute({'x', 'w', 'y'}, {x.pointer(), w.pointer(), y.pointer()}) == Dnn::kExecutionFailed);
  CHECK(dnn.destroy(handle) == 0);
}
