// An executable taken apart for people: drawings and reports. Made on demand and a value of its own, so that
// running executables keep no more than they run. Any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/plan.h"

namespace tandem::jit {

struct Description {
  Prepared prepared;  // the graph as it was planned; the plan's notes speak of its nodes and values
  Plan plan;
  /// Per kernel of the plan: source, or the reason why it is interpreted (then not compiled).
  std::vector<std::string> sources;
  std::vector<char> compiled;
};

}  // namespace tandem::jit
