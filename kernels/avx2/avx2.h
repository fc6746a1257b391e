// What this folder defines: the parts of the table for AVX2 with FMA (Haswell, Zen and later).
#pragma once

#include "kernels/kernels.h"

namespace photon::avx2 {

extern const RowKernels rows;
extern const MatmulKernels matmul;
extern const AttentionKernels attention;
extern const MemoryKernels memory;
extern const PeakKernels peak;
extern const TrainingKernels training;

}  // namespace photon::avx2
