// Why a call was not what was recorded, in words: for the log, and for the Error of max_traces. Cold: asked
// when a signature or branch is new. Free functions, under the tracer's lock or in a call.
#pragma once

#include <span>
#include <string>
#include <utility>

#include "tandem/tracer/arguments.h"
#include "tandem/tracer/record.h"

namespace tandem::tracer {

/// The key of one set of arguments.
struct Signature {
  std::vector<ArgumentType> key;
  uint64_t modes = 0;
};
/// How many things differ, and which, with old and new value: "arg0: sizes (3, 4) before, (5, 4) now". The
/// text is made only if they are fewer than `fewest`.
std::pair<size_t, std::string> compare_signatures(const Signature& before, const Signature& now,
                                                  const ArgumentNames& names, size_t fewest);
/// The arguments that a span of tensors has now, as a key would hold them.
ArgumentType argument_type(std::span<const Tensor> arguments, size_t i);
/// True if argument `i` is as `a` says (signatures.cpp).
bool argument_matches(const ArgumentType& a, std::span<const Tensor> arguments, size_t i);

/// Finds what the user called on the line where a plan's op `inner` failed: that op, or the composite it is
/// part of.
class FailedCall {
 public:
  FailedCall(Location at, std::string inner) : at_(at), inner_(std::move(inner)) {}
  /// A recorded call.
  void see(Location where, ops::OpId id);
  std::string name() const { return called_ || composite_.empty() ? inner_ : composite_; }

 private:
  Location at_;
  std::string inner_, composite_;
  bool called_ = false;
};

}  // namespace tandem::tracer
