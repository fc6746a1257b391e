// OpenBLAS's choice of kernels, mended.
#include "train/blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>

namespace photon {

std::string better_blas_kernels(std::string_view chosen, bool has_avx2, bool has_avx512) {
  static constexpr std::array kWithoutFma{"Core2",    "Penryn",      "Dunnington", "Nehalem",
                                          "Prescott", "Atom",        "Nano",       "Barcelona",
                                          "Bobcat",   "Sandybridge", "Bulldozer",  "Opteron_SSE3"};
  if (std::ranges::find(kWithoutFma, chosen) == kWithoutFma.end()) return "";
  return has_avx512 ? "SkylakeX" : has_avx2 ? "Haswell" : "";
}

Environment blas_settings() {
  static constexpr auto kVariable = "OPENBLAS_CORETYPE";
  if (std::getenv(kVariable) != nullptr) return {};
  // LibTorch links some BLAS; only OpenBLAS has this function.
  const auto chosen = reinterpret_cast<char* (*)()>(::dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  if (chosen == nullptr) return {};
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  const bool avx2 = false, avx512 = false;
#endif
  const std::string better = better_blas_kernels(chosen(), avx2, avx512);
  return better.empty() ? Environment{} : Environment{{kVariable, better}};
}

}  // namespace photon
