// Which kernels of OpenBLAS are taken.
#include "train/blas.h"

#include <gtest/gtest.h>

namespace photon {
namespace {

TEST(BlasKernels, OfAnOldCpuGiveWayToWhatTheCpuCanDo) {
  EXPECT_EQ(better_blas_kernels("Prescott", true, true), "SkylakeX");
  EXPECT_EQ(better_blas_kernels("Prescott", true, false), "Haswell");
  EXPECT_EQ(better_blas_kernels("Barcelona", true, false), "Haswell");
}

TEST(BlasKernels, StayWhereTheyAreRight) {
  EXPECT_EQ(better_blas_kernels("Prescott", false, false), "");  // an old CPU
  for (const auto* known : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids", "ARMV8"})
    EXPECT_EQ(better_blas_kernels(known, true, true), "") << known;
}

TEST(BlasKernels, AUsersOwnChoiceStays) {
  ASSERT_EQ(::setenv("OPENBLAS_CORETYPE", "Nehalem", 1), 0);
  EXPECT_TRUE(blas_settings().empty());
  ::unsetenv("OPENBLAS_CORETYPE");
}

}  // namespace
}  // namespace photon
