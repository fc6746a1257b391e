// What others have sent, as a line of a log may hold it.
#pragma once

#include <string>
#include <string_view>

namespace photon {

/// Bounded, and printable ASCII only: everything else, spaces and backslashes included, becomes \xNN.
std::string loggable(std::string_view text);

}  // namespace photon
