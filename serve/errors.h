// What a client hears when something is wrong: a status and OpenAI's error body, made in one place.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "serve/http.h"

namespace photon {

/// An answer that is an error.  Handlers throw it; what() is the message.
struct ApiError : Error {
  /// @param code   machine-readable, such as "context_length_exceeded"; empty: null (503: the number 503)
  /// @param param  the request's field that is at fault; empty: null
  explicit ApiError(int status, const std::string& message, std::string param = {}, std::string code = {});

  int status;
  std::string param, code;
  std::optional<int> retry_after_s{};  // 429 and 503 have one
};

/// A field that cannot be honoured: 400.
ApiError invalid_request(const std::string& message, std::string param = {}, std::string code = {});

/// {"error": {"message", "type", "param", "code"}}.  Invalid UTF-8 in the message becomes U+FFFD.
std::string error_json(const ApiError& error);
/// The body that stands for `error`, with Retry-After where it has one and `headers`.
void send_error(Responder& responder, const ApiError& error, Responder::Headers headers = {});

}  // namespace photon
