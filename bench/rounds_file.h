// The rounds of a benchmark in a file, so that a run that was interrupted goes on where it stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/run.h"

namespace photon {

/// What one commit measured on one machine with one seed: of every case the rounds in the order in which they were
/// measured.  A case is found again by everything that its figures depend on: spec, types, threads and workload.
class RoundsFile {
 public:
  /// Reads the file if there is one, and writes it, so that what cannot be kept shows before anything is measured.
  /// @throws InputError if it is something else, another commit's, machine's or seed's, or cannot be written
  RoundsFile(std::filesystem::path path, std::uint64_t seed);

  /// The first rounds of a case, `at_most` of them.
  std::vector<Round> rounds(const BenchSource& source, const BenchCase& what, std::int64_t at_most) const;
  /// Adds a round.  The file is whole at any moment.  @throws InputError if it cannot be written
  void keep(const BenchSource& source, const BenchCase& what, const Round& round);

 private:
  struct Cell {
    nlohmann::ordered_json what;
    std::vector<Round> rounds{};
  };
  void read();
  void write() const;

  std::filesystem::path path_;
  nlohmann::ordered_json origin_;  // commit, machine and seed
  std::vector<Cell> cells_;
};

}  // namespace photon
