// What a graph computes of inputs alone that stay as they are from run to run, parted from the rest: weights
// cast to another type, statistics made a factor, and matrices in the layout that own tiles read best. Who
// runs the graph makes these once, keeps them for as long as the inputs last, and gives them to the rest.
// Values; any thread.
#pragma once

#include <optional>
#include <vector>

#include "tandem/jit/graph.h"
#include "tandem/ops/convolutions/convolutions.h"
#include "tandem/ops/products/products.h"

namespace tandem::jit {

struct KeptValue {
  int64_t nbytes = 0;  // as `rest` takes it
  Form form = Form::strides;
  ops::ProductCall matrix;            // panels: the result of `makes` as B, without addresses
  ops::ConvolutionShape convolution;  // weight: whose

  /// From the result of `makes` to the form in which `rest` takes it, if that is another one.
  void lay(const void* made, void* to) const;
};

struct KeptPart {
  Graph makes;                    // outputs: what is kept, one for each of `values`
  std::vector<int32_t> inputs;    // of `makes`: which of the whole graph's
  std::vector<KeptValue> values;  // inputs of `rest` behind those of the whole graph
  Graph rest;                     // has the whole's inputs, numbers, outputs and writes

  int64_t nbytes() const;
};

/// The parts of `g`, which is not optimised yet and will run on `device`; nothing if there is nothing to
/// keep. `lasting`: per input, whether its elements stay as they are; no such input is written by the graph.
/// `known`: per run-time number its word, if it is always the same. Exact.
std::optional<KeptPart> part_kept(const Graph& g, const std::vector<char>& lasting,
                                  const std::vector<std::optional<int64_t>>& known, Device device);

}  // namespace tandem::jit
