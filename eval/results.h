// The folder of an evaluation's results: run.json says what they depend on, TASK.jsonl holds a line for each document.
// A run that was interrupted goes on in it.  docs/evaluation.md.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/line_log.h"
#include "engine/generate.h"
#include "eval/metrics.h"
#include "eval/task.h"

namespace photon {

/// Hashes of the files that a model is made of, and how its numbers are held.
nlohmann::ordered_json model_record(const Model& model);
/// Split and hashes of the files that a task was read from.
nlohmann::ordered_json data_record(const TaskData& data);

/// The results of one task: those that are there, and the log that goes on behind them.
class TaskLog {
 public:
  const std::vector<DocumentScore>& done() const { return done_; }  // of the first documents
  void append(const DocumentScore& score);                          // of the next document

 private:
  friend class ResultFolder;
  TaskLog(const std::filesystem::path& path, const TaskData& data);

  const TaskData& data_;
  std::vector<DocumentScore> done_;
  LineLog log_;
};

class ResultFolder {
 public:
  /// Makes the folder, or goes on in one of the same settings.  @throws InputError naming the first setting that
  /// differs, or what is damaged.
  ResultFolder(const std::filesystem::path& path, const nlohmann::ordered_json& settings);

  /// The version of the program that began the results, if it is not this one; else empty.
  std::string other_program() const;
  /// @throws InputError if the results there are of other data, or damaged.
  std::unique_ptr<TaskLog> open(const TaskData& data);
  void write_report(const nlohmann::ordered_json& report) const;  ///< results.json

 private:
  void save() const;

  std::filesystem::path path_;
  nlohmann::ordered_json run_;
};

}  // namespace photon
