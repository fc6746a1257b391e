// A log of lines that a run goes on writing after it was interrupted.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "base/file.h"

namespace photon {

/// Each line is in the file when append() returns, whole: it is written at once.
class LineLog {
 public:
  /// Opens the file, which need not exist, to be appended to.  Of its lines those stay that `keep` accepts, called with
  /// each line without its end and its number from 1; a last line without an end was cut off by a kill and goes.
  /// @throws InputError if the file cannot be read or written, or another LineLog has it open; whatever `keep` throws,
  /// with the file unchanged.
  LineLog(const std::filesystem::path& path, const std::function<bool(std::string_view line, std::int64_t n)>& keep);

  void append(std::string_view line);  ///< without its end
  bool empty() const { return empty_; }
  /// On the disk, not only in the system's cache.
  void sync();

 private:
  std::filesystem::path path_;
  LockedFile file_;
  bool empty_ = true;
};

}  // namespace photon
