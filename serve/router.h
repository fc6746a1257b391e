// Which handler answers a request, and who may ask: methods and paths, API keys, CORS, and the server's phases.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "serve/http.h"

namespace photon {

enum class Access {
  open,   ///< everybody: health, the page
  keyed,  ///< who has a key, where the server has keys
};

enum class Phase {
  loading,   ///< the port is bound, the model is not there: everything is 503
  ready,     ///< serving
  draining,  ///< running requests end, new ones are refused with 503
};

/// Routes are added while loading, by one thread; the rest may be called from any thread.
class Router {
 public:
  /// @param api_keys  accepted as "Authorization: Bearer KEY" or "x-api-key: KEY"; none: keyed routes are open
  /// @param cors_origins  whose pages may read answers, "*" for everybody's; none: no page but our own
  explicit Router(const std::vector<std::string>& api_keys = {}, std::vector<std::string> cors_origins = {});

  /// @param method  "GET" (answers HEAD, too), "POST", …
  /// @param path  the whole of it; "/a/*" takes every name below "/a/" that has no path of its own
  void add(const std::string& method, const std::string& path, Access access, HttpHandler handler);
  void set_phase(Phase phase) { phase_ = phase; }
  Phase phase() const { return phase_; }

  /// As HttpApplication's.  @throws ApiError: 503 unless ready, 401, 404, 405.
  void admit(const HttpRequest& head, Responder::Headers& headers) const;
  void handle(HttpRequest request, std::shared_ptr<Responder> responder) const;

 private:
  struct Route {
    Access access;
    HttpHandler handler;
  };
  using Methods = std::map<std::string, Route>;
  using Paths = std::map<std::string, Methods, std::less<>>;

  void add_cors(const HttpRequest& head, Responder::Headers& headers) const;
  void check_key(const HttpRequest& head, Responder::Headers& headers) const;
  Paths::const_iterator find(const std::string& path) const;

  Paths paths_;
  std::vector<std::string> key_hashes_, origins_;
  std::atomic<Phase> phase_ = Phase::loading;
};

}  // namespace photon
