// JSON from the network: parsed strictly, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace photon {

/// How many values a body may hold: an empty list costs many times the two bytes that say it.
inline constexpr std::int64_t max_json_values = std::int64_t{1} << 20;

/// One JSON value and nothing else, in valid UTF-8, no key twice in an object, no NaN or infinity.  An integer beyond
/// 64 bits is a floating-point number.
/// @param name  what the text is called in messages
/// @throws ApiError (400) saying what is wrong and where.
nlohmann::json parse_json(std::string_view text, std::int64_t max_depth, const std::string& name = "the body");

/// {"a": 1} as bytes: never fails: invalid UTF-8 becomes U+FFFD.
template <class Json>
std::string to_bytes(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// A value as it can be shown in a message: short, on one line.
std::string shown(const nlohmann::json& value);

}  // namespace photon
