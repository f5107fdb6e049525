#include "samples/models/training.h"

namespace samples {
namespace td = tandem;

namespace {

/// The position of `text` among `names`.
template <class Names>
size_t position(const char* what, const std::string& text, const Names& names) {
  std::string all;
  for (size_t i = 0; i < std::size(names); ++i) {
    if (text == names[i]) return i;
    all += std::string(all.empty() ? "" : ", ") + names[i];
  }
  td::fail(std::string(what) + ": '" + text + "' is none of " + all);
}

}  // namespace

RunMode parse_run_mode(const std::string& text) {
  constexpr const char* kNames[] = {"eager", "checked", "frozen"};
  return static_cast<RunMode>(position("mode", text, kNames));
}

Precision parse_precision(const std::string& text) {
  constexpr const char* kNames[] = {"float32", "tf32", "bf16"};
  return static_cast<Precision>(position("dtype", text, kNames));
}

Training::Training(Workload workload, RunMode mode, Precision precision)
    : workload_(std::move(workload)), precision_(precision) {
  if (precision == Precision::tf32 && workload_.batch.front().device().type != td::DeviceType::cuda)
    td::fail("dtype: TF32 is a format of CUDA's products, and this is the CPU; ask for float32 or bf16");
  if (mode != RunMode::eager)
    traced_.emplace(Body{this}, td::TraceOptions{.name = "training_step",
                                                 .replay = mode == RunMode::frozen ? td::Replay::frozen
                                                                                   : td::Replay::checked});
}

td::Tensor Training::Body::operator()(const std::vector<td::Tensor>& batch) const {
  Workload& w = training->workload_;
  const td::AllowTf32 products(training->precision_ == Precision::tf32);
  td::Tensor loss;
  {
    const td::autocast mixed(td::bfloat16, training->precision_ == Precision::bf16);
    loss = w.loss(batch);
  }
  w.optimizer->zero_grad();
  loss.backward();
  if (w.max_norm > 0) td::nn::utils::clip_grad_norm_(w.model->parameters(), w.max_norm);
  w.optimizer->step();
  return loss.detach();
}

td::Tensor Training::step() { return traced_ ? (*traced_)(workload_.batch) : Body{this}(workload_.batch); }

std::optional<td::TraceReport> Training::report() const {
  if (!traced_) return std::nullopt;
  return traced_->report();
}

}  // namespace samples
