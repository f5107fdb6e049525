// All of tandem::optim: optimizers and schedulers of their learning rates.
#pragma once

#include "tandem/eager/optim/averaging.h"
#include "tandem/eager/optim/grad_scaler.h"
#include "tandem/eager/optim/optimizer.h"
#include "tandem/eager/optim/optimizers.h"
#include "tandem/eager/optim/schedulers.h"
