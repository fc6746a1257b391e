#include "bench/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
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

double median_of(std::vector<double> values) { return spread_of(std::move(values)).median; }

std::string in_gb(std::int64_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9); }

std::string duration(double seconds) {
  if (seconds < 60) return fmt::format("{:.0f} s", seconds);
  return fmt::format("{:.0f} min", seconds / 60);
}

// One case of a run: its model, and what the rounds have brought so far.
class CaseRun {
 public:
  CaseRun(const BenchCase& what, const BenchSource& source, ModelBench& model)
      : what_(what), source_(source), model_(model) {}

  // One round: the ceilings, then a sample at each context.  Returns tokens per second.
  double measure(const ReadProbe& probe, bool with_profile) {
    set_threads(what_.threads);
    const double gb_s = probe.gb_s(packed_bytes(source_.spec, source_.dtype) + kv_bytes_of(source_, what_, longest()));
    const double gop_s = measure_peak_gop_s(arithmetic_of(source_.dtype));
    Sample sum;
    double flops = 0;
    std::string hashes;
    for (const std::int64_t context : what_.contexts) {
      const Workload workload = at(what_, context);
      const Sample sample = what_.kind == BenchCase::Kind::decode ? model_.decode(workload, with_profile)
                                                                  : model_.prefill(workload, with_profile);
      sum.seconds += sample.seconds, sum.tokens += sample.tokens;
      sum.kv += sample.kv, sum.work.weight_bytes_read += sample.work.weight_bytes_read;
      sum.kv_bytes = std::max(sum.kv_bytes, sample.kv_bytes);
      sum.logits_hash = sample.logits_hash;
      hashes += sample.logits_hash;
      profile_.resize(sample.profile.size());
      for (std::size_t i = 0; i < profile_.size(); ++i) profile_[i] += sample.profile[i];
      flops += sample.work.matmul_flops + sample.work.attention_flops;
    }
    // Rows that are prefilled together read the same keys and values: all but the first find them in a cache.
    const std::int64_t kv_moved =
        sum.kv.bytes_written + (what_.kind == BenchCase::Kind::decode ? sum.kv.bytes_read : 0);
    const auto moved = static_cast<double>(sum.work.weight_bytes_read + kv_moved);
    tokens_per_s_.push_back(static_cast<double>(sum.tokens) / sum.seconds);
    ceiling_gb_s_.push_back(gb_s);
    ceiling_gop_s_.push_back(gop_s);
    memory_share_.push_back(moved * 1e-9 / sum.seconds / gb_s);
    compute_share_.push_back(flops * 1e-9 / sum.seconds / gop_s);
    repeatable_ = repeatable_ && (tokens_per_s_.size() == 1 || hashes == hashes_);
    hashes_ = hashes;
    last_ = sum;
    return tokens_per_s_.back();
  }

  std::string label() const {
    const Workload& w = what_.workload;
    const std::string where =
        what_.label.empty() ? fmt::format("{} tokens at {}", w.tokens, what_.contexts[0]) : what_.label;
    return fmt::format("{} {} {}, {} {}, {} {}, {}", name_of(source_), to_string(w.protocol), to_string(source_.dtype),
                       what_.threads, what_.threads == 1 ? "thread" : "threads", w.streams,
                       w.streams == 1 ? "stream" : "streams", where);
  }
  bool repeatable() const { return repeatable_; }

  BenchResult result() const {
    const auto per_token = [&](std::int64_t bytes) {
      return static_cast<double>(bytes) / static_cast<double>(last_.tokens);
    };
    double total = 0;
    for (const double seconds : profile_) total += seconds;
    BenchResult result{.what = what_,
                       .model = name_of(source_),
                       .is_vanilla = source_.spec.is_vanilla(),
                       .dtype = source_.dtype,
                       .kv = source_.kv,
                       .tokens_per_s = spread_of(tokens_per_s_),
                       .ceiling_gb_s = median_of(ceiling_gb_s_),
                       .memory_share = median_of(memory_share_),
                       .ceiling_gop_s = median_of(ceiling_gop_s_),
                       .compute_share = median_of(compute_share_),
                       .kv_bytes_read_per_token = per_token(last_.kv.bytes_read),
                       .kv_bytes_written_per_token = per_token(last_.kv.bytes_written),
                       .weight_bytes_read_per_token = per_token(last_.work.weight_bytes_read),
                       .kv_bytes = what_.kv_bytes_peak > 0 ? what_.kv_bytes_peak : last_.kv_bytes,
                       .logits_hash = last_.logits_hash};
    for (const double seconds : profile_) result.profile.push_back(seconds / total);
    return result;
  }

 private:
  std::int64_t longest() const { return *std::ranges::max_element(what_.contexts); }

  const BenchCase& what_;
  const BenchSource& source_;
  ModelBench& model_;
  std::vector<double> tokens_per_s_, ceiling_gb_s_, ceiling_gop_s_, memory_share_, compute_share_;  // by round
  std::vector<double> profile_;                                                                     // seconds
  Sample last_;         // counts are the same in every round
  std::string hashes_;  // of all samples of a round
  bool repeatable_ = true;
};

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
  return tokens_per_s.median * 1e-3 / (static_cast<double>(kv_bytes) / static_cast<double>(std::int64_t{1} << 30));
}

BenchMemory memory_of(std::span<const BenchSource> sources, std::span<const BenchCase> cases,
                      std::int64_t probe_bytes) {
  BenchMemory memory{.rest = probe_bytes};
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const BenchSource& source = sources[i];
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
                                   const BenchOptions& options, const std::function<void(const std::string&)>& say) {
  const BenchMemory memory = memory_of(sources, cases, options.probe_bytes);
  if (memory.total() > available_memory())
    throw InputError(fmt::format(
        "this run takes {} of memory (weights {}, KV caches {}, buffers {}) and the machine has {} left; "
        "take fewer models, streams or a shorter context, since everything of a run is held at once",
        in_gb(memory.total()), in_gb(memory.weights), in_gb(memory.kv), in_gb(memory.rest), in_gb(available_memory())));

  std::vector<std::unique_ptr<ModelBench>> models;
  for (const BenchSource& source : sources) {
    say(fmt::format("loading {} ({})", name_of(source), to_string(source.dtype)));
    const Precision precision{.weights = source.dtype, .kv = source.kv};
    models.push_back(std::make_unique<ModelBench>(
        source.is_folder ? load_model(source.path, precision) : random_model(source.spec, precision, options.seed),
        options.seed));
  }
  const std::int64_t threads_before = threads();
  set_threads(std::ranges::max(cases, {}, &BenchCase::threads).threads);
  const ReadProbe probe(options.probe_bytes);
  std::vector<CaseRun> runs;
  for (const BenchCase& c : cases) {
    runs.emplace_back(c, sources[c.source], *models[c.source]);
    for (const std::int64_t context : c.contexts) models[c.source]->prepare(at(c, context));
  }
  const auto start = Clock::now();
  for (std::int64_t round = 1, n_done = 0; round <= options.repeats; ++round)
    for (CaseRun& run : runs) {
      const double tokens_per_s = run.measure(probe, options.with_profile);
      const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
      const std::int64_t n_left = options.repeats * std::ssize(runs) - ++n_done;
      const std::string left = duration(seconds * static_cast<double>(n_left) / static_cast<double>(n_done));
      say(fmt::format("round {} of {}: {}: {:.4g} tokens/s{}", round, options.repeats, run.label(), tokens_per_s,
                      options.with_eta && n_left > 0 ? "; " + left + " left" : ""));
    }
  set_threads(threads_before);

  std::vector<BenchResult> results;
  for (const CaseRun& run : runs) {
    if (!run.repeatable()) say(run.label() + ": the logits differ between rounds: this engine should not do that");
    results.push_back(run.result());
  }
  return results;
}

}  // namespace photon
