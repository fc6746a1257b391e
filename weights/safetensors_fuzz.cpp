// libFuzzer target: any bytes are refused with a photon::Error or make a file whose every value can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "weights/safetensors.h"

namespace {

// The path of one file in memory that every input is written to in turn.
const std::string& file_holding(std::span<const std::uint8_t> bytes) {
  static const int fd = ::memfd_create("photon-fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != std::ssize(bytes)) std::abort();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const photon::SafeTensors file(file_holding({data, size}));
    std::size_t bytes = 0;
    for (const auto& [name, tensor] : file.tensors()) {
      std::int64_t elements = 1;
      for (const std::int64_t dimension : tensor.shape) elements *= dimension;
      if (elements != tensor.elements()) std::abort();
      if (tensor.dtype == photon::StoredType::f32 || tensor.dtype == photon::StoredType::bf16)
        photon::to_floats(tensor);
      bytes += tensor.bytes.size();
    }
    if (bytes > size) std::abort();
    file.check_finite();
  } catch (const photon::Error&) {
  }
  return 0;
}
