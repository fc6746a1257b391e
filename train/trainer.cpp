// The training loop.
#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <torch/cuda.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/error.h"
#include "base/version.h"
#include "spec/accounting.h"
#include "train/export.h"
#include "train/fused.h"
#include "train/plot.h"
#include "train/sample.h"
#include "train/schedule.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

torch::Device torch_device(const ComputeRecipe& compute) {
  if (compute.device == Device::cpu) return torch::kCPU;
  if (!torch::cuda::is_available())
    throw InputError("compute.device is cuda, but this LibTorch finds no CUDA device; set compute.device=cpu");
  return torch::kCUDA;
}

bool due(std::int64_t step, std::int64_t every) { return every > 0 && step % every == 0; }

std::vector<std::string> checksums(const TrainingData& data) {
  std::vector<std::string> list;
  for (const Shard& shard : data.train) list.push_back(shard.checksum());
  for (const ValidShard& valid : data.valid) list.push_back(valid.shard.checksum());
  return list;
}

}  // namespace

Trainer::Trainer(const Recipe& recipe, std::function<bool()> interrupted)
    : recipe_(recipe),
      interrupted_(std::move(interrupted)),
      device_(torch_device(recipe.compute)),
      data_(open_data(recipe)) {
  at::set_num_threads(static_cast<int>(recipe_.compute.threads));
  at::globalContext().setFlushDenormal(true);
  fused::keep_freed_memory();

  model_ = std::make_shared<Photon>(recipe_.model, InitOptions{.seed = static_cast<std::uint64_t>(recipe_.run.seed),
                                                               .scale_residual = true,
                                                               .memory_offset = recipe_.run.memory_offset});
  model_->to(device_);
  model_->set_compute_dtype(recipe_.compute.precision == DType::bf16 ? torch::kBFloat16 : torch::kFloat32);
  optimizer_.emplace(*model_, recipe_.optimizer);
  mixture_.emplace(data_.train, recipe_);
  state_.data = mixture_->position();
  state_.data_checksums = checksums(data_);
  flops_per_token_ = forward_and_backward * training_flops(recipe_.model, recipe_.batch.tokens).total();
  peak_flops_ = measure_peak_flops(recipe_.compute);
  open_run_folder();
  progress_.emplace(recipe_, flops_per_token_, peak_flops_);
}

void Trainer::open_run_folder() {
  const fs::path& run = recipe_.run.out;
  if (fs::exists(run) && !fs::exists(run / "recipe.toml") && !fs::is_empty(run) && !fs::exists(run / ".lock"))
    throw InputError(fmt::format("{}: exists and is no run folder; choose another run.out", run.string()));
  fs::create_directories(run);
  lock_ = LockedFile(run / ".lock", fmt::format("{}: another process is training in this folder", run.string()));
  const fs::path stored = run / "recipe.toml";
  if (!fs::exists(stored)) write_atomically(stored, to_toml(recipe_));
  if (const auto keys = differences(recipe_, load_recipe(stored)); !keys.empty())
    throw InputError(
        fmt::format("{}: holds a run with another recipe (there); choose another run.out or set these as "
                    "there:\n  {}",
                    run.string(), fmt::join(keys, "\n  ")));
  state_.recipe = sha256_file(stored);
  if (const auto found = newest_checkpoint(run)) {
    if (found->state.recipe != state_.recipe || found->state.data.sources.size() != state_.data.sources.size())
      throw InputError(
          fmt::format("{}: was saved under another recipe than {}", found->folder.string(), stored.string()));
    if (found->state.data_checksums != state_.data_checksums)
      throw InputError(
          fmt::format("{}: the shards hold other tokens than those that this run was started with", run.string()));
    load_checkpoint(*found, *optimizer_);
    mixture_->seek(found->state.data);
    state_ = found->state;
    spdlog::info("resuming {} after step {}", run.string(), state_.step);
  } else if (fs::exists(run / "log.jsonl")) {
    spdlog::info("{} holds no usable checkpoint: starting from step 0", run.string());
  }
  log_.emplace(run / "log.jsonl", state_.step);
  write_header();
}

void Trainer::write_header() {
  const json machine = machine_record(recipe_.compute);
  spdlog::info("{} parameters, {}, {} threads, LibTorch {}, peak {:.0f} GFLOP/s in {}",
               count_parameters(recipe_.model).total, machine["cpu"].get<std::string>(), recipe_.compute.threads,
               machine["torch"].get<std::string>(), peak_flops_ * 1e-9, to_string(recipe_.compute.precision));
  if (!log_->empty()) {
    log_->append(
        {{"resumed", {{"step", state_.step}, {"machine", machine}, {"commit", commit()}, {"peak_flops", peak_flops_}}},
         {"step", state_.step}});
    return;
  }
  const auto shard_record = [](const Shard& shard) {
    return json{{"path", shard.path().string()},
                {"tokens", shard.size()},
                {"sha256", shard.checksum()},
                {"tokenizer", shard.tokenizer_hash()}};
  };
  json train = json::array(), valid = json::object();
  for (const Shard& shard : data_.train) train.push_back(shard_record(shard));
  for (const ValidShard& held_out : data_.valid) valid[held_out.name] = shard_record(held_out.shard);
  log_->append({{"format", "photon-log"},
                {"version", 1},
                {"recipe", json::parse(recipe_json(recipe_))},
                {"model", json::parse(to_json(recipe_.model))},
                {"parameters", count_parameters(recipe_.model).total},
                {"flops_per_token", flops_per_token_},
                {"peak_flops", peak_flops_},
                {"data", {{"train", std::move(train)}, {"valid", std::move(valid)}}},
                {"machine", machine},
                {"commit", commit()},
                {"seed", recipe_.run.seed}});
}

// One optimiser step; false if it was interrupted, with everything but the gradients as before.
bool Trainer::train_step() {
  const auto start = Clock::now();
  const std::int64_t step = state_.step + 1, accumulate = recipe_.batch.accumulate;
  optimizer_->zero_grad();
  double loss_sum = 0;
  for (std::int64_t micro = 0; micro < accumulate; ++micro) {
    if (interrupted_()) {
      mixture_->seek(state_.data);
      return false;
    }
    const torch::Tensor tokens = mixture_->next(recipe_.batch.sequences).to(device_);  // [B, T]
    model_->set_token_span(span_size(recipe_, step, micro));
    const auto loss = model_->loss(tokens, recipe_.loss.alpha, recipe_.loss.rec_levels);
    const double token_loss = loss.token.item<double>(), total = loss.total.item<double>();
    if (!std::isfinite(total))
      throw Error(
          fmt::format("step {}: the loss is {}; weights and checkpoints are those of step {}. Try a lower "
                      "optimizer.lr, or compute.precision=f32",
                      step, total, state_.step));
    loss_sum += token_loss;
    (accumulate == 1 ? loss.total : loss.total / static_cast<double>(accumulate)).backward();
  }
  const double grad_norm = optimizer_->grad_norm();
  if (!std::isfinite(grad_norm))
    throw Error(
        fmt::format("step {}: the gradient norm is {} at loss {:.4f}; weights and checkpoints are those of step "
                    "{}. Try a lower optimizer.lr, or compute.precision=f32",
                    step, grad_norm, loss_sum / static_cast<double>(accumulate), state_.step));
  const double lr = learning_rate(recipe_, step), clip = recipe_.optimizer.clip;
  optimizer_->step(lr, clip > 0 && grad_norm > clip ? clip / grad_norm : 1.0);

  const double seconds = seconds_since(start), loss = loss_sum / static_cast<double>(accumulate);
  state_.step = step;
  state_.data = mixture_->position();
  state_.elapsed_s += seconds;
  log_->append({{"step", step},
                {"loss", loss},
                {"lr", lr},
                {"grad_norm", grad_norm},
                {"tok_s", static_cast<double>(recipe_.tokens_per_step()) / seconds},
                {"tokens", step * recipe_.tokens_per_step()},
                {"elapsed_s", state_.elapsed_s}});
  progress_->report({.step = step, .loss = loss, .lr = lr, .grad_norm = grad_norm, .seconds = seconds});
  return true;
}

std::map<std::string, Trainer::Held> Trainer::validate() {
  torch::NoGradGuard no_grad;
  model_->set_token_span(recipe_.model.token_stack().span.size);
  std::map<std::string, Held> results;
  for (const auto& [name, shard] : data_.valid) {
    const torch::Tensor windows = validation_windows(shard, recipe_.batch.tokens, recipe_.run.eval_tokens);  // [N, T]
    double sum = 0;
    for (std::int64_t first = 0; first < windows.size(0); first += recipe_.batch.sequences) {
      const std::int64_t count = std::min(recipe_.batch.sequences, windows.size(0) - first);
      const auto tokens = windows.narrow(0, first, count).to(device_);
      sum += model_->loss(tokens).token.item<double>() * static_cast<double>(count);
    }
    const double nats = sum / static_cast<double>(windows.size(0));
    Held& held = results[name];
    held.nats = nats;
    if (const auto bytes = static_cast<double>(shard.text_bytes()); bytes > 0)
      held.bits_per_byte = nats * static_cast<double>(shard.size()) / bytes / std::numbers::ln2;
  }
  return results;
}

void Trainer::validate_and_log() {
  json record = json::object();
  std::string line = fmt::format("step {}: held out", state_.step);
  double sum = 0;
  for (const auto& [name, held] : validate()) {
    record[name]["nats"] = held.nats;
    line += fmt::format("  {} {:.4f} nats", name, held.nats);
    if (held.bits_per_byte) {
      record[name]["bits_per_byte"] = *held.bits_per_byte;
      line += fmt::format(", {:.4f} bits per byte", *held.bits_per_byte);
    }
    sum += held.nats;
  }
  log_->append(
      {{"step", state_.step}, {"tokens", state_.step * recipe_.tokens_per_step()}, {"valid", std::move(record)}});
  progress_->say(line);
  const double mean = sum / static_cast<double>(data_.valid.size());
  if (std::isfinite(mean) && (!state_.best_loss || mean < *state_.best_loss)) {
    state_.best_loss = mean;
    state_.best_step = state_.step;
  }
}

void Trainer::sample_and_log() {
  const fs::path folder = write_model(".sample.tmp");
  const auto seed = static_cast<std::uint64_t>(recipe_.run.seed + state_.step);
  const auto text = sample_text(folder, recipe_.run.sample_prompt, recipe_.run.sample_tokens, seed);
  fs::remove_all(folder);
  if (text) {
    log_->append({{"step", state_.step}, {"sample", *text}});
    write_samples_page(recipe_.run.out);
    progress_->say(fmt::format("step {}: {}", state_.step, *text));
  } else if (!sample_failed_) {
    sample_failed_ = true;
    progress_->say("no text samples: the program photon is missing or failed");
  }
}

void Trainer::save() {
  log_->sync();
  save_checkpoint(recipe_.run.out, *optimizer_, state_);
  prune_checkpoints(recipe_.run.out, state_.step, recipe_.run.keep_last, state_.best_step);
}

void Trainer::draw() {
  if (plot_losses(recipe_.run.out) || plot_failed_) return;
  plot_failed_ = true;
  progress_->say("no picture of the losses: gnuplot is missing or failed (apt-get install gnuplot-nox)");
}

// A model folder for the engine: RUN/<name>.
fs::path Trainer::write_model(const char* name) {
  const fs::path folder = recipe_.run.out / name;
  fs::remove_all(folder);
  save_model_folder(*model_, folder, recipe_.compute.precision);
  if (!recipe_.data.tokenizer.empty()) write_atomically(folder / "tokenizer.model", read_text(recipe_.data.tokenizer));
  return folder;
}

void Trainer::export_model() { publish_folder(write_model(".model.tmp"), recipe_.run.out / "model"); }

Outcome Trainer::run() {
  const RunRecipe& run = recipe_.run;
  std::int64_t saved_step = state_.step;
  while (state_.step < run.steps) {
    if (!train_step()) {
      progress_->finish();
      if (saved_step != state_.step) save();
      log_->append({{"step", state_.step}, {"interrupted", true}});
      spdlog::info("stopped after step {}; go on with: photon-train --resume {}", state_.step, run.out.string());
      return Outcome::interrupted;
    }
    const bool last = state_.step == run.steps;
    const bool evaluated = !data_.valid.empty() && (last || due(state_.step, run.eval_every));
    if (evaluated) validate_and_log();
    if (due(state_.step, run.sample_every)) sample_and_log();
    const bool best = evaluated && state_.best_step == state_.step;
    // The model first: a kill between the two replays the step, and exports the same model again.
    if (best || (last && data_.valid.empty())) export_model();
    if (last || best || due(state_.step, run.checkpoint_every)) {
      save();
      saved_step = state_.step;
    }
    if (evaluated) draw();
  }
  draw();
  progress_->finish();
  spdlog::info("{} steps done; {} holds the model of step {}", state_.step, (run.out / "model").string(),
               data_.valid.empty() ? state_.step : state_.best_step);
  return Outcome::finished;
}

}  // namespace photon
