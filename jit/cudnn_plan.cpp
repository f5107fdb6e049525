#include "tandem/jit/cudnn_plan.h"

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem::jit {

using cuda::Cudnn;
using Attribute = Cudnn::Attribute;
using Kind = Cudnn::Kind;
using Note = Cudnn::Note;
using Type = Cudnn::Type;

namespace {

std::vector<int> notes_of(const CudnnDescriptor& engine, int attribute, int type) {
  std::vector<int> notes(32);
  const int64_t n = engine.read(attribute, type, static_cast<int64_t>(notes.size()), notes.data());
  notes.resize(static_cast<size_t>(std::clamp<int64_t>(n, 0, static_cast<int64_t>(notes.size()))));
  return notes;
}

/// Why an engine with this note is not taken; null if it is.
const char* objection(int note, const CudnnTerms& terms) {
  switch (note) {
    case Note::nondeterministic:
      return "is not deterministic";
    case Note::reduced_precision_reduction:
      return "adds up in less than float32";
    case Note::down_convert_inputs:
      return "rounds its operands";
    case Note::tensor_core:
      return terms.exact ? "rounds its operands to TF32" : nullptr;
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

bool CudnnPlan::take(const CudnnTarget& target, const CudnnTerms& terms, CudnnDescriptor config,
                     std::string* why) {
  CudnnDescriptor engine(api(), Kind::engine);
  Cudnn::Descriptor into = engine.get();
  config.read(Attribute::config_engine, Type::descriptor, 1, &into);
  engine.read(Attribute::engine_index, Type::int64, 1, &engine_);
  notes_ = notes_of(engine, Attribute::engine_numerical_note, Type::numerical_note);
  const std::vector<int> behavior = notes_of(engine, Attribute::engine_behavior_note, Type::behavior_note);
  const std::string who = "engine " + std::to_string(engine_) + ' ';
  for (const int note : notes_)
    if (const char* const against = objection(note, terms)) {
      *why = who + against;
      return false;
    }
  if (!terms.compiled &&
      std::find(behavior.begin(), behavior.end(), Cudnn::kCompilesAtRunTime) != behavior.end()) {
    *why = who + "is compiled first";
    return false;
  }
  CudnnDescriptor plan(api(), Kind::plan);
  if (target.device)
    plan.set(Attribute::plan_device, *target.device);
  else
    plan.set(Attribute::plan_handle, Type::handle, 1, &target.handle);
  plan.set(Attribute::plan_config, config);
  if (const int status = plan.try_finalize(); status != Cudnn::kSuccess) {
    *why = who + "gives no plan: " + cudnn_said(api(), status);
    return false;
  }
  plan.read(Attribute::plan_workspace, Type::int64, 1, &workspace_bytes_);
  if (workspace_bytes_ > terms.workspace_bytes) {
    *why = who + "asks for " + std::to_string(workspace_bytes_) + " bytes of workspace";
    return false;
  }
  config_ = std::move(config);
  plan_ = std::move(plan);
  return true;
}

std::optional<CudnnPlan> CudnnPlan::make(const CudnnTarget& target, CudnnGraph graph, const CudnnTerms& terms,
                                         std::string* why) {
  const Cudnn& api = *target.api;
  CudnnPlan out(std::move(graph));
  out.whole_ = out.graph_.finish(target.handle);
  int64_t tried = 0;
  std::vector<std::string> reasons;
  for (const int mode : {Cudnn::kHeuristicA, Cudnn::kHeuristicFallback}) {
    CudnnDescriptor heuristic(api, Kind::heuristic);
    heuristic.set(Attribute::heuristic_graph, out.whole_);
    heuristic.set(Attribute::heuristic_mode, Type::heuristic_mode, 1, &mode);
    if (target.device) heuristic.set(Attribute::heuristic_device, *target.device);
    if (const int status = heuristic.try_finalize(); status != Cudnn::kSuccess) {
      reasons.push_back("no engine is proposed: " + cudnn_said(api, status));
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
      if (out.take(target, terms, std::move(configs[i]), &reason)) return out;
      if (std::find(reasons.begin(), reasons.end(), reason) == reasons.end()) reasons.push_back(reason);
    }
  }
  *why = "none of " + std::to_string(tried) + " proposals of engines is taken";
  constexpr size_t kTold = 8;
  for (size_t i = 0; i < std::min(reasons.size(), kTold); ++i) *why += (i == 0 ? ": " : ", ") + reasons[i];
  return std::nullopt;
}

void CudnnPlan::run(Cudnn::Handle handle, std::span<const Operand> operands, void* workspace) const {
  TANDEM_INTERNAL(operands.size() <= kMostOperands, "a plan of too many operands");
  int64_t ids[kMostOperands];
  const void* pointers[kMostOperands];
  for (size_t i = 0; i < operands.size(); ++i) ids[i] = operands[i].tensor, pointers[i] = operands[i].memory;
  const auto n = static_cast<int64_t>(operands.size());
  CudnnDescriptor pack(api(), Kind::pack);
  pack.set(Attribute::pack_ids, Type::int64, n, ids);
  pack.set(Attribute::pack_pointers, Type::pointer, n, pointers);
  pack.set(Attribute::pack_workspace, Type::pointer, 1, &workspace);
  pack.finalize();
  cudnn_check(api(), api().execute(handle, plan_.get(), pack.get()), "cudnnBackendExecute");
}

}  // namespace tandem::jit
