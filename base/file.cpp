// MappedFile, atomic writing and SHA-256 over POSIX and OpenSSL.
#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"

namespace photon {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& path, const char* action) {
  throw InputError(fmt::format("{}: cannot {}: {}", path.string(), action, std::strerror(errno)));
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::size_t regular_file_size(int fd, const fs::path& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) fail(path, "read its size");
  if (!S_ISREG(info.st_mode)) throw InputError(fmt::format("{}: not a regular file", path.string()));
  return static_cast<std::size_t>(info.st_size);
}

// O_NONBLOCK: opening a FIFO by mistake must fail at the regular-file check, not wait for a writer.
int open_to_read(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail(path, "open");
  return fd;
}

void sync_folder(const fs::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) fail(folder, "sync folder");
}

}  // namespace

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  const Descriptor fd(open_to_read(path));
  size_ = regular_file_size(fd.get(), path);
  if (size_ == 0) return;
  void* mapping = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (mapping == MAP_FAILED) fail(path, "map");
  data_ = static_cast<const std::byte*>(mapping);
}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail(path_, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void write_atomically(const fs::path& path, const std::function<void(FileWriter&)>& produce) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::string temporary = (folder / fmt::format(".{}.XXXXXX", path.filename().string())).string();
  const Descriptor fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (fd.get() < 0) fail(path, "create a temporary file beside it");
  try {
    FileWriter writer(fd.get(), path);
    produce(writer);
    if (::fchmod(fd.get(), 0644) != 0) fail(path, "set its mode");
    if (::fsync(fd.get()) != 0) fail(path, "sync");
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "rename into place");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(folder);
}

void write_atomically(const fs::path& path, std::string_view text) {
  write_atomically(path, [&](FileWriter& out) { out.write(text); });
}

LockedFile::LockedFile(const fs::path& path, const std::string& busy)
    : fd_(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644)) {
  if (fd_ < 0) fail(path, "open");
  if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  throw InputError(busy);
}
LockedFile& LockedFile::operator=(LockedFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}
LockedFile::~LockedFile() {
  if (fd_ >= 0) ::close(fd_);
}

std::string read_text(const fs::path& path, std::int64_t max_bytes) {
  const Descriptor fd(open_to_read(path));
  const std::size_t size = regular_file_size(fd.get(), path);
  if (size > static_cast<std::size_t>(max_bytes))
    throw InputError(fmt::format("{}: {} bytes, at most {} can be read as text", path.string(), size, max_bytes));
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const auto got = ::read(fd.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path, "read");
    if (got == 0) throw InputError(fmt::format("{}: ended after {} of {} bytes", path.string(), done, size));
    done += static_cast<std::size_t>(got);
  }
  return text;
}

std::string sha256(std::span<const std::byte> bytes) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  if (!context || EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) != 1 ||
      EVP_DigestUpdate(context.get(), bytes.data(), bytes.size()) != 1 ||
      EVP_DigestFinal_ex(context.get(), digest.data(), &length) != 1)
    throw Error("SHA-256 is not available in this OpenSSL");
  std::string hex;
  for (unsigned int i = 0; i < length; ++i) hex += fmt::format("{:02x}", digest[i]);
  return hex;
}

std::string sha256_file(const fs::path& path) { return sha256(MappedFile(path).bytes()); }

}  // namespace photon
