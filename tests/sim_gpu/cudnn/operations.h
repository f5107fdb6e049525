// Operations and graphs of the simulated cuDNN: what becomes of their descriptors when they are finalized,
// under the lock of descriptors.h.
#pragma once

#include "tests/sim_gpu/cudnn/descriptors.h"

namespace sim_gpu {

bool is_convolution(int kind);
bool is_operation(int kind);
/// A descriptor that another one names: there, of the kind (-2: an operation), finalized. The status.
int check_part(Descriptor part, int kind);

int finalize_convolution(Descriptor d);
/// Of a convolution in one of its directions.
int finalize_operation(Descriptor d);
/// One of the operations that are no convolutions.
int finalize_other(Descriptor d);
/// A convolution, one to whose result a value a channel is added, or other operations.
int finalize_graph(Descriptor d);

}  // namespace sim_gpu
