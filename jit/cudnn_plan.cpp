#include "tandem/jit/cudnn_plan.h"

#include <algorithm>
#include <array>

#include "tandem/core/error.h"

namespace tandem::jit {

using cuda::Cudnn;
using Attribute = Cudnn::Attribute;
using Kind = Cudnn::Kind;
using Note = Cudnn::Note;
using Type = Cudnn::Type;

namespace {

constexpr int64_t kX = 1, kW = 2, kY = 3;  // how a plan calls its tensors

std::string said(const Cudnn& api, int status) {
  std::array<char, 256> more{};
  api.last_error(more.data(), more.size());
  more.back() = '\0';
  std::string text = api.error_string(status);
  if (more[0] != '\0') text += std::string(" (") + more.data() + ")";
  return text;
}

void check(const Cudnn& api, int status, const char* call) {
  if (status != Cudnn::kSuccess) fail(std::string(call) + ": " + said(api, status));
}

int data_type(DType t) {
  switch (t) {
    case DType::float16:
      return Cudnn::kHalf;
    case DType::bfloat16:
      return Cudnn::kBrain;
    case DType::float32:
      return Cudnn::kFloat;
    case DType::float64:
      return Cudnn::kDouble;
    default:
      internal_error(std::string("cuDNN has no convolutions of ") + name(t));
  }
}

CudnnDescriptor tensor(const Cudnn& api, int64_t id, DType dtype, const Dims& sizes, const Dims& strides,
                       int64_t alignment) {
  CudnnDescriptor t(api, Kind::tensor);
  const int type = data_type(dtype);
  t.set(Attribute::tensor_type, Type::data_type, 1, &type);
  t.set(Attribute::tensor_sizes, sizes);
  t.set(Attribute::tensor_strides, strides);
  t.set(Attribute::tensor_id, id);
  t.set(Attribute::tensor_alignment, alignment);
  t.finalize();
  return t;
}

CudnnDescriptor convolution(const Cudnn& api, const CudnnShape& shape) {
  CudnnDescriptor c(api, Kind::convolution);
  const int compute = Cudnn::kFloat, mode = Cudnn::kCrossCorrelation;
  c.set(Attribute::convolution_axes, shape.pads.rank());
  c.set(Attribute::convolution_compute_type, Type::data_type, 1, &compute);
  c.set(Attribute::convolution_mode, Type::convolution_mode, 1, &mode);
  c.set(Attribute::convolution_pads_before, shape.pads);
  c.set(Attribute::convolution_pads_after, shape.pads);
  c.set(Attribute::convolution_strides, shape.strides);
  c.set(Attribute::convolution_dilations, shape.dilations);
  c.finalize();
  return c;
}

struct Operation {
  int kind, alpha, beta, convolution, w, x, y;
};
Operation operation(CudnnDirection direction) {
  using A = Attribute;
  switch (direction) {
    case CudnnDirection::forward:
      return {Kind::convolution_forward,
              A::forward_alpha,
              A::forward_beta,
              A::forward_convolution,
              A::forward_w,
              A::forward_x,
              A::forward_y};
    case CudnnDirection::input:
      return {Kind::convolution_input,
              A::input_alpha,
              A::input_beta,
              A::input_convolution,
              A::input_w,
              A::input_x,
              A::input_y};
    case CudnnDirection::weight:
      return {Kind::convolution_weight,
              A::weight_alpha,
              A::weight_beta,
              A::weight_convolution,
              A::weight_w,
              A::weight_x,
              A::weight_y};
  }
  internal_error("a direction of a convolution that does not exist");
}

std::vector<int> notes_of(const CudnnDescriptor& engine, int attribute, int type) {
  std::vector<int> notes(32);
  const int64_t n = engine.read(attribute, type, static_cast<int64_t>(notes.size()), notes.data());
  notes.resize(static_cast<size_t>(std::clamp<int64_t>(n, 0, static_cast<int64_t>(notes.size()))));
  return notes;
}

/// Why an engine with this note is not taken; null if it is.
const char* objection(int note, const CudnnShape& shape) {
  switch (note) {
    case Note::nondeterministic:
      return "is not deterministic";
    case Note::reduced_precision_reduction:
      return "adds up in less than float32";
    case Note::down_convert_inputs:
      return "rounds its operands";
    case Note::tensor_core:
      return shape.dtype == DType::float32 && !shape.tf32 ? "rounds its operands to TF32" : nullptr;
    case Note::fft:
    case Note::winograd:
    case Note::winograd_6x6:
    case Note::winograd_13x13:
      return "transforms its operands";
    default:
      return nullptr;
  }
}

}  // namespace

std::string to_string(const CudnnShape& s) {
  static constexpr const char* kDirections[] = {"forward", "input", "weight"};
  return std::string(kDirections[static_cast<int>(s.direction)]) + ' ' + name(s.dtype) +
         (s.tf32 ? " tf32" : "") + " x " + to_string(s.x) + " w " + to_string(s.w) + " y " + to_string(s.y) +
         " groups " + std::to_string(s.groups) + " pads " + to_string(s.pads) + " strides " +
         to_string(s.strides) + " dilations " + to_string(s.dilations);
}

CudnnDescriptor::CudnnDescriptor(const Cudnn& api, int kind) : api_(&api) {
  check(api, api.descriptor_create(kind, &made_), "cudnnBackendCreateDescriptor");
}

void CudnnDescriptor::set(int attribute, int type, int64_t count, const void* values) {
  check(*api_, api_->set(made_, attribute, type, count, values), "cudnnBackendSetAttribute");
}

void CudnnDescriptor::set(int attribute, int64_t value) { set(attribute, Type::int64, 1, &value); }

void CudnnDescriptor::set(int attribute, const Dims& values) {
  set(attribute, Type::int64, values.rank(), values.data());
}

void CudnnDescriptor::set(int attribute, const CudnnDescriptor& value) {
  set(attribute, Type::descriptor, 1, &value.made_);
}

void CudnnDescriptor::finalize() { check(*api_, try_finalize(), "cudnnBackendFinalize"); }

int64_t CudnnDescriptor::read(int attribute, int type, int64_t most, void* values) const {
  int64_t count = 0;
  check(*api_, api_->get(made_, attribute, type, most, &count, values), "cudnnBackendGetAttribute");
  return count;
}

bool CudnnPlan::take(const CudnnTarget& target, const CudnnShape& shape, CudnnDescriptor config,
                     std::string* why) {
  CudnnDescriptor engine(*api_, Kind::engine);
  Cudnn::Descriptor into = engine.get();
  config.read(Attribute::config_engine, Type::descriptor, 1, &into);
  engine.read(Attribute::engine_index, Type::int64, 1, &engine_);
  notes_ = notes_of(engine, Attribute::engine_numerical_note, Type::numerical_note);
  const std::vector<int> behavior = notes_of(engine, Attribute::engine_behavior_note, Type::behavior_note);
  const std::string who = "engine " + std::to_string(engine_) + ' ';
  for (const int note : notes_)
    if (const char* const against = objection(note, shape)) {
      *why = who + against;
      return false;
    }
  if (std::find(behavior.begin(), behavior.end(), Cudnn::kCompilesAtRunTime) != behavior.end()) {
    *why = who + "is compiled first";
    return false;
  }
  CudnnDescriptor plan(*api_, Kind::plan);
  if (target.device)
    plan.set(Attribute::plan_device, *target.device);
  else
    plan.set(Attribute::plan_handle, Type::handle, 1, &target.handle);
  plan.set(Attribute::plan_config, config);
  if (const int status = plan.try_finalize(); status != Cudnn::kSuccess) {
    *why = who + "gives no plan: " + said(*api_, status);
    return false;
  }
  plan.read(Attribute::plan_workspace, Type::int64, 1, &workspace_bytes_);
  if (workspace_bytes_ > kCudnnWorkspace) {
    *why = who + "asks for " + std::to_string(workspace_bytes_) + " bytes of workspace";
    return false;
  }
  parts_.push_back(std::move(config));
  plan_ = std::move(plan);
  return true;
}

std::optional<CudnnPlan> CudnnPlan::make(const CudnnTarget& target, const CudnnShape& shape,
                                         int64_t alignment, std::string* why) {
  const Cudnn& api = *target.api;
  CudnnPlan out(api);
  std::vector<CudnnDescriptor>& parts = out.parts_;
  parts.push_back(tensor(api, kX, shape.dtype, shape.x, shape.x_strides, alignment));
  parts.push_back(tensor(api, kW, shape.dtype, shape.w, shape.w_strides, alignment));
  parts.push_back(tensor(api, kY, shape.dtype, shape.y, shape.y_strides, alignment));
  parts.push_back(convolution(api, shape));
  const Operation names = operation(shape.direction);
  const float one = 1, zero = 0;
  CudnnDescriptor op(api, names.kind);
  op.set(names.alpha, Type::float32, 1, &one);
  op.set(names.beta, Type::float32, 1, &zero);
  op.set(names.convolution, parts[3]);
  op.set(names.x, parts[0]);
  op.set(names.w, parts[1]);
  op.set(names.y, parts[2]);
  op.finalize();
  CudnnDescriptor graph(api, Kind::graph);
  graph.set(Attribute::graph_operations, op);
  if (target.handle) graph.set(Attribute::graph_handle, Type::handle, 1, &target.handle);
  graph.finalize();
  parts.push_back(std::move(op));

  int64_t tried = 0;
  std::vector<std::string> reasons;
  for (const int mode : {Cudnn::kHeuristicA, Cudnn::kHeuristicFallback}) {
    CudnnDescriptor heuristic(api, Kind::heuristic);
    heuristic.set(Attribute::heuristic_graph, graph);
    heuristic.set(Attribute::heuristic_mode, Type::heuristic_mode, 1, &mode);
    if (target.device) heuristic.set(Attribute::heuristic_device, *target.device);
    if (const int status = heuristic.try_finalize(); status != Cudnn::kSuccess) {
      reasons.push_back("no engine is proposed: " + said(api, status));
      continue;
    }
    const int64_t there = heuristic.read(Attribute::heuristic_results, Type::descriptor, 0, nullptr);
    std::vector<CudnnDescriptor> configs;
    std::vector<Cudnn::Descriptor> into;
    for (int64_t i = 0; i < there; ++i) into.push_back(configs.emplace_back(api, Kind::engine_config).get());
    const int64_t got =
        heuristic.read(Attribute::heuristic_results, Type::descriptor, there, into.data());  // may be fewer
    for (size_t i = 0; i < configs.size() && static_cast<int64_t>(i) < got; ++i) {
      ++tried;
      std::string reason;
      if (out.take(target, shape, std::move(configs[i]), &reason)) {
        parts.push_back(std::move(graph));
        return out;
      }
      if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
    }
  }
  *why = "none of " + std::to_string(tried) + " proposals of engines is taken";
  constexpr size_t kTold = 8;
  for (size_t i = 0; i < std::min(reasons.size(), kTold); ++i) *why += (i == 0 ? ": " : ", ") + reasons[i];
  return std::nullopt;
}

void CudnnPlan::run(Cudnn::Handle handle, const void* x, const void* w, const void* y,
                    void* workspace) const {
  const int64_t ids[] = {kX, kW, kY};
  const void* const pointers[] = {x, w, y};
  CudnnDescriptor pack(*api_, Kind::pack);
  pack.set(Attribute::pack_ids, Type::int64, 3, ids);
  pack.set(Attribute::pack_pointers, Type::pointer, 3, pointers);
  pack.set(Attribute::pack_workspace, Type::pointer, 1, &workspace);
  pack.finalize();
  check(*api_, api_->execute(handle, plan_.get(), pack.get()), "cudnnBackendExecute");
}

}  // namespace tandem::jit
