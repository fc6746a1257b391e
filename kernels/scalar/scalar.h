// What this folder defines: the parts of the scalar table, the reference that every other instruction set is held to.
#pragma once

#include "kernels/kernels.h"

namespace photon::scalar {

extern const RowKernels rows;
extern const MatmulKernels matmul;
extern const AttentionKernels attention;
extern const MemoryKernels memory;
extern const PeakKernels peak;
extern const TrainingKernels training;

}  // namespace photon::scalar
