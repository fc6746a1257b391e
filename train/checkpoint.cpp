// Saving, finding, loading and pruning checkpoints.
#include "train/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::array checkpoint_files{"model.safetensors", "optimizer.safetensors", "state.json"};
constexpr const char* marker = "complete.json";

json to_json(const TrainerState& state) {
  json sources = json::array();
  for (const auto& [epoch, taken, total] : state.data.sources)
    sources.push_back({{"epoch", epoch}, {"taken", taken}, {"total", total}});
  return {{"format", "photon-checkpoint"},
          {"version", 1},
          {"step", state.step},
          {"data", std::move(sources)},
          {"best_loss", state.best_loss ? json(*state.best_loss) : json()},
          {"best_step", state.best_step},
          {"elapsed_s", state.elapsed_s},
          {"recipe", state.recipe},
          {"data_checksums", state.data_checksums}};
}

TrainerState parse_state(const json& object) {
  if (object.at("format") != "photon-checkpoint" || object.at("version") != 1)
    throw InputError("format or version is not that of this program");
  TrainerState state;
  object.at("step").get_to(state.step);
  for (const json& source : object.at("data"))
    state.data.sources.push_back({source.at("epoch"), source.at("taken"), source.at("total")});
  if (!object.at("best_loss").is_null()) state.best_loss = object.at("best_loss").get<double>();
  object.at("best_step").get_to(state.best_step);
  object.at("elapsed_s").get_to(state.elapsed_s);
  object.at("recipe").get_to(state.recipe);
  object.at("data_checksums").get_to(state.data_checksums);
  return state;
}

// The checkpoint's step if `folder` is named like one.
std::optional<std::int64_t> step_of(const fs::path& folder) {
  const std::string name = folder.filename().string();
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return std::nullopt;
  std::int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + prefix.size(), end, step);
  if (error != std::errc() || rest != end) return std::nullopt;
  return step;
}

// All folders named like checkpoints, newest first.
std::vector<std::pair<std::int64_t, fs::path>> all_checkpoints(const fs::path& run) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  if (fs::is_directory(run / "checkpoints"))
    for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
      if (const auto step = step_of(entry.path())) found.emplace_back(*step, entry.path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

std::span<const std::byte> bytes_of(const torch::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

void save_tensors(const fs::path& path, const std::vector<std::pair<std::string, torch::Tensor>>& tensors) {
  std::vector<torch::Tensor> on_cpu;  // alive while their bytes are written
  std::vector<TensorToWrite> files;
  for (const auto& [name, tensor] : tensors) {
    on_cpu.push_back(tensor.detach().cpu().contiguous());
    files.push_back({name, StoredType::f32, tensor.sizes().vec(), bytes_of(on_cpu.back())});
  }
  write_safetensors(path, std::move(files));
}

void load_tensors(const fs::path& path, const std::vector<std::pair<std::string, torch::Tensor>>& tensors) {
  const SafeTensors file(path);
  if (file.tensors().size() != tensors.size())
    throw WeightsError(
        fmt::format("{}: {} tensors, this model wants {}", path.string(), file.tensors().size(), tensors.size()));
  torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors) {
    const TensorView& stored = file.at(name);
    if (stored.dtype != StoredType::f32 || stored.shape != tensor.sizes().vec())
      throw WeightsError(fmt::format("{}: '{}' has another dtype or shape than in this model", path.string(), name));
    torch::Tensor values = torch::empty(tensor.sizes());
    std::memcpy(values.data_ptr(), stored.bytes.data(), stored.bytes.size());
    tensor.detach().copy_(values);
  }
}

std::vector<std::pair<std::string, torch::Tensor>> weights_of(const Optimizer& optimizer) {
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& state : optimizer.states()) tensors.emplace_back(state.name, state.parameter);
  return tensors;
}
std::vector<std::pair<std::string, torch::Tensor>> moments_of(const Optimizer& optimizer) {
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& state : optimizer.states())
    tensors.emplace_back("m." + state.name, state.m), tensors.emplace_back("v." + state.name, state.v);
  return tensors;
}

void sync_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!synced) throw InputError(fmt::format("{}: cannot sync folder: {}", folder.string(), std::strerror(error)));
}

}  // namespace

void publish_folder(const fs::path& made, const fs::path& folder) {
  const bool exists = fs::exists(folder);
  if (::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, folder.c_str(), exists ? RENAME_EXCHANGE : 0) != 0)
    throw InputError(
        fmt::format("{}: cannot rename {} into place: {}", folder.string(), made.string(), std::strerror(errno)));
  sync_folder(folder.parent_path());
  if (exists) fs::remove_all(made);
}

void save_checkpoint(const fs::path& run, const Optimizer& optimizer, const TrainerState& state) {
  const fs::path folder = run / "checkpoints" / fmt::format("step-{:06}", state.step);
  const fs::path temporary = folder.parent_path() / fmt::format(".step-{:06}.tmp", state.step);
  fs::remove_all(temporary);
  fs::create_directories(temporary);
  save_tensors(temporary / checkpoint_files[0], weights_of(optimizer));
  save_tensors(temporary / checkpoint_files[1], moments_of(optimizer));
  write_atomically(temporary / checkpoint_files[2], to_json(state).dump(2) + "\n");
  json hashes;
  for (const char* file : checkpoint_files) hashes[file] = sha256_file(temporary / file);
  write_atomically(temporary / marker, json{{"sha256", std::move(hashes)}}.dump(2) + "\n");
  publish_folder(temporary, folder);
}

std::optional<FoundCheckpoint> newest_checkpoint(const fs::path& run) {
  for (const auto& [step, folder] : all_checkpoints(run)) {
    try {
      const json hashes = json::parse(read_text(folder / marker)).at("sha256");
      for (const char* file : checkpoint_files)
        if (sha256_file(folder / file) != hashes.at(file).get<std::string>())
          throw WeightsError(
              fmt::format("{}: its SHA-256 is not the one that {} records", (folder / file).string(), marker));
      TrainerState state = parse_state(json::parse(read_text(folder / "state.json")));
      if (state.step != step) throw InputError(fmt::format("{}: is of step {}", folder.string(), state.step));
      return FoundCheckpoint{folder, std::move(state)};
    } catch (const std::exception& e) {
      spdlog::warn("skipping a damaged checkpoint: {}", e.what());
    }
  }
  return std::nullopt;
}

void load_checkpoint(const FoundCheckpoint& checkpoint, Optimizer& optimizer) {
  load_tensors(checkpoint.folder / checkpoint_files[0], weights_of(optimizer));
  load_tensors(checkpoint.folder / checkpoint_files[1], moments_of(optimizer));
  optimizer.set_steps(checkpoint.state.step);
}

void prune_checkpoints(const fs::path& run, std::int64_t step, std::int64_t keep_last, std::int64_t best_step) {
  for (const auto& [found_step, folder] : all_checkpoints(run)) {
    const bool keep = found_step <= step && (found_step == best_step || keep_last > 0);
    if (!keep) fs::remove_all(folder);
    if (found_step <= step) --keep_last;
  }
  for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
    if (entry.path().extension() == ".tmp") fs::remove_all(entry.path());
}

}  // namespace photon
