// Every op of the table with each of its samples on the device, against the CPU: results and gradients bit
// for bit, but for products, whose order of additions is a library's. Loops over the table.
#include "tests/cuda/on_device.h"
#include "tests/op_calls.h"

using namespace tandem::test;
using tandem::DType;
using tandem::Tensor;
using tandem::ops::OpDef;
using tandem::ops::OpKind;
using tandem::ops::Sample;

namespace {

bool has_product(const OpDef& op) {
  const std::string name = op.name;
  return op.kind == OpKind::contraction || op.kind == OpKind::convolution ||
         name.find("matmul") != std::string::npos || name.find("linear") != std::string::npos ||
         name.find("attention") != std::string::npos;
}

std::vector<Tensor> moved(const std::vector<Tensor>& in) {
  std::vector<Tensor> out;
  for (const Tensor& t : in) out.push_back(t.defined() ? to_device(t) : Tensor());
  return out;
}

void compare(const OpDef& op, const Tensor& device, const Tensor& host, double magnitude) {
  REQUIRE(device.defined() == host.defined());
  if (!host.defined()) return;
  CHECK(device.device() == kCuda);
  CHECK(device.dtype() == host.dtype());
  REQUIRE(device.sizes() == host.sizes());
  if (!has_product(op) && !(host.dtype() == DType::float64)) {
    CHECK(bits_of(device) == bits_of(host));
    return;
  }
  const Tensor back = device.detach().to(tandem::cpu), packed = host.detach().contiguous();
  Tolerance allowed = sample_tolerance(op, host.dtype(), magnitude);
  if (is_half(host.dtype())) allowed.relative += 0.51 * epsilon(host.dtype());  // both are rounded
  CHECK(difference(read_values(back), read_values(packed), host.dtype(), allowed) == "");
}

struct Outcome {
  std::vector<Tensor> results, gradients;
};
Outcome run(const OpDef& op, const Sample& s, std::vector<Tensor> in, bool gradients) {
  Outcome o;
  std::vector<Tensor> leaves;
  if (gradients)
    for (const size_t i : floating_operands(s)) leaves.push_back(in[i] = in[i].detach().requires_grad_());
  o.results = call_sample(op, s, in);
  std::vector<Tensor> roots, weights;
  for (size_t j = 0; gradients && j < o.results.size(); ++j) {
    if (!o.results[j].requires_grad()) continue;
    roots.push_back(o.results[j]);
    const auto n = static_cast<size_t>(o.results[j].numel());
    weights.push_back(
        tensor_of({o.results[j].dtype(), tandem::cpu, false, o.results[j].sizes()}, loss_weights(n, j))
            .to(o.results[j].device()));
  }
  if (roots.empty()) return o;
  tandem::autograd::backward(roots, weights);
  for (const Tensor& t : leaves) o.gradients.push_back(t.grad());
  return o;
}

/// The first `most` good samples.
void check_op(const OpDef& op, OperandLayout layout, DType type, bool gradients, int most = 1000) {
  for (const Sample& s : tandem::ops::samples(op)) {
    if (s.must_throw || most-- <= 0) continue;
    const Lists values = values_for(s, layout, rounded(s, type, operand_values(s, 11)));
    const auto expected = expected_results(op, s, type, values);
    if (!expected) continue;
    const std::vector<Tensor> in = operand_tensors(s, type, values, layout);
    CAPTURE(op.name, s.text, name(layout), tandem::name(type), gradients);
    const bool whole = in.empty();
    const Outcome host = run(op, s, in, gradients);
    const tandem::OnDevice guard(whole ? kCuda : tandem::cpu);
    const Outcome device = run(op, s, moved(in), gradients);
    for (size_t j = 0; j < host.results.size(); ++j)
      compare(op, device.results[j], host.results[j], expected->magnitude);
    REQUIRE(device.gradients.size() == host.gradients.size());
    for (size_t i = 0; i < host.gradients.size(); ++i)
      compare(op, device.gradients[i], host.gradients[i], expected->magnitude);
  }
}

}  // namespace

TEST_CASE("cuda ops: two samples of every op give what the CPU gives", "[cuda]") {
  need_device();
  for (int i = 0; i < tandem::ops::kOpCount; ++i)
    check_op(tandem::ops::def(static_cast<tandem::ops::OpId>(i)), OperandLayout::contiguous, DType::float32,
             false, 2);
}

TEST_CASE("cuda ops: every sample of every op gives what the CPU gives", "[cuda][simulator]") {
  need_device();
  for (int i = 0; i < tandem::ops::kOpCount; ++i)
    check_op(tandem::ops::def(static_cast<tandem::ops::OpId>(i)), OperandLayout::contiguous, DType::float32,
             false);
}

TEST_CASE("cuda ops: gradients", "[cuda][simulator]") {
  need_device();
  for (int i = 0; i < tandem::ops::kOpCount; ++i)
    check_op(tandem::ops::def(static_cast<tandem::ops::OpId>(i)), OperandLayout::contiguous, DType::float32,
             true);
}

TEST_CASE("cuda ops: operands in other layouts", "[cuda][simulator]") {
  need_device();
  for (const OperandLayout layout :
       {OperandLayout::transposed, OperandLayout::stepped, OperandLayout::expanded})
    for (int i = 0; i < tandem::ops::kOpCount; ++i)
      check_op(tandem::ops::def(static_cast<tandem::ops::OpId>(i)), layout, DType::float32, false);
}

TEST_CASE("cuda ops: other types", "[cuda][simulator]") {
  need_device();
  for (const DType type : {DType::float64, DType::bfloat16, DType::float16})
    for (int i = 0; i < tandem::ops::kOpCount; ++i)
      check_op(tandem::ops::def(static_cast<tandem::ops::OpId>(i)), OperandLayout::contiguous, type, false);
}
