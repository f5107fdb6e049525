#include "tandem/jit/make_plan.h"

#include <utility>

#include "tandem/jit/attention_call.h"
#include "tandem/jit/channel_blocks.h"
#include "tandem/jit/convolution_call.h"
#include "tandem/jit/recompute.h"

namespace tandem::jit {

Graph for_device(const Graph& g, Device device) {
  return with_bias_apart(with_library_calls(g, device), device);
}

Prepared prepared_for(const Graph& g, Device device) {
  Prepared prepared = prepare(g, device);
  if (device.type == DeviceType::cuda && !library_takes(prepared, device)) return prepare(g, device, true);
  return prepared;
}

MadePlan make_plan(Graph& g, bool fused, Device device, int64_t non_temporal_nbytes) {
  const bool host = device.type == DeviceType::cpu;
  check_channel_blocks(g, device);
  if (fused && host) g = with_channel_blocks(g);
  Prepared prepared = prepared_for(g, device);
  Grouping grouping = group(prepared, fused, host);
  if (fused && recompute_for_readers(g, prepared, grouping, host)) {
    prepared = prepared_for(g, device);
    grouping = group(prepared, fused, host);
  }
  Plan plan = build_plan(prepared, grouping, fused, host, host ? non_temporal_nbytes : 0);
  return {std::move(prepared), std::move(grouping), std::move(plan)};
}

}  // namespace tandem::jit
