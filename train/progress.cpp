// Run log, progress line and the peak probe.
#include "train/progress.h"

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <torch/torch.h>
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/threads.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
}

}  // namespace

RunLog::RunLog(const fs::path& path, std::int64_t step) : path_(path) {
  if (fs::exists(path)) {
    const std::string text = read_text(path, std::int64_t{4} << 30);
    std::string kept;
    for (std::size_t begin = 0, line_number = 1; begin < text.size(); ++line_number) {
      const std::size_t end = text.find('\n', begin);
      if (end == text.npos) break;  // cut off by a kill
      const std::string line = text.substr(begin, end + 1 - begin);
      begin = end + 1;
      const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
      if (!record.is_object()) throw InputError(fmt::format("{}: line {} is no record", path.string(), line_number));
      if (record.value("step", std::int64_t{0}) <= step) kept += line;
    }
    write_atomically(path, kept);
    empty_ = kept.empty();
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  if (fd_ < 0) throw InputError(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
}

RunLog::~RunLog() { ::close(fd_); }

void RunLog::append(const json& record) {
  const std::string line = record.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  std::string_view rest = line;
  while (!rest.empty()) {
    const auto written = ::write(fd_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw InputError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  empty_ = false;
}

void RunLog::sync() {
  if (::fsync(fd_) != 0) throw InputError(fmt::format("{}: cannot sync: {}", path_.string(), std::strerror(errno)));
}

double measure_peak_flops(const ComputeRecipe& compute) {
  torch::NoGradGuard no_grad;
  const bool cuda = compute.device == Device::cuda;
  const std::int64_t n = cuda ? 4096 : 1024;
  const auto options = torch::TensorOptions(compute.precision == Precision::bf16 ? torch::kBFloat16 : torch::kFloat32)
                           .device(cuda ? torch::kCUDA : torch::kCPU);
  const torch::Tensor a = torch::ones({n, n}, options), b = torch::ones({n, n}, options);
  const auto finish = [&](const torch::Tensor& c) { return c.view(-1)[0].item<double>(); };  // waits for the GPU
  finish(torch::mm(a, b));
  double best = 1e30;
  for (const auto start = Clock::now(); seconds_since(start) < 0.3;) {
    const auto begin = Clock::now();
    finish(torch::mm(a, b));
    best = std::min(best, seconds_since(begin));
  }
  return 2.0 * static_cast<double>(n * n * n) / best;
}

json machine_record(const ComputeRecipe& compute) {
  json record{{"cpu", cpu_model()},
              {"threads", at::get_num_threads()},
              {"torch", TORCH_VERSION},
              {"device", compute.device == Device::cuda ? "cuda" : "cpu"}};
  if (compute.device == Device::cuda) record["gpus"] = torch::cuda::device_count();
  return record;
}

Progress::Progress(const Recipe& recipe, double flops_per_token, double peak_flops)
    : recipe_(recipe),
      flops_per_token_(flops_per_token),
      peak_flops_(peak_flops),
      terminal_(::isatty(STDERR_FILENO) == 1) {}

void Progress::report(const Step& s) {
  smoothed_s_ = reported_++ < 1 ? s.seconds : 0.9 * smoothed_s_ + 0.1 * s.seconds;
  const std::int64_t last = recipe_.run.steps;
  if (!terminal_ && s.step % recipe_.run.log_every != 0 && s.step != last && reported_ > 1) return;
  const double tokens_per_s = static_cast<double>(recipe_.tokens_per_step()) / smoothed_s_;
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  grad {:.2f}  {:.0f} tok/s  MFU {:.0f}%  {} left", s.step, last,
                  s.loss, s.lr, s.grad_norm, tokens_per_s, 100.0 * tokens_per_s * flops_per_token_ / peak_flops_,
                  duration(smoothed_s_ * static_cast<double>(last - s.step)));
  if (terminal_) {
    winsize size{};  // a longer line would wrap, and could not be rewritten
    const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    fmt::print(stderr, "\r\x1b[K{}", line.substr(0, known ? size.ws_col - 1u : line.npos));
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
  line_open_ = terminal_;
}

void Progress::say(const std::string& line) {
  finish();
  fmt::print(stderr, "{}\n", line);
}

void Progress::finish() {
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
}

}  // namespace photon
