// The properties that photon selfcheck measures, each a number beside what it may be at most.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/generate.h"

namespace photon {

struct Check {
  std::string name;
  double value = 0;
  std::optional<double> tolerance{};  // none: for information
  std::string detail;                 // what the number counts, and what else was seen
  bool vacuous = false;               // it could not have failed, so it did not pass

  bool failed() const { return vacuous || (tolerance && !(value <= *tolerance)); }  // a NaN fails
  std::string verdict() const { return failed() ? "FAIL" : tolerance ? "PASS" : "info"; }
};

/// The largest difference of a logit between decoding, tokens given, and the forward pass; and for information what
/// recgen computes, where there is one.
std::vector<Check> check_protocols(Engine& engine, std::span<const std::int32_t> tokens);
/// Greedy generation writes what the forward pass holds likeliest.
Check check_generation(Engine& engine, std::span<const std::int32_t> tokens);
/// A changed token changes no logit up to its own, and some after it.
Check check_causality(Engine& engine, std::span<const std::int32_t> tokens);
/// Sequences alone and in a batch of 8, on one thread and on all.
Check check_batches(Engine& engine, std::span<const std::int32_t> tokens);
/// KV bytes that a sequence holds at several lengths, and what docs/architecture.md §4 says.
Check check_kv_bytes(Engine& engine, Protocol protocol, std::span<const std::int32_t> tokens);
/// What recgen emits reaches later groups through a `stream` level-1 decoder alone, and its top stream never; only the
/// top cache grows.  Needs two levels.
Check check_recgen_state(Engine& engine, std::span<const std::int32_t> tokens);
/// KL(reference || model), weights or KV caches being rounded.
Check check_rounding(Engine& reference, Engine& model, const std::string& what, double tolerance,
                     std::span<const std::int32_t> tokens);

}  // namespace photon
