#include "tandem/eager/kernel.h"

#include <algorithm>
#include <cctype>

#include "tandem/eager/call.h"

namespace tandem {

namespace {

bool is_identifier(const std::string& s) {
  if (s.empty() || std::isdigit(static_cast<unsigned char>(s[0]))) return false;
  return std::all_of(s.begin(), s.end(),
                     [](char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)); });
}

void check_names(const KernelDef& def, Location where) {
  constexpr size_t kMostInputs = 16;
  const auto refuse = [&](const std::string& why) { fail("Kernel \"" + def.name + "\": " + why, where); };
  if (def.name.empty()) refuse("a kernel needs a name");
  if (def.inputs.empty() || def.inputs.size() > kMostInputs)
    refuse("1 to " + std::to_string(kMostInputs) + " inputs are possible, found " +
           std::to_string(def.inputs.size()));
  if (def.outputs.empty() || def.outputs.size() > static_cast<size_t>(ops::kMaxOutputs))
    refuse("1 to " + std::to_string(ops::kMaxOutputs) + " outputs are possible, found " +
           std::to_string(def.outputs.size()));
  if (!def.cpu) refuse("the plain C++ twin `cpu` is missing");
  std::vector<std::string> taken = {"count", "thread"};
  for (const std::vector<std::string>* names : {&def.inputs, &def.outputs}) {
    for (const std::string& n : *names) {
      if (!is_identifier(n) || n.rfind("td_", 0) == 0)
        refuse("\"" + n + "\" cannot name an operand: an identifier that does not begin with td_ can");
      for (const std::string& name : {n, n + "_sizes", n + "_count"}) {
        if (std::find(taken.begin(), taken.end(), name) != taken.end())
          refuse("the name " + name + " stands for two things");
        taken.push_back(name);
      }
    }
  }
}

}  // namespace

Kernel::Kernel(KernelDef def, Location where) : op_(ops::OpId::count_) {
  check_names(def, where);
  op_ = ops::register_kernel(std::move(def));
}

Tensor Kernel::one(std::initializer_list<const Operand*> operands) const {
  const ops::KernelDef& def = *ops::user_kernel(op_);
  Location where;
  const core::TensorImpl* first = nullptr;
  for (const Operand* o : operands) {
    if (!where.known()) where = o->where;
    if (!first) first = o->impl;
  }
  if (def.outputs.size() != 1)
    fail(def.name + ": it has " + std::to_string(def.outputs.size()) + " results; use call({...})", where);
  if (!first) fail(def.name + ": at least one operand must be a tensor", where);
  TensorList tensors;
  for (const Operand* o : operands) {
    if (o->impl) {
      tensors.push_back(Tensor(core::Ref<core::TensorImpl>(o->impl)));
      continue;
    }
    const AnyNumber number = o->number();
    const DType dtype = number.kind == NumberKind::floating ? float64
                        : number.kind == NumberKind::bool_  ? bool_
                                                            : int64;
    tensors.push_back(full({}, number, {.dtype = dtype, .device = first->device}, where));
  }
  return call(tensors, where)[0];
}

TensorList Kernel::call(const TensorList& operands, Location where) const {
  const ops::KernelDef& def = *ops::user_kernel(op_);
  if (operands.size() != def.inputs.size())
    fail(def.name + ": takes " + std::to_string(def.inputs.size()) + " operands, found " +
             std::to_string(operands.size()),
         where);
  std::vector<core::TensorImpl*> in;
  for (const Tensor& t : operands) {
    in.push_back(&t.checked(where));
    if (modes().grad && t.requires_grad())
      fail(def.name + ": operand " + def.inputs[in.size() - 1] +
               " requires grad, and a kernel has no gradient; wrap it in an autograd::Function, or call it "
               "under NoGrad",
           where);
  }
  if (in[0]->device.type == DeviceType::cuda && def.cuda.empty())
    fail(def.name + ": the kernel has no CUDA text, and its operands are on " + to_string(in[0]->device),
         where);
  core::Ref<core::TensorImpl> results[ops::kMaxOutputs];
  try {
    eager::call_into({.op = op_, .n_in = static_cast<uint32_t>(in.size()), .in = in.data(), .where = where},
                     results);
  } catch (const Error& e) {
    fail_again(e, def.name, where);  // its text does not compile, or its twin refused
  }
  TensorList out;
  for (size_t j = 0; j < def.outputs.size(); ++j) out.emplace_back(std::move(results[j]));
  return out;
}

}  // namespace tandem
