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

// One generation: hiergen token by token; for recgen whole groups from the first boundary on.
class Generator {
 public:
  Generator(const Spec& spec, const GenerateOptions& options, Hierarchy& hierarchy, Sequence& sequence, Output& output)
      : options_(options),
        hierarchy_(hierarchy),
        sequence_(sequence),
        output_(output),
        sampler_(options.sampler),
        chunk_tokens_(spec.chunk_tokens(std::min<std::int64_t>(1, spec.n_levels()))),
        group_(static_cast<std::size_t>(spec.chunk_tokens(spec.n_levels()))) {}

  /// Consumes tokens; then the next one's logits are known, or recgen begins.
  void consume(std::span<const std::int32_t> tokens) {
    hierarchy_.prefill(sequence_, tokens);
    if (options_.protocol == Protocol::recgen && sequence_.n_tokens % std::ssize(group_) == 0) {
      hierarchy_.start_recgen(sequence_);
    } else if (output_.wants_more()) {
      logits_ = hierarchy_.next_logits(batch_);
      ++n_computed_;
    }
  }
  void run() {
    while (output_.wants_more()) sequence_.protocol == Protocol::hiergen ? token() : group();
  }
  std::int64_t n_computed() const { return n_computed_; }  // tokens whose logits were computed

 private:
  void token() {
    const std::int32_t token = sampler_.sample(logits_.row(0), output_.text(), sequence_id, sequence_.n_tokens);
    output_.add(token);
    if (output_.wants_more()) consume({&token, 1});
  }
  void group() {
    const std::int64_t first = sequence_.n_tokens;
    const auto choose = [&](std::size_t, std::int64_t position, std::span<const float> logits) {
      const std::int64_t i = position - first;
      const auto before = output_.text().last(std::min<std::size_t>(output_.text().size(), repetition_window));
      recent_.assign(before.begin(), before.end());
      recent_.insert(recent_.end(), group_.begin() + i / chunk_tokens_ * chunk_tokens_, group_.begin() + i);
      return group_[static_cast<std::size_t>(i)] = sampler_.sample(logits, recent_, sequence_id, position);
    };
    hierarchy_.recgen_group(batch_, choose, options_.one_by_one);
    n_computed_ += std::ssize(group_);
    for (const std::int32_t token : group_) output_.add(token);
  }

  static constexpr std::uint64_t sequence_id = 0;
  const GenerateOptions& options_;
  Hierarchy& hierarchy_;
  Sequence& sequence_;
  Sequence* const batch_[1] = {&sequence_};
  Output& output_;
  Sampler sampler_;
  std::int64_t chunk_tokens_;         // C_1
  std::vector<std::int32_t> group_;   // the tokens of a top-level group
  std::vector<std::int32_t> recent_;  // what the repetition penalty sees
  MatView<const float> logits_{};     // [1, V]
  std::int64_t n_computed_ = 0;
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

  pool_.reset_peak();
  Sequence sequence(model_, pool_);
  Output output(prompt, options, static_cast<std::int32_t>(spec().eos_token_id), on_token);
  Generator generator(spec(), options, hierarchy_, sequence, output);
  GenerateStats stats{.prompt_tokens = std::ssize(prompt)};

  const Stopwatch prefill;
  generator.consume(prompt);
  stats.prefill_ms = prefill.ms();
  stats.prefill_kv = sequence.kv_traffic();
  const std::int64_t n_in_prefill = generator.n_computed(), prefill_weight_bytes = hierarchy_.weight_bytes_read();

  const Stopwatch decode;
  generator.run();
  stats.decode_ms = decode.ms();
  const KvTraffic all = sequence.kv_traffic();
  stats.decode_kv = {all.bytes_read - stats.prefill_kv.bytes_read, all.bytes_written - stats.prefill_kv.bytes_written};
  stats.decode_weight_bytes_read = hierarchy_.weight_bytes_read() - prefill_weight_bytes;
  stats.decode_tokens = generator.n_computed() - n_in_prefill;

  stats.generated_tokens = output.n_generated();
  stats.context_tokens = sequence.n_tokens;
  stats.kv_bytes_growing = sequence.kv_bytes_growing();
  stats.kv_bytes_constant = sequence.kv_bytes_constant();
  stats.kv_bytes_peak = pool_.peak_bytes();
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
