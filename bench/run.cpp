#include "bench/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/progress_line.h"
#include "bench/rounds_file.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

using Clock = std::chrono::steady_clock;

Arithmetic arithmetic_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return Arithmetic::f32;
    case DType::bf16:
      return Arithmetic::bf16;
    case DType::int8:
    case DType::int4:
      return Arithmetic::int8;
  }
  return Arithmetic::f32;
}

DType kv_of(DType dtype, std::optional<DType> kv) {
  return kv.value_or(dtype == DType::f32 ? DType::f32 : DType::bf16);
}

Workload at(const BenchCase& c, std::int64_t context) {
  Workload workload = c.workload;
  workload.context = context;
  return workload;
}

// KV bytes of the whole batch when it is done.
std::int64_t kv_bytes_of(const BenchSource& source, const BenchCase& c, std::int64_t context) {
  const std::int64_t end = context + c.workload.tokens;
  return c.workload.streams * kv_bytes_allocated(source.spec, c.workload.protocol, end, source.kv);
}

std::string in_gb(std::int64_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9); }

// The ceilings, then a sample at each context.
Round measure(const BenchCase& what, const BenchSource& source, ModelBench& model, const ReadProbe& probe,
              bool with_profile) {
  const auto start = Clock::now();
  set_threads(what.threads);
  const std::int64_t longest = *std::ranges::max_element(what.contexts);
  Round round;
  round.ceiling_gb_s = probe.gb_s(packed_bytes(source.spec, source.dtype) + kv_bytes_of(source, what, longest));
  round.ceiling_gop_s = measure_peak_gop_s(arithmetic_of(source.dtype));
  double seconds = 0, flops = 0;
  for (const std::int64_t context : what.contexts) {
    const Workload workload = at(what, context);
    const Sample sample = what.kind == BenchCase::Kind::decode ? model.decode(workload, with_profile)
                                                               : model.prefill(workload, with_profile);
    seconds += sample.seconds, round.tokens += sample.tokens;
    round.kv_bytes_read += sample.kv.bytes_read, round.kv_bytes_written += sample.kv.bytes_written;
    round.weight_bytes_read += sample.work.weight_bytes_read;
    round.kv_bytes = std::max(round.kv_bytes, sample.kv_bytes);
    round.logits_hash = sample.logits_hash;
    round.all_hashes += sample.logits_hash;
    round.profile.resize(sample.profile.size());
    for (std::size_t i = 0; i < sample.profile.size(); ++i) round.profile[i] += sample.profile[i];
    flops += sample.work.matmul_flops + sample.work.attention_flops;
  }
  // Rows that are prefilled together read the same keys and values: all but the first find them in a cache.
  const std::int64_t kv_moved =
      round.kv_bytes_written + (what.kind == BenchCase::Kind::decode ? round.kv_bytes_read : 0);
  const auto moved = static_cast<double>(round.weight_bytes_read + kv_moved);
  round.tokens_per_s = static_cast<double>(round.tokens) / seconds;
  round.memory_share = moved * 1e-9 / seconds / round.ceiling_gb_s;
  round.compute_share = flops * 1e-9 / seconds / round.ceiling_gop_s;
  round.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return round;
}

std::string label_of(const BenchCase& what, const BenchSource& source) {
  const Workload& w = what.workload;
  const std::string where =
      what.label.empty() ? fmt::format("{} tokens at {}", w.tokens, what.contexts[0]) : what.label;
  return fmt::format("{} {} {}, {} {}, {} {}, {}", name_of(source), to_string(w.protocol), to_string(source.dtype),
                     what.threads, what.threads == 1 ? "thread" : "threads", w.streams,
                     w.streams == 1 ? "stream" : "streams", where);
}

bool repeatable(const std::vector<Round>& rounds) {
  return std::ranges::all_of(rounds, [&](const Round& r) { return r.all_hashes == rounds.front().all_hashes; });
}

BenchResult result_of(const BenchCase& what, const BenchSource& source, const std::vector<Round>& rounds) {
  const auto spread = [&](double Round::*figure) {
    std::vector<double> values;
    for (const Round& round : rounds) values.push_back(round.*figure);
    return spread_of(std::move(values));
  };
  const Round& last = rounds.back();  // counts are the same in every round
  const auto per_token = [&](std::int64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(last.tokens);
  };
  BenchResult result{.what = what,
                     .model = name_of(source),
                     .is_vanilla = source.spec.is_vanilla(),
                     .dtype = source.dtype,
                     .kv = source.kv,
                     .tokens_per_s = spread(&Round::tokens_per_s),
                     .ceiling_gb_s = spread(&Round::ceiling_gb_s).median,
                     .memory_share = spread(&Round::memory_share).median,
                     .ceiling_gop_s = spread(&Round::ceiling_gop_s).median,
                     .compute_share = spread(&Round::compute_share).median,
                     .kv_bytes_read_per_token = per_token(last.kv_bytes_read),
                     .kv_bytes_written_per_token = per_token(last.kv_bytes_written),
                     .weight_bytes_read_per_token = per_token(last.weight_bytes_read),
                     .kv_bytes = what.kv_bytes_peak > 0 ? what.kv_bytes_peak : last.kv_bytes,
                     .logits_hash = last.logits_hash};
  result.profile.resize(last.profile.size());
  double total = 0;
  for (const Round& round : rounds)
    for (std::size_t part = 0; part < result.profile.size() && part < round.profile.size(); ++part)
      result.profile[part] += round.profile[part], total += round.profile[part];
  for (double& share : result.profile) share /= total;
  return result;
}

// What is left to measure, by what the rounds of each case took so far, or else by the mean of the others'.
double seconds_left(const std::vector<std::vector<Round>>& rounds, std::int64_t repeats) {
  double known = 0, left = 0;
  std::int64_t n_known = 0, n_unknown = 0;
  for (const auto& of_case : rounds)
    if (of_case.empty())
      n_unknown += repeats;
    else
      known += of_case.back().seconds, ++n_known,
          left +=
          of_case.back().seconds * static_cast<double>(std::max<std::int64_t>(0, repeats - std::ssize(of_case)));
  return left + (n_known > 0 ? known / static_cast<double>(n_known) * static_cast<double>(n_unknown) : 0);
}

}  // namespace

std::string name_of(const BenchSource& source) {
  const auto path = std::filesystem::absolute(source.path).lexically_normal();
  if (!source.is_folder) return path.stem().string();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

BenchSource config_source(const std::filesystem::path& config, DType dtype, std::optional<DType> kv) {
  return {.path = config, .spec = load_spec(config), .dtype = dtype, .kv = kv_of(dtype, kv)};
}

BenchSource folder_source(const std::filesystem::path& folder, std::optional<DType> dtype, std::optional<DType> kv) {
  const ModelFolder opened = open_model_folder(folder);
  const DType held = dtype.value_or(opened.dtype);
  return {.path = folder, .is_folder = true, .spec = opened.spec, .dtype = held, .kv = kv_of(held, kv)};
}

Spread spread_of(std::vector<double> values) {
  std::ranges::sort(values);
  const std::size_t n = values.size();
  return {.median = (values[(n - 1) / 2] + values[n / 2]) / 2, .min = values.front(), .max = values.back()};
}

std::optional<double> BenchResult::tpm() const {
  if (what.kind != BenchCase::Kind::decode || kv_bytes == 0) return std::nullopt;
  return tokens_per_s.median * 1e-3 / (static_cast<double>(kv_bytes) * 0x1p-30);
}

std::optional<double> BenchResult::tpm_alone() const {
  if (what.kv_bytes_alone == 0) return std::nullopt;
  return tokens_per_s.median * 1e-3 / (static_cast<double>(what.kv_bytes_alone) * 0x1p-30);
}

BenchMemory memory_of(std::span<const BenchSource> sources, std::span<const BenchCase> cases,
                      std::int64_t probe_bytes) {
  BenchMemory memory{.rest = probe_bytes};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const BenchSource& source = sources[i];
    if (std::ranges::none_of(cases, [&](const BenchCase& c) { return c.source == i; })) continue;
    std::int64_t longest_prompt = 0, batch = 0, logits = 0;
    for (const BenchCase& c : cases) {
      if (c.source != i) continue;
      for (const std::int64_t context : c.contexts) {
        const std::int64_t prompt = kv_bytes_allocated(source.spec, Protocol::hiergen, context, source.kv);
        longest_prompt = std::max(longest_prompt, prompt);
        batch = std::max(batch, kv_bytes_of(source, c, context) - prompt);  // one stream shares the prompt's pages
      }
      logits = std::max(logits, 2 * c.workload.streams * source.spec.vocab_size * std::int64_t{sizeof(float)});
    }
    const std::int64_t embedded =
        source.spec.d_embed + (source.spec.decoder_embedding ? source.spec.content_width(1) : 0);
    memory.weights +=
        packed_bytes(source.spec, source.dtype) + source.spec.vocab_size * embedded * std::int64_t{sizeof(float)};
    memory.kv += longest_prompt + batch;
    memory.rest += logits;
  }
  return memory;
}

std::vector<BenchResult> run_bench(std::span<const BenchSource> sources, std::span<const BenchCase> cases,
                                   const BenchOptions& options, const std::function<void(const std::string&)>& say,
                                   RoundsFile* kept) {
  std::vector<std::vector<Round>> rounds(cases.size());
  std::vector<BenchCase> open;  // of which rounds are missing
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (kept != nullptr) rounds[i] = kept->rounds(sources[cases[i].source], cases[i], options.repeats);
    if (std::ssize(rounds[i]) < options.repeats) open.push_back(cases[i]);
  }
  if (!open.empty()) {
    const BenchMemory memory = memory_of(sources, open, options.probe_bytes);
    if (memory.total() > available_memory())
      throw InputError(
          fmt::format("this run takes {} of memory (weights {}, KV caches {}, buffers {}) and the machine has {} left; "
                      "take fewer models, streams or a shorter context, since everything of a run is held at once",
                      in_gb(memory.total()), in_gb(memory.weights), in_gb(memory.kv), in_gb(memory.rest),
                      in_gb(available_memory())));

    std::vector<std::unique_ptr<ModelBench>> models(sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const BenchSource& source = sources[i];
      if (std::ranges::none_of(open, [&](const BenchCase& c) { return c.source == i; })) continue;
      say(fmt::format("loading {} ({})", name_of(source), to_string(source.dtype)));
      const Precision precision{.weights = source.dtype, .kv = source.kv};
      models[i] = std::make_unique<ModelBench>(
          source.is_folder ? load_model(source.path, precision) : random_model(source.spec, precision, options.seed),
          options.seed);
    }
    const std::int64_t threads_before = threads();
    set_threads(std::ranges::max(open, {}, &BenchCase::threads).threads);
    const ReadProbe probe(options.probe_bytes);
    for (const BenchCase& c : open)
      for (const std::int64_t context : c.contexts) models[c.source]->prepare(at(c, context));
    for (std::int64_t round = 1; round <= options.repeats; ++round)
      for (std::size_t i = 0; i < cases.size(); ++i) {
        if (std::ssize(rounds[i]) >= round) continue;
        const BenchSource& source = sources[cases[i].source];
        rounds[i].push_back(measure(cases[i], source, *models[cases[i].source], probe, options.with_profile));
        if (kept != nullptr) kept->keep(source, cases[i], rounds[i].back());
        const double left = seconds_left(rounds, options.repeats);
        say(fmt::format("round {} of {}: {}: {:.4g} tokens/s{}", round, options.repeats, label_of(cases[i], source),
                        rounds[i].back().tokens_per_s,
                        options.with_eta && left > 0 ? "; " + duration_text(left) + " left" : ""));
      }
    set_threads(threads_before);
  }

  std::vector<BenchResult> results;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const BenchSource& source = sources[cases[i].source];
    if (!repeatable(rounds[i]))
      say(label_of(cases[i], source) + ": the logits differ between rounds: this engine should not do that");
    results.push_back(result_of(cases[i], source, rounds[i]));
  }
  return results;
}

}  // namespace photon
