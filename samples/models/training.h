// Training steps of a workload: eagerly, traced with every call compared, or frozen, in float32, in float32
// with products in TF32, or under autocast in bfloat16. Owns the workload; neither moves nor copies. One
// thread.
#pragma once

#include <optional>

#include "samples/models/workload.h"

namespace samples {

enum class RunMode : uint8_t { eager, checked, frozen };
enum class Precision : uint8_t { float32, tf32, bf16 };

/// From the names of the enumerators; an Error lists them.
RunMode parse_run_mode(const std::string& text);
Precision parse_precision(const std::string& text);

class Training {
 public:
  /// Error: TF32 on the CPU, which has no such products.
  Training(Workload workload, RunMode mode, Precision precision);
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  /// Forward, backward, clipping if the workload wants it, update; gives the loss, without history. In mode
  /// `frozen` the first two calls run the body.
  tandem::Tensor step();

  Workload& workload() { return workload_; }
  /// Of the traced step; none in mode `eager`.
  std::optional<tandem::TraceReport> report() const;

 private:
  struct Body {
    Training* training;
    tandem::Tensor operator()(const std::vector<tandem::Tensor>& batch) const;
  };

  Workload workload_;
  const Precision precision_;
  std::optional<tandem::TracedFunction<Body>> traced_;
};

}  // namespace samples
