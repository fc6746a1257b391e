// What changes from step to step: the learning rate (linear warm-up, then cosine decay or warm-up–stable–decay, WSD)
// and the width of the span.
#pragma once

#include "train/recipe.h"

namespace photon {

/// The learning rate of optimiser step `step` = 1…recipe.run.steps.
///   cosine: from lr after the warm-up down to min_lr_ratio·lr at the last step, half a cosine
///   wsd:    lr after the warm-up; over the last decay_fraction of all steps down to min_lr_ratio·lr as 1 - sqrt(done)
double learning_rate(const Recipe& recipe, std::int64_t step);

/// Steps of decay at the end: decay_fraction of all steps (wsd), all steps after the warm-up (cosine).
std::int64_t decay_steps(const Recipe& recipe);

/// How wide the span of the stack that predicts tokens is in forward pass `pass` of optimiser step `step`: its own, or,
/// with batch.window_min, drawn from window_min to its own, evenly in its logarithm.  The same for the same recipe.
std::int64_t span_size(const Recipe& recipe, std::int64_t step, std::int64_t pass);

}  // namespace photon
