// What a benchmark measures: the cross product of the lists that were asked for, or the paper's table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/run.h"

namespace photon {

/// Every model in every precision.  Empty lists of types: what config_source() and folder_source() choose; configs
/// then come in bfloat16.
struct SourceLists {
  std::vector<std::filesystem::path> configs, folders;
  std::vector<DType> dtypes;
  std::vector<DType> kvs;
};
std::vector<BenchSource> sources_of(const SourceLists& lists);

struct CaseLists {
  std::vector<Protocol> protocols{Protocol::hiergen};
  std::vector<std::int64_t> threads{1}, streams{1}, contexts{0}, tokens{64};
  std::vector<Phases> phases{Phases::aligned};
};
/// Where an entry of a list would repeat another one it is left out: recgen of a model with fewer than two levels is
/// hiergen, and only several streams of a model with levels under hiergen have phases.
/// @throws InputError where nothing is left of a model, decoding is not over whole groups, or a context is too long
std::vector<BenchCase> cases_of(BenchCase::Kind kind, std::span<const BenchSource> sources, const CaseLists& lists);

/// A prompt and what is generated after it: "2048+128".
struct PaperWorkload {
  std::int64_t prompt = 0, generated = 0;
};
PaperWorkload parse_workload(std::string_view text);  ///< @throws InputError naming the word

struct PaperLists {
  std::vector<Protocol> protocols{Protocol::hiergen, Protocol::recgen};
  std::vector<std::int64_t> threads{1};
  std::vector<PaperWorkload> workloads;
  std::int64_t kv_budget = std::int64_t{4} << 30;  // bytes of KV caches
  std::int64_t most_streams = 64;
  std::int64_t tokens = 16;  // that are timed at each sampled context
  std::int64_t samples = 4;  // contexts at which a generation is sampled
};
/// The paper's table: each model and protocol with as many streams as the budget admits.  A generation is sampled at
/// the middles of equal parts of it, which is exact where the time of a token grows linearly with the context.
/// @throws InputError also where not even one stream fits the budget
std::vector<BenchCase> paper_cases(std::span<const BenchSource> sources, const PaperLists& lists);

/// The most that the caches of a batch hold: at its end, or when the last prompt has just been encoded (recgen then
/// gives the lower encoders' caches back).
std::int64_t kv_bytes_peak(const BenchSource& source, Protocol protocol, const PaperWorkload& workload,
                           std::int64_t streams);

}  // namespace photon
