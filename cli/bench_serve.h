// photon bench serve: how fast a running server answers a load that does not wait for it.
#pragma once

#include "base/command_line.h"

namespace photon {

/// Adds itself to `photon bench`.
void add_bench_serve(Command bench);

}  // namespace photon
