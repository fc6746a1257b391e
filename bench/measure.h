// Measuring one model: sequences of random tokens at a context, prefilled or decoded by some tokens against the clock.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/runner.h"
#include "spec/accounting.h"

namespace photon {

/// Where in their top-level groups the sequences of a batch stand.
enum class Phases {
  aligned,    ///< all at the same place: they complete their chunks at the same step
  staggered,  ///< evenly spread over a group; hiergen only, since recgen decodes whole groups
};
std::string_view to_string(Phases phases);   // "aligned", "staggered"
Phases parse_phases(std::string_view text);  ///< @throws InputError for any other word

/// What is done against the clock.
struct Workload {
  Protocol protocol = Protocol::hiergen;
  std::int64_t streams = 1;
  std::int64_t context = 0;  // tokens that every stream has consumed before; see whole_groups()
  std::int64_t tokens = 1;   // of each stream; decode: see whole_groups()
  Phases phases = Phases::aligned;
};

/// The next multiple of the model's top-level group C_≤L: what decoding is measured over, because its cost repeats from
/// group to group, and where recgen can begin.
std::int64_t whole_groups(const Spec& spec, std::int64_t tokens);

/// One measurement.
struct Sample {
  double seconds = 0;
  std::int64_t tokens = 0;  // of all streams
  KvTraffic kv{};
  Work work{};
  std::int64_t kv_bytes = 0;      // that the caches of all streams hold at the end
  std::string logits_hash{};      // of the last logits of all streams; empty where none were computed
  std::vector<double> profile{};  // seconds by Profile::Part; empty if it was not asked for
};

/// A model with the prompts and buffers that measuring it needs.  Every sample begins with copies of the same prompt
/// and a warm-up of one group on further copies.  One call at a time, with threads() threads.
class ModelBench {
 public:
  ModelBench(Model model, std::uint64_t seed);

  const Model& model() const { return runner_.model(); }
  const KvPool& pool() const { return runner_.pool(); }
  /// Encodes the prompt of a workload, if it is not there yet; samples do so themselves, outside the measured time.
  void prepare(const Workload& workload);
  /// Generates `tokens` tokens in each stream, greedily: choosing them is part of the time.  The streams share no page.
  Sample decode(const Workload& workload, bool with_profile = false);
  /// Consumes `tokens` further tokens in each stream, one stream after another, up to where a token could be chosen.
  Sample prefill(const Workload& workload, bool with_profile = false);

 private:
  void consume(Sequence& sequence, std::span<const std::int32_t> tokens);
  const Sequence& prompt(std::int64_t context);
  std::vector<Sequence> streams_of(const Workload& workload, bool share);
  std::vector<std::int32_t> random_tokens(std::int64_t from, std::int64_t to) const;
  Sample decode_hiergen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile);
  Sample decode_recgen(std::span<Sequence* const> batch, std::int64_t tokens, bool with_profile);

  Runner runner_;
  std::uint64_t seed_;
  std::map<std::int64_t, Sequence> prompts_;  // by context; a longer one shares the pages of a shorter one
  std::int64_t prefilled_ = 0;                // the longest prompt that buffers have grown for
};

}  // namespace photon
