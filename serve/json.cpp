#include "serve/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "serve/errors.h"
#include "text/utf8.h"

namespace photon {
namespace {

using nlohmann::json;

// Builds the value from nlohmann's SAX events and refuses what does not belong where it begins, so that neither depth
// nor duplicates nor sheer number cost memory.
class Builder {
 public:
  Builder(std::string_view text, std::int64_t max_depth, const std::string& name)
      : text_(text), max_depth_(max_depth), name_(name) {}
  json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(std::int64_t value) { return add(value); }
  bool number_unsigned(std::uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(json::binary_t&) { return false; }  // is no JSON
  bool start_object(std::size_t) { return open(json::object()); }
  bool end_object() { return close(); }
  bool start_array(std::size_t) { return open(json::array()); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    auto [value, is_new] = open_.back()->get_ref<json::object_t&>().emplace(std::move(name), nullptr);
    if (!is_new)
      throw invalid_request(fmt::format("{} is ambiguous: key {} is given twice", name_, shown(value->first)));
    member_ = &value->second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& error) {
    constexpr int out_of_range_number = 406;
    // The byte is the last one read; what() repeats parts of the body.
    if (error.id == out_of_range_number)
      throw invalid_request(fmt::format("{} is not valid JSON: a number is out of range, {}", name_, place(position)));
    throw invalid_request(fmt::format("{} is not valid JSON: syntax error, {}", name_, place(position)));
  }

 private:
  std::string place(std::size_t position) const {
    if (position > text_.size()) return "at its end";
    const std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    return fmt::format("line {}, byte {}", line, before.size() - (before.rfind('\n') + 1) + 1);
  }
  json* add(json value) {
    if (++n_values_ > max_json_values)
      throw invalid_request(fmt::format("{} holds more than {} JSON values", name_, max_json_values));
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_array()) return &open_.back()->get_ref<json::array_t&>().emplace_back(std::move(value));
    return &(*member_ = std::move(value));
  }
  bool open(json value) {
    if (std::ssize(open_) >= max_depth_)
      throw invalid_request(fmt::format("{} is nested deeper than {} levels", name_, max_depth_));
    open_.push_back(add(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  std::int64_t max_depth_, n_values_ = 0;
  const std::string& name_;
  json root_;
  std::vector<json*> open_;  // objects and lists in progress: none of them moves while it is here
  json* member_ = nullptr;   // where the innermost object's next value goes
};

}  // namespace

json parse_json(std::string_view text, std::int64_t max_depth, const std::string& name) {
  if (text.empty()) throw invalid_request(fmt::format("{} is empty; it must be a JSON object", name));
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)  // the library takes it for the end
    throw invalid_request(fmt::format("{} is not valid JSON: byte {} is NUL", name, nul + 1));
  if (!is_valid_utf8(text)) throw invalid_request(fmt::format("{} is not valid UTF-8", name));
  Builder builder(text, max_depth, name);
  json::sax_parse(text, &builder);
  return builder.take();
}

std::string shown(const json& value) {
  constexpr std::size_t longest = 60;
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  std::string text = to_bytes(value);
  if (text.size() <= longest) return text;
  Utf8Stream whole;  // no character is cut in two
  return whole.push(text.substr(0, longest)) + "…";
}

}  // namespace photon
