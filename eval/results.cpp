#include "eval/results.h"

#include <fmt/format.h>

#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/version.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* run_file = "run.json";

// Where two records differ first, as "max_length is 1024 there and 2048 here"; nothing where they do not.
std::optional<std::string> difference(const ordered_json& there, const ordered_json& here, const std::string& name) {
  if (there.is_object() && here.is_object()) {
    for (const auto& [key, value] : here.items())
      if (auto found = difference(there.value(key, ordered_json()), value, key)) return found;
    for (const auto& [key, value] : there.items())
      if (!here.contains(key)) return difference(value, ordered_json(), key);
    return std::nullopt;
  }
  if (there == here) return std::nullopt;
  return fmt::format("{} is {} there and {} here", name, there.dump(), here.dump());
}

void require_same(const ordered_json& there, const ordered_json& here, const fs::path& path, const std::string& what) {
  if (const auto found = difference(there, here, what))
    throw InputError(fmt::format("{}: holds the results of another run: {}; choose another --out or remove it",
                                 path.string(), *found));
}

ordered_json file_record(const FoundFile& file) {
  ordered_json record{{"file", file.path.filename().string()}, {"split", file.split}, {"sha256", file.sha256}};
  if (!file.labels.empty()) record["labels_sha256"] = file.labels_sha256;
  return record;
}

std::string line_of(const TaskData& data, std::size_t index, const DocumentScore& score) {
  const Document& document = data.documents[index];
  ordered_json line{{"task", data.task->name},
                    {"document", index},
                    {"id", document.id},
                    {"data_sha256", data.file.sha256},
                    {"loglikelihoods", score.loglikelihoods},
                    {"greedy", score.greedy},
                    {"tokens", score.n_tokens},
                    {"cut", score.n_cut}};
  if (data.task->kind == Task::Kind::multiple_choice) line["gold"] = document.gold;
  if (data.task->kind == Task::Kind::rolling) line["words"] = document.n_words, line["bytes"] = document.n_bytes;
  for (const auto& [metric, value] : judge(*data.task, document, score)) line[metric] = value;
  return line.dump();
}

DocumentScore score_of(std::string_view text, const TaskData& data, std::size_t index) {
  const ordered_json line = ordered_json::parse(text);
  DocumentScore score{.loglikelihoods = line.at("loglikelihoods").get<std::vector<double>>(),
                      .greedy = line.at("greedy").get<std::vector<bool>>(),
                      .n_tokens = line.at("tokens").get<std::int64_t>(),
                      .n_cut = line.at("cut").get<std::int64_t>()};
  if (index >= data.documents.size() || line_of(data, index, score) != text)
    throw InputError(fmt::format("is not document {} of {}", index, data.file.path.string()));
  return score;
}

}  // namespace

ordered_json model_record(const Model& model) {
  const fs::path& folder = model.folder->path;
  ordered_json record{{"config_sha256", sha256_file(folder / config_file)},
                      {"weights_sha256", sha256_file(folder / weights_file)}};
  if (model.tokenizer) record["tokenizer_sha256"] = sha256_file(*model.tokenizer);
  record["dtype"] = to_string(model.dtype);
  record["kv_dtype"] = to_string(model.kv);
  return record;
}

ordered_json data_record(const TaskData& data) {
  ordered_json record = file_record(data.file);
  if (data.few_shot > 0) record["examples"] = file_record(data.examples);
  return record;
}

TaskLog::TaskLog(const fs::path& path, const TaskData& data)
    : data_(data), log_(path, [&](std::string_view line, std::int64_t n) {
        try {
          done_.push_back(score_of(line, data, done_.size()));
        } catch (const std::exception& e) {
          throw InputError(
              fmt::format("{}: line {}: {}; choose another --out or remove it", path.string(), n, e.what()));
        }
        return true;
      }) {}

void TaskLog::append(const DocumentScore& score) {
  log_.append(line_of(data_, done_.size(), score));
  done_.push_back(score);
}

ResultFolder::ResultFolder(const fs::path& path, const ordered_json& settings) : path_(path) {
  const fs::path file = path / run_file;
  if (fs::exists(file)) {
    try {
      run_ = ordered_json::parse(read_text(file));
      if (run_.at("format") != "photon-eval" || run_.at("version") != 1 || !run_.at("tasks").is_object())
        throw InputError("is of another format");
    } catch (const std::exception& e) {
      throw InputError(fmt::format("{}: is no record of an evaluation: {}", file.string(), e.what()));
    }
    require_same(run_.at("settings"), settings, file, "settings");
    return;
  }
  std::error_code error;
  fs::create_directories(path, error);
  if (!fs::is_directory(path)) throw InputError(fmt::format("{}: cannot make this folder", path.string()));
  run_ = {{"format", "photon-eval"},
          {"version", 1},
          {"program", commit()},
          {"settings", settings},
          {"tasks", ordered_json::object()}};
  save();
}

std::string ResultFolder::other_program() const {
  const std::string program = run_.value("program", "");
  return program == commit() ? "" : program;
}

std::unique_ptr<TaskLog> ResultFolder::open(const TaskData& data) {
  const std::string& name = data.task->name;
  const fs::path log = path_ / fmt::format("{}.jsonl", name);
  const ordered_json record = data_record(data);
  if (run_["tasks"].contains(name)) {
    require_same(run_["tasks"][name], record, path_ / run_file, name);
  } else {
    if (fs::exists(log))
      throw InputError(
          fmt::format("{}: is no result of this run: {} does not know it; remove it", log.string(), run_file));
    run_["tasks"][name] = record;
    save();
  }
  return std::unique_ptr<TaskLog>(new TaskLog(log, data));
}

void ResultFolder::save() const { write_atomically(path_ / run_file, run_.dump(2) + "\n"); }

void ResultFolder::write_report(const ordered_json& report) const {
  write_atomically(path_ / "results.json", report.dump(2) + "\n");
}

}  // namespace photon
