#include "tandem/eager/compiled.h"

#include <algorithm>
#include <unordered_map>

#include "tandem/eager/index_error.h"
#include "tandem/eager/tape.h"

namespace tandem::eager {

namespace {

struct KeyHash {
  size_t operator()(const std::vector<int64_t>& key) const {
    // Two sums side by side, since each step of one waits for a product.
    uint64_t h = key.size(), g = 0;
    const auto mix = [](uint64_t sum, int64_t k) {
      sum = (sum ^ static_cast<uint64_t>(k)) * 0x9E3779B97F4A7C15u;
      return sum ^ sum >> 29;
    };
    size_t i = 0;
    for (; i + 1 < key.size(); i += 2) h = mix(h, key[i]), g = mix(g, key[i + 1]);
    if (i < key.size()) h = mix(h, key[i]);
    return mix(h, static_cast<int64_t>(g));
  }
};

// One per thread: executables are shared through the JIT's own cache, so two threads pay the plan, not the
// kernels.
struct Cache {
  std::unordered_map<std::vector<int64_t>, std::unique_ptr<Compiled>, KeyHash> map;
  std::vector<int64_t> key;  // scratch
  static constexpr size_t kLimit = 8192;
};

Cache& cache() {
  thread_local Cache c;
  return c;
}

void push_type(std::vector<int64_t>& key, const TensorImpl* t) {
  if (!t) {
    key.push_back(-1);
    return;
  }
  const bool contiguous = t->has(core::kContiguous);
  key.push_back(static_cast<int64_t>(t->dtype) | t->sizes.rank() << 8 |
                static_cast<int64_t>(contiguous) << 16);
  for (const int64_t s : t->sizes) key.push_back(s);
  if (!contiguous)
    for (const int64_t s : t->strides) key.push_back(s);
}

/// The first word: what is computed, and where. Kinds: 0 a call, 1 in place, 2 a gradient.
int64_t key_head(ops::OpId op, int64_t kind, Device d, uint32_t numbers) {
  return static_cast<int64_t>(op) | kind << 16 | int64_t{d.index} << 18 | static_cast<int64_t>(d.type) << 26 |
         static_cast<int64_t>(numbers) << 32;
}

Device device_of(std::span<const Ref<TensorImpl>> grads) {
  for (const Ref<TensorImpl>& g : grads)
    if (g) return g->device;
  return cpu;
}

void push_words(std::vector<int64_t>& key, const ops::OpDef& op, uint32_t numbers,
                std::span<const int64_t> words) {
  const uint64_t run_time = ops::run_time_mask(op, __builtin_popcount(numbers));
  for (size_t w = 0; w < words.size(); ++w) key.push_back(w < 64 && ((run_time >> w) & 1) ? 0 : words[w]);
}

DType number_type(const ops::OpDef& op, int n_numbers, std::span<const int64_t> words, int word) {
  switch (number_kind(op, n_numbers, words, word)) {
    case NumberKind::bool_:
      return DType::bool_;
    case NumberKind::integer:
      return DType::int64;
    case NumberKind::floating:
      return DType::float64;
  }
  return DType::float64;
}

std::unique_ptr<Compiled> finish(jit::Graph graph, std::unique_ptr<Compiled> c) {
  for (const int32_t v : graph.outputs) c->out_types.push_back(graph.type(v));
  c->executable = jit::Executable::make(graph, {.compile = false, .device = c->device});
  return c;
}

template <class Build>
const Compiled& find_or_build(Cache& local, ops::OpId op, Location where, Build&& build) {
  const auto it = local.map.find(local.key);
  if (it != local.map.end()) [[likely]]
    return *it->second;
  std::vector<int64_t> key = local.key;  // building may run other ops
  std::unique_ptr<Compiled> c;
  try {
    c = build();
  } catch (const Error& e) {
    fail_again(e, ops::def(op).name, where);  // values between operands and results too large to count
  }
  if (local.map.size() >= Cache::kLimit) local.map.clear();
  return *local.map.emplace(std::move(key), std::move(c)).first->second;
}

std::unique_ptr<Compiled> build_call(const Call& call) {
  const ops::OpDef& op = ops::def(call.op);
  // Once per types and attributes: a composite's body checks less than the composite does.
  const std::vector<ops::TensorType> types = infer_call(call);
  if (call.in_place) check_in_place_types(call, types);
  auto c = std::make_unique<Compiled>();
  c->device = device_of(call);
  jit::Graph graph;
  jit::GraphEmitter emitter(graph, true);
  const int n_numbers = __builtin_popcount(call.numbers);
  std::vector<int32_t> operand_input(call.n_in, -1);
  ops::Value out[ops::kMaxOutputs];
  emit_call(
      emitter, call,
      [&](int i) {
        const TensorImpl* t = call.in[i];
        operand_input[static_cast<size_t>(i)] = static_cast<int32_t>(graph.inputs.size());
        c->inputs.push_back(i);
        return ops::Value{graph.add_input({t->dtype, t->device, false, t->sizes}, t->strides)};
      },
      [&](int w) {
        c->numbers.push_back(w);
        return ops::Value{graph.add_number(number_type(op, n_numbers, {call.words, call.n_words}, w))};
      },
      out);
  for (int j = 0; j < op.n_out; ++j) {
    if (!call.in_place) {
      graph.outputs.push_back(out[j].id);
      continue;
    }
    if (op.writes[j] < 0) continue;
    const TensorImpl* target = call.in[op.writes[j]];
    const ops::Value v = emitter.cast(out[j], target->dtype);
    graph.writes.push_back({operand_input[static_cast<size_t>(op.writes[j])], v.id});
  }
  return finish(std::move(graph), std::move(c));
}

std::unique_ptr<Compiled> build_gradient(const Node& n, std::span<const Ref<TensorImpl>> grads) {
  const ops::OpDef& op = ops::def(n.op);
  auto c = std::make_unique<Compiled>();
  c->device = device_of(grads);
  jit::Graph graph;
  jit::GraphEmitter emitter(graph, true);
  emitter.location = n.where;
  // Inputs of the graph, by code: operand i -> i, saved result j -> 1000 + j, incoming gradient k -> 2000 +
  // k.
  const auto input = [&](const TensorImpl* t, int code) {
    c->inputs.push_back(code);
    return ops::Value{graph.add_input({t->dtype, t->device, false, t->sizes}, t->strides)};
  };
  const int n_numbers = __builtin_popcount(n.numbers);
  const auto number = [&](int w) {
    c->numbers.push_back(w);
    return ops::Value{graph.add_number(number_type(op, n_numbers, n.words, w))};
  };
  GradientValues values = gradient_values(
      n, grads, [&](int i) { return input(n.in[static_cast<size_t>(i)].saved.value.get(), i); },
      [&](int j) { return input(n.out[static_cast<size_t>(j)].saved.value.get(), 1000 + j); },
      [&](int k) { return input(grads[static_cast<size_t>(k)].get(), 2000 + k); }, number);
  values.run(emitter);
  for (const ops::Value r : values.results) {
    if (!r) {
      c->results.push_back(Compiled::kNone);
      continue;
    }
    const auto grad = std::find(values.grads.begin(), values.grads.end(), r);
    if (grad != values.grads.end()) {
      c->results.push_back(-2 - static_cast<int>(grad - values.grads.begin()));
      continue;
    }
    const auto same = std::find(graph.outputs.begin(), graph.outputs.end(), r.id);
    c->results.push_back(static_cast<int>(same - graph.outputs.begin()));
    if (same == graph.outputs.end()) graph.outputs.push_back(r.id);
  }
  return finish(std::move(graph), std::move(c));
}

}  // namespace

const Compiled& compiled_call(const Call& call) {
  Cache& local = cache();
  local.key.clear();
  local.key.push_back(key_head(call.op, call.in_place, device_of(call), call.numbers));
  push_words(local.key, ops::def(call.op), call.numbers, {call.words, call.n_words});
  for (uint32_t i = 0; i < call.n_in; ++i) push_type(local.key, call.in[i]);
  return find_or_build(local, call.op, call.where, [&] { return build_call(call); });
}

const Compiled& compiled_gradient(const Node& n, std::span<const Ref<TensorImpl>> grads) {
  Cache& local = cache();
  local.key.clear();
  local.key.push_back(key_head(n.op, 2, device_of(grads), n.numbers));
  push_words(local.key, ops::def(n.op), n.numbers, n.words);
  int64_t needed = 0;
  for (size_t i = 0; i < n.in.size(); ++i) {
    const Node::In& in = n.in[i];
    if (in.edge) needed |= int64_t{1} << std::min<size_t>(i, 62);
    push_type(local.key, in.saved.value.get());
    // A rule may look at the types of operands that are not saved.
    local.key.push_back(static_cast<int64_t>(in.type.dtype) | in.type.sizes.rank() << 8);
    for (const int64_t s : in.type.sizes) local.key.push_back(s);
    if (n.in.size() > 8) local.key.push_back(static_cast<bool>(in.edge));
  }
  local.key.push_back(needed);
  for (const Node::Out& o : n.out) push_type(local.key, o.saved.value.get());
  for (const Ref<TensorImpl>& g : grads) push_type(local.key, g.get());
  return find_or_build(local, n.op, n.where, [&] { return build_gradient(n, grads); });
}

void run_compiled(const Compiled& c, const char* op_name, Location where, void* const* inputs,
                  const int64_t* words, Ref<TensorImpl>* outputs, const Call* call) try {
  constexpr size_t kMany = 64;
  int64_t few_numbers[kMany];
  void* few_outputs[kMany];
  std::vector<int64_t> many_numbers;
  std::vector<void*> many_outputs;
  int64_t* numbers = few_numbers;
  void** addresses = few_outputs;
  if (c.numbers.size() > kMany) many_numbers.resize(c.numbers.size()), numbers = many_numbers.data();
  if (c.out_types.size() > kMany) many_outputs.resize(c.out_types.size()), addresses = many_outputs.data();
  for (size_t k = 0; k < c.numbers.size(); ++k) numbers[k] = words[c.numbers[k]];
  for (size_t j = 0; j < c.out_types.size(); ++j) {
    outputs[j] = core::make_tensor(c.out_types[j].sizes, c.out_types[j].dtype, c.device);
    addresses[j] = outputs[j]->data;
  }
  if (c.executable->run(inputs, numbers, addresses, where) != 0) [[unlikely]]
    fail(std::string(op_name) + ": " + (call ? index_error(*call) : "index out of range"), where);
} catch (const Error& e) {
  fail_again(e, op_name, where);  // no memory
}

}  // namespace tandem::eager
