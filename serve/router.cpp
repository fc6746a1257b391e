#include "serve/router.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <boost/algorithm/string/predicate.hpp>
#include <span>
#include <string_view>

#include "base/file.h"
#include "serve/errors.h"

namespace photon {
namespace {

std::string hash(std::string_view key) { return sha256(std::as_bytes(std::span(key))); }

// The key that a request offers; empty if none.
std::string_view offered_key(const HttpRequest& head) {
  constexpr std::string_view bearer = "Bearer ";
  const std::string_view authorization = head.header("authorization");
  if (boost::algorithm::istarts_with(authorization, bearer)) return authorization.substr(bearer.size());
  return head.header("x-api-key");
}

bool is_preflight(const HttpRequest& head) {
  return head.method == "OPTIONS" && !head.header("origin").empty() &&
         !head.header("access-control-request-method").empty();
}

template <class Methods>
auto find_method(const Methods& methods, const std::string& method) {
  const auto found = methods.find(method);
  return found == methods.end() && method == "HEAD" ? methods.find("GET") : found;
}

template <class Methods>
std::string allowed_methods(const Methods& methods) {
  std::string allow = "OPTIONS";
  for (const auto& [method, route] : methods) allow += ", " + method + (method == "GET" ? ", HEAD" : "");
  return allow;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  for (const auto& [key, value] : headers)
    if (key == name) return value;
  return {};
}

Router::Router(const std::vector<std::string>& api_keys, std::vector<std::string> cors_origins)
    : origins_(std::move(cors_origins)) {
  for (const std::string& key : api_keys) key_hashes_.push_back(hash(key));
}

void Router::add(const std::string& method, const std::string& path, Access access, HttpHandler handler) {
  paths_[path].insert_or_assign(method, Route{access, std::move(handler)});
}

Router::Paths::const_iterator Router::find(const std::string& path) const {
  const auto exact = paths_.find(path);
  return exact != paths_.end() ? exact : paths_.find(path.substr(0, path.rfind('/') + 1) + "*");
}

void Router::admit(const HttpRequest& head, Responder::Headers& headers) const {
  add_cors(head, headers);
  switch (phase_) {
    case Phase::loading:
      throw ApiError(503, "Loading model");
    case Phase::draining:
      throw ApiError(503, "The server is shutting down");
    case Phase::ready:
      break;
  }
  if (is_preflight(head)) return;
  const auto path = find(head.path);
  const bool open = path != paths_.end() && std::ranges::all_of(path->second, [](const auto& entry) {
                      return entry.second.access == Access::open;
                    });
  if (!open) check_key(head, headers);
  if (path == paths_.end()) throw ApiError(404, "There is nothing at this path");
  if (head.method != "OPTIONS" && find_method(path->second, head.method) == path->second.end()) {
    headers.emplace_back("allow", allowed_methods(path->second));
    throw ApiError(405, "This path does not answer this method; it answers " + allowed_methods(path->second));
  }
}

void Router::handle(HttpRequest request, std::shared_ptr<Responder> responder) const {
  const auto path = find(request.path);
  if (request.method == "OPTIONS")
    return responder->send(204, {}, {},
                           {{"allow", path == paths_.end() ? std::string("OPTIONS") : allowed_methods(path->second)}});
  find_method(path->second, request.method)->second.handler(std::move(request), std::move(responder));
}

void Router::add_cors(const HttpRequest& head, Responder::Headers& headers) const {
  if (origins_.empty()) return;
  headers.emplace_back("vary", "origin");
  const std::string_view origin = head.header("origin");
  if (origin.empty() || std::ranges::none_of(origins_, [&](const auto& o) { return o == "*" || o == origin; })) return;
  headers.emplace_back("access-control-allow-origin", origin);
  headers.emplace_back("access-control-expose-headers", "x-request-id, retry-after");
  if (!is_preflight(head)) return;
  headers.emplace_back("access-control-allow-methods", head.header("access-control-request-method"));
  if (const auto wanted = head.header("access-control-request-headers"); !wanted.empty())
    headers.emplace_back("access-control-allow-headers", wanted);
  headers.emplace_back("access-control-max-age", "600");
}

void Router::check_key(const HttpRequest& head, Responder::Headers& headers) const {
  if (key_hashes_.empty()) return;
  const std::string_view key_offered = offered_key(head);
  const std::string offered = hash(key_offered);
  int known = 0;  // all are compared, always in full: the time says nothing about the keys
  for (const std::string& key : key_hashes_)
    known |= static_cast<int>(CRYPTO_memcmp(key.data(), offered.data(), offered.size()) == 0);
  if (known != 0) return;
  headers.emplace_back("www-authenticate", "Bearer");
  throw ApiError(401,
                 key_offered.empty() ? "An API key is needed: send it as 'Authorization: Bearer KEY'"
                                     : "This API key is not one of the server's",
                 {}, "invalid_api_key");
}

}  // namespace photon
