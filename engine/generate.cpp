#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"

namespace photon {
namespace {

double per_second(std::int64_t n, double ms) { return ms > 0 ? static_cast<double>(n) * 1e3 / ms : 0; }

class Stopwatch {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// What has come out so far, and whether more is wanted.
class Output {
 public:
  Output(std::span<const std::int32_t> prompt, const GenerateOptions& options, std::int32_t eos,
         const Engine::OnToken& on_token)
      : options_(options),
        eos_(eos),
        on_token_(on_token),
        text_(prompt.begin(), prompt.end()),
        n_prompt_(prompt.size()) {}

  bool wants_more() const { return !ended_ && n_generated() < options_.n_tokens; }
  void add(std::int32_t token) {
    if (!wants_more()) return;  // the rest of a group
    if (token == eos_ && !options_.ignore_eos) {
      ended_ = stopped_at_eos_ = true;
      return;
    }
    text_.push_back(token);
    if (on_token_ && !on_token_(token)) ended_ = true;
  }
  std::int64_t n_generated() const { return std::ssize(text_) - static_cast<std::int64_t>(n_prompt_); }
  bool stopped_at_eos() const { return stopped_at_eos_; }
  std::span<const std::int32_t> text() const { return text_; }  // prompt and what followed
  std::vector<std::int32_t> generated() const {
    return {text_.begin() + static_cast<std::ptrdiff_t>(n_prompt_), text_.end()};
  }

 private:
  const GenerateOptions& options_;
  std::int32_t eos_;
  const Engine::OnToken& on_token_;
  std::vector<std::int32_t> text_;
  std::size_t n_prompt_;
  bool ended_ = false, stopped_at_eos_ = false;
};

}  // namespace

void check(const GenerateOptions& options) {
  if (options.n_tokens < 0) throw InputError(fmt::format("-n is {}, must be 0 or more", options.n_tokens));
  check(options.sampler);
}

double GenerateStats::prefill_tokens_per_s() const { return per_second(prompt_tokens, prefill_ms); }
double GenerateStats::decode_tokens_per_s() const { return per_second(decode_tokens, decode_ms); }
double GenerateStats::decode_gb_per_s() const {
  return per_second(decode_weight_bytes_read + decode_kv.bytes_read + decode_kv.bytes_written, decode_ms) * 1e-9;
}

Engine::Engine(const std::filesystem::path& folder, std::optional<Weight::Type> dtype)
    : model_(load_model(folder, dtype)), hierarchy_(model_) {}

void Engine::check_tokens(std::span<const std::int32_t> tokens) const {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] < 0 || tokens[i] >= spec().vocab_size)
      throw InputError(fmt::format("token {} of the input is {}, the model's ids are 0 to {}", i + 1, tokens[i],
                                   spec().vocab_size - 1));
}

Generation Engine::generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                            const OnToken& on_token) {
  check_tokens(prompt);
  check(options);
  if (options.protocol == Protocol::recgen && spec().n_levels() == 0)
    throw InputError("--protocol recgen needs a model with levels, this one is vanilla; use hiergen");
  Sampler sampler(options.sampler);

  pool_.reset_peak();
  Sequence sequence(model_, pool_);
  Sequence* const batch[] = {&sequence};
  Output output(prompt, options, static_cast<std::int32_t>(spec().eos_token_id), on_token);
  GenerateStats stats{.prompt_tokens = std::ssize(prompt)};

  const std::int64_t group_tokens = spec().chunk_tokens(spec().n_levels()),
                     chunk_tokens = spec().chunk_tokens(std::min<std::int64_t>(1, spec().n_levels()));
  const auto recgen_begins = [&] {
    return options.protocol == Protocol::recgen && sequence.n_tokens % group_tokens == 0;
  };

  Stopwatch prefill;
  hierarchy_.prefill(sequence, prompt);
  MatView<const float> logits{};
  std::int64_t in_prefill = 0;  // tokens whose logits the prefill gave
  if (recgen_begins())
    hierarchy_.start_recgen(sequence);
  else if (output.wants_more())
    logits = hierarchy_.next_logits(batch), in_prefill = 1;
  stats.prefill_ms = prefill.ms();
  stats.prefill_kv = sequence.kv_traffic();
  const std::int64_t prefill_weight_bytes = hierarchy_.weight_bytes_read();

  const Stopwatch decode;
  std::int64_t computed = in_prefill;
  while (output.wants_more() && sequence.protocol == Protocol::hiergen) {
    const std::int64_t position = std::ssize(output.text());
    const std::int32_t token = sampler.sample(logits.row(0), output.text(), /*sequence_id=*/0, position);
    output.add(token);
    if (!output.wants_more()) break;
    const Hierarchy::Extension extension{&sequence, {&token, 1}};
    if (options.protocol == Protocol::recgen && (sequence.n_tokens + 1) % group_tokens == 0) {
      hierarchy_.prefill(sequence, extension.tokens);
      hierarchy_.start_recgen(sequence);
    } else {
      logits = hierarchy_.step({&extension, 1});
      ++computed;
    }
  }
  std::vector<std::int32_t> group(static_cast<std::size_t>(group_tokens)), known;
  while (output.wants_more()) {
    const std::int64_t first = sequence.n_tokens;
    const auto choose = [&](std::size_t, std::int64_t position, std::span<const float> row) {
      const std::int64_t chunk = (position - first) / chunk_tokens * chunk_tokens;
      known.assign(output.text().end() - std::min<std::ptrdiff_t>(std::ssize(output.text()), repetition_window),
                   output.text().end());
      known.insert(known.end(), group.begin() + chunk, group.begin() + (position - first));
      return group[static_cast<std::size_t>(position - first)] =
                 sampler.sample(row, known, /*sequence_id=*/0, position);
    };
    hierarchy_.recgen_group(batch, choose, options.one_by_one);
    computed += group_tokens;
    for (const std::int32_t token : group) output.add(token);
  }
  stats.decode_ms = decode.ms();

  stats.generated_tokens = output.n_generated();
  stats.decode_tokens = computed - in_prefill;
  stats.context_tokens = sequence.n_tokens;
  stats.kv_bytes_growing = sequence.kv_bytes_growing();
  stats.kv_bytes_constant = sequence.kv_bytes_constant();
  stats.kv_bytes_peak = pool_.peak_bytes();
  const KvTraffic all = sequence.kv_traffic();
  stats.decode_kv = {all.bytes_read - stats.prefill_kv.bytes_read, all.bytes_written - stats.prefill_kv.bytes_written};
  stats.decode_weight_bytes_read = hierarchy_.weight_bytes_read() - prefill_weight_bytes;
  return {.tokens = output.generated(), .stopped_at_eos = output.stopped_at_eos(), .stats = stats};
}

Score Engine::score(std::span<const std::int32_t> tokens) {
  check_tokens(tokens);
  Sequence sequence(model_, pool_);
  Score score;
  score.logprobs.reserve(tokens.size());
  score.argmax.reserve(tokens.size());
  hierarchy_.score(sequence, tokens, [&](std::int64_t position, std::span<const float> logits) {
    require_finite(logits, position);
    const auto token = static_cast<std::size_t>(tokens[static_cast<std::size_t>(position)]);
    score.logprobs.push_back(logits[token] - kernels().log_sum_exp(logits));
    score.argmax.push_back(argmax(logits));
  });
  return score;
}

}  // namespace photon
