// photon-train: trains models of the PHOTON family from a recipe.
#include <ATen/Parallel.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <torch/version.h>
#include <unistd.h>

#include <atomic>
#include <exception>

#include "base/command_line.h"
#include "base/error.h"
#include "base/threads.h"
#include "base/version.h"
#include "train/blas.h"
#include "train/trainer.h"

namespace {

std::atomic<bool> stop_requested{false};

// The first signal asks the loop to save and stop, the second one ends the process.
void on_signal(int signal) {
  if (stop_requested.exchange(true)) ::_exit(128 + signal);
}

void catch_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  photon::Environment settings = photon::openmp_settings();
  settings.merge(photon::blas_settings());
  photon::start_with(settings, argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("photon-train"));
  spdlog::set_pattern("%^%l%$: %v");

  photon::CommandLine line("Trains PHOTON, Block Transformer and vanilla models from a recipe",
                           photon::version_line("photon-train") + "\nLibTorch " TORCH_VERSION);
  photon::Command app = line.command();
  std::string recipe_file, resume_folder;
  std::vector<std::string> overrides;
  bool check_only = false;
  const photon::Argument recipe_option =
      app.option("recipe", recipe_file, "Recipe (TOML); goes on if its run.out already holds this run");
  app.option("--resume", resume_folder, "Run folder to go on with, from its newest checkpoint").excludes(recipe_option);
  app.option("--set", overrides, "section.key=value: overrides a key of the recipe; may be repeated").repeatable();
  app.flag("--check", check_only, "Only check recipe and data");
  app.footer("Recipe keys:\n" + photon::recipe_keys() +
             "\nCtrl-C or SIGTERM: saves a checkpoint and ends with exit code 0; a second one ends at once.\n"
             "\nExample:\n  photon-train recipes/tiny.toml --set run.out=runs/tiny --set run.steps=50");
  app.runs([&] {
    if (recipe_file.empty() == resume_folder.empty()) throw photon::UsageError("a recipe or --resume RUN is required");
    photon::Recipe recipe = photon::load_recipe(
        recipe_file.empty() ? std::filesystem::path(resume_folder) / "recipe.toml" : std::filesystem::path(recipe_file),
        overrides);
    if (!resume_folder.empty()) recipe.run.out = std::filesystem::absolute(resume_folder).lexically_normal();
    if (check_only) {
      photon::open_data(recipe);
      fmt::print("{}", photon::to_toml(recipe));
      return;
    }
    at::set_num_interop_threads(1);
    catch_signals();
    photon::Trainer(recipe, [] { return stop_requested.load(); }).run();
  });
  try {
    return line.run(argc, argv);
  } catch (const std::exception& e) {
    spdlog::error("{}", e.what());
    return 1;
  }
}
