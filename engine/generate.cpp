#include "engine/generate.h"

#include <fmt/format.h>

#include <deque>
#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "engine/batch.h"
#include "engine/job.h"
#include "kernels/kernels.h"

namespace photon {
namespace {

double per_second(std::int64_t n, double ms) { return ms > 0 ? static_cast<double>(n) * 1e3 / ms : 0; }

// Collects what is generated, and passes it on.
class Collector : public RequestListener {
 public:
  Collector(std::int64_t n_continuations, const Engine::OnToken& on_token)
      : on_token_(on_token), continuations_(static_cast<std::size_t>(n_continuations)) {}

  bool on_token(std::size_t continuation, std::int32_t token, const TokenLogprob*) override {
    continuations_[continuation].tokens.push_back(token);
    return !on_token_ || on_token_(continuation, token);
  }
  void on_finish(std::size_t continuation, FinishReason reason) override {
    continuations_[continuation].stopped_at_eos = reason == FinishReason::eos;
  }
  void on_done(const RequestStats& stats, const std::string*) override { stats_ = stats; }

  const RequestStats& stats() const { return stats_; }
  std::vector<Continuation>& continuations() { return continuations_; }

 private:
  const Engine::OnToken& on_token_;
  std::vector<Continuation> continuations_;
  RequestStats stats_;
};

std::string gb(std::int64_t bytes) { return fmt::format("{:.3f} GB", static_cast<double>(bytes) * 1e-9); }

}  // namespace

void check(const GenerateOptions& options) {
  if (options.n_tokens < 0) throw InputError(fmt::format("-n is {}, must be 0 or more", options.n_tokens));
  if (options.n_continuations < 1)
    throw InputError(fmt::format("--n is {}, must be 1 or more", options.n_continuations));
  if (options.kv_budget_bytes < 0)
    throw InputError(fmt::format("the KV budget is {} bytes, must be 0 or more", options.kv_budget_bytes));
  check(options.sampler);
}

double GenerateStats::prefill_tokens_per_s() const { return per_second(prompt_tokens, prefill_ms); }
double GenerateStats::decode_tokens_per_s() const { return per_second(decode_tokens, decode_ms); }
double GenerateStats::decode_gb_per_s() const {
  return per_second(decode_weight_bytes_read + decode_kv.bytes_read + decode_kv.bytes_written, decode_ms) * 1e-9;
}

Engine::Engine(const std::filesystem::path& folder, const Precision& precision)
    : model_(load_model(folder, precision)), hierarchy_(model_) {}

void Engine::check_tokens(std::span<const std::int32_t> tokens) const { photon::check_tokens(spec(), tokens); }
void Engine::check_protocol(Protocol protocol) const { photon::check_protocol(spec(), protocol); }

void Engine::check_memory(std::int64_t n_prompt, const GenerateOptions& options) const {
  if (n_prompt > max_context || options.n_tokens > max_context - n_prompt)
    throw InputError(fmt::format("{} tokens of prompt and -n {} are more than the longest context, {} tokens", n_prompt,
                                 options.n_tokens, max_context));
  const std::int64_t wanted =
      kv_bytes_at_most(spec(), options.protocol, n_prompt, options.n_tokens, options.n_continuations, model_.kv);
  const std::int64_t budget = options.kv_budget_bytes > 0 ? options.kv_budget_bytes : available_memory();
  if (wanted > budget)
    throw InputError(
        fmt::format("{} continuation{} of {} tokens of prompt and -n {} can take {} of KV cache, {} {}; "
                    "use fewer tokens, fewer continuations or a smaller KV type",
                    options.n_continuations, options.n_continuations == 1 ? "" : "s", n_prompt, options.n_tokens,
                    gb(wanted), options.kv_budget_bytes > 0 ? "the budget is" : "the machine has left", gb(budget)));
}

Generation Engine::generate(std::span<const std::int32_t> prompt, const GenerateOptions& options,
                            const OnToken& on_token) {
  check_tokens(prompt);
  check(options);
  check_protocol(options.protocol);
  check_memory(std::ssize(prompt), options);

  pool_.reset_peak();
  Collector collector(options.n_continuations, on_token);
  Request request{.prompt = {prompt.begin(), prompt.end()},
                  .n_tokens = options.n_tokens,
                  .n_continuations = options.n_continuations,
                  .protocol = options.protocol,
                  .sampler = options.sampler,
                  .ignore_eos = options.ignore_eos,
                  .one_by_one = options.one_by_one};
  Job job(0, model_, std::move(request), collector);
  Batch batch(hierarchy_);
  Job* const alone[] = {&job};
  job.start(Sequence(model_, pool_));
  while (!job.over()) batch.step(alone, Hierarchy::prefill_slice);
  job.close();
  if (job.failure() != nullptr) std::rethrow_exception(job.failure());

  const RequestStats& s = collector.stats();
  const JobWork& work = job.work();
  return {.continuations = std::move(collector.continuations()),
          .stats = {.prompt_tokens = s.prompt_tokens,
                    .generated_tokens = s.generated_tokens,
                    .prefill_ms = s.prefill_ms,
                    .decode_tokens = work.decode_tokens,
                    .decode_ms = s.decode_ms,
                    .context_tokens = work.context_tokens,
                    .kv_bytes_growing = s.kv_bytes_growing,
                    .kv_bytes_constant = s.kv_bytes_constant,
                    .kv_bytes_peak = pool_.peak_bytes(),
                    .prefill_kv = work.prefill_kv,
                    .decode_kv = work.kv - work.prefill_kv,
                    .decode_weight_bytes_read = hierarchy_.work().weight_bytes_read - work.prefill_weight_bytes_read}};
}

Score Engine::score(std::span<const std::int32_t> tokens, Protocol protocol) {
  return std::move(score(std::span(&tokens, 1), protocol).front());
}

std::vector<Score> Engine::score(std::span<const std::span<const std::int32_t>> texts, Protocol protocol) {
  for (const auto& tokens : texts) check_tokens(tokens);
  check_protocol(protocol);
  std::vector<Score> scores(texts.size());
  const auto visit = [&](std::size_t b, std::int64_t position, std::span<const float> logits) {
    require_finite(logits, position);
    const auto i = static_cast<std::size_t>(position);
    scores[b].logprobs[i] = logits[static_cast<std::size_t>(texts[b][i])] - kernels().log_sum_exp(logits);
    scores[b].argmax[i] = argmax(logits);
  };
  std::deque<Sequence> sequences;
  std::vector<Hierarchy::Extension> batch;
  for (std::size_t b = 0; b < texts.size(); ++b) {
    scores[b].logprobs.resize(texts[b].size());
    scores[b].argmax.resize(texts[b].size());
    if (protocol == Protocol::hiergen) {
      Sequence sequence(model_, pool_);
      hierarchy_.score(sequence, texts[b], std::bind_front(visit, b));
    } else {
      batch.push_back({&sequences.emplace_back(model_, pool_), texts[b]});
    }
  }
  hierarchy_.score_recgen(batch, visit);
  return scores;
}

}  // namespace photon
