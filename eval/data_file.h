// The files of datasets: found in a folder, read record by record, with errors that name file, line and field.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace photon {

/// Where a split of a dataset may lie in the data folder.
struct DataFile {
  const char* path;              // below the folder
  const char* labels = nullptr;  // the file of labels that belongs to it, one a line; null: labels are in the records
  const char* split = "";        // "test", "validation", "train"
};

struct FoundFile {
  std::filesystem::path path;
  std::filesystem::path labels{};  // empty: none
  std::string split;
  std::string sha256;         // of the file
  std::string labels_sha256;  // empty: none
};

/// The first of `files` that the folder holds.  @throws InputError naming all that were looked for, or the labels that
/// are missing.
FoundFile find_data(const std::filesystem::path& folder, std::span<const DataFile> files, std::string_view purpose);

/// A JSON object of a data file.
class Record {
 public:
  Record(std::string place, nlohmann::json object) : place_(std::move(place)), object_(std::move(object)) {}

  bool has(const char* field) const { return object_.contains(field); }
  /// @throws InputError naming the place if the field is missing or of another type.
  const std::string& string(const char* field) const;
  std::vector<std::string> strings(const char* field) const;
  std::vector<Record> objects(const char* field) const;
  Record object(const char* field) const;
  /// An integer from 0 to n - 1, as a number or as text.
  std::size_t index(const char* field, std::size_t n) const;
  /// Text, or a number as text.
  std::string id(const char* field) const;
  [[noreturn]] void fail(const char* field, std::string_view problem) const;

 private:
  const nlohmann::json& at(const char* field) const;

  std::string place_;  // "FILE: line 3"
  nlohmann::json object_;
};

/// JSON Lines, or one JSON array; whichever the file is.  @throws InputError naming file and line.
std::vector<Record> read_records(const std::filesystem::path& path);
/// The lines of a text file without their ends, "\r\n" included; an empty last line is none.
std::vector<std::string> read_lines(const std::filesystem::path& path);
/// The whole file, without a byte order mark.  @throws InputError naming the file if it is not UTF-8.
std::string read_utf8(const std::filesystem::path& path);

}  // namespace photon
