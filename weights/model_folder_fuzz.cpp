// libFuzzer target: weights of any bytes beside a valid config.json are refused with a photon::Error, or every row of
// every matrix, quantised or not, can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>

#include "base/folder_testing.h"
#include "weights/model_folder.h"

namespace {

namespace fs = std::filesystem;

// The smallest model: three shapes of matrices with tails of groups and bytes.
photon::Spec smallest_spec() {
  photon::Spec spec{.vocab_size = 3, .d_embed = 3, .bos_token_id = 1, .eos_token_id = 2, .levels = {}, .trunk = {}};
  spec.tie_embeddings = true;
  spec.trunk = photon::StackSpec{.d_model = 3, .n_layers = 1, .n_heads = 1, .n_kv_heads = 1, .head_dim = 1, .d_ff = 33};
  return spec;
}

// A model folder whose weights are a file in memory that every input is written to in turn.
struct Folder {
  photon::testing_support::TemporaryFolder root;
  int fd = ::memfd_create("photon-fuzz", 0);

  Folder() {
    photon::write_atomically(root / photon::config_file, photon::to_json(smallest_spec()));
    fs::create_symlink("/proc/self/fd/" + std::to_string(fd), root / photon::weights_file);
  }
  void hold(std::span<const std::uint8_t> bytes) const {
    if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != std::ssize(bytes)) std::abort();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  folder.hold({data, size});
  try {
    const photon::ModelFolder model = photon::open_model_folder(folder.root.path(), /*check_finite=*/true);
    for (const auto& [name, matrix] : model.matrices) {
      unsigned checksum = 0;
      for (std::int64_t r = 0; r < matrix.rows; ++r) {
        for (const std::byte value : matrix.values_row(r)) checksum += std::to_integer<unsigned>(value);
        if (matrix.is_quantized())
          for (const photon::bf16 scale : matrix.scales_row(r))
            if (!std::isfinite(photon::to_float(scale))) std::abort();
      }
      static_cast<void>(*const_cast<const volatile unsigned*>(&checksum));
    }
  } catch (const photon::Error&) {
  }
  return 0;
}
