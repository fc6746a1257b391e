// photon bench serve: how fast a running server answers a load that does not wait for it.
#pragma once

namespace CLI {
class App;
}

namespace photon {

/// Adds itself to `photon bench`.
void add_bench_serve(CLI::App& bench);

}  // namespace photon
