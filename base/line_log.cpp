#include "base/line_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace photon {
namespace {

constexpr std::int64_t max_log_bytes = std::int64_t{4} << 30;

// To be appended to, by one process at a time.
int open_alone(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) throw InputError(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  ::close(fd);
  throw InputError(fmt::format("{}: another process is writing it", path.string()));
}

}  // namespace

LineLog::LineLog(const std::filesystem::path& path,
                 const std::function<bool(std::string_view line, std::int64_t n)>& keep)
    : path_(path), fd_(open_alone(path)) {
  try {
    const std::string text = read_text(path, max_log_bytes);
    std::string kept;
    std::int64_t n = 0;
    std::string_view rest = text;
    for (auto end = rest.find('\n'); end != rest.npos; end = rest.find('\n')) {
      if (keep(rest.substr(0, end), ++n)) kept += rest.substr(0, end + 1);
      rest.remove_prefix(end + 1);
    }
    empty_ = kept.empty();
    if (kept.size() == text.size()) return;
    write_atomically(path, kept);
    ::close(std::exchange(fd_, -1));  // of the old file
    fd_ = open_alone(path);
  } catch (...) {
    if (fd_ >= 0) ::close(fd_);
    throw;
  }
}

LineLog::~LineLog() { ::close(fd_); }

void LineLog::append(std::string_view line) {
  const std::string whole = std::string(line) + '\n';
  std::string_view rest = whole;
  while (!rest.empty()) {
    const auto written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw InputError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  empty_ = false;
}

void LineLog::sync() {
  if (::fsync(fd_) != 0) throw InputError(fmt::format("{}: cannot sync: {}", path_.string(), std::strerror(errno)));
}

}  // namespace photon
