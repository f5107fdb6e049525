// A small network that traps of training share, its batches, and all tensors of a list seen.
#pragma once

#include "tests/contract/trap.h"

namespace programs {

struct Net : td::nn::Module {
  td::nn::Linear hidden = child<td::nn::Linear>("hidden", 3, 4);
  td::nn::Linear out = child<td::nn::Linear>("out", 4, 2);
  Tensor forward(const Tensor& x) const { return out(td::tanh(hidden(x))); }
};

inline Tensor batch(int i) { return td::sin(range(6, float(i)).view({2, 3})); }

inline void see_all(Run& run, const std::vector<Tensor>& list) {
  for (const Tensor& t : list) run.see(t);
}

}  // namespace programs
