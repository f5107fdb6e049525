// Convolutions, pooling and interpolation against PyTorch's layers.
#include "tests/pytorch/layers.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("Convolutions are PyTorch's", "[pytorch]") {
  if (!have_pytorch()) return;
  LayerSuite s;
  s.one<nn::Conv1d>("Conv1d", {"[3, 5, 3]"}, {2, 3, 9}, 3, 5, 3);
  s.one<nn::Conv1d>("Conv1d", {"[4, 6, 3, 2, 1, 2, 2, false]"}, {2, 4, 11}, 4, 6, 3, 2, 1, 2, 2, false);
  s.one<nn::Conv2d>("Conv2d", {"[3, 4, 3]"}, {2, 3, 7, 8}, 3, 4, 3);
  s.one<nn::Conv2d>("Conv2d", {"[3, 4, [3, 2], [2, 1], [1, 2], [1, 2]]"}, {2, 3, 7, 8}, 3, 4, Dims{3, 2},
                    Dims{2, 1}, Dims{1, 2}, Dims{1, 2});
  s.one<nn::Conv2d>("Conv2d", {"[4, 8, 3, 1, 1, 1, 4]"}, {2, 4, 6, 5}, 4, 8, 3, 1, 1, 1, 4);
  s.one<nn::Conv2d>("Conv2d", {"[16, 32, 3, 1, 1]"}, {4, 16, 14, 14}, 16, 32, 3, 1, 1);
  s.one<nn::Conv2d>("Conv2d", {"[8, 16, 1, 2]"}, {2, 8, 9, 9}, 8, 16, 1, 2);
  s.one<nn::ConvTranspose1d>("ConvTranspose1d", {"[3, 5, 3, 2, 1, 1]"}, {2, 3, 6}, 3, 5, 3, 2, 1, 1);
  s.one<nn::ConvTranspose2d>("ConvTranspose2d", {"[3, 4, 3]"}, {2, 3, 5, 4}, 3, 4, 3);
  s.one<nn::ConvTranspose2d>("ConvTranspose2d", {"[4, 6, [3, 2], [2, 3], [1, 0], [1, 0], 2, true, [1, 2]]"},
                             {2, 4, 5, 4}, 4, 6, Dims{3, 2}, Dims{2, 3}, Dims{1, 0}, Dims{1, 0}, 2, true,
                             Dims{1, 2});
  s.compare();
}

