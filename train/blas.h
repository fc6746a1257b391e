// The BLAS library below LibTorch: OpenBLAS chooses its kernels by a list of CPUs that were known when it was released.
#pragma once

#include <string>
#include <string_view>

#include "base/threads.h"

namespace photon {

/// For a CPU that it does not know, OpenBLAS takes kernels of 2004 to 2011, with vectors of 128 or 256 bits and without
/// fused multiply-add: a Xeon newer than Debian's OpenBLAS multiplies float32 matrices at a fifth of its speed.
///
/// @param chosen  the kernels that it took, by its name for them
/// @return the value of OPENBLAS_CORETYPE that has it take what the CPU can do; "" where `chosen` is as good
std::string better_blas_kernels(std::string_view chosen, bool has_avx2, bool has_avx512);

/// OPENBLAS_CORETYPE for this CPU; empty where OpenBLAS knows it, where another BLAS is used, or the user set one.
Environment blas_settings();

}  // namespace photon
