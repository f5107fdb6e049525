// The rules that a single node must keep, shared by the checker and the parser of the text form. Free
// functions over values, any thread.
#pragma once

#include <string>

#include "tandem/jit/graph.h"

namespace tandem::jit {

struct Defect {
  std::string expected;  // what should stand there; empty: the node keeps all rules
  int result = -1;       // the result whose type is wrong
};

/// Looks at leaf, operands, attributes and result types, inferred again. Operands and results must be ids of
/// `g`.
Defect node_defect(const Graph& g, const Node& n);

/// Whether numbers are known to `op` (see ops::number_arithmetic), with its operand count.
bool is_number_arithmetic(int64_t op, size_t operands);

}  // namespace tandem::jit
