// Everything of Tandem in one header.
#pragma once

#include "tandem/core/cuda/cuda.h"
#include "tandem/core/cuda/streams.h"
#include "tandem/eager/autograd.h"
#include "tandem/eager/autograd_function.h"
#include "tandem/eager/checkpoint.h"
#include "tandem/eager/data/data.h"
#include "tandem/eager/dlpack.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/kernel.h"
#include "tandem/eager/nn/nn.h"
#include "tandem/eager/optim/optim.h"
#include "tandem/eager/pointwise.h"
#include "tandem/eager/save.h"
#include "tandem/eager/scalars.h"
#include "tandem/eager/warmup.h"
#include "tandem/tracer/trace.h"
