#include "serve/loggable.h"

#include <fmt/format.h>

namespace photon {

std::string loggable(std::string_view text) {
  constexpr std::size_t longest = 200;
  std::string safe;
  for (const char c : text.substr(0, longest))
    if (c > ' ' && c < '\x7f' && c != '\\')
      safe += c;
    else
      safe += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text.size() > longest ? safe + "..." : safe;
}

}  // namespace photon
