// The source that this program was built from.
#pragma once

#include <string>

namespace photon {

const char* version();  // of the project: "0.1.0"
const char* commit();   // "git describe" of the source at build time, or "unknown"

/// What every program says of itself: "photon 0.1.0 (688b60c)".
inline std::string version_line(const std::string& program) {
  return program + " " + version() + " (" + commit() + ")";
}

}  // namespace photon
