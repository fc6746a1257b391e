// The source that this program was built from.
#pragma once

namespace photon {

const char* commit();  // "git describe" of the source at build time, or "unknown"

}  // namespace photon
