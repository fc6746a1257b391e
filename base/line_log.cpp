#include "base/line_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"

namespace photon {
namespace {

constexpr std::int64_t max_log_bytes = std::int64_t{4} << 30;

LockedFile open_alone(const std::filesystem::path& path) {
  return {path, fmt::format("{}: another process is writing it", path.string())};
}

}  // namespace

LineLog::LineLog(const std::filesystem::path& path,
                 const std::function<bool(std::string_view line, std::int64_t n)>& keep)
    : path_(path), file_(open_alone(path)) {
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
  file_ = open_alone(path);  // was the old file
}

void LineLog::append(std::string_view line) {
  const std::string whole = std::string(line) + '\n';
  std::string_view rest = whole;
  while (!rest.empty()) {
    const auto written = ::write(file_.fd(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw InputError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  empty_ = false;
}

void LineLog::sync() {
  if (::fsync(file_.fd()) != 0)
    throw InputError(fmt::format("{}: cannot sync: {}", path_.string(), std::strerror(errno)));
}

}  // namespace photon
