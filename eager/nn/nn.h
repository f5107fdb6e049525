// All of tandem::nn: modules, layers, containers, initialisers.
#pragma once

#include "tandem/eager/nn/activations.h"
#include "tandem/eager/nn/attention.h"
#include "tandem/eager/nn/clip.h"
#include "tandem/eager/nn/containers.h"
#include "tandem/eager/nn/convolution.h"
#include "tandem/eager/nn/init.h"
#include "tandem/eager/nn/layers.h"
#include "tandem/eager/nn/loss_layers.h"
#include "tandem/eager/nn/module.h"
#include "tandem/eager/nn/normalisation.h"
#include "tandem/eager/nn/pooling.h"
#include "tandem/eager/nn/recurrent.h"
#include "tandem/eager/nn/transformer.h"
