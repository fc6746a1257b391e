// sample_text() through `photon generate`.
#include "train/sample.h"

#include <system_error>

#include "train/child.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

std::string photon_program() {
  std::error_code error;
  const fs::path here = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& candidate : {here / "photon", here.parent_path() / "cli" / "photon"})
    if (!error && fs::is_regular_file(candidate)) return candidate.string();
  return "photon";
}

}  // namespace

std::optional<std::string> sample_text(const fs::path& model, const std::string& prompt, std::int64_t n_tokens,
                                       std::uint64_t seed) {
  return run_program({photon_program(), "generate", "-m", model.string(), "-p", prompt, "-n", std::to_string(n_tokens),
                      "--temperature", "0.8", "--seed", std::to_string(seed)},
                     model);
}

}  // namespace photon
