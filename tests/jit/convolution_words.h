// What tests of convolutions in graphs share. Values; any thread.
#pragma once

#include <vector>

#include "tandem/ops/convolutions/convolutions.h"

namespace tandem::test {

/// What the library of this machine computes in for 32 channels; 0: in row-major order, and nothing changes.
inline int64_t block_here() {
  ops::ConvolutionShape s;
  s.dtype = DType::float32;
  s.batch = 2, s.channels = s.outputs = 32;
  for (int d = 1; d < ops::kConvolutionAxes; ++d) s.in[d] = s.out[d] = 14, s.kernel[d] = 3, s.padding[d] = 1;
  return ops::own_blocks(s).y;
}

/// A call's words: numbers, then lists.
inline std::vector<int64_t> words_of(std::initializer_list<int64_t> head, std::initializer_list<Dims> lists) {
  std::vector<int64_t> words(head);
  for (const Dims& l : lists) {
    words.push_back(l.size());
    words.insert(words.end(), l.begin(), l.end());
  }
  return words;
}

}  // namespace tandem::test
