// The fused training operations of an instruction set, from its vectors (training_vectors.h).  For the training files
// of the instruction sets alone: everything is internal to the file that includes it (see isa.h).
#pragma once

#include "kernels/training_attention.h"
#include "kernels/training_rows.h"

namespace photon::training {
namespace {

template <class V>
constexpr TrainingKernels kernels_of() {
  return TrainingKernels{.rms_norm = rms_norm<V>,
                         .rms_norm_backward = rms_norm_backward<V>,
                         .swiglu = swiglu<V>,
                         .swiglu_backward = swiglu_backward<V>,
                         .cross_entropy = cross_entropy<V>,
                         .cross_entropy_backward = cross_entropy_backward<V>,
                         .attention = attention<V>,
                         .attention_backward = attention_backward<V>,
                         .attention_scratch = attention_scratch<V>,
                         .convert = convert<V>,
                         .adamw = adamw<V>,
                         .sum_of_squares = sum_of_squares<V>};
}

}  // namespace
}  // namespace photon::training
