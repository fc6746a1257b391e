// What this folder defines: the parts of the table for AVX-512 with BF16 and VNNI (Zen 4, Cooper Lake, Sapphire Rapids
// and later).
#pragma once

#include "kernels/kernels.h"

namespace photon::avx512 {

extern const RowKernels rows;
extern const MatmulKernels matmul;
extern const AttentionKernels attention;
extern const MemoryKernels memory;
extern const PeakKernels peak;
extern const TrainingKernels training;

}  // namespace photon::avx512
