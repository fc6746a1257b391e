// Streams text in whole UTF-8 characters although tokens may end inside one.
#pragma once

#include <string>
#include <string_view>

namespace photon {

class Utf8Stream {
 public:
  /// Adds bytes; returns the longest prefix of whole characters (invalid bytes become U+FFFD).
  std::string push(std::string_view bytes);
  /// The end: an unfinished character becomes U+FFFD.
  std::string finish();

 private:
  std::string pending_;
};

bool is_valid_utf8(std::string_view text);

}  // namespace photon
