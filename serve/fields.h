// The members of a request's JSON object: handed out by type and range, each problem naming its field.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace photon {

/// Reads one object.  A field that is absent or null has not been said, and nothing is converted: "1" is no number and
/// 1.0 no integer.  Every member throws ApiError (400) with `param` for a value of another type or range.
class Fields {
 public:
  /// @param place  names the object in messages and params, "messages[0]"; empty: the body itself
  explicit Fields(const nlohmann::json& object, std::string place = {});
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  /// The value, if it was said.
  const nlohmann::json* find(const std::string& name);
  std::optional<bool> boolean(const std::string& name);
  std::optional<std::int64_t> integer(const std::string& name, std::int64_t low, std::int64_t high);
  /// Above `low` itself if `above`.
  std::optional<double> number(const std::string& name, double low, double high, bool above = false);
  std::optional<std::string> text(const std::string& name);
  std::optional<std::string> word(const std::string& name, const std::vector<std::string>& words);

  /// Fields that we do not have, but OpenAI has: fine if they hold a value that changes nothing.
  void only_neutral(const std::string& name, const std::vector<nlohmann::json>& neutral,
                    const std::string& advice = {});
  void ignore(const std::vector<std::string>& names);
  /// Every member that nobody asked for is a mistake.
  void refuse_others() const;

  std::string param(const std::string& name) const;
  /// A 400 that says of a field: "n is 1.5, must be an integer".
  [[noreturn]] void refuse(const std::string& name, const nlohmann::json& got, const std::string& wanted) const;

 private:
  const nlohmann::json& object_;
  std::string place_;
  std::set<std::string> known_;
};

}  // namespace photon
