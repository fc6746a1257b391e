#include "bench/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace photon {
namespace {

// The protocols of a list that are different things for this model.
std::vector<Protocol> protocols_of(const BenchSource& source, const std::vector<Protocol>& wanted) {
  std::vector<Protocol> protocols;
  for (const Protocol protocol : wanted)
    if (protocol == Protocol::hiergen || source.spec.n_levels() >= 2) protocols.push_back(protocol);
  if (protocols.empty())
    throw InputError(fmt::format(
        "--protocol recgen needs a model with two levels or more, {} has {}; add hiergen, or leave the model out",
        name_of(source), source.spec.n_levels()));
  return protocols;
}

std::vector<Phases> phases_of(const BenchSource& source, Protocol protocol, std::int64_t streams,
                              const std::vector<Phases>& wanted) {
  if (protocol == Protocol::hiergen && source.spec.n_levels() > 0 && streams > 1) return wanted;
  return {Phases::aligned};
}

void check_length(const BenchSource& source, std::int64_t context, std::int64_t tokens) {
  if (context > max_context - tokens)
    throw InputError(fmt::format("{}: a context of {} and {} more tokens exceeds the longest context, {}",
                                 name_of(source), context, tokens, max_context));
}

void check_whole_groups(const BenchSource& source, const char* option, std::int64_t tokens, const char* why) {
  const std::int64_t group = source.spec.group_tokens();
  if (tokens % group != 0)
    throw InputError(
        fmt::format("{} {}: {} {} groups of {} tokens; take a multiple", option, tokens, name_of(source), why, group));
}

void check(const BenchSource& source, const BenchCase& c) {
  const Workload& w = c.workload;
  check_length(source, w.context, w.tokens);
  if (c.kind == BenchCase::Kind::decode) check_whole_groups(source, "--tokens", w.tokens, "is measured over");
  if (w.protocol == Protocol::recgen && c.kind == BenchCase::Kind::decode)
    check_whole_groups(source, "--context", w.context, "decodes under recgen");
  if (w.protocol == Protocol::recgen && c.kind == BenchCase::Kind::prefill)
    check_whole_groups(source, "--context plus --tokens", w.context + w.tokens, "begins recgen after");
}

// Where samples of `tokens` tokens lie in a generation: about the middles of equal parts, at whole groups.
std::vector<std::int64_t> sampled_contexts(const PaperWorkload& w, std::int64_t samples, std::int64_t tokens,
                                           std::int64_t group) {
  std::vector<std::int64_t> contexts;
  const std::int64_t first = (w.prompt + group - 1) / group * group;
  for (std::int64_t k = 0; k < samples; ++k) {
    const std::int64_t middle = w.prompt + w.generated * (2 * k + 1) / (2 * samples);
    contexts.push_back(std::max(first, (middle - tokens / 2) / group * group));
  }
  return contexts;
}

double gib(std::int64_t bytes) { return static_cast<double>(bytes) / static_cast<double>(std::int64_t{1} << 30); }

}  // namespace

std::vector<BenchSource> sources_of(const SourceLists& lists) {
  std::vector<std::optional<DType>> dtypes(lists.dtypes.begin(), lists.dtypes.end());
  std::vector<std::optional<DType>> kvs(lists.kvs.begin(), lists.kvs.end());
  if (dtypes.empty()) dtypes.push_back(std::nullopt);
  if (kvs.empty()) kvs.push_back(std::nullopt);
  std::vector<BenchSource> sources;
  for (const auto& dtype : dtypes)
    for (const auto& kv : kvs) {
      for (const auto& config : lists.configs)
        sources.push_back(config_source(config, dtype.value_or(DType::bf16), kv));
      for (const auto& folder : lists.folders) sources.push_back(folder_source(folder, dtype, kv));
    }
  return sources;
}

std::vector<BenchCase> cases_of(BenchCase::Kind kind, std::span<const BenchSource> sources, const CaseLists& lists) {
  std::vector<BenchCase> cases;
  for (const std::int64_t threads : lists.threads)
    for (const std::int64_t context : lists.contexts)
      for (const std::int64_t streams : lists.streams)
        for (const std::int64_t tokens : lists.tokens)
          for (std::size_t source = 0; source < sources.size(); ++source)
            for (const Protocol protocol : protocols_of(sources[source], lists.protocols))
              for (const Phases phases : phases_of(sources[source], protocol, streams, lists.phases)) {
                const Workload workload{
                    .protocol = protocol, .streams = streams, .context = context, .tokens = tokens, .phases = phases};
                cases.push_back({.kind = kind,
                                 .source = source,
                                 .threads = threads,
                                 .workload = workload,
                                 .contexts = {context},
                                 .context_label = context});
                check(sources[source], cases.back());
              }
  return cases;
}

PaperWorkload parse_workload(std::string_view text) {
  PaperWorkload w;
  const char* const last = text.data() + text.size();
  const auto [plus, error] = std::from_chars(text.data(), last, w.prompt);
  if (error == std::errc() && plus != last && *plus == '+') {
    const auto [end, error2] = std::from_chars(plus + 1, last, w.generated);
    if (error2 == std::errc() && end == last && w.prompt >= 0 && w.generated >= 1 && w.prompt <= max_context &&
        w.generated <= max_context - w.prompt)
      return w;
  }
  throw InputError(fmt::format("'{}' is no workload; PROMPT+GENERATED in tokens, such as 2048+128, together at most {}",
                               text, max_context));
}

std::int64_t kv_bytes_peak(const BenchSource& source, Protocol protocol, const PaperWorkload& workload,
                           std::int64_t streams) {
  const auto bytes = [&](Protocol p, std::int64_t T) { return kv_bytes_allocated(source.spec, p, T, source.kv); };
  return std::max(streams * bytes(protocol, workload.prompt + workload.generated),
                  (streams - 1) * bytes(protocol, workload.prompt) + bytes(Protocol::hiergen, workload.prompt));
}

std::vector<BenchCase> paper_cases(std::span<const BenchSource> sources, const PaperLists& lists) {
  std::vector<BenchCase> cases;
  for (const std::int64_t threads : lists.threads)
    for (const PaperWorkload& w : lists.workloads)
      for (std::size_t source = 0; source < sources.size(); ++source)
        for (const Protocol protocol : protocols_of(sources[source], lists.protocols)) {
          const std::string name = name_of(sources[source]), label = fmt::format("{}+{}", w.prompt, w.generated);
          const std::int64_t group = sources[source].spec.group_tokens();
          const std::int64_t one = kv_bytes_peak(sources[source], protocol, w, 1);
          if (one > lists.kv_budget)
            throw InputError(
                fmt::format("--kv-budget {:.3g} GiB: one stream of {} under {} takes {:.3g} GiB of KV cache at {}",
                            gib(lists.kv_budget), name, to_string(protocol), gib(one), label));
          std::int64_t streams = lists.most_streams;
          while (kv_bytes_peak(sources[source], protocol, w, streams) > lists.kv_budget) --streams;
          const std::int64_t samples = std::clamp<std::int64_t>(w.generated / group, 1, lists.samples);
          const std::int64_t tokens = std::max(group, std::min(lists.tokens, w.generated / samples) / group * group);
          cases.push_back({.kind = BenchCase::Kind::decode,
                           .source = source,
                           .threads = threads,
                           .workload = {.protocol = protocol, .streams = streams, .tokens = tokens},
                           .contexts = sampled_contexts(w, samples, tokens, group),
                           .context_label = w.prompt + w.generated,
                           .label = label,
                           .kv_bytes_peak = kv_bytes_peak(sources[source], protocol, w, streams),
                           .kv_bytes_alone = one});
          check_length(sources[source], w.prompt + w.generated, group);
        }
  return cases;
}

}  // namespace photon
