// The table of workloads (workload.h): one row a model. Immutable; any thread.
#pragma once

#include <span>
#include <string>

#include "samples/models/workload.h"

namespace samples {

std::span<const WorkloadRecipe> workload_recipes();

/// The row of that name; an Error lists the names there are.
const WorkloadRecipe& workload_recipe(const std::string& name);

}  // namespace samples
