#include "tests/sim_gpu/cudnn/operations.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "tests/sim_gpu/driver_control.h"

namespace sim_gpu {

namespace {

using A = Cudnn::Attribute;
using K = Cudnn::Kind;
using N = Cudnn::Note;
using T = Cudnn::Type;

/// An attribute of a kind of descriptor, that may be set.
struct Rule {
  int kind, attribute, type;
  int64_t least, most;  // elements
  bool needed = true;
  int of = -1;  // descriptors: their kind; -2: an operation
};
const Rule kRules[] = {
    {K::tensor, A::tensor_type, T::data_type, 1, 1},
    {K::tensor, A::tensor_sizes, T::int64, 1, 8},
    {K::tensor, A::tensor_strides, T::int64, 1, 8},
    {K::tensor, A::tensor_id, T::int64, 1, 1},
    {K::tensor, A::tensor_alignment, T::int64, 1, 1},
    {K::tensor, A::tensor_virtual, T::boolean, 1, 1, false},
    {K::tensor, A::tensor_by_value, T::boolean, 1, 1, false},
    {K::pointwise, A::pointwise_mode, T::pointwise_mode, 1, 1},
    {K::pointwise, A::pointwise_type, T::data_type, 1, 1},
    {K::pointwise, A::pointwise_axis, T::int64, 1, 1, false},
    {K::pointwise_operation, A::pointwise_does, T::descriptor, 1, 1, true, K::pointwise},
    {K::pointwise_operation, A::pointwise_x, T::descriptor, 1, 1, true, K::tensor},
    {K::pointwise_operation, A::pointwise_b, T::descriptor, 1, 1, false, K::tensor},
    {K::pointwise_operation, A::pointwise_t, T::descriptor, 1, 1, false, K::tensor},
    {K::pointwise_operation, A::pointwise_y, T::descriptor, 1, 1, true, K::tensor},
    {K::product, A::product_type, T::data_type, 1, 1},
    {K::product_operation, A::product_does, T::descriptor, 1, 1, true, K::product},
    {K::product_operation, A::product_a, T::descriptor, 1, 1, true, K::tensor},
    {K::product_operation, A::product_b, T::descriptor, 1, 1, true, K::tensor},
    {K::product_operation, A::product_c, T::descriptor, 1, 1, true, K::tensor},
    {K::reduction, A::reduction_mode, T::reduction, 1, 1},
    {K::reduction, A::reduction_type, T::data_type, 1, 1},
    {K::reduction_operation, A::reduction_does, T::descriptor, 1, 1, true, K::reduction},
    {K::reduction_operation, A::reduction_x, T::descriptor, 1, 1, true, K::tensor},
    {K::reduction_operation, A::reduction_y, T::descriptor, 1, 1, true, K::tensor},
    {K::reshape, A::reshape_x, T::descriptor, 1, 1, true, K::tensor},
    {K::reshape, A::reshape_y, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution, A::convolution_axes, T::int64, 1, 1},
    {K::convolution, A::convolution_compute_type, T::data_type, 1, 1},
    {K::convolution, A::convolution_mode, T::convolution_mode, 1, 1},
    {K::convolution, A::convolution_pads_before, T::int64, 1, 3},
    {K::convolution, A::convolution_pads_after, T::int64, 1, 3},
    {K::convolution, A::convolution_strides, T::int64, 1, 3},
    {K::convolution, A::convolution_dilations, T::int64, 1, 3},
    {K::convolution_forward, A::forward_alpha, T::float32, 1, 1},
    {K::convolution_forward, A::forward_beta, T::float32, 1, 1},
    {K::convolution_forward, A::forward_convolution, T::descriptor, 1, 1, true, K::convolution},
    {K::convolution_forward, A::forward_w, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_forward, A::forward_x, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_forward, A::forward_y, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_input, A::input_alpha, T::float32, 1, 1},
    {K::convolution_input, A::input_beta, T::float32, 1, 1},
    {K::convolution_input, A::input_convolution, T::descriptor, 1, 1, true, K::convolution},
    {K::convolution_input, A::input_w, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_input, A::input_x, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_input, A::input_y, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_weight, A::weight_alpha, T::float32, 1, 1},
    {K::convolution_weight, A::weight_beta, T::float32, 1, 1},
    {K::convolution_weight, A::weight_convolution, T::descriptor, 1, 1, true, K::convolution},
    {K::convolution_weight, A::weight_w, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_weight, A::weight_x, T::descriptor, 1, 1, true, K::tensor},
    {K::convolution_weight, A::weight_y, T::descriptor, 1, 1, true, K::tensor},
    {K::graph, A::graph_operations, T::descriptor, 1, 64, true, -2},
    {K::graph, A::graph_handle, T::handle, 1, 1},
    {K::heuristic, A::heuristic_graph, T::descriptor, 1, 1, true, K::graph},
    {K::heuristic, A::heuristic_mode, T::heuristic_mode, 1, 1},
    {K::plan, A::plan_handle, T::handle, 1, 1},
    {K::plan, A::plan_config, T::descriptor, 1, 1, true, K::engine_config},
    {K::pack, A::pack_ids, T::int64, 1, 32},
    {K::pack, A::pack_pointers, T::pointer, 1, 32},
    {K::pack, A::pack_workspace, T::pointer, 1, 1, false},
};
constexpr int kKinds[] = {K::tensor,
                          K::pointwise,
                          K::pointwise_operation,
                          K::product,
                          K::product_operation,
                          K::reduction,
                          K::reduction_operation,
                          K::reshape,
                          K::convolution,
                          K::convolution_forward,
                          K::convolution_input,
                          K::convolution_weight,
                          K::graph,
                          K::heuristic,
                          K::engine,
                          K::engine_config,
                          K::plan,
                          K::pack};

int bytes_of(int type) {
  switch (type) {
    case T::boolean:
      return 1;
    case T::pointwise_mode:
    case T::reduction:
    case T::data_type:
    case T::convolution_mode:
    case T::heuristic_mode:
    case T::float32:
      return 4;
    default:
      return 8;
  }
}

std::set<Descriptor>& living() {
  static auto* const all = new std::set<Descriptor>;
  return *all;
}

/// What is nobody's mistake.
int not_there(const char* what) {
  last_refusal() = what;
  return Cudnn::kNotSupported;
}

unsigned long engines_there() {
  auto* const there = SIM_GPU_CONTROL(sim_gpu_engines);
  return there != nullptr ? there() : ~0ul;
}

int finalize_tensor(Descriptor d) {
  Tensor t;
  t.type = d->first<int>(A::tensor_type);
  const auto sizes = d->read<int64_t>(A::tensor_sizes), strides = d->read<int64_t>(A::tensor_strides);
  t.id = d->first<int64_t>(A::tensor_id);
  t.alignment = d->first<int64_t>(A::tensor_alignment);
  if (t.type != Cudnn::kFloat && t.type != Cudnn::kHalf && t.type != Cudnn::kBrain &&
      t.type != Cudnn::kDouble && t.type != Cudnn::kInt32 && t.type != Cudnn::kBoolean)
    return refuse("a type of data that is not simulated", Cudnn::kNotSupported);
  if (sizes.size() != strides.size()) return refuse("sizes and strides of different ranks", Cudnn::kBadParam);
  if (sizes.size() < 3 || sizes.size() > 2 + kAxes) return refuse("this rank", Cudnn::kNotSupported);
  if (t.alignment <= 0 || t.alignment % t.element_bytes() != 0)
    return refuse("an alignment that is no multiple of an element", Cudnn::kBadParam);
  t.rank = static_cast<int>(sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] <= 0 || strides[i] <= 0) return refuse("a size or stride below 1", Cudnn::kBadParam);
    t.sizes[i] = sizes[i];
    t.strides[i] = strides[i];
  }
  const auto flag = [&](int name) { return d->values.count(name) != 0 && d->first<uint8_t>(name) != 0; };
  t.is_virtual = flag(A::tensor_virtual);
  t.by_value = flag(A::tensor_by_value);
  if (t.is_virtual && t.by_value) return refuse("a virtual tensor by value", Cudnn::kBadParam);
  if (t.by_value && (t.type != Cudnn::kFloat || t.span_bytes() != 4))
    return refuse("a number that is not one float32", Cudnn::kNotSupported);
  ConvolutionData& only = d->problem.emplace();
  only.x = t;
  return Cudnn::kSuccess;
}

/// Of attention: the first ones are traps.
int finalize_attention(Descriptor d, int mode) {
  if (const std::string wrong = check_attention(d->graph); !wrong.empty()) return not_there(wrong.c_str());
  if (mode == Cudnn::kHeuristicFallback) return not_there("no engine for this graph");
  for (const int index : {21, 22, 27, 31})
    if ((engines_there() >> index & 1) != 0) d->proposals.push_back(index);
  return Cudnn::kSuccess;
}

/// The engines in the order in which they are proposed: the first of them are traps.
int finalize_heuristic(Descriptor d) {
  const Descriptor graph = d->first<Descriptor>(A::heuristic_graph);
  if (const int status = check_descriptor(graph); status != Cudnn::kSuccess) return status;
  d->problem = graph->problem;
  d->graph = graph->graph;
  const int mode = d->first<int>(A::heuristic_mode);
  if (mode != Cudnn::kHeuristicA && mode != Cudnn::kHeuristicFallback)
    return refuse("this mode", Cudnn::kNotSupported);
  if (!d->problem) return finalize_attention(d, mode);
  const int type = d->problem->w.type;
  std::vector<int> order;
  if (mode == Cudnn::kHeuristicFallback)
    order = {21, 1};
  else if (type == Cudnn::kFloat)
    order = {20, 21, 22, 23, 24, 25, 30, 26};
  else if (type != Cudnn::kDouble)
    order = {21, 27, 22, 30, 23, 28, 29};
  const unsigned long mask = engines_there();
  for (const int index : order) {
    int64_t least = d->problem->x.alignment;
    for (const Tensor* t : {&d->problem->w, &d->problem->y}) least = std::min(least, t->alignment);
    if ((mask >> index & 1) != 0 && engine(index).alignment <= least) d->proposals.push_back(index);
  }
  if (mode == Cudnn::kHeuristicFallback && d->proposals.empty()) return not_there("no engine for this graph");
  return Cudnn::kSuccess;
}

int finalize_plan(Descriptor d) {
  const Descriptor config = d->first<Descriptor>(A::plan_config);
  if (const int status = check_descriptor(config); status != Cudnn::kSuccess) return status;
  if (!engine(config->engine).plans) return not_there("an engine without a plan");
  d->engine = config->engine;
  d->problem = config->problem;
  d->graph = config->graph;
  return Cudnn::kSuccess;
}

/// Copies to `values`, of which there is room for `wanted`.
template <class V>
int give(const std::vector<V>& all, int64_t wanted, int64_t* count, void* values) {
  if (count != nullptr) *count = static_cast<int64_t>(all.size());
  if (wanted > 0 && values == nullptr) return refuse("no place for the values", Cudnn::kNullPointer);
  const size_t n = std::min(all.size(), static_cast<size_t>(wanted));
  if (n > 0) std::memcpy(values, all.data(), n * sizeof(V));
  return Cudnn::kSuccess;
}

}  // namespace

const Engine& engine(int index) {
  static const auto* const all = new std::vector<Engine>{
      {1, {}, 0},
      {20, {N::tensor_core}, 128},  // float32: it rounds to TF32
      {21, {N::nondeterministic}, 0, true, true},
      {22, {}, 0, false},
      {23, {}, int64_t{1} << 30},
      {24, {N::winograd, N::winograd_6x6}, 0, true, true},
      {25, {N::tensor_core, N::down_convert_inputs}, 0, true, true},
      {26, {}, 4096 + 3},
      {27, {N::tensor_core, N::reduced_precision_reduction}, 0, true, true},
      {28, {N::tensor_core}, 8192, true, false, 16},
      {29, {N::tensor_core}, 16384},
      {30, {}, 0, true, true, 1, {Cudnn::kCompilesAtRunTime}},
      {31, {N::tensor_core}, 4096, true, false, 16, {Cudnn::kCompilesAtRunTime}},
  };
  return *std::find_if(all->begin(), all->end(), [&](const Engine& e) { return e.index == index; });
}

std::string& last_refusal() {
  static thread_local std::string text;
  return text;
}

int refuse(const std::string& what, int status) {
  std::fprintf(stderr, "sim_gpu: cudnn: %s\n", what.c_str());
  last_refusal() = what;
  return status;
}

std::mutex& descriptors_lock() {
  static auto* const m = new std::mutex;
  return *m;
}

Descriptor make_descriptor(int kind) {
  if (std::find(std::begin(kKinds), std::end(kKinds), kind) == std::end(kKinds)) return nullptr;
  const auto d = new tandem::cuda::DescriptorOfCudnn;
  d->kind = kind;
  living().insert(d);
  return d;
}

bool forget_descriptor(Descriptor d) { return living().erase(d) != 0; }

int check_descriptor(Descriptor d) {
  if (d == nullptr) return refuse("no descriptor", Cudnn::kNullPointer);
  if (living().count(d) == 0) return refuse("a descriptor that does not exist (any more)", Cudnn::kBadParam);
  return Cudnn::kSuccess;
}

int set_attribute(Descriptor d, int attribute, int type, int64_t count, const void* values) {
  if (d->finalized) return refuse("an attribute set after finalizing", Cudnn::kBadParam);
  const auto* const rule = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& r) {
    return r.kind == d->kind && r.attribute == attribute;
  });
  if (rule == std::end(kRules))
    return refuse("attribute " + std::to_string(attribute) + ", which kind " + std::to_string(d->kind) +
                      " does not have or cannot set",
                  Cudnn::kBadParam);
  if (type != rule->type)
    return refuse("attribute " + std::to_string(attribute) + " with another type of values",
                  Cudnn::kAttributeType);
  if (count < rule->least || count > rule->most)
    return refuse("attribute " + std::to_string(attribute) + " with " + std::to_string(count) + " values",
                  Cudnn::kBadParam);
  if (values == nullptr) return refuse("no values", Cudnn::kBadParam);
  for (int64_t i = 0; type == T::descriptor && i < count; ++i) {
    Descriptor part = nullptr;
    std::memcpy(&part, static_cast<const char*>(values) + i * static_cast<int64_t>(sizeof part), sizeof part);
    if (const int status = check_part(part, rule->of); status != Cudnn::kSuccess) return status;
  }
  if (type == T::handle) {
    Cudnn::Handle handle = nullptr;
    std::memcpy(&handle, values, sizeof handle);
    if (handle == nullptr) return refuse("no handle", Cudnn::kNullPointer);
  }
  const auto* const bytes = static_cast<const std::byte*>(values);
  d->values[attribute].assign(bytes, bytes + count * bytes_of(type));
  return Cudnn::kSuccess;
}

int get_attribute(Descriptor d, int attribute, int type, int64_t wanted, int64_t* count, void* values) {
  const auto is = [&](int kind, int name, int its_type) {
    return d->kind == kind && attribute == name && type == its_type;
  };
  if (!d->finalized) return refuse("an attribute read before finalizing", Cudnn::kNotInitialized);
  if (wanted < 0) return refuse("fewer than no values wanted", Cudnn::kBadParam);
  if (is(K::heuristic, A::heuristic_results, T::descriptor)) {
    // Asked for the number alone it may tell more than it gives.
    if (wanted == 0) {
      if (count != nullptr) *count = static_cast<int64_t>(d->proposals.size()) + 1;
      return Cudnn::kSuccess;
    }
    const size_t n = std::min(static_cast<size_t>(wanted), d->proposals.size());
    auto* const into = static_cast<Descriptor*>(values);
    for (size_t i = 0; i < n; ++i) {
      if (const int status = check_descriptor(into[i]); status != Cudnn::kSuccess) return status;
      if (into[i]->kind != K::engine_config || into[i]->finalized)
        return refuse("results into something else than fresh configurations", Cudnn::kBadParam);
      into[i]->problem = d->problem;
      into[i]->graph = d->graph;
      into[i]->engine = d->proposals[i];
      into[i]->finalized = true;
    }
    if (count != nullptr) *count = static_cast<int64_t>(n);
    return Cudnn::kSuccess;
  }
  if (is(K::engine_config, A::config_engine, T::descriptor)) {
    Descriptor into = nullptr;
    if (values != nullptr) std::memcpy(&into, values, sizeof into);
    if (const int status = check_descriptor(into); status != Cudnn::kSuccess) return status;
    if (wanted != 1 || into->kind != K::engine)
      return refuse("an engine into something else", Cudnn::kBadParam);
    into->engine = d->engine;
    into->finalized = true;
    if (count != nullptr) *count = 1;
    return Cudnn::kSuccess;
  }
  if (is(K::engine, A::engine_index, T::int64))
    return give<int64_t>({engine(d->engine).index}, wanted, count, values);
  if (is(K::engine, A::engine_numerical_note, T::numerical_note))
    return give(engine(d->engine).notes, wanted, count, values);
  if (is(K::engine, A::engine_behavior_note, T::behavior_note))
    return give(engine(d->engine).behavior, wanted, count, values);
  if (is(K::plan, A::plan_workspace, T::int64))
    return give<int64_t>({engine(d->engine).workspace_bytes}, wanted, count, values);
  return refuse("attribute " + std::to_string(attribute) + " cannot be read from kind " +
                    std::to_string(d->kind) + " as type " + std::to_string(type),
                Cudnn::kBadParam);
}

int finalize(Descriptor d) {
  if (d->finalized) return refuse("finalized twice", Cudnn::kBadParam);
  for (const Rule& rule : kRules)
    if (rule.kind == d->kind && rule.needed && d->values.count(rule.attribute) == 0)
      return refuse("attribute " + std::to_string(rule.attribute) + " was not set", Cudnn::kBadParam);
  int status = Cudnn::kSuccess;
  if (d->kind == K::tensor) status = finalize_tensor(d);
  if (d->kind == K::convolution) status = finalize_convolution(d);
  if (is_convolution(d->kind))
    status = finalize_operation(d);
  else if (is_operation(d->kind))
    status = finalize_other(d);
  if (d->kind == K::graph) status = finalize_graph(d);
  if (d->kind == K::heuristic) status = finalize_heuristic(d);
  if (d->kind == K::plan) status = finalize_plan(d);
  if (d->kind == K::pack && d->read<int64_t>(A::pack_ids).size() != d->read<void*>(A::pack_pointers).size())
    status = refuse("names and pointers of different counts", Cudnn::kBadParam);
  if (d->kind == K::engine || d->kind == K::engine_config)
    status = refuse("a descriptor that only the library fills", Cudnn::kNotSupported);
  d->finalized = status == Cudnn::kSuccess;
  return status;
}

}  // namespace sim_gpu
