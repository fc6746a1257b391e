// What this folder defines: the parts of the table for AMX with BF16 (Intel's servers since Sapphire Rapids), which has
// the rest of its instructions from AVX-512.
#pragma once

#include "kernels/kernels.h"

namespace photon::amx {

extern const MatmulKernels matmul;
extern const PeakKernels peak;

}  // namespace photon::amx
