#include "serve/errors.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace photon {
namespace {

const char* error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 501:
      return "not_supported_error";
    case 503:
      return "unavailable_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

nlohmann::ordered_json or_null(const std::string& text) {
  return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
}

}  // namespace

ApiError::ApiError(int status_, const std::string& message, std::string param_, std::string code_)
    : Error(message), status(status_), param(std::move(param_)), code(std::move(code_)) {
  if (status == 429 || status == 503) retry_after_s = 1;
}

ApiError invalid_request(const std::string& message, std::string param, std::string code) {
  return ApiError(400, message, std::move(param), std::move(code));
}

std::string error_json(const ApiError& error) {
  // Clients of llama.cpp's server tell a model that is still loading by this number.
  const nlohmann::ordered_json code =
      error.status == 503 && error.code.empty() ? nlohmann::ordered_json(503) : or_null(error.code);
  return nlohmann::ordered_json{{"error",
                                 {{"message", error.what()},
                                  {"type", error_type(error.status)},
                                  {"param", or_null(error.param)},
                                  {"code", code}}}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void send_error(Responder& responder, const ApiError& error, Responder::Headers headers) {
  if (error.retry_after_s) headers.emplace_back("retry-after", fmt::format("{}", *error.retry_after_s));
  responder.send(error.status, "application/json", error_json(error), headers);
}

}  // namespace photon
