// Every op of the table with each of its samples against PyTorch: results and gradients, in float32 and
// float64. A new op has a counterpart in ops.py, by its name or by a row there.
#include <set>

#include "tests/op_calls.h"
#include "tests/pytorch/exchange.h"

using namespace tandem;
using namespace tandem::test;
using ops::AttrType;
using ops::OpDef;
using ops::Sample;
using ops::SampleOperand;

namespace {

/// The attributes of a sample by name.
std::string attributes(const OpDef& op, const Sample& s) {
  Fields f;
  size_t at = 2 * static_cast<size_t>(s.n_numbers);
  for (int k = 0; k < op.n_attrs; ++k) {
    const int64_t word = s.words[at++];
    const std::string key = op.attrs[k].name;
    if (op.attrs[k].type == AttrType::list) {
      f.list(key, std::vector<int64_t>(s.words.begin() + static_cast<int64_t>(at),
                                       s.words.begin() + static_cast<int64_t>(at) + word));
      at += static_cast<size_t>(word);
    } else if (op.attrs[k].type == AttrType::floating) {
      f.number(key, std::bit_cast<double>(word));
    } else if (op.attrs[k].type == AttrType::dtype) {
      f.text(key, name(static_cast<DType>(word)));
    } else if (op.attrs[k].type == AttrType::boolean) {
      f.flag(key, word != 0);
    } else {
      f.integer(key, word);
    }
  }
  return f.object();
}

std::string operands(const Sample& s) {
  std::string items;
  for (const SampleOperand& o : s.operands) {
    std::string item = o.is_tensor() ? "\"tensor\"" : "null";
    if (o.kind == SampleOperand::Kind::number) {
      item = Fields::json(o.value);
      if (o.number == NumberKind::integer) item = std::to_string(static_cast<int64_t>(o.value));
      if (o.number == NumberKind::bool_) item = o.value != 0 ? "true" : "false";
    }
    items += (items.empty() ? "" : ", ") + item;
  }
  return "[" + items + "]";
}

struct Case {
  const OpDef* op;
  std::string name;
  std::vector<Tensor> in, out;
};

/// Our results and gradients, in `out` as PyTorch shall give them.
Case prepare(const OpDef& op, const Sample& s, DType type, const std::string& name, Exchange& exchange) {
  Case c{&op, name, operand_tensors(s, type, rounded(s, type, operand_values(s, 7))), {}};
  bool wanted = false;
  for (size_t i = 0; i < c.in.size(); ++i) {
    if (!c.in[i].defined()) continue;
    exchange.give(name, "in" + std::to_string(i), c.in[i]);
    if (op.differentiable && is_floating(c.in[i].dtype())) c.in[i].requires_grad_(), wanted = true;
  }
  c.out = call_sample(op, s, c.in);
  std::vector<Tensor> roots, weights;
  for (size_t j = 0; j < c.out.size(); ++j) {
    if (!c.out[j].requires_grad()) continue;
    const std::vector<double> w = loss_weights(static_cast<size_t>(c.out[j].numel()), j);
    roots.push_back(c.out[j]);
    weights.push_back(tensor_of({c.out[j].dtype(), {}, false, c.out[j].sizes()}, w));
    exchange.give(name, "weight" + std::to_string(j), weights.back());
  }
  const bool floating =
      std::any_of(c.out.begin(), c.out.end(), [](const Tensor& t) { return is_floating(t.dtype()); });
  CAPTURE(name);
  CHECK((!wanted || !floating || !roots.empty()));
  if (!roots.empty()) autograd::backward(roots, weights);
  Fields f;
  f.text("op", op.name).raw("operands", operands(s)).raw("attributes", attributes(op, s));
  exchange.ask(name, "op", f.flag("gradients", wanted && !roots.empty()));
  return c;
}

}  // namespace

TEST_CASE("Every op of the table agrees with PyTorch", "[pytorch]") {
  if (!have_pytorch()) return;
  Exchange exchange;
  std::vector<Case> cases;
  for_each_op([&](const OpDef& op) {
    int number = 0;
    for (const Sample& s : ops::samples(op)) {
      if (s.must_throw) continue;
      ++number;
      for (const DType type : {DType::float32, DType::float64}) {
        if (type == DType::float64 && !has_floating(s)) continue;
        const std::string name =
            std::string(op.name) + '#' + std::to_string(number) + '.' + tandem::name(type);
        cases.push_back(prepare(op, s, type, name, exchange));
      }
    }
  });
  exchange.run();
  std::set<std::string> compared, without;
  for (const Case& c : cases) {
    INFO(c.name);
    if (const std::string reason = exchange.without(c.name); reason != "") {
      INFO(reason);
      CHECK(reason.rfind("error: ", 0) != 0);
      without.insert(std::string(c.op->name) + " (" + reason + ")");
      continue;
    }
    compared.insert(c.op->name);
    for (size_t j = 0; j < c.out.size(); ++j) {
      INFO("result " << j);
      const double allowed = agreement(c.out[j].dtype());
      CHECK(disagreement(c.out[j], exchange.answer(c.name, "out" + std::to_string(j)), allowed) == "");
    }
    for (size_t i = 0; i < c.in.size(); ++i) {
      const Tensor theirs = exchange.answer(c.name, "grad" + std::to_string(i));
      if (!theirs.defined()) continue;
      INFO("gradient " << i);
      const Tensor ours = c.in[i].grad().defined() ? c.in[i].grad() : zeros_like(c.in[i].detach());
      CHECK(disagreement(ours, theirs, agreement(c.in[i].dtype())) == "");
    }
  }
  std::string list;
  for (const std::string& text : without) list += "\n  " + text;
  std::printf("%zu ops in %d cases compared with PyTorch; without a counterpart:%s\n", compared.size(),
              exchange.asked(), list.c_str());
  CHECK(compared.size() >= static_cast<size_t>(ops::kOpCount) * 9 / 10);
}
