// The files of the page at /, compiled into the program.
#pragma once

#include <span>
#include <string_view>

namespace photon {

struct WebAsset {
  std::string_view path;          // of its URL: "/", "/page.js"
  std::string_view content_type;  // with the charset
  std::string_view bytes;
  std::string_view etag;  // of these bytes, quoted as the header wants it
};

std::span<const WebAsset> web_assets();

}  // namespace photon
