// What a benchmark found, as a table for people and as JSON for machines.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "bench/run.h"

namespace photon {

/// A result beside the vanilla model of the same run, dtypes, threads and work; the streams are the same too, except in
/// a workload of the paper, whose batches are as large as memory admits.
struct VanillaRatio {
  double tokens_per_s = 0;
  std::optional<double> tpm{};
  std::optional<double> tpm_alone{};
};
/// Nothing where this run measured no such model, or more than one: a ratio has two sides of one run.
std::optional<VanillaRatio> ratio_to_vanilla(std::span<const BenchResult> results, const BenchResult& result);

std::string to_table(std::span<const BenchResult> results);
/// An array of one object a result, with the machine, the program and the run in each.
nlohmann::ordered_json to_json(std::span<const BenchResult> results, const BenchOptions& options);

/// Instruction set, CPU and commit: what every figure depends on.
nlohmann::ordered_json machine_json();

}  // namespace photon
