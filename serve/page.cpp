#include "serve/page.h"

#include <string>

#include "serve/web_assets.h"

namespace photon {
namespace {

// The page loads and asks nothing but this server, runs no script but its own, and shows itself in no frame.
constexpr const char* content_policy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

Responder::Headers headers_of(const WebAsset& asset) {
  return {{"ETag", std::string(asset.etag)},
          {"Cache-Control", "no-cache"},  // may be kept, but asked about: the next program brings the next page
          {"Content-Security-Policy", content_policy},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"}};
}

}  // namespace

void add_page(Router& router) {
  for (const WebAsset& asset : web_assets()) {
    router.add("GET", std::string(asset.path), Access::open,
               [&asset](const HttpRequest& request, const std::shared_ptr<Responder>& responder) {
                 const bool known = request.header("if-none-match").find(asset.etag) != std::string_view::npos;
                 responder->send(known ? 304 : 200, asset.content_type, known ? "" : std::string(asset.bytes),
                                 headers_of(asset));
               });
  }
}

}  // namespace photon
