// Files: mapped for reading, written atomically, hashed with SHA-256.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace photon {

/// A regular file mapped read-only.  Directories, devices, FIFOs and unreadable files throw InputError; an empty file
/// is an empty span.  The length is read once: a file that shrinks while mapped is the caller's risk (SIGBUS).
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::filesystem::path path_;
};

/// Sequential output of write_atomically().  Throws InputError naming the file at the first short write.
class FileWriter {
 public:
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

 private:
  friend void write_atomically(const std::filesystem::path&, const std::function<void(FileWriter&)>&);
  FileWriter(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::filesystem::path path_;
};

/// Writes `path` so that readers see the old file or the whole new one: temporary file in the same folder, fsync,
/// rename, fsync of the folder.  If `produce` or the disk fails, the old file is untouched and the temporary removed.
void write_atomically(const std::filesystem::path& path, const std::function<void(FileWriter&)>& produce);
void write_atomically(const std::filesystem::path& path, std::string_view text);

/// A file open for appending, created if it is missing, that one process has at a time.
class LockedFile {
 public:
  LockedFile() = default;
  /// @throws InputError if it cannot be opened, or with `busy` if it is open elsewhere.
  LockedFile(const std::filesystem::path& path, const std::string& busy);
  LockedFile(LockedFile&& other) noexcept { *this = std::move(other); }
  LockedFile& operator=(LockedFile&& other) noexcept;
  ~LockedFile();

  int fd() const { return fd_; }

 private:
  int fd_ = -1;
};

/// The whole file as text; InputError if it is missing, no regular file, or larger than max_bytes.
std::string read_text(const std::filesystem::path& path, std::int64_t max_bytes = 64 << 20);

/// SHA-256 in lower-case hex.
std::string sha256(std::span<const std::byte> bytes);
std::string sha256_file(const std::filesystem::path& path);

}  // namespace photon
