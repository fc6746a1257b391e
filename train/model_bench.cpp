// Training speed of a config: forward and backward in bf16 autocast, plain LibTorch beside the fused operations.
//
//   train_model_bench [--threads 2] [--batch 16] [--tokens 256] [--repeat 5] CONFIG…
#include <fmt/format.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <vector>

#include "base/threads.h"
#include "spec/accounting.h"
#include "train/model.h"

namespace photon {
namespace {

struct Options {
  int64_t threads = usable_cpus(), batch = 16, tokens = 256, repeat = 5;
  bool float32 = false;
};

double seconds_of_a_step(Photon& model, const torch::Tensor& tokens) {
  const auto begin = std::chrono::steady_clock::now();
  model.zero_grad();
  model.loss(tokens).total.backward();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure(const std::filesystem::path& config, const Options& options) {
  const Spec spec = load_spec(config);
  Photon model(spec);
  if (!options.float32) model.set_compute_dtype(torch::kBFloat16);
  const auto tokens = torch::randint(spec.vocab_size, {options.batch, options.tokens}, torch::kInt64);
  std::vector<double> seconds[2];  // plain, fused: interleaved, so that both meet the same neighbours
  for (int64_t i = -1; i < options.repeat; ++i) {
    for (const bool fused : {false, true}) {
      ops::set_fused(fused);
      const double s = seconds_of_a_step(model, tokens);
      if (i >= 0) seconds[fused].push_back(s);
    }
  }
  for (const bool fused : {false, true}) {
    auto& s = seconds[fused];
    std::sort(s.begin(), s.end());
    const auto rate = [&](double step_s) { return static_cast<double>(options.batch * options.tokens) / step_s; };
    fmt::print("{:32} {:6.2f} M  {:5}  median {:8.0f} tok/s  ({:.0f} … {:.0f})\n", config.filename().string(),
               static_cast<double>(count_parameters(spec).total) / 1e6, fused ? "fused" : "plain",
               rate(s[s.size() / 2]), rate(s.back()), rate(s.front()));
  }
}

}  // namespace
}  // namespace photon

int main(int argc, char** argv) {
  CLI::App app("Training speed of model configs: forward and backward, plain LibTorch beside the fused operations");
  photon::Options options;
  std::vector<std::filesystem::path> configs;
  app.add_option("configs", configs, "config.json files")->required();
  app.add_option("--threads", options.threads, "threads")->capture_default_str();
  app.add_option("--batch", options.batch, "windows in a step")->capture_default_str();
  app.add_option("--tokens", options.tokens, "tokens in a window")->capture_default_str();
  app.add_option("--repeat", options.repeat, "steps of each kind, interleaved")->capture_default_str();
  app.add_flag("--float32", options.float32, "float32 instead of bf16 autocast");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(static_cast<int>(options.threads));
  for (const auto& config : configs) photon::measure(config, options);
}
