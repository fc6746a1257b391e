#include "eval/data_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "text/utf8.h"

namespace photon {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int64_t max_data_bytes = std::int64_t{1} << 30;

json parse(std::string_view text, const std::string& place) {
  try {
    return json::parse(text);
  } catch (const json::exception& e) {
    throw InputError(fmt::format("{}: no JSON: {}", place, e.what()));
  }
}

Record record(json value, std::string place) {
  if (!value.is_object()) throw InputError(fmt::format("{}: is {}, not an object", place, value.type_name()));
  return {std::move(place), std::move(value)};
}

// Without the mark that some editors put before UTF-8.
std::string read_unmarked(const fs::path& path) {
  constexpr std::string_view mark = "\xEF\xBB\xBF";
  std::string text = read_text(path, max_data_bytes);
  return text.starts_with(mark) ? text.substr(mark.size()) : text;
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
  }
  return lines;
}

}  // namespace

FoundFile find_data(const fs::path& folder, std::span<const DataFile> files, std::string_view purpose) {
  if (!fs::is_directory(folder)) throw InputError(fmt::format("{}: is no folder", folder.string()));
  std::vector<std::string> looked_for;
  for (const DataFile& file : files) {
    looked_for.emplace_back(file.path);
    const fs::path path = folder / file.path;
    if (!fs::exists(path)) continue;
    FoundFile found{.path = path, .split = file.split, .sha256 = sha256_file(path), .labels_sha256 = {}};
    if (file.labels != nullptr) {
      found.labels = folder / file.labels;
      if (!fs::exists(found.labels))
        throw InputError(
            fmt::format("{}: is missing; it holds the labels of {}", found.labels.string(), path.string()));
      found.labels_sha256 = sha256_file(found.labels);
    }
    return found;
  }
  throw InputError(
      fmt::format("{}: holds no data for {}; looked for {}. docs/evaluation.md says where to get it, "
                  "'photon eval --fetch' downloads it",
                  folder.string(), purpose, fmt::join(looked_for, ", ")));
}

const json& Record::at(const char* field) const {
  const auto found = object_.find(field);
  if (found == object_.end()) throw InputError(fmt::format("{}: has no '{}'", place_, field));
  return *found;
}

void Record::fail(const char* field, std::string_view problem) const {
  throw InputError(fmt::format("{}: '{}' {}", place_, field, problem));
}

const std::string& Record::string(const char* field) const {
  const json& value = at(field);
  if (!value.is_string()) fail(field, fmt::format("is {}, not a string", value.type_name()));
  return value.get_ref<const std::string&>();
}

std::vector<std::string> Record::strings(const char* field) const {
  const json& value = at(field);
  if (!value.is_array()) fail(field, fmt::format("is {}, not an array", value.type_name()));
  std::vector<std::string> result;
  for (const json& element : value) {
    if (!element.is_string()) fail(field, fmt::format("holds {}, wanted strings", element.type_name()));
    result.push_back(element.get<std::string>());
  }
  return result;
}

std::vector<Record> Record::objects(const char* field) const {
  const json& value = at(field);
  if (!value.is_array()) fail(field, fmt::format("is {}, not an array", value.type_name()));
  std::vector<Record> result;
  for (const json& element : value) result.push_back(record(element, fmt::format("{}: '{}'", place_, field)));
  return result;
}

Record Record::object(const char* field) const { return record(at(field), fmt::format("{}: '{}'", place_, field)); }

std::size_t Record::index(const char* field, std::size_t n) const {
  const std::string text = id(field);
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value >= n)
    fail(field, fmt::format("is {}, wanted an integer from 0 to {}", at(field).dump(), n - 1));
  return value;
}

std::string Record::id(const char* field) const {
  const json& value = at(field);
  if (value.is_number_integer()) return value.dump();
  return string(field);
}

std::string read_utf8(const fs::path& path) {
  std::string text = read_unmarked(path);
  if (!is_valid_utf8(text)) throw InputError(fmt::format("{}: is no UTF-8 text", path.string()));
  return text;
}

std::vector<std::string> read_lines(const fs::path& path) { return lines_of(read_utf8(path)); }

std::vector<Record> read_records(const fs::path& path) {
  const std::string text = read_unmarked(path);  // the JSON parser checks the UTF-8, and knows the line
  std::vector<Record> records;
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos) throw InputError(fmt::format("{}: is empty", path.string()));
  if (text[first] == '[') {
    for (json& element : parse(text, path.string()))
      records.push_back(record(std::move(element), fmt::format("{}: record {}", path.string(), records.size() + 1)));
    return records;
  }
  for (const std::string& line : lines_of(text)) {
    std::string place = fmt::format("{}: line {}", path.string(), records.size() + 1);
    json value = parse(line, place);
    records.push_back(record(std::move(value), std::move(place)));
  }
  return records;
}

}  // namespace photon
