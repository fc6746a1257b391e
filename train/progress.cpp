// Run log, progress line and the peak probe.
#include "train/progress.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/threads.h"
#include "train/torch.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

}  // namespace

RunLog::RunLog(const fs::path& path, std::int64_t step)
    : log_(path, [&](std::string_view line, std::int64_t n) {
        const json record = json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!record.is_object()) throw InputError(fmt::format("{}: line {} is no record", path.string(), n));
        return record.value("step", std::int64_t{0}) <= step;
      }) {}

void RunLog::append(const json& record) { log_.append(record.dump(-1, ' ', false, json::error_handler_t::replace)); }

double measure_peak_flops(const ComputeRecipe& compute) {
  torch::NoGradGuard no_grad;
  const bool cuda = compute.device == Device::cuda;
  const std::int64_t n = cuda ? 4096 : 1024;
  const auto options = torch::TensorOptions(compute.precision == DType::bf16 ? torch::kBFloat16 : torch::kFloat32)
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
    : recipe_(recipe), flops_per_token_(flops_per_token), peak_flops_(peak_flops) {}

void Progress::report(const Step& s) {
  smoothed_s_ = reported_++ < 1 ? s.seconds : 0.9 * smoothed_s_ + 0.1 * s.seconds;
  const std::int64_t last = recipe_.run.steps;
  if (!line_.on_terminal() && s.step % recipe_.run.log_every != 0 && s.step != last && reported_ > 1) return;
  const double tokens_per_s = static_cast<double>(recipe_.tokens_per_step()) / smoothed_s_;
  line_.show(fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  grad {:.2f}  {:.0f} tok/s  MFU {:.0f}%  {} left", s.step,
                         last, s.loss, s.lr, s.grad_norm, tokens_per_s,
                         100.0 * tokens_per_s * flops_per_token_ / peak_flops_,
                         duration_text(smoothed_s_ * static_cast<double>(last - s.step))));
}

}  // namespace photon
