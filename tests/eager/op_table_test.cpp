// Every op of the table with each of its samples through the dispatcher, the tape and the engine: results
// against the float64 reference for operands in any layout and in place; gradients of first and second order
// against the reference's and against differences. Loops over the table: a new op is tested when it has
// samples.
//
// Tolerances: results as sample_tolerance says; gradients are taken in float64.
#include "tests/catch.h"
#include "tests/error_message.h"
#include "tests/op_calls.h"

using namespace tandem::test;
using tandem::Dims;
using tandem::DType;
using tandem::Error;
using tandem::Tensor;
using tandem::ops::OpDef;
using tandem::ops::OpKind;
using tandem::ops::Sample;

namespace {

constexpr OperandLayout kLayouts[] = {OperandLayout::contiguous, OperandLayout::transposed,
                                      OperandLayout::stepped, OperandLayout::expanded};

using tandem::test::message;

bool unchanged(const std::vector<Tensor>& in, const Lists& values, int except = -1) {
  for (size_t i = 0; i < in.size(); ++i)
    if (in[i].defined() && static_cast<int>(i) != except && read_values(in[i]) != values[i]) return false;
  return true;
}

// ---- forward ----

void check_results(const OpDef& op, const Sample& s, DType type, OperandLayout layout, const Lists& values,
                   const Expected& x) {
  const std::vector<Tensor> in = operand_tensors(s, type, values, layout);
  const std::vector<Tensor> out = call_sample(op, s, in);
  for (size_t j = 0; j < out.size(); ++j) {
    CHECK(out[j].dtype() == x.types[j].dtype);
    CHECK(out[j].sizes() == x.types[j].sizes);
    CHECK_FALSE(out[j].requires_grad());
    // A view shows its operand's memory, anything else has its own.
    const bool copied = op.id == tandem::ops::OpId::reshape && !in[0].is_contiguous();
    if (!in.empty() && in[0].defined() && !copied)
      CHECK((out[j].impl()->storage == in[0].impl()->storage) == (op.kind == OpKind::view));
    CHECK(difference(read_values(out[j]), x.values[j], x.types[j].dtype,
                     sample_tolerance(op, x.types[j].dtype, x.magnitude)) == "");
  }
  CHECK(unchanged(in, values));
}

/// Returns whether the op changed its operand.
bool check_in_place(const OpDef& op, const Sample& s, DType type, OperandLayout layout, const Lists& values,
                    const Expected& x) {
  InPlace form = in_place_form(op, s, x, type);
  if (form == InPlace::none) return false;
  std::vector<Tensor> in = operand_tensors(s, type, values);
  std::vector<uint32_t> versions;
  for (int j = 0; j < op.n_out; ++j) {
    const int w = written_operand(op, s, j);
    if (w < 0) continue;
    const auto at = static_cast<size_t>(w);
    in[at] = tensor_of(tandem::ops::sample_type(s.operands[at], type), values[at], layout);
    if (layout == OperandLayout::expanded && !in[at].is_contiguous()) form = InPlace::refused;
  }
  for (const Tensor& t : in) versions.push_back(t.defined() ? t.impl()->storage->version : 0);
  if (form == InPlace::refused) {
    const std::string text = message([&] { call_sample(op, s, in, true); });
    CHECK(text.rfind(std::string(op.name), 0) == 0);
    CHECK_THAT(text, Contains(" at user.cpp:31"));
    CHECK(unchanged(in, values));
    for (size_t i = 0; i < in.size(); ++i)
      if (in[i].defined()) CHECK(in[i].impl()->storage->version == versions[i]);
    return false;
  }
  call_sample(op, s, in, true);
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined()) continue;
    int result = -1;
    for (int j = 0; j < op.n_out; ++j)
      if (written_operand(op, s, j) == static_cast<int>(i)) result = j;
    CHECK(in[i].impl()->storage->version == versions[i] + (result >= 0));
    if (result < 0) {
      CHECK(read_values(in[i]) == values[i]);
      continue;
    }
    const auto j = static_cast<size_t>(result);
    const DType t = in[i].dtype(), computed = x.types[j].dtype;
    // Rounded to the result's type, then to the operand's.
    std::vector<double> wanted = x.values[j];
    for (double& v : wanted) v = in_type(t, in_type(computed, v));
    const bool narrow = is_floating(computed) && epsilon(computed) > epsilon(t);
    CHECK(difference(read_values(in[i]), wanted, t,
                     sample_tolerance(op, narrow ? computed : t, x.magnitude)) == "");
  }
  return true;
}

// ---- gradients ----

struct Taped {
  std::vector<Tensor> leaves;  // per floating operand
  std::vector<Tensor> roots, weights;
  double loss = 0;
};

/// Calls the op on leaves; bit i of `wanted`: floating operand i requires grad. `weights_layout`: of the
/// gradients that backward starts from.
Taped call_on_tape(const OpDef& op, const Sample& s, DType type, const Lists& values, OperandLayout layout,
                   uint32_t wanted, OperandLayout weights_layout) {
  Taped t;
  std::vector<Tensor> in = operand_tensors(s, type, values, layout);
  for (const size_t at : floating_operands(s)) {
    if ((wanted >> t.leaves.size()) & 1) in[at].requires_grad_();
    t.leaves.push_back(in[at]);
  }
  const std::vector<Tensor> out = call_sample(op, s, in);
  for (size_t j = 0; j < out.size(); ++j) {
    const bool floating = is_floating(out[j].dtype());
    CHECK(out[j].requires_grad() == (floating && op.differentiable && wanted));
    if (!floating || !op.differentiable) continue;
    const std::vector<double> result = read_values(out[j]), w = loss_weights(result.size(), j);
    t.loss += dot(result, w);
    t.roots.push_back(out[j]);
    t.weights.push_back(tensor_of({out[j].dtype(), {}, false, out[j].sizes()}, w, weights_layout));
  }
  return t;
}

/// What `evaluate` does on the reference.
Evaluation differentiate(const Taped& t, uint32_t wanted, bool second) {
  Evaluation r;
  for (const Tensor& leaf : t.leaves) r.gradients.emplace_back(static_cast<size_t>(leaf.numel()), 0.0);
  r.second = r.gradients;
  if (t.roots.empty()) return r;
  tandem::autograd::backward(t.roots, t.weights, second);
  for (size_t i = 0; i < t.leaves.size(); ++i) {
    const Tensor& g = t.leaves[i].grad();
    CHECK((!g.defined() || ((wanted >> i) & 1)));
    if (!g.defined()) continue;
    r.types_fit = r.types_fit && g.dtype() == t.leaves[i].dtype() && g.sizes() == t.leaves[i].sizes();
    r.gradients[i] = read_values(g);
    r.slope += dot(r.gradients[i], slope_weights(r.gradients[i].size(), i));
  }
  if (!second) return r;
  std::vector<Tensor> asked;
  std::vector<size_t> index;
  for (size_t i = 0; i < t.leaves.size(); ++i)
    if ((wanted >> i) & 1) asked.push_back(t.leaves[i]), index.push_back(i);
  const std::vector<Tensor> g = tandem::autograd::grad(t.roots, asked, t.weights, true, true, true);
  std::vector<Tensor> roots, weights;
  for (size_t k = 0; k < g.size(); ++k) {
    const size_t i = index[k];
    REQUIRE(g[k].defined() == t.leaves[i].grad().defined());
    if (!g[k].defined()) continue;
    r.types_fit = r.types_fit && g[k].dtype() == t.leaves[i].dtype() && g[k].sizes() == t.leaves[i].sizes();
    CHECK(difference(read_values(g[k]), r.gradients[i], DType::float64, {}) == "");  // bit for bit
    if (!g[k].requires_grad()) continue;
    roots.push_back(g[k]);
    weights.push_back(
        tensor_of({DType::float64, {}, false, g[k].sizes()}, slope_weights(r.gradients[i].size(), i)));
  }
  if (roots.empty()) return r;
  const std::vector<Tensor> again = tandem::autograd::grad(roots, asked, weights, false, false, true);
  for (size_t k = 0; k < again.size(); ++k)
    if (again[k].defined()) {
      r.types_fit = r.types_fit && again[k].sizes() == asked[k].sizes();
      r.second[index[k]] = read_values(again[k]);
    }
  return r;
}

constexpr Tolerance kFloat64{1e-11, 1e-12};
/// Coarser where the op itself rounds to a smaller type.
Tolerance gradient_tolerance(const Taped& t) {
  double unit = 0;
  for (const Tensor& root : t.roots)
    unit = std::max(unit, root.dtype() == DType::float64 ? 0 : epsilon(root.dtype()));
  return unit > 0 ? Tolerance{unit, unit} : kFloat64;
}

void check_equal(const Lists& actual, const Lists& wanted, const Tolerance& unit = kFloat64,
                 DType type = DType::float64) {
  REQUIRE(actual.size() == wanted.size());
  double magnitude = 1;
  for (const std::vector<double>& l : wanted) magnitude = magnitude_of(l, magnitude);
  for (size_t i = 0; i < actual.size(); ++i) {
    CAPTURE(i);
    CHECK(difference(actual[i], wanted[i], type, {unit.relative, unit.absolute * magnitude}) == "");
  }
}

void check_gradients(const OpDef& op, const Sample& s, const Lists& values, OperandLayout layout,
                     OperandLayout weights_layout, uint32_t wanted) {
  CAPTURE(wanted, name(layout), name(weights_layout));
  const Taped t = call_on_tape(op, s, DType::float64, values, layout, wanted, weights_layout);
  const Evaluation actual = differentiate(t, wanted, true);
  const Evaluation reference = evaluate(op, s, DType::float64, values, true, wanted);
  CHECK(actual.types_fit);
  {
    INFO("first order");
    check_equal(actual.gradients, reference.gradients, gradient_tolerance(t));
  }
  INFO("second order");
  check_equal(actual.second, reference.second, gradient_tolerance(t));
}

Evaluation eager_evaluation(const OpDef& op, const Sample& s, const Lists& values, bool second) {
  const Taped t =
      call_on_tape(op, s, DType::float64, values, OperandLayout::contiguous, ~0u, OperandLayout::contiguous);
  Evaluation e = differentiate(t, ~0u, second);
  e.loss = t.loss;
  return e;
}

void check_differences(const OpDef& op, const Sample& s, const Lists& values) {
  INFO("differences");
  const Direction direction(s, values);
  constexpr double kStep = 1e-5;
  const auto x = expected_results(op, s, DType::float64, values);
  for (const tandem::ops::TensorType& t : x->types)
    if (t.dtype == DType::float32) return;  // rounding hides the steps
  const Evaluation here = eager_evaluation(op, s, values, true);
  const Evaluation ahead = eager_evaluation(op, s, direction.moved(values, kStep), false);
  const Evaluation behind = eager_evaluation(op, s, direction.moved(values, -kStep), false);
  CHECK(direction.along(s, here.gradients) ==
        Approx((ahead.loss - behind.loss) / (2 * kStep)).epsilon(1e-6).margin(1e-7));
  CHECK(direction.along(s, here.second) ==
        Approx((ahead.slope - behind.slope) / (2 * kStep)).epsilon(1e-6).margin(1e-7));
}

/// One tensor as every floating operand: its gradient is the sum of theirs.
void check_one_tensor(const OpDef& op, const Sample& s, Lists values) {
  const std::vector<size_t> at = floating_operands(s);
  for (const size_t i : at)
    if (at.size() < 2 || !(s.operands[i].sizes == s.operands[at[0]].sizes)) return;
  INFO("one tensor as every operand");
  for (const size_t i : at) values[i] = values[at.back()];
  std::vector<Tensor> in = operand_tensors(s, DType::float64, values);
  Tensor x = in[at[0]].requires_grad_();
  for (const size_t i : at) in[i] = x;
  Taped t;
  t.leaves = {x};
  for (const Tensor& out : call_sample(op, s, in)) {
    if (!is_floating(out.dtype())) continue;
    t.weights.push_back(tensor_of({DType::float64, {}, false, out.sizes()},
                                  loss_weights(static_cast<size_t>(out.numel()), t.roots.size())));
    t.roots.push_back(out);
  }
  const Evaluation reference = evaluate(op, s, DType::float64, values, false);
  std::vector<double> sum(values[at[0]].size());
  for (const std::vector<double>& g : reference.gradients)
    for (size_t k = 0; k < sum.size(); ++k) sum[k] += g[k];
  check_equal(differentiate(t, 1, false).gradients, {sum});
}

/// Gradients in float32 and bfloat16: their types, and roughly their values.
void check_narrow_gradients(const OpDef& op, const Sample& s, DType type) {
  CAPTURE(tandem::name(type));
  const Lists values = rounded(s, type, operand_values(s, 11));
  const Taped t =
      call_on_tape(op, s, type, values, OperandLayout::contiguous, ~0u, OperandLayout::contiguous);
  const Evaluation actual = differentiate(t, ~0u, false);
  CHECK(actual.types_fit);
  // The reference neither rounds the result that a gradient may read nor the incoming gradient.
  const double unit = 64 * epsilon(type);
  check_equal(actual.gradients, evaluate(op, s, type, values, false).gradients, {unit, unit}, type);
}

enum class InPlaceGradient : uint8_t { none, equal, refused };

/// The op in place on values made of the leaves: gradients are those of the ordinary form, or, if they need
/// what was overwritten, an error.
InPlaceGradient check_in_place_gradients(const OpDef& op, const Sample& s, const Lists& values,
                                         uint32_t wanted) {
  const auto x = expected_results(op, s, DType::float64, values);
  if (in_place_form(op, s, *x, DType::float64) != InPlace::fits) return InPlaceGradient::none;
  CAPTURE(wanted);
  INFO("in place");
  std::vector<Tensor> in = operand_tensors(s, DType::float64, values);
  Taped t;
  uint32_t needed = 0;
  for (const size_t at : floating_operands(s)) {
    Tensor leaf = in[at];
    if ((wanted >> t.leaves.size()) & 1) {
      leaf.requires_grad_();
      needed |= 1u << at;
    }
    t.leaves.push_back(leaf);
    in[at] = leaf.clone();
  }
  call_sample(op, s, in, true);
  uint32_t overwritten = 0;
  for (int j = 0; j < op.n_out; ++j) {
    const int w = written_operand(op, s, j);
    if (w < 0) continue;
    overwritten |= 1u << w;
    const Tensor& root = in[static_cast<size_t>(w)];
    // A result of integers has no gradient; as a number format of `root` it would have.
    if (!is_floating(x->types[static_cast<size_t>(j)].dtype)) continue;
    CHECK(root.requires_grad());
    t.roots.push_back(root);
    t.weights.push_back(tensor_of({root.dtype(), {}, false, root.sizes()},
                                  loss_weights(static_cast<size_t>(root.numel()), static_cast<size_t>(j))));
  }
  if (t.roots.empty()) return InPlaceGradient::none;
  if (tandem::ops::saves(op, needed).in & overwritten) {
    const std::string text = message([&] { tandem::autograd::backward(t.roots, t.weights); });
    CHECK_THAT(text, Contains("changed in place at user.cpp:31") && Contains("called at user.cpp:31"));
    return InPlaceGradient::refused;
  }
  const Evaluation actual = differentiate(t, wanted, true);
  const Evaluation reference = evaluate(op, s, DType::float64, values, true, wanted);
  CHECK(actual.types_fit);
  check_equal(actual.gradients, reference.gradients);
  INFO("second order");
  check_equal(actual.second, reference.second);
  return InPlaceGradient::equal;
}

bool any_nonzero(const Lists& lists) {
  for (const std::vector<double>& l : lists)
    for (const double v : l)
      if (v != 0) return true;
  return false;
}

void print_names(const char* what, const std::vector<const char*>& names) {
  std::printf("  %s:", what);
  for (const char* n : names) std::printf(" %s", n);
  std::printf("\n");
}

}  // namespace

TEST_CASE("every op through the dispatcher gives the reference's results, whatever the layout and in place",
          "[eager]") {
  int ops = 0, calls = 0, in_place_calls = 0;
  std::vector<const char*> never_in_place;
  for_each_op([&](const OpDef& op) {
    int runs = 0, changed = 0;
    for (const Sample& s : samples(op)) {
      if (s.must_throw) continue;
      for (const DType type : kSampleTypes) {
        if (type != kSampleTypes[0] && !has_floating(s)) break;
        for (const OperandLayout layout : kLayouts) {
          const bool wide = type == DType::float32 || type == DType::float64;
          if (layout != OperandLayout::contiguous && !wide) continue;
          CAPTURE(op.name, s.text, tandem::name(type), name(layout));
          const Lists values = rounded(s, type, values_for(s, layout, operand_values(s, 11)));
          const auto x = expected_results(op, s, type, values);
          if (!x) {
            CHECK(!is_floating(type));
            CHECK_THROWS_AS(call_sample(op, s, operand_tensors(s, type, values)), Error);
            continue;
          }
          check_results(op, s, type, layout, values, *x);
          changed += check_in_place(op, s, type, layout, values, *x);
          ++runs;
        }
      }
    }
    CAPTURE(op.name);
    CHECK(runs >= 2);
    if (!changed) never_in_place.push_back(op.name);
    ++ops, calls += runs, in_place_calls += changed;
  });
  CHECK(ops == tandem::ops::kOpCount);
  CHECK(calls > 1000);
  CHECK(in_place_calls > 400);
  std::printf("op table, eager: %d ops, %d calls, %d in place\n", ops, calls, in_place_calls);
  print_names("no sample that fits in place", never_in_place);
}

TEST_CASE("every gradient through the tape is the reference's, to second order", "[eager]") {
  int first = 0, second = 0, in_place = 0, refused = 0;
  std::vector<const char*> without, linear;
  for_each_op([&](const OpDef& op) {
    bool any_first = false, any_second = false;
    for (const Sample& s : samples(op)) {
      const auto n = static_cast<uint32_t>(floating_operands(s).size());
      if (s.must_throw || n == 0) continue;
      CAPTURE(op.name, s.text);
      const Lists values = operand_values(s, 11);
      if (!op.differentiable) {
        const Taped t = call_on_tape(op, s, DType::float64, values, OperandLayout::contiguous, ~0u,
                                     OperandLayout::contiguous);
        CHECK(t.roots.empty());
        continue;
      }
      for (const OperandLayout layout : kLayouts)
        check_gradients(op, s, values_for(s, layout, values), layout, OperandLayout::contiguous, ~0u);
      check_gradients(op, s, values, OperandLayout::contiguous, OperandLayout::transposed, ~0u);
      check_differences(op, s, values);
      check_one_tensor(op, s, values);
      check_narrow_gradients(op, s, DType::float32);
      check_narrow_gradients(op, s, DType::bfloat16);
      for (uint32_t i = 0; n > 1 && i < n; ++i)
        check_gradients(op, s, values, OperandLayout::contiguous, OperandLayout::contiguous, 1u << i);
      for (uint32_t i = 0; i < (n > 1 ? n + 1 : 1); ++i) {
        const InPlaceGradient done =
            check_in_place_gradients(op, s, values, i == n || n == 1 ? ~0u : 1u << i);
        in_place += done == InPlaceGradient::equal, refused += done == InPlaceGradient::refused;
      }
      const Evaluation reference = evaluate(op, s, DType::float64, values, true);
      any_first = true;
      any_second = any_second || any_nonzero(reference.second);
    }
    CAPTURE(op.name);
    CHECK(any_first == op.differentiable);
    first += any_first, second += any_second;
    if (!any_first) without.push_back(op.name);
    if (any_first && !any_second) linear.push_back(op.name);
  });
  CHECK(first > 50);
  CHECK(second > 25);
  std::printf(
      "op table, eager gradients: %d ops, %d of them with a second order that is not zero; in place: %d "
      "equal, %d refused\n",
      first, second, in_place, refused);
  print_names("no gradient (not differentiable, random, or made of nothing)", without);
  print_names("second order zero in all samples", linear);
}

TEST_CASE("every wrong sample is refused by the dispatcher, on the caller's line", "[eager]") {
  int refused = 0;
  for_each_op([&](const OpDef& op) {
    for (const Sample& s : samples(op)) {
      if (!s.must_throw) continue;
      CAPTURE(op.name, s.text);
      const Lists values = operand_values(s, 1);
      for (const bool grad : {false, true}) {
        std::vector<Tensor> in = operand_tensors(s, DType::float32, values);
        for (const size_t i : floating_operands(s)) in[i].requires_grad_(grad);
        const std::string text = message([&] { call_sample(op, s, in); });
        CHECK(text.rfind(std::string(op.name) + ": ", 0) == 0);
        CHECK_THAT(text, Contains(" at user.cpp:31"));
        CHECK(unchanged(in, values_for(s, OperandLayout::contiguous, rounded(s, DType::float32, values))));
        ++refused;
      }
    }
  });
  CHECK(refused > 60);
}
