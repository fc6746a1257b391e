// What this folder uses of LibTorch: tensors, modules, gradients.  Without the rest of torch/torch.h (data loaders,
// optimisers, layers) a source is read in three quarters of the time.
#pragma once

#include <torch/autograd.h>
#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>
