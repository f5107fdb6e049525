#include "tandem/tracer/kept_values.h"

#include <algorithm>
#include <utility>

#include "tandem/core/error.h"
#include "tandem/core/log.h"
#include "tandem/tracer/mechanisms.h"

namespace tandem::tracer {

namespace {
constexpr int kWaitForMemory = 1000;  // runs
}

std::unique_ptr<KeptValues> KeptValues::of(const Source& plan) {
  std::vector<char> lasting;
  for (const int32_t slot : plan.slots) lasting.push_back(slot >= 0);
  std::optional<jit::KeptPart> part = jit::part_kept(plan.graph, lasting, plan.known, plan.device);
  // A second plan is worth its compilation and memory where the first one moves what it keeps, or much less.
  constexpr int64_t kShare = 32;
  if (!part || part->nbytes() * kShare < plan.bytes_moved || part->nbytes() > plan.max_bytes) return nullptr;
  std::unique_ptr<KeptValues> kept(new KeptValues);
  kept->device_ = plan.device;
  kept->makes_ = jit::Executable::make(part->makes, {.compile = false, .device = plan.device});
  kept->rest_ = jit::Executable::make(part->rest, {.compile = plan.compile, .device = plan.device});
  for (const int32_t v : part->makes.outputs)
    kept->nbytes_.push_back(numel(part->makes.type(v).sizes) * itemsize(part->makes.type(v).dtype));
  for (const int32_t i : part->inputs)
    kept->slots_.push_back(static_cast<uint32_t>(plan.slots[static_cast<size_t>(i)]));
  kept->versions_.resize(kept->slots_.size());
  kept->patience_ = plan.patience;
  kept->inputs_ = std::move(part->inputs);
  kept->values_ = std::move(part->values);
  return kept;
}

bool KeptValues::unchanged(std::span<const core::Storage* const> storages, uint64_t bound) {
  bool same = bound_ == bound;
  bound_ = bound;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const core::Storage& s = *storages[slots_[i]];
    same = same && (s.version == versions_[i] || !on(Mechanism::kept_versions)) && !s.exposed;
    versions_[i] = s.version;
  }
  return same;
}

const jit::Executable* KeptValues::follow(std::span<const core::Storage* const> storages, uint64_t bound,
                                          std::vector<void*>& inputs) {
  const bool first = bound_ == 0;
  if (!unchanged(storages, bound)) {
    if (!first) let_go();
    return nullptr;
  }
  if (kept_.empty() && (--waits_ > 0 || !try_make(inputs))) return nullptr;
  for (const Ref<core::Storage>& k : kept_) inputs.push_back(k->data);
  return rest_.get();
}

std::vector<Ref<core::Storage>> KeptValues::let_go() {
  waits_ = std::max(waits_, patience_);
  return std::exchange(kept_, {});
}

bool KeptValues::try_make(const std::vector<void*>& inputs) {
  try {
    make(inputs);
    waits_ = 0;
    return true;
  } catch (const OutOfMemory& e) {  // the plan that makes them in every run does
    give_up(e.what());
    return false;
  }
}

void KeptValues::give_up(const std::string& why) {
  kept_.clear();
  waits_ = kWaitForMemory;
  warn_nothing_kept(why);
}

void warn_nothing_kept(const std::string& why) {
  core::log(core::LogArea::trace, core::LogLevel::warn, "nothing is kept of captured tensors: " + why);
}

void KeptValues::make(const std::vector<void*>& inputs) {
  std::vector<void*> in, out;
  std::vector<Ref<core::Storage>> made, kept;
  for (const int32_t i : inputs_) in.push_back(inputs[static_cast<size_t>(i)]);
  for (const int64_t n : nbytes_) {
    made.push_back(core::make_storage(n, device_));
    out.push_back(made.back()->data);
  }
  const int failed = makes_->run(in.data(), nullptr, out.data());
  TANDEM_INTERNAL(failed == 0, "what is kept looks nothing up");
  for (size_t i = 0; i < made.size(); ++i) {
    if (values_[i].form != jit::Form::strides) {
      Ref<core::Storage> laid = core::make_storage(values_[i].nbytes, device_);
      values_[i].lay(made[i]->data, laid->data);
      made[i] = std::move(laid);
    }
    kept.push_back(std::move(made[i]));
  }
  kept_ = std::move(kept);
}

int64_t KeptValues::nbytes() const {
  int64_t sum = 0;
  for (const Ref<core::Storage>& k : kept_) sum += k->nbytes;
  return sum;
}

std::string KeptValues::plan_text() const {
  return "kept from call to call:\n" + makes_->plan_text() + "with what is kept:\n" + rest_->plan_text();
}
std::string KeptValues::code() const { return rest_->code(); }

}  // namespace tandem::tracer
