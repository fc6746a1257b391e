// A benchmark run: which cases it has, whether they fit into memory, and measuring them in interleaved rounds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/measure.h"
#include "kernels/ceilings.h"

namespace photon {

/// A model in one precision: random weights of a config, or the weights of a folder.
struct BenchSource {
  std::filesystem::path path;
  bool is_folder = false;  // else a config.json
  Spec spec{};
  DType dtype = DType::bf16;
  DType kv = DType::bf16;
};
/// @throws SpecError, WeightsError or InputError naming file and field
BenchSource config_source(const std::filesystem::path& config, DType dtype, std::optional<DType> kv);
BenchSource folder_source(const std::filesystem::path& folder, std::optional<DType> dtype, std::optional<DType> kv);
std::string name_of(const BenchSource& source);  // "photon-600m": of the config or of the folder

/// One row of the result: workloads that differ in their context alone, and over which the speed is averaged.
struct BenchCase {
  enum class Kind { prefill, decode };
  Kind kind = Kind::decode;
  std::size_t source = 0;  // index into the run's sources
  std::int64_t threads = 1;
  Workload workload{};
  std::vector<std::int64_t> contexts{};  // of the workload; several where a long generation is sampled
  std::int64_t context_label = 0;        // what the row says
  std::string label{};                   // of a workload of the paper, "128+2048"; else empty
  std::int64_t kv_bytes_peak = 0;        // 0: what the caches hold at the end of a sample
  std::int64_t kv_bytes_alone = 0;       // the peak of one stream by itself, of a workload of the paper
};

/// What one round brought of one case: sums over its contexts.
struct Round {
  double tokens_per_s = 0;
  double ceiling_gb_s = 0, memory_share = 0;
  double ceiling_gop_s = 0, compute_share = 0;
  std::int64_t tokens = 0;  // of all streams
  std::int64_t kv_bytes_read = 0, kv_bytes_written = 0, weight_bytes_read = 0;
  std::int64_t kv_bytes = 0;                // the most that a sample left
  std::string logits_hash{}, all_hashes{};  // of the last sample, of all of them
  std::vector<double> profile{};            // seconds by Profile::Part
  double seconds = 0;                       // that the round took, with prompts, warm-ups and probes
  bool operator==(const Round&) const = default;
};

struct Spread {  // of the rounds
  double median = 0, min = 0, max = 0;
};
Spread spread_of(std::vector<double> values);  // not empty

/// What was measured of one case.  Per token means: of all streams together.
struct BenchResult {
  BenchCase what;
  std::string model;
  bool is_vanilla = false;
  DType dtype = DType::f32;
  DType kv = DType::f32;
  Spread tokens_per_s{};
  double ceiling_gb_s = 0, memory_share = 0;    // read bandwidth measured beside, and its share that was used
  double ceiling_gop_s = 0, compute_share = 0;  // peak of the dtype's dot products, likewise
  double kv_bytes_read_per_token = 0, kv_bytes_written_per_token = 0, weight_bytes_read_per_token = 0;
  std::int64_t kv_bytes = 0;
  std::string logits_hash{};
  std::vector<double> profile{};  // shares of the time by Profile::Part

  bool memory_binds() const { return memory_share >= compute_share; }
  double ceiling_share() const { return memory_binds() ? memory_share : compute_share; }
  /// The paper's throughput per memory: thousands of tokens a second for each GiB of KV cache.  Of decoding only.
  std::optional<double> tpm() const;
  /// The same for each GiB of one stream's cache, as the paper's table has it.  Of its workloads only.
  std::optional<double> tpm_alone() const;
};

class RoundsFile;  // bench/rounds_file.h

/// Bytes that a run takes: all models of its cases at once, the largest batch of each beside its longest prompt, the
/// buffer of the bandwidth probe.
struct BenchMemory {
  std::int64_t weights = 0, kv = 0, rest = 0;
  std::int64_t total() const { return weights + kv + rest; }
};
BenchMemory memory_of(std::span<const BenchSource> sources, std::span<const BenchCase> cases, std::int64_t probe_bytes);

struct BenchOptions {
  std::int64_t repeats = 5;
  std::uint64_t seed = 1;
  bool with_profile = false, with_eta = false;
  std::int64_t probe_bytes = std::int64_t{512} << 20;  // of the bandwidth's buffer
};

/// Measures all cases: `repeats` rounds through all of them in turn, so that what the machine's neighbours do hits all
/// alike, with the ceilings probed before every sample.  `say` is told what happens, a line at a time.
/// @param kept  rounds of earlier runs, which are not measured again; every new one goes there as soon as it is
///              measured.  Models that nothing is left to measure of are not loaded.
/// @throws InputError if the run does not fit into the machine's available memory
std::vector<BenchResult> run_bench(std::span<const BenchSource> sources, std::span<const BenchCase> cases,
                                   const BenchOptions& options, const std::function<void(const std::string&)>& say,
                                   RoundsFile* kept = nullptr);

}  // namespace photon
