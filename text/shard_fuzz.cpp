// Fuzz target: any bytes as a shard are opened and read to the end, or refused with InputError.  Bytes long enough for
// a header are tried again with right checksums, which no fuzzer would find.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "base/error.h"
#include "text/shard.h"

namespace {

constexpr std::size_t tokens_sha256_at = 96, header_sha256_at = 128, header_bytes = 192;

void open_shard(const std::string& bytes) {
  static const int fd = ::memfd_create("shard", MFD_CLOEXEC);
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    return;
  try {
    const photon::Shard shard("/proc/self/fd/" + std::to_string(fd));
    for (std::int64_t i = 0; i < shard.size(); ++i)
      if (shard[i] < 0 || shard[i] >= shard.vocab_size()) __builtin_trap();
  } catch (const photon::InputError&) {
  }
}

void put_sha256(std::string& bytes, std::size_t at, std::size_t first, std::size_t last) {
  const std::string hex = photon::sha256(std::as_bytes(std::span(bytes).subspan(first, last - first)));
  for (std::size_t i = 0; i < 32; ++i) bytes[at + i] = static_cast<char>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  open_shard(bytes);
  if (size < header_bytes) return 0;
  put_sha256(bytes, tokens_sha256_at, header_bytes, size);
  put_sha256(bytes, header_sha256_at, 0, header_sha256_at);
  open_shard(bytes);
  return 0;
}
