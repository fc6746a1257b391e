// Training speed of a config: forward and backward in bf16 autocast, plain LibTorch beside the fused operations.
//
//   train_model_bench [--threads 2] [--batch 16] [--tokens 256] [--repeat 5] [--fused-only] CONFIG…
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <vector>

#include "base/command_line.h"
#include "base/threads.h"
#include "base/version.h"
#include "spec/accounting.h"
#include "train/model.h"
#include "train/torch.h"

namespace photon {
namespace {

struct Options {
  int64_t threads = usable_cpus(), batch = 16, tokens = 256, repeat = 5;
  bool float32 = false, fused_only = false;
};

struct Cost {
  double wall_s = 0, cpu_s = 0;  // cpu_s: of all threads, which neighbours on the machine disturb less
};

Cost cost_of_a_step(Photon& model, const torch::Tensor& tokens) {
  const auto begin = std::chrono::steady_clock::now();
  const auto cpu_begin = std::clock();
  model.zero_grad();
  model.loss(tokens).total.backward();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
          static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC};
}

void measure(const std::filesystem::path& config, const Options& options) {
  const Spec spec = load_spec(config);
  Photon model(spec);
  if (!options.float32) model.set_compute_dtype(torch::kBFloat16);
  const auto tokens = torch::randint(spec.vocab_size, {options.batch, options.tokens}, torch::kInt64);
  const auto kinds = options.fused_only ? std::vector<bool>{true} : std::vector<bool>{false, true};
  std::vector<Cost> costs[2];  // plain, fused: interleaved, so that both meet the same neighbours
  for (int64_t i = -1; i < options.repeat; ++i) {
    for (const bool fused : kinds) {
      ops::set_fused(fused);
      const Cost cost = cost_of_a_step(model, tokens);
      if (i >= 0) costs[fused].push_back(cost);
    }
  }
  for (const bool fused : kinds) {
    auto& c = costs[fused];
    std::sort(c.begin(), c.end(), [](const Cost& a, const Cost& b) { return a.wall_s < b.wall_s; });
    const Cost& median = c[c.size() / 2];
    const auto rate = [&](double step_s) { return static_cast<double>(options.batch * options.tokens) / step_s; };
    fmt::print("{:32} {:6.2f} M  {:5}  median {:8.0f} tok/s  ({:.0f} … {:.0f})  {:6.3f} CPU s a step\n",
               config.filename().string(), static_cast<double>(count_parameters(spec).total) / 1e6,
               fused ? "fused" : "plain", rate(median.wall_s), rate(c.back().wall_s), rate(c.front().wall_s),
               median.cpu_s);
  }
}

}  // namespace
}  // namespace photon

int main(int argc, char** argv) {
  photon::CommandLine line(
      "Training speed of model configs: forward and backward, plain LibTorch beside the fused operations",
      photon::version_line("train_model_bench"));
  photon::Command command = line.command();
  photon::Options options;
  std::vector<std::filesystem::path> configs;
  command.option("configs", configs, "config.json files").required();
  command.option("--threads", options.threads, "threads");
  command.option("--batch", options.batch, "windows in a step");
  command.option("--tokens", options.tokens, "tokens in a window");
  command.option("--repeat", options.repeat, "steps of each kind, interleaved");
  command.flag("--float32", options.float32, "float32 instead of bf16 autocast");
  command.flag("--fused-only", options.fused_only, "leave plain LibTorch out, for a profiler");
  command.runs([&] {
    at::set_num_threads(static_cast<int>(options.threads));
    for (const auto& config : configs) photon::measure(config, options);
  });
  return line.run(argc, argv);
}
