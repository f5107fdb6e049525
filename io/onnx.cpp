// From a frozen signature to a model: its graph before the passes, with captured tensors as constants,
// numbers as what they were frozen to, and results that are views made by their ops.
#include "tandem/io/onnx.h"

#include <algorithm>

#include "tandem/eager/functions.h"
#include "tandem/io/onnx_ops.h"
#include "tandem/ops/user_ops.h"
#include "tandem/tracer/description.h"

namespace tandem::onnx {

namespace {

using tracer::FrozenSignature;
using tracer::NumberRule;
using tracer::Place;

std::string types_of(const FrozenSignature& s) {
  std::string text;
  for (const tracer::ArgumentType& a : s.key)
    text += (text.empty() ? "" : ", ") + std::string(name(a.dtype)) + to_string(a.sizes);
  return "(" + text + ")";
}

class Export {
 public:
  Export(tracer::FrozenCore& core, const SaveOptions& options, Location where)
      : core_(core), options_(options), where_(where), s_(signature()), model_(core.name) {}

  void run(const std::string& path) {
    refuse_effects();
    g_ = tracer::graph_of(s_, core_);
    refuse_numbers();
    places_ = s_.inputs;
    g_.outputs = results();
    std::vector<io::OnnxValue> inputs;
    const std::vector<io::OnnxValue> arguments = this->arguments();
    for (const Place p : places_)
      inputs.push_back(p.kind == Place::Kind::argument ? arguments[p.index] : captured(p.index));
    std::vector<io::OnnxNumber> numbers;
    for (size_t i = 0; i < s_.numbers.size(); ++i)
      numbers.push_back({g_.number_types[i], s_.numbers[i].bits});
    const std::vector<io::OnnxValue> values = io::add_graph(model_, g_, inputs, numbers);
    for (size_t i = 0; i < values.size(); ++i)
      model_.output(values[i], name_of(options_.outputs, "output", i));
    model_.write(path, where_);
  }

 private:
  [[noreturn]] void refuse(const std::string& why, Location where = {}) const {
    fail("onnx: " + core_.name + ": " + why, where.known() ? where : where_);
  }

  const FrozenSignature& signature() const {
    const auto& all = core_.signatures;
    const int64_t n = static_cast<int64_t>(all.size()), wanted = options_.signature.value_or(0);
    if (n != 1 && !options_.signature) {
      std::string list;
      for (const auto& s : all) list += (list.empty() ? "" : " ") + types_of(*s);
      refuse("a file holds one signature, and " + std::to_string(n) + " are frozen: " + list +
             "; choose one by SaveOptions::signature");
    }
    if (wanted < 0 || wanted >= n)
      refuse("signature " + std::to_string(wanted) + " was asked for, of " + std::to_string(n));
    return *all[static_cast<size_t>(wanted)];
  }

  /// Only inference: what the function does besides giving results has no place in a file.
  void refuse_effects() const {
    for (const auto& [line, op] : s_.calls)
      if (ops::user_kernel(op))
        refuse("\"" + std::string(ops::def(op).name) + "\" is a kernel of this program's own", line);
    const std::string hint =
        "; export a function that computes results alone (under NoGrad, layers in eval())";
    if (!s_.moves.empty())
      refuse(text(s_.moves[0].memory) + " is changed in place" + hint, s_.moves[0].where);
    if (!s_.grads.empty())
      refuse("gradients of " + text(s_.grads[0].leaf) + " are computed or dropped" + hint);
    if (!s_.steps.empty()) refuse("an optimizer makes a step" + hint);
    for (size_t i = 0; i < s_.key.size(); ++i)
      if (const int other = std::max(s_.key[i].same_as, s_.key[i].shares); other >= 0)
        refuse("arguments " + std::to_string(other) + " and " + std::to_string(i) +
               " share memory, as inputs of a model cannot; freeze with tensors apart");
  }
  std::string text(Place p) const {
    if (p.kind == Place::Kind::argument) return "argument " + std::to_string(p.index);
    if (p.kind == Place::Kind::made) return "a result";
    return "captured tensor \"" + slot_name(p.index) + "\"";
  }

  /// Numbers that follow the generator or an optimizer, by the op that takes them.
  void refuse_numbers() const {
    for (const jit::Node& n : g_.nodes) {
      if (n.leaf != jit::Leaf::op) continue;
      for (const int32_t v : n.in) {
        if (v < 0 || g_.node_of(v).leaf != jit::Leaf::number) continue;
        const NumberRule& rule = s_.numbers[static_cast<size_t>(g_.node_of(v).index)];
        const std::string name = ops::def(n.op).name;
        if (rule.kind == NumberRule::Kind::correction) refuse(name + ": an optimizer makes a step", n.where);
        if (rule.kind != NumberRule::Kind::constant)
          refuse(name + ": random numbers are not exported; call eval() on layers with dropout", n.where);
      }
    }
  }

  std::string name_of(const std::vector<std::string>& names, const char* otherwise, size_t i) const {
    return names.empty() ? otherwise + std::to_string(i) : names[i];
  }
  void check_names(const std::vector<std::string>& names, size_t n, const char* what) const {
    if (!names.empty() && names.size() != n)
      refuse(std::to_string(names.size()) + " names were given for " + std::to_string(n) + " " + what);
  }

  std::vector<io::OnnxValue> arguments() {
    check_names(options_.inputs, s_.key.size(), "arguments");
    check_names(options_.outputs, s_.results.size(), "results");
    std::vector<io::OnnxValue> values;
    for (size_t i = 0; i < s_.key.size(); ++i)
      values.push_back(model_.input(name_of(options_.inputs, "arg", i), {s_.key[i].dtype, s_.key[i].sizes}));
    return values;
  }

  std::string slot_name(uint32_t i) const {
    const Ref<core::TensorImpl> held = core_.hold(i);
    for (const NamedTensor& n : options_.names)
      if (held && n.tensor.impl() == held.get()) return n.name;
    return core_.slots[i].name;
  }

  io::OnnxValue captured(uint32_t i) {
    const tracer::FrozenSlot& slot = core_.slots[i];
    const Ref<core::TensorImpl> held = core_.hold(i);
    if (!held) refuse("captured tensor \"" + slot.name + "\" is gone", slot.where);
    if (!(held->sizes == slot.sizes) || held->dtype != slot.dtype)
      refuse("captured tensor \"" + slot_name(i) + "\" has changed its type", slot.where);
    const NoGrad no_grad;
    const Tensor t = Tensor(Ref<core::TensorImpl>(held)).contiguous(where_).to(cpu, where_);
    eager::materialize(t.impl(), where_);
    return model_.tensor(slot_name(i), t);
  }

  /// The graph's value for a tensor of the call; views of what it makes are ops again.
  int32_t value_of(Place p) {
    if (p.kind != Place::Kind::made) {
      for (size_t i = 0; i < places_.size(); ++i)
        if (places_[i].kind == p.kind && places_[i].index == p.index) return g_.inputs[i].value;
      places_.push_back(p);
      const bool argument = p.kind == Place::Kind::argument;
      const DType dtype = argument ? s_.key[p.index].dtype : core_.slots[p.index].dtype;
      const Dims sizes = argument ? s_.key[p.index].sizes : core_.slots[p.index].sizes;
      return g_.add_input({dtype, cpu, false, sizes}, contiguous_strides(sizes));
    }
    const tracer::MadeTensor& m = s_.made[p.index];
    if (m.output >= 0) return made_[static_cast<size_t>(m.output)];
    const ops::SplitWords split = ops::split_words(ops::def(m.op), m.words, 0);
    jit::GraphEmitter emitter(g_, false);
    emitter.location = m.where;
    const ops::Value base{value_of(m.base)};
    ops::Value out;
    emitter.emit(m.op, {&base, 1}, split.structural, &out);
    return out.id;
  }
  std::vector<int32_t> results() {
    made_ = g_.outputs;
    std::vector<int32_t> values;
    for (const Place p : s_.results) values.push_back(value_of(p));
    return values;
  }

  tracer::FrozenCore& core_;
  const SaveOptions& options_;
  Location where_;
  const FrozenSignature& s_;
  io::OnnxModel model_;
  jit::Graph g_;
  std::vector<Place> places_;  // of the graph's inputs
  std::vector<int32_t> made_;  // the graph's outputs
};

}  // namespace

void save(const std::string& path, const FrozenFunction& f, const SaveOptions& options, Location where) {
  const eager::InterceptorGuard outside(nullptr);
  tracer::FrozenCore& core = f.core();
  const std::lock_guard lock(core.mutex);
  Export(core, options, where).run(path);
}

}  // namespace tandem::onnx
