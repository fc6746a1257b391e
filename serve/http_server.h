// The HTTP/1.1 server: listens, and keeps every connection within its limits, so that slow, greedy or vanished clients
// cost little and never hold up others.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>

#include "serve/http.h"
#include "serve/options.h"

namespace photon {

/// Keep-alive and pipelining (in order), chunked bodies, Expect: 100-continue, HEAD.  A client that closes its half of
/// the connection is taken to have gone.  Responders may outlive the server.
class HttpServer {
 public:
  /// Binds and begins to serve.  The application must outlive the server.
  /// @param host  name or address, IPv6 without brackets;  @param port  0: any that is free
  /// @throws InputError if it cannot listen there.
  HttpServer(const std::string& host, std::uint16_t port, int n_threads, const HttpLimits& limits,
             HttpApplication& application);
  ~HttpServer();

  std::uint16_t port() const;
  std::string url() const;  // "http://127.0.0.1:8080"
  bool is_local() const;    // nobody but this machine can reach it
  std::int64_t n_connections() const;

  /// From now on connections end with their present answer; idle ones end at once.
  void drain();
  /// Waits until no request is being handled.  False: there still are some at `deadline`, or when a stop is asked for.
  bool wait_idle(std::chrono::steady_clock::time_point deadline, std::stop_token stop = {});
  /// Ends everything; clients that wait for an answer see their connection close.  Afterwards the application is not
  /// called any more.
  void close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace photon
