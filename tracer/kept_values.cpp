#include "tandem/tracer/kept_values.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/core/log.h"
#include "tandem/tracer/description.h"
#include "tandem/tracer/frozen_core.h"

namespace tandem::tracer {

std::shared_ptr<KeptValues> KeptValues::of(const FrozenSignature& s, const FrozenCore& core,
                                           const jit::Graph& g) {
  const auto memory_of = [&](uint32_t slot) {
    const int32_t shares = core.slots[slot].shares;
    return shares >= 0 ? static_cast<uint32_t>(shares) : slot;
  };
  const auto is_written = [&](uint32_t slot) {
    return std::any_of(s.moves.begin(), s.moves.end(), [&](const VersionMove& m) {
      return m.memory.kind == Place::Kind::slot && memory_of(m.memory.index) == memory_of(slot);
    });
  };
  const auto repeats = [&](uint32_t slot) {  // elements, which a copy would not
    const FrozenSlot& t = core.slots[slot];
    return extent(t.sizes, t.strides, t.dtype) < numel(t.sizes);
  };
  std::vector<char> lasting;
  for (const Place p : s.inputs)
    lasting.push_back(p.kind == Place::Kind::slot && !is_written(p.index) && !repeats(p.index));
  std::vector<std::optional<int64_t>> known;
  for (size_t i = 0; i < s.numbers.size(); ++i) {
    const bool constant =
        s.numbers[i].kind == NumberRule::Kind::constant && g.number_types[i] == DType::float64;
    known.push_back(constant ? std::optional(s.numbers[i].bits) : std::nullopt);
  }
  std::optional<jit::KeptPart> part = jit::part_kept(g, lasting, known, s.device);
  // A second plan is worth its compilation and memory where the first one moves what it keeps, or much less.
  constexpr int64_t kShare = 32;
  if (!part || part->nbytes() * kShare < s.executable->stats().bytes_moved) return nullptr;
  std::shared_ptr<KeptValues> kept(new KeptValues);
  kept->device_ = s.device;
  kept->makes_ = jit::Executable::make(part->makes, {.compile = false, .device = s.device});
  kept->rest_ = jit::Executable::make(part->rest, {.compile = core.compile, .device = s.device});
  for (const int32_t v : part->makes.outputs)
    kept->nbytes_.push_back(numel(part->makes.type(v).sizes) * itemsize(part->makes.type(v).dtype));
  for (const int32_t i : part->inputs) kept->slots_.push_back(s.inputs[static_cast<size_t>(i)].index);
  kept->versions_.resize(kept->slots_.size());
  kept->inputs_ = std::move(part->inputs);
  kept->values_ = std::move(part->values);
  return kept;
}

bool KeptValues::unchanged(std::span<const core::Storage* const> storages, uint64_t changes) {
  bool same = changes_ == changes;
  changes_ = changes;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const core::Storage& s = *storages[slots_[i]];
    same = same && s.version == versions_[i] && !s.exposed;
    versions_[i] = s.version;
  }
  return same;
}

const jit::Executable* KeptValues::follow(std::span<const core::Storage* const> storages, uint64_t changes,
                                          std::vector<void*>& inputs) {
  if (!unchanged(storages, changes)) {
    kept_.clear();
    return nullptr;
  }
  if (kept_.empty() && !try_make(inputs)) return nullptr;
  for (const Ref<core::Storage>& k : kept_) inputs.push_back(k->data);
  return rest_.get();
}

bool KeptValues::try_make(const std::vector<void*>& inputs) {
  if (given_up_) return false;
  try {
    make(inputs);
  } catch (const OutOfMemory& e) {  // the plan that makes them in every call does
    given_up_ = true;
    core::log(core::LogArea::trace, core::LogLevel::warn,
              std::string("a frozen function keeps nothing of its captured tensors: ") + e.what());
  }
  return !given_up_;
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
