// What a handler sees of HTTP: a whole request, and a way to answer it once or as a stream.  The server behind it
// (serve/http_server.h) bounds sizes and times, and keeps slow clients from slowing others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace photon {

struct HttpRequest {
  std::string method;  // "POST"
  std::string path;    // "/v1/completions": percent-decoded, without the query
  std::string query;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;                                          // whole, within the limit
  std::string id;                                            // ours, sent back as x-request-id; safe to log

  /// Empty if there is none.
  std::string_view header(std::string_view name) const;
};

/// Answers one request.  May be called from any thread; calls after the client has gone do nothing.  Dropping the last
/// reference without an answer sends a 500.
class Responder {
 public:
  virtual ~Responder() = default;
  using Headers = std::vector<std::pair<std::string, std::string>>;

  /// The whole answer.
  virtual void send(int status, std::string_view content_type, std::string body, const Headers& headers = {}) = 0;
  /// Server-sent events: the header, then any number of writes, then finish().
  virtual void start_events(const Headers& headers = {}) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void finish() = 0;
  /// Called once, from any thread, if the client goes (or is dropped for being slow) before the answer is complete; at
  /// once if it has gone already.
  virtual void on_disconnect(std::function<void()> gone) = 0;
};

/// Must not block for long: it runs on an HTTP thread.  An ApiError that leaves it is the answer, any other exception
/// a 500 without details; after a first answer both only end the connection.
using HttpHandler = std::function<void(HttpRequest request, std::shared_ptr<Responder> responder)>;

/// One answered, or abandoned, request: for the log and for counting.
struct AccessRecord {
  std::string_view method, path, id;  // as in the request; empty where it could not be read
  int status = 0;                     // 499: the client went before there was one
  bool complete = true;               // false: the client went, or was dropped, before it had all of it
  double ms = 0;
  std::int64_t bytes = 0;  // of the answer, as sent
};

/// What a server serves.  Called on HTTP threads, several at once.
class HttpApplication {
 public:
  virtual ~HttpApplication() = default;
  /// Before a request's body is read.  Adds headers to whatever will be answered.  @throws ApiError to refuse it.
  virtual void admit(const HttpRequest& head, Responder::Headers& headers) = 0;
  virtual void handle(HttpRequest request, std::shared_ptr<Responder> responder) = 0;
  virtual void answered(const AccessRecord& /*record*/) {}
};

}  // namespace photon
