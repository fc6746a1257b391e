#include "serve/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "serve/errors.h"
#include "serve/json.h"

namespace photon {

using nlohmann::json;

Fields::Fields(const json& object, std::string place) : object_(object), place_(std::move(place)) {
  if (!object.is_object())
    throw invalid_request(
        fmt::format("{} is {}, must be an object", place_.empty() ? "the body" : place_, shown(object)), place_);
}

std::string Fields::param(const std::string& name) const {
  return place_.empty() ? name : fmt::format("{}.{}", place_, name);
}

void Fields::refuse(const std::string& name, const json& got, const std::string& wanted) const {
  throw invalid_request(fmt::format("{} is {}, must be {}", param(name), shown(got), wanted), param(name));
}

const json* Fields::find(const std::string& name) {
  known_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::optional<bool> Fields::boolean(const std::string& name) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) refuse(name, *value, "true or false");
  return value->get<bool>();
}

std::optional<std::int64_t> Fields::integer(const std::string& name, std::int64_t low, std::int64_t high) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::string wanted = fmt::format("an integer from {} to {}", low, high);
  if (!value->is_number_integer()) refuse(name, *value, wanted);
  if (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX) refuse(name, *value, wanted);
  const auto number = value->get<std::int64_t>();
  if (number < low || number > high) refuse(name, *value, wanted);
  return number;
}

std::optional<double> Fields::number(const std::string& name, double low, double high, bool above) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const std::string wanted = above ? fmt::format("a number above {} and at most {}", low, high)
                                   : fmt::format("a number from {} to {}", low, high);
  if (!value->is_number()) refuse(name, *value, wanted);
  const auto number = value->get<double>();
  if (!(above ? number > low : number >= low) || !(number <= high)) refuse(name, *value, wanted);
  return number;
}

std::optional<std::string> Fields::text(const std::string& name) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) refuse(name, *value, "a string");
  return value->get<std::string>();
}

std::optional<std::string> Fields::word(const std::string& name, const std::vector<std::string>& words) {
  const json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string() || std::ranges::find(words, value->get_ref<const std::string&>()) == words.end()) {
    std::string known;
    for (const std::string& w : words) known += fmt::format("{}\"{}\"", known.empty() ? "" : " or ", w);
    refuse(name, *value, known);
  }
  return value->get<std::string>();
}

void Fields::only_neutral(const std::string& name, const std::vector<json>& neutral, const std::string& advice) {
  const json* value = find(name);
  if (value == nullptr || std::ranges::find(neutral, *value) != neutral.end()) return;
  throw invalid_request(fmt::format("{} is not supported{}{}", param(name), advice.empty() ? "" : "; ", advice),
                        param(name), "unsupported_parameter");
}

void Fields::ignore(const std::vector<std::string>& names) { known_.insert(names.begin(), names.end()); }

void Fields::refuse_others() const {
  for (const auto& [name, value] : object_.items())
    if (!known_.contains(name)) {
      const std::string field = param(shown(name).substr(1, shown(name).size() - 2));
      throw invalid_request(fmt::format("unknown field {}", param(shown(name))), field, "unknown_parameter");
    }
}

}  // namespace photon
